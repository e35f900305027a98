# SPDX-License-Identifier: Apache-2.0
"""The parameter table: complete, consistent, and made without ROS and without torch."""

from __future__ import annotations

import dataclasses
import subprocess
import sys

import pytest

from dimp_ros.node.parameters import NODE_PARAMETERS, Parameter, parameter_table, tracker_parameters
from dimp_ros.tracker.config import TrackerConfig

ROWS = NODE_PARAMETERS + tracker_parameters()


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_every_parameter_is_described_and_its_default_is_allowed(row):
    assert len(row.text) > 10 and "|" not in row.text and "\n" not in row.text
    assert row.checked(row.default) == row.default


def test_every_setting_of_the_tracker_is_a_parameter():
    names = {field.name for field in dataclasses.fields(TrackerConfig)}
    assert {row.name for row in tracker_parameters()} == {f"tracker.{name}" for name in names}
    assert len({row.name for row in ROWS}) == len(ROWS)


def test_the_table_has_a_line_for_every_parameter():
    lines = parameter_table().splitlines()
    assert len(lines) == len(ROWS) + 2 and all(line.count("|") == 6 for line in lines)
    text = parameter_table()
    assert "| `history_seconds` | float | `2` | 0 .. 60 |" in text
    assert "| `autostart` | bool | `true` |" in text and "| `tracker.augment_rotations` | float[] | `[10," in text


def test_the_table_is_made_without_rclpy_and_without_torch():
    code = (
        "import sys; from dimp_ros.node.parameters import parameter_table; parameter_table();"
        "assert not {'rclpy', 'torch'} & set(sys.modules), 'imported'"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    ("row", "value", "word"),
    [
        (Parameter("a", 1.0, "", (0.0, 2.0)), 2.5, "0 .. 2"),
        (Parameter("a", 1.0, "", (0.0, 2.0)), float("nan"), "0 .. 2"),
        (Parameter("a", 1.0, "", (0.0, float("inf"))), -1.0, ">= 0"),
        (Parameter("a", 1.0, ""), "1.0", "float"),
        (Parameter("a", 1, "", (0, 2)), 1.5, "int"),
        (Parameter("a", 1, "", (0, 2)), True, "int"),
        (Parameter("a", True, ""), 1, "bool"),
        (Parameter("a", (1.0, 2.0), "", (0.0, 5.0)), [1.0, 9.0], "0 .. 5"),
    ],
)
def test_a_wrong_value_is_refused_naming_parameter_value_and_what_is_allowed(row, value, word):
    with pytest.raises(ValueError, match="parameter a is") as error:
        row.checked(value)
    assert word in str(error.value)


def test_whole_numbers_are_taken_for_floats_and_lists_for_tuples():
    assert Parameter("a", 1.0, "").checked(3) == 3.0 and isinstance(Parameter("a", 1.0, "").checked(3), float)
    assert Parameter("a", (1.0,), "").checked([1, 2.5]) == (1.0, 2.5)
