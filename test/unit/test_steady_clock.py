# SPDX-License-Identifier: Apache-2.0
"""When messages were sent, while the wall clock is set to and fro."""

from __future__ import annotations

import math

import pytest

from dimp_ros.apps.steering.follower_control import FollowConfig, FollowControl, camera_of_view
from dimp_ros.apps.steering.safety import TargetObservation
from dimp_ros.geometry.box import Box
from dimp_ros.ros_utils import steady_clock
from dimp_ros.ros_utils.steady_clock import KEPT_SECONDS, sent_at, steady_seconds
from dimp_ros.tracker.result import TargetState

BOX = Box(500.0, 220.0, 40.0, 40.0)
PERIOD = 0.02


class Clocks:
    """A steady clock and a wall clock that can be set, in place of the machine's."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.steady, self.wall = 1000.0, 50000.0
        self.clock_gettime = lambda clock: self.steady
        self.time_ns = lambda: round(self.wall * 1e9)
        monkeypatch.setattr(steady_clock, "time", self)
        monkeypatch.setattr(steady_clock, "_WALL_CLOCK", steady_clock._WallClock())

    def run(self, seconds: float, step: float = 0.0) -> None:
        """Let time pass; set the wall clock meanwhile."""
        self.steady, self.wall = self.steady + seconds, self.wall + seconds + step

    def message(self) -> dict[str, int]:
        """Return the info of a message that is sent now."""
        return {"source_timestamp": self.time_ns()}


@pytest.fixture
def clocks(monkeypatch: pytest.MonkeyPatch) -> Clocks:
    return Clocks(monkeypatch)


class Robot:
    """A follower that moves by messages at 25 Hz."""

    def __init__(self, clocks: Clocks) -> None:
        self._clocks = clocks
        self._control = FollowControl(FollowConfig(forward="none"), camera_of_view(640, 480, 60.0))
        self._control.set_enabled(True)
        self._observation: TargetObservation | None = None

    def read(self, stamp: float, info: dict[str, int]) -> None:
        """Take a message on an image."""
        state = TargetState.TRACKING
        self._observation = TargetObservation(
            "cup", state, BOX, 0.9, stamp=round(stamp * 1e9), age=0.05, sent=sent_at(info)
        )

    def moves(self) -> bool:
        """Make a command."""
        return any(self._control.update(self._observation, steady_seconds(), self._clocks.wall).twist)

    def follow(self, seconds: float) -> int:
        """Follow; return how many commands moved."""
        moved = 0
        for count in range(round(seconds / PERIOD)):
            if count % 2 == 0:
                self.read(self._clocks.wall - 0.05, self._clocks.message())
            moved += self.moves()
            self._clocks.run(PERIOD)
        return moved


@pytest.mark.parametrize("before", [0.0, 3.0, -3.0], ids=["once", "forward before", "back before"])
@pytest.mark.parametrize("pause", [0.3, 5.0, 3600.0])
@pytest.mark.parametrize("beyond", [-0.1, 0.0, 0.05])
def test_message_waiting_while_clock_is_set_back_moves_nothing(
    clocks: Clocks, pause: float, beyond: float, before: float
) -> None:
    robot = Robot(clocks)
    clocks.run(1.0, before)
    assert robot.follow(3.0 + KEPT_SECONDS) > 50
    stamp, waiting = clocks.wall - 0.05, clocks.message()
    clocks.run(pause, -pause - beyond)
    for tick_first in (True, False):
        if tick_first:
            robot.moves()
            clocks.run(0.001)
        robot.read(stamp, waiting)
        for _ in range(100):
            assert not robot.moves()
            clocks.run(PERIOD)


@pytest.mark.parametrize("step", [-0.02, -0.3, -5.0, 5.0])
def test_message_sent_after_a_set_clock_counts_again_in_time(clocks: Clocks, step: float) -> None:
    steady_seconds()
    clocks.run(0.1, step)
    assert sent_at(clocks.message()) == pytest.approx(clocks.steady + min(step, 0.0)), "it may be from before"
    clocks.run(KEPT_SECONDS + 0.1)
    info, sent = clocks.message(), clocks.steady
    clocks.run(0.2)
    assert sent_at(info) == pytest.approx(sent)


def test_two_steps_back_count_together(clocks: Clocks) -> None:
    steady_seconds()
    info, sent = clocks.message(), clocks.steady
    for _ in range(2):
        clocks.run(0.5, -0.6)
        steady_seconds()
    clocks.run(0.9)
    assert sent_at(info) == pytest.approx(sent)


def test_message_from_the_future_has_no_time(clocks: Clocks) -> None:
    steady_seconds()
    future = {"source_timestamp": clocks.time_ns() + 200_000_000}
    assert math.isnan(sent_at(future))
    clocks.run(0.3, -5.0)
    assert math.isnan(sent_at(future)), "though it would not be by the clock of before"
    assert sent_at(None) == clocks.steady
