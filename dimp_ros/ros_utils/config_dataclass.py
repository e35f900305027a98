# SPDX-License-Identifier: Apache-2.0
"""Configurations of the apps as frozen dataclasses, from which the tables of their ROS parameters are made."""

from __future__ import annotations

import dataclasses
from typing import Any

from dimp_ros.ros_utils.parameter_table import Parameter


def setting(
    default: Any,
    text: str,
    range: tuple[float, float] | None = None,
    *,
    choices: tuple[str, ...] = (),
    at_start: bool = False,
) -> Any:
    """Make a field of a configuration that knows its description, and which values it takes.

    :param range: least and greatest value of a number. :param at_start: it can be set at the start only.
    """
    metadata = {"text": text, "range": range, "choices": choices, "at_start": at_start}
    return dataclasses.field(default=default, metadata=metadata)


def parameter_rows(config: type) -> tuple[Parameter, ...]:
    """Return the fields of a configuration as rows of a parameter table, in their order."""
    rows = []
    for field in dataclasses.fields(config):
        entry = field.metadata
        live, fixed = not entry["at_start"], entry["at_start"]
        rows.append(
            Parameter(
                field.name,
                field.default,
                entry["text"],
                entry["range"],
                choices=entry["choices"],
                live=live,
                read_only=fixed,
            )
        )
    return tuple(rows)


def check_settings(config: Any) -> None:
    """Check every field of a configuration; to be called by its ``__post_init__``.

    :raises ValueError: with the value received, what is allowed and the remedy.
    """
    for row in parameter_rows(type(config)):
        object.__setattr__(config, row.name, row.checked(getattr(config, row.name)))
