# SPDX-License-Identifier: Apache-2.0
"""The parameter table: complete, consistent, and usable without ROS and torch."""

from __future__ import annotations

import dataclasses
import math
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dimp_ros.ros_utils.parameter_table import (
    MAX_ITEMS,
    MAX_TEXT,
    NODE_PARAMETERS,
    Parameter,
    parameter_table,
    settings_table,
    tracker_parameters,
    tracker_settings,
)
from dimp_ros.tracker.config import TrackerConfig

ROWS = NODE_PARAMETERS + tracker_parameters()
BY_NAME = {row.name: row for row in ROWS}
ALL = ROWS + tracker_settings()


@pytest.mark.parametrize("row", ALL, ids=lambda row: row.name)
def test_every_parameter_is_described_and_its_default_is_allowed(row):
    assert len(row.text) > 10 and "|" not in row.text and "\n" not in row.text
    assert row.checked(row.default) == row.default
    assert not (row.live and row.read_only)


def test_about_ten_settings_of_the_tracker_are_parameters():
    names = {field.name for field in dataclasses.fields(TrackerConfig)}
    assert {row.name for row in tracker_settings()} == names
    assert {row.name.removeprefix("tracker.") for row in tracker_parameters()} < names
    assert len(tracker_parameters()) <= 12 and len({row.name for row in ROWS}) == len(ROWS)


def test_tuning_is_live_and_structure_is_not():
    assert BY_NAME["tracker.not_found_threshold"].live and BY_NAME["detector.min_score"].live
    assert not BY_NAME["tracker.crop_size"].live and not BY_NAME["tracker.search_scale"].live
    assert not BY_NAME["model"].live and not BY_NAME["max_targets"].live and BY_NAME["autostart"].read_only


def test_the_table_has_a_line_for_every_parameter():
    lines = parameter_table().splitlines()
    assert len(lines) == len(ROWS) + 2 and all(line.count("|") == 7 for line in lines)
    text = parameter_table()
    assert "| `history_seconds` | float | `2` | 0 .. 60 | unconfigured |" in text
    assert "| `autostart` | bool | `true` |  | at start |" in text
    assert "| `detector.classes` | str[] | `[]` |  | any time |" in text
    assert "| `image_transport` | str | `raw` | `raw`, `compressed` | unconfigured |" in text


def test_the_table_of_settings_has_a_line_for_every_field():
    lines = settings_table().splitlines()
    assert len(lines) == len(dataclasses.fields(TrackerConfig)) + 2
    assert any(line.startswith("| `augment_rotations` | float[] | `[10,") for line in lines)


def test_parameter_table_needs_neither_rclpy_nor_torch():
    code = (
        "import sys; from dimp_ros.ros_utils.parameter_table import parameter_table; parameter_table();"
        "assert not {'rclpy', 'torch'} & set(sys.modules), 'imported'"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    ("row", "value", "word"),
    [
        (Parameter("a", 1.0, "", (0.0, 2.0)), 2.5, "0 .. 2"),
        (Parameter("a", 1.0, "", (0.0, 2.0)), float("nan"), "0 .. 2"),
        (Parameter("a", 1.0, "", (0.0, float("inf"))), -1.0, ">= 0"),
        (Parameter("a", 1.0, "", (0.0, float("inf"))), float("inf"), ">= 0"),
        (Parameter("a", 1.0, ""), float("nan"), "finite"),
        (Parameter("a", 1.0, "", (0.0, 2.0)), 10**400, "0 .. 2"),
        (Parameter("a", 1.0, ""), 10**400, "finite"),
        (Parameter("a", 1.0, ""), "1.0", "float"),
        (Parameter("a", 1.0, ""), None, "float"),
        (Parameter("a", 1, "", (0, 2)), 1.5, "int"),
        (Parameter("a", 1, "", (0, 2)), True, "int"),
        (Parameter("a", 1, "", (0, 2)), 2**70, "0 .. 2"),
        (Parameter("a", True, ""), 1, "bool"),
        (Parameter("a", "x", "", choices=("x", "y")), "z", "x, y"),
        (Parameter("a", "x", ""), "z" * (MAX_TEXT + 1), str(MAX_TEXT)),
        (Parameter("a", (1.0, 2.0), "", (0.0, 5.0)), [1.0, 9.0], "0 .. 5"),
        (Parameter("a", (1.0, 2.0), ""), 1.0, "list"),
        (Parameter("a", (), ""), "person", "list"),
        (Parameter("a", (), ""), None, "list"),
        (Parameter("a", (), ""), ["person", 3], "str"),
    ],
)
def test_refusal_names_parameter_value_and_range(row, value, word):
    with pytest.raises(ValueError, match="parameter a is") as error:
        row.checked(value)
    assert word in str(error.value)


def test_a_refusal_of_something_huge_is_quick_and_short():
    endless = range(10**15)  # to look at every item would take days
    with pytest.raises(ValueError, match=f"{10**15} items and must have {MAX_ITEMS}") as error:
        Parameter("a", (1.0,), "").checked(endless)
    assert len(str(error.value)) < 300


def test_whole_numbers_are_taken_for_floats_and_lists_for_tuples():
    assert Parameter("a", 1.0, "").checked(3) == 3.0 and isinstance(Parameter("a", 1.0, "").checked(3), float)
    assert Parameter("a", (1.0,), "").checked([1, 2.5]) == (1.0, 2.5)
    assert Parameter("a", (), "").checked(["car", "person"]) == ("car", "person")
    assert Parameter("a", (), "").checked([]) == ()


VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=20),
    st.binary(max_size=5),
    st.lists(st.one_of(st.floats(), st.text(max_size=3), st.integers()), max_size=5),
)


@given(st.sampled_from(ALL), VALUES)
def test_any_value_is_refused_or_has_the_right_type_and_range(row, value):
    try:
        taken = row.checked(value)
    except ValueError as error:
        assert row.name in str(error) and row.text in str(error)
        return
    assert type(taken) is row.kind
    for item in taken if row.kind is tuple else (taken,):
        if isinstance(item, float):
            assert math.isfinite(item)
        if row.range is not None:
            assert row.range[0] <= item <= row.range[1]
