# SPDX-License-Identifier: Apache-2.0
"""The file of `tracker_config`: what it sets, and refusal of errors."""

from __future__ import annotations

import dataclasses
import os
import time
from itertools import pairwise
from pathlib import Path

import pytest

from dimp_ros.tracker.config import TrackerConfig
from dimp_ros.tracker.config_file import MAX_BYTES, read_settings


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "settings.yaml"


def test_only_the_given_settings_are_returned_in_their_types(path: Path) -> None:
    path.write_text("search_scale: 6\naugment: false\naugment_rotations: [5, -5.0]\nseed: 3\n")
    settings = read_settings(path)
    assert settings == {"search_scale": 6.0, "augment": False, "augment_rotations": (5.0, -5.0), "seed": 3}
    assert isinstance(settings["search_scale"], float)


def test_every_setting_may_be_in_the_file(path: Path) -> None:
    values = dataclasses.asdict(TrackerConfig())
    path.write_text("".join(f"{name}: {list(v) if isinstance(v, tuple) else v}\n" for name, v in values.items()))
    assert TrackerConfig(**read_settings(path)) == TrackerConfig()


def test_an_empty_file_sets_nothing(path: Path) -> None:
    path.write_text("# nothing yet\n")
    assert read_settings(path) == {}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("serch_scale: 6.0", "did you mean search_scale?"),
        ("tracker.seed: 6", "seed"),
        ("colour: red", "parameters.md"),
        ("search_scale: 60.0", "from 2.0 to 10.0"),
        ("search_scale: wide", "of type float, such as 5.0"),
        ("search_scale: .nan", "from 2.0 to 10.0"),
        ("search_scale:", "search_scale is None"),
        ("seed: 1.5", "of type int"),
        ("seed: true", "of type int"),
        ("augment: 1", "of type bool, such as true"),
        ("augment_blurs: 3.0", "a list of numbers"),
        ("augment_blurs: [3.0, wide]", "a list of numbers"),
        ("augment_blurs: [3.0]", "pairs"),
        ("crop_size: 300", "multiple of 32"),
        ("best_boxes: 20", "must not exceed proposals"),
        ("- seed", "holds list"),
        ("seed: [1", "cannot be read as YAML"),
        ("{1: 2}", "no setting 1"),
        ("!!python/object/apply:os.getcwd []", "cannot be read as YAML"),
        ("[" * 5000, "cannot be read as YAML"),
    ],
)
def test_wrong_content_is_refused_with_path_and_remedy(path: Path, text: str, words: str) -> None:
    path.write_text(text)
    with pytest.raises(ValueError, match=r"settings\.yaml") as error:
        read_settings(path)
    assert words in str(error.value) and len(str(error.value)) < 600 and "\n" not in str(error.value)


def test_a_path_without_a_regular_file_is_refused(path: Path, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    for wrong in (path, tmp_path, tmp_path / "fifo"):
        with pytest.raises(ValueError, match="is no file"):
            read_settings(wrong)


def test_a_file_that_is_too_large_or_no_text_is_refused(path: Path) -> None:
    path.write_bytes(b"#" * (MAX_BYTES + 1))
    with pytest.raises(ValueError, match="more than 65536 bytes"):
        read_settings(path)
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match="cannot be read as YAML"):
        read_settings(path)


MERGED = "a: &a {x: 1}\n" + "".join(
    f"{b}: &{b} {{<<: [{', '.join([f'*{a}'] * 9)}]}}\n" for a, b in pairwise("abcdefghi")
)


@pytest.mark.parametrize(
    "text",
    [
        MERGED,
        "seed: &a [*a]",
        "seed: 1" + ":59" * 20_000,
        "search_scale: 1" + ":59" * 20_000,
        "search_scale: 0x" + "f" * 60_000,
        "seed: " + "9" * 60_000,
        *(
            f"seed: {value}"
            for value in ("!!int ''", "!!int x", "!!bool x", "!!timestamp x", "2001-99-99", "!!float x")
        ),
    ],
)
def test_values_that_yaml_multiplies_or_stumbles_over_are_refused(path: Path, text: str) -> None:
    path.write_text(text)
    started = time.process_time()
    with pytest.raises(ValueError) as error:
        read_settings(path)
    assert str(path) in str(error.value) and len(str(error.value)) < 600
    assert time.process_time() - started < 2
