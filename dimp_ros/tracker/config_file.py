# SPDX-License-Identifier: Apache-2.0
"""Settings of the tracker from a YAML file: a mapping from fields of `TrackerConfig` to values."""

from __future__ import annotations

import difflib
import reprlib
from dataclasses import Field, fields
from pathlib import Path
from typing import Any

from dimp_ros.files.yaml_file import read_yaml
from dimp_ros.tracker.config import TrackerConfig

MAX_BYTES = 2**16


def read_settings(path: str | Path) -> dict[str, Any]:
    """Return the settings that a file holds, checked, by name of the field.

    The fields that it leaves out are not in the result: they stay as the weights have them.

    :raises ValueError: if the file cannot be read, or a name or value in it is wrong; with what was received, what is
        allowed and the remedy.
    """
    values = _load(Path(path).expanduser())
    known = {field.name: field for field in fields(TrackerConfig)}
    settings = {}
    for name, value in values.items():
        if name not in known:
            near = difflib.get_close_matches(str(name), known, 1)
            hint = f"did you mean {near[0]}?" if near else "docs/parameters.md lists them"
            raise ValueError(f"{path}: there is no setting {reprlib.repr(name)}; {hint}")
        try:
            settings[name] = _typed(known[name], value)
        except (ValueError, OverflowError) as error:  # whole numbers may be of any length
            raise ValueError(f"{path}: {error}") from error
    try:
        TrackerConfig(**settings)
    except (ValueError, OverflowError) as error:
        raise ValueError(f"{path}: {error}") from error
    return settings


def _load(path: Path) -> dict[Any, Any]:
    if not path.is_file():
        raise ValueError(f"{path} is no file; give the path of a YAML file with settings such as `search_scale: 6.0`")
    try:
        values = read_yaml(path, MAX_BYTES)
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} cannot be read as YAML: {error}") from error
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise ValueError(f"{path} holds {type(values).__name__}; it must be lines such as `search_scale: 6.0`")
    return values


def _typed(field: Field[Any], value: Any) -> Any:
    """Return a value in the type of the field's default; whole numbers are taken for floats, lists for tuples."""
    default: Any = field.default
    kind = type(default)
    if kind is tuple:
        items = value if isinstance(value, list) else [None]
        if all(isinstance(item, (int, float)) and not isinstance(item, bool) for item in items):
            return tuple(map(float, items))
    elif isinstance(value, (int, float) if kind is float else kind) and (kind is bool or not isinstance(value, bool)):
        return kind(value)
    example = list(default) if kind is tuple else str(default).lower()
    wanted = "a list of numbers" if kind is tuple else f"of type {kind.__name__}"
    raise ValueError(
        f"{field.name} is {reprlib.repr(value)}; it must be {wanted}, such as {example}: {field.metadata['text']}"
    )
