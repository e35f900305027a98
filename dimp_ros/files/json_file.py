# SPDX-License-Identifier: Apache-2.0
"""JSON of others: whatever is wrong with it is a ValueError."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


def parse_json(text: str | bytes) -> Any:
    """Return what a JSON text holds.

    :raises ValueError: if it is not valid, or nested too deeply for Python's parser; in one line.
    """
    try:
        return json.loads(text)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def parse_object(text: str | bytes) -> dict[str, Any]:
    """Return the object that a JSON text holds; raise ValueError as `parse_json`, and for anything else."""
    value = parse_json(text)
    if not isinstance(value, dict):
        raise ValueError(f"it is a {type(value).__name__}, not an object")
    return value


def read_object(path: Path) -> dict[str, Any]:
    """Return the object that a JSON file holds.

    :raises OSError: if it cannot be read. :raises ValueError: naming the file.
    """
    with named_errors(path, "the file is damaged: fetch or make it again"):
        return parse_object(path.read_bytes())


@contextmanager
def named_errors(place: Path | str, remedy: str, *more: type[Exception]) -> Iterator[None]:
    """Turn what a missing or wrong entry raises, and ``more``, into a ValueError with the place and the remedy."""
    wrong: tuple[type[Exception], ...] = (ArithmeticError, AttributeError, LookupError, TypeError, ValueError, *more)
    try:
        yield
    except wrong as error:
        reason = " ".join(str(error).split())[:300]
        raise ValueError(f"{place}: {type(error).__name__}: {reason}; {remedy}") from error
