# SPDX-License-Identifier: Apache-2.0
"""Commands that start and stop a target, passed on to the tracker so that the last one counts."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

from dimp_ros.apps.mavlink.link import dialect


class CommandAnswer(NamedTuple):
    """How a command ended.

    :param accepted: it took effect. :param text: the reason where it did not. :param later: it may work later.
    """

    accepted: bool
    text: str = ""
    later: bool = False


Done = Callable[[CommandAnswer], None]


class CameraTracker(Protocol):
    """What the camera asks for. `done` is called once, from any thread."""

    def start_rectangle(self, left: float, top: float, right: float, bottom: float, done: Done) -> None:
        """Track what is inside a rectangle, in fractions of the displayed image."""

    def start_point(self, x: float, y: float, done: Done) -> None:
        """Track the object around a point, in fractions of the displayed image."""

    def stop(self, done: Done) -> None:
        """Stop tracking."""


class CameraCommand(NamedTuple):
    """A command and who sent it."""

    number: int
    parameters: tuple[float, ...]
    system: int
    component: int

    @property
    def key(self) -> tuple[Any, ...]:
        """What a repeat has in common with it; NaN, which equals nothing, is None."""
        return (*self[:1], *self[2:], *(None if math.isnan(value) else value for value in self.parameters))


class TrackingCommands:
    """Passes starts of a target on, one at a time, and stops at once. Thread-safe.

    A command that is repeated while it is not answered is acknowledged as in progress.

    :param acknowledge: called with a command and its MAV_RESULT. :param say: tells the operator a reason.
    """

    def __init__(
        self,
        tracker: CameraTracker,
        acknowledge: Callable[[CameraCommand, int], None],
        say: Callable[[str], None],
    ) -> None:
        self._m = m = dialect()
        self._tracker, self._acknowledge, self._say = tracker, acknowledge, say
        self._acts = {
            m.MAV_CMD_CAMERA_TRACK_RECTANGLE: self._track_rectangle,
            m.MAV_CMD_CAMERA_TRACK_POINT: self._track_point,
            m.MAV_CMD_CAMERA_STOP_TRACKING: self._stop_tracking,
        }
        self._lock = threading.Lock()  # guards what is known of tracking commands
        self._open: list[tuple[Any, ...]] = []  # keys of those that are not answered yet
        self._latest: tuple[Any, ...] = ()  # key of the last one
        self._running: CameraCommand | None = None  # the start that the tracker has
        self._next: CameraCommand | None = None  # the start that waits for it
        self._stopped: CameraCommand | None = None  # the start that the tracker had when the last stop came
        self.numbers = frozenset(self._acts)
        """MAV_CMD of the commands that are taken."""

    def on_command(self, command: CameraCommand) -> None:
        """Pass a start on, or keep it until the one before is answered; pass a stop on at once. The last one counts."""
        stop = command.number == self._m.MAV_CMD_CAMERA_STOP_TRACKING
        with self._lock:
            repeated = command.key == self._latest and command.key in self._open
            replaced, begin = None, not repeated
            if not repeated:
                self._latest = command.key
                self._open.append(command.key)
                replaced, self._next = self._next, None
                if stop:
                    self._stopped = self._running
                elif self._running is None:
                    self._running = command
                else:
                    self._next, begin = command, False
        if repeated:  # sent again because the answer has not come yet
            self._acknowledge(command, self._m.MAV_RESULT_IN_PROGRESS)
        if replaced is not None:
            self._answer(replaced, CommandAnswer(False, "another command has replaced it", later=True))
        if begin:
            self._begin(command)

    def _begin(self, command: CameraCommand) -> None:
        self._acts[command.number](command, lambda answer: self._finish(command, answer))

    def _finish(self, command: CameraCommand, answer: CommandAnswer) -> None:
        """Answer a command, and pass on what has waited for it."""
        self._answer(command, answer)
        if command.number == self._m.MAV_CMD_CAMERA_STOP_TRACKING:
            return
        with self._lock:
            self._running, self._next = self._next, None
            following, stopped = self._running, self._stopped
            if following is None:
                self._stopped = None
        if following is not None:
            self._begin(following)
        elif stopped is not None and (command is stopped or not answer.accepted):
            self._tracker.stop(lambda answer: None)  # the tracker may have heard of the stop before the start

    def _answer(self, command: CameraCommand, answer: CommandAnswer) -> None:
        with self._lock:
            self._open.remove(command.key)
        m = self._m
        refused = m.MAV_RESULT_TEMPORARILY_REJECTED if answer.later else m.MAV_RESULT_DENIED
        self._acknowledge(command, m.MAV_RESULT_ACCEPTED if answer.accepted else refused)
        if not answer.accepted and answer.text:
            self._say(answer.text)

    def _track_rectangle(self, command: CameraCommand, done: Done) -> None:
        left, top, right, bottom = command.parameters[:4]
        if not all(0.0 <= value <= 1.0 for value in (left, top, right, bottom)) or left >= right or top >= bottom:
            done(
                CommandAnswer(
                    False, f"rectangle ({left:g}, {top:g}, {right:g}, {bottom:g}): need 0 <= left < right <= 1"
                )
            )
        else:
            self._tracker.start_rectangle(left, top, right, bottom, done)

    def _track_point(self, command: CameraCommand, done: Done) -> None:
        x, y = command.parameters[:2]
        if not 0.0 <= x <= 1.0 or not 0.0 <= y <= 1.0:
            done(CommandAnswer(False, f"point ({x:g}, {y:g}): need 0 to 1"))
        else:
            self._tracker.start_point(x, y, done)

    def _stop_tracking(self, command: CameraCommand, done: Done) -> None:
        self._tracker.stop(done)
