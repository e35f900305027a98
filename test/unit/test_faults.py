# SPDX-License-Identifier: Apache-2.0
"""docs/reliability.md: its tests exist, and its rule for consumers stops a robot in time."""

from __future__ import annotations

import math
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from helpers.consumer_rule import PAGE, rule

from dimp_ros.tracker.result import TargetState

TESTS = Path(__file__).resolve().parents[1]
ROWS = [line for line in PAGE.splitlines() if line.startswith("| ") and "`test_" in line]


def test_every_test_named_in_the_table_exists():
    existing = {
        name
        for path in TESTS.rglob("test_*.py")
        for name in re.findall(r"^def (test_\w+)", path.read_text(), re.MULTILINE)
    }
    named = re.findall(r"`(test_\w+)`", PAGE)
    assert len(named) >= len(ROWS) and [name for name in named if name not in existing] == []


def test_every_row_of_the_table_is_complete():
    assert len(ROWS) >= 35
    for row in ROWS:
        cells = [cell.strip() for cell in row.strip("|").split("|")]
        assert len(cells) == 4 and all(cells) and cells[3].startswith("`test_"), row


class Times:
    """A clock that the test moves."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        """Return the time in seconds."""
        return self.now


def state(**changes: Any) -> Any:
    """Return a message that a robot may follow, but for the changes."""
    good = {"id": "cup", "state": TargetState.TRACKING, "confidence": 0.9, "age": 0.1}
    return SimpleNamespace(**{**good, **changes})


def test_robot_may_follow_while_the_state_is_fresh():
    clock, names = Times(), rule()
    guard = names.Guard("cup", clock)
    assert not guard.may_follow(), "nothing was heard yet"
    guard.hear(state())
    assert guard.may_follow()
    clock.now += names.MAX_DELAY - 0.11
    assert guard.may_follow()
    clock.now += 0.02
    assert not guard.may_follow(), "the node was killed, hangs, or its camera has stopped: nothing is heard"
    guard.hear(state())
    assert guard.may_follow(), "and on it goes"


@pytest.mark.parametrize(
    "change",
    [
        {"state": TargetState.LOST},
        {"state": TargetState.UNCERTAIN},
        {"state": TargetState.UNINITIALIZED},
        {"age": 3.0},
        {"age": -5.0},
        {"age": math.nan},
        {"age": 1.7e9},
        {"confidence": 0.2},
        {"confidence": math.nan},
    ],
    ids=str,
)
def test_robot_may_not_follow_other_states(change):
    guard = rule().Guard("cup", Times())
    guard.hear(state())
    guard.hear(state(**change))
    assert not guard.may_follow()


def test_states_of_other_targets_do_not_matter():
    clock, names = Times(), rule()
    guard = names.Guard("cup", clock)
    guard.hear(state())
    guard.hear(state(id="ball", state=TargetState.LOST))
    assert guard.may_follow()
    clock.now += names.MAX_DELAY
    guard.hear(state(id="ball"))
    assert not guard.may_follow()
    guard.hear(state())
    guard.hear(state(id="", state=TargetState.UNINITIALIZED))
    assert not guard.may_follow(), "a node without any target says so under no name"
