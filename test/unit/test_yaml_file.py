# SPDX-License-Identifier: Apache-2.0
"""YAML files of every kind are bounded: parameters, configurations of training, metadata of bags."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from dimp_ros.files.yaml_file import MAX_BYTES, check_keys, compose_yaml, read_yaml
from dimp_ros.tracker.config_file import read_settings
from dimp_ros.training.config import TrainingConfig

COSTLY = {
    "aliases": "a0: &a0 [lol]\n" + "".join(f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]\n" for n in range(1, 40)),
    "endless": "a: &a [*a]",
    "merged": "m0: &m0 {a: 1}\n" + "".join(f"m{n}: &m{n} {{<<: [*m{n - 1}, *m{n - 1}]}}\n" for n in range(1, 40)),
    "nested": "[" * 10_000,
    "large": "#" * (MAX_BYTES + 1),
    "binary": "\0\1",
    "odd value": "steps: !!int ''",
}
READERS: dict[str, Callable[[Path], Any]] = {
    "plain": read_yaml,
    "training": TrainingConfig.load,
    "tracker": read_settings,
}


@pytest.mark.parametrize("kind", COSTLY)
@pytest.mark.parametrize("reader", READERS)
def test_costly_yaml_is_refused_in_one_line(tmp_path: Path, reader: str, kind: str) -> None:
    path = tmp_path / "file.yaml"
    path.write_text(COSTLY[kind])
    begin = time.process_time()
    with pytest.raises(ValueError, match=r"^[^\n]{1,1000}$"):
        READERS[reader](path)
    assert time.process_time() - begin < 2.0


def test_yaml_gives_values_and_nothing_for_an_empty_file(tmp_path: Path) -> None:
    path = tmp_path / "file.yaml"
    path.write_text("a: [1, 2.5, yes, text]\n2: {b: }\n")
    assert read_yaml(path) == {"a": [1, 2.5, True, "text"], 2: {"b": None}}
    path.write_text("# nothing\n")
    assert read_yaml(path) is None and compose_yaml(path) is None


TWICE = {
    "at the top": "a: 1\nb: 2\na: 3\n",
    "below": "a: {b: 1, c: 2, b: 3}\n",
    "in a list": "a: [{b: 1, b: 2}]\n",
    "quoted": "a: 1\n'a': 2\n",
    "a mapping": "a: {b: 1}\na: {c: 2}\n",
}


@pytest.mark.parametrize("content", TWICE.values(), ids=TWICE)
def test_a_key_that_comes_twice_is_refused_with_its_line(tmp_path: Path, content: str) -> None:
    path = tmp_path / "file.yaml"
    path.write_text(content)
    with pytest.raises(ValueError, match=r"a second time in line \d"):
        read_yaml(path)


def test_a_mapping_may_come_in_parts_where_that_is_said(tmp_path: Path) -> None:
    path = tmp_path / "file.yaml"
    path.write_text("node: {ros__parameters: {a: 1}}\nnode: {ros__parameters: {b: 2}}\n")
    check_keys(compose_yaml(path), parts=True)
    path.write_text("node: {ros__parameters: {a: 1, a: 2}}\n")
    with pytest.raises(ValueError, match="'a' a second time"):
        check_keys(compose_yaml(path), parts=True)


def test_keys_of_a_node_that_holds_itself_are_checked_once() -> None:
    check_keys(yaml.compose("a: &x [1, *x]\nb: &y {c: *y}\n"))
