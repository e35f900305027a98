# SPDX-License-Identifier: Apache-2.0
"""YAML files, bounded in size, depth and aliases: a small file cannot become a large or endless tree."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from dimp_ros.files.inputs import read_small_file

MAX_BYTES = 2**18
"""Largest YAML file by default; ROS's parser takes a second for as much."""
MAX_DEPTH = 50
"""Deepest nesting; configurations need a few levels."""
_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def read_yaml(path: str | Path, limit: int = MAX_BYTES, *, aliases: int = 0) -> Any:
    """Return the content of a YAML file of at most ``limit`` bytes as `parse_yaml` does.

    :raises OSError: if it cannot be read. :raises ValueError: if it is larger, or as `parse_yaml`.
    """
    return parse_yaml(read_small_file(path, limit), aliases=aliases)


def parse_yaml(content: bytes | str, *, aliases: int = 0) -> Any:
    """Return the content of a YAML text as ``yaml.safe_load`` does.

    :param aliases: how many there may be; each may double what the text holds.
    :raises ValueError: if it is nested too deeply, has more aliases, a key twice, or is not valid; in one line.
    """
    root = _compose(content, aliases)
    check_keys(root)
    try:
        return None if root is None else yaml.constructor.SafeConstructor().construct_document(root)
    except Exception as error:  # PyYAML raises IndexError, KeyError and AttributeError for `!!int ''` and its like
        raise _invalid(error) from error


def compose_yaml(path: str | Path, limit: int = MAX_BYTES) -> yaml.Node | None:
    """Return the nodes of a YAML file, without their values; None for an empty file. Raises as `read_yaml`."""
    return _compose(read_small_file(path, limit), 0)


def check_keys(node: yaml.Node | None, *, parts: bool = False) -> None:
    """Check that no mapping below a node has a key twice, of which the last would count without a word.

    :param parts: whether a mapping may come in parts, under one key, as in ROS's parameter files.
    :raises ValueError: with the key and its line.
    """
    nodes, seen = [node], set[int]()
    while nodes:
        one = nodes.pop()
        if not isinstance(one, yaml.CollectionNode) or id(one) in seen:  # an alias stands for the same node
            continue
        seen.add(id(one))
        if isinstance(one, yaml.SequenceNode):
            nodes += one.value
            continue
        known: dict[str, yaml.Node] = {}
        for key, value in one.value:
            nodes += [key, value]
            if not isinstance(key, yaml.ScalarNode):
                continue
            before = known.setdefault(key.value, value)
            in_parts = parts and isinstance(before, yaml.MappingNode) and isinstance(value, yaml.MappingNode)
            if before is not value and not in_parts:
                line = key.start_mark.line + 1
                raise ValueError(f"the file has {key.value!r:.60} a second time in line {line}: remove one")


def _compose(content: bytes | str, aliases: int) -> yaml.Node | None:
    depth = 0
    try:
        text = content if isinstance(content, str) else content.decode("utf-8")
        for event in yaml.parse(text, Loader=_LOADER):
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            aliases -= isinstance(event, yaml.AliasEvent)
            if isinstance(event, yaml.AliasEvent) and aliases < 0:
                raise ValueError(f"there may be no aliases (*{event.anchor}) in the file: write the values out")
            if depth > MAX_DEPTH:
                raise ValueError(f"the file is nested more than {MAX_DEPTH} levels deep")
        root: yaml.Node | None = yaml.compose(text, Loader=_LOADER)
        return root
    except UnicodeDecodeError as error:
        raise ValueError("the file is not text in UTF-8") from error
    except yaml.YAMLError as error:
        raise _invalid(error) from error


def _invalid(error: Exception) -> ValueError:
    mark = getattr(error, "problem_mark", None)
    where = f" in line {mark.line + 1}, column {mark.column + 1}" if mark else ""
    reason = " ".join(str(getattr(error, "problem", None) or error or type(error).__name__).split())[:300]
    return ValueError(f"the file is not valid YAML: {reason}{where}")
