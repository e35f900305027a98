# SPDX-License-Identifier: Apache-2.0
"""Commands that start and stop a target, passed on to the tracker so that the last one counts."""

from __future__ import annotations

import math
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from dimp_ros.apps.mavlink.link import dialect

REMEMBERED_SECONDS, MOST_REMEMBERED = 60.0, 1000
"""A start is known again for so long after it was heard of or answered; so many starts at most are."""

STOP_SECONDS = 10.0
"""For so long after a stop, the repeat of a start that is not known may be one from before the stop."""


class CommandAnswer(NamedTuple):
    """How a command ended.

    :param accepted: it took effect. :param text: the reason where it did not. :param later: it may work later.
    """

    accepted: bool
    text: str = ""
    later: bool = False


Done = Callable[[CommandAnswer], None]
Request = Callable[[Done], None]


class CameraTracker(Protocol):
    """What the camera asks for: requests, which may be made later. They call `done` once, from any thread."""

    def rectangle(self, left: float, top: float, right: float, bottom: float) -> Request:
        """Return the request for what is inside a rectangle of the image displayed now, in fractions of it."""

    def point(self, x: float, y: float) -> Request:
        """Return the request for the object around a point of the image displayed now, in fractions of it."""

    def stop(self, done: Done) -> None:
        """Stop tracking."""


class CameraCommand(NamedTuple):
    """A command and who sent it.

    :param confirmation: 0 for its first transmission, otherwise the number of the repeat.
    """

    number: int
    parameters: tuple[float, ...]
    system: int
    component: int
    confirmation: int = 0

    @property
    def key(self) -> tuple[Any, ...]:
        """What a repeat has in common with it; NaN, which equals nothing, is None."""
        return (*self.kind, *(None if math.isnan(value) else value for value in self.parameters))

    @property
    def kind(self) -> tuple[int, int, int]:
        """What an acknowledgement names: it does not tell two rectangles of a ground station apart."""
        return self.number, self.system, self.component


class _Start(NamedTuple):
    """A start, and how it is asked for."""

    command: CameraCommand
    request: Request


@dataclass
class _Heard:
    """A start that was heard, its answer once there is one, and when it was heard of or answered last."""

    command: CameraCommand
    answer: CommandAnswer | None
    at: float


class TrackingCommands:
    """Passes starts of a target on, one at a time, and stops at once. Thread-safe.

    A command that is repeated while it is not answered, and a start that waits, is acknowledged as in progress. Where
    another one of its kind has come since, its answer is not acknowledged: it would be taken for that one's. The repeat
    of a start, told by its confirmation, is answered and not carried out again. A stop is carried out each time.

    :param acknowledge: called with a command and its MAV_RESULT. :param say: tells the operator a reason.
    """

    def __init__(
        self,
        tracker: CameraTracker,
        acknowledge: Callable[[CameraCommand, int], None],
        say: Callable[[str], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._m = m = dialect()
        self._tracker, self._acknowledge, self._say, self._clock = tracker, acknowledge, say, clock
        self._requests: dict[int, Callable[[CameraCommand], Request]] = {
            m.MAV_CMD_CAMERA_TRACK_RECTANGLE: self._rectangle,
            m.MAV_CMD_CAMERA_TRACK_POINT: self._point,
            m.MAV_CMD_CAMERA_STOP_TRACKING: lambda command: tracker.stop,
        }
        self._lock = threading.Lock()  # guards what is known of tracking commands
        self._open: list[CameraCommand] = []  # those that are not answered yet, oldest first
        self._latest: dict[tuple[int, int], CameraCommand] = {}  # the last one of each sender
        self._running: _Start | None = None  # the start that the tracker has
        self._next: _Start | None = None  # the start that waits for it
        self._stopped: CameraCommand | None = None  # the start that the tracker had when the last stop came
        self._last: CameraCommand | None = None  # the last one that counts, of any sender
        self._last_stop = -math.inf  # when it came
        self._heard: OrderedDict[tuple[Any, ...], _Heard] = OrderedDict()  # the starts by their keys, oldest first
        self.numbers = frozenset(self._requests)
        """MAV_CMD of the commands that are taken."""

    def on_command(self, command: CameraCommand, refusal: str = "") -> None:
        """Pass a start on, or keep it until the one before is answered; pass a stop on at once. The last one counts.

        :param refusal: why no start is taken now; empty where one is.
        """
        try:
            start = _Start(command, self._requests[command.number](command))
        except ValueError as error:
            self._report(command, CommandAnswer(False, str(error)))
            return
        stop = command.number == self._m.MAV_CMD_CAMERA_STOP_TRACKING
        sender = command.system, command.component
        with self._lock:
            last = self._latest.get(sender)
            repeated = last is not None and last.key == command.key and self._is_open(last)
            answer = None
            if not stop:
                repeated, answer = self._look_up(command, repeated, refusal)
            replaced, begin = None, not repeated and answer is None
            if begin:
                self._latest[sender] = self._last = command
                self._open.append(command)
                replaced, self._next = self._next, None
                if stop:
                    self._stopped = self._running.command if self._running else None
                    self._last_stop = self._clock()
                elif self._running is None:
                    self._running = start
                else:
                    self._next, begin = start, False
        if answer is not None:
            self._report(command, answer)
            return
        if not begin:
            self._acknowledge(command, self._m.MAV_RESULT_IN_PROGRESS)
        if replaced is not None:
            self._answer(replaced.command, CommandAnswer(False, "another command has replaced it", later=True))
        if begin:
            self._begin(start)

    def _look_up(self, command: CameraCommand, repeated: bool, refusal: str) -> tuple[bool, CommandAnswer | None]:
        """Return whether a start is the repeat of one that was heard, and the answer where there is one by now.

        :param repeated: it is the last one of its sender, and open.
        """
        now, first = self._clock(), self._heard.pop(command.key, None)
        if first is not None and now - first.at > REMEMBERED_SECONDS and not self._is_open(first.command):
            first = None
        known = first is not None and (repeated or command.confirmation > 0)
        if first is None or not known:
            if not refusal and command.confirmation and now - self._last_stop < STOP_SECONDS:
                refusal = "it may have been sent before the last stop: draw again"
            first = _Heard(command, CommandAnswer(False, refusal, later=True) if refusal else None, now)
        first.at, self._heard[command.key] = now, first  # as the newest one
        if len(self._heard) > MOST_REMEMBERED:
            self._heard.popitem(last=False)
        answer = first.answer
        if known and answer is not None and answer.accepted and first.command is not self._last:
            answer = CommandAnswer(False, "another command has come since: draw again", later=True)
        if known and any(one.kind == command.kind for one in self._open):
            answer = None  # it would be taken for that one's
        return known or repeated, answer

    def _is_open(self, command: CameraCommand) -> bool:
        return any(command is one for one in self._open)

    def _begin(self, start: _Start) -> None:
        try:
            start.request(lambda answer: self._finish(start, answer))
        except Exception as error:  # otherwise all further commands would wait for it
            self._finish(start, CommandAnswer(False, f"{type(error).__name__}: {error}"))

    def _finish(self, start: _Start, answer: CommandAnswer) -> None:
        """Answer a command, and pass on what has waited for it."""
        if answer.accepted and start.command is self._stopped:
            answer = CommandAnswer(False, "a stop came meanwhile", later=True)
        if not self._answer(start.command, answer) or start.command.number == self._m.MAV_CMD_CAMERA_STOP_TRACKING:
            return
        with self._lock:
            self._running, self._next = self._next, None
            following, stopped = self._running, self._stopped
            if following is None:
                self._stopped = None
        if following is not None:
            self._begin(following)
        elif stopped is not None and (start.command is stopped or not answer.accepted):
            self._tracker.stop(lambda answer: None)  # the tracker may have heard of the stop before the start

    def _answer(self, command: CameraCommand, answer: CommandAnswer) -> bool:
        """Report the answer unless a later command of the kind is open; return whether the command was open."""
        with self._lock:
            index = next((index for index, one in enumerate(self._open) if one is command), None)
            if index is None:
                return False
            del self._open[index]
            heard = self._heard.get(command.key)
            if heard is not None and heard.command is command:
                heard.answer, heard.at = answer, self._clock()
            hidden = any(one.kind == command.kind for one in self._open[index:])
        if not hidden:
            self._report(command, answer)
        return True

    def _report(self, command: CameraCommand, answer: CommandAnswer) -> None:
        m = self._m
        refused = m.MAV_RESULT_TEMPORARILY_REJECTED if answer.later else m.MAV_RESULT_DENIED
        self._acknowledge(command, m.MAV_RESULT_ACCEPTED if answer.accepted else refused)
        if not answer.accepted and answer.text:
            self._say(answer.text)

    def _rectangle(self, command: CameraCommand) -> Request:
        left, top, right, bottom = command.parameters[:4]
        if not all(0.0 <= value <= 1.0 for value in (left, top, right, bottom)) or left >= right or top >= bottom:
            raise ValueError(f"rectangle ({left:g}, {top:g}, {right:g}, {bottom:g}): need 0 <= left < right <= 1")
        return self._tracker.rectangle(left, top, right, bottom)

    def _point(self, command: CameraCommand) -> Request:
        x, y = command.parameters[:2]
        if not 0.0 <= x <= 1.0 or not 0.0 <= y <= 1.0:
            raise ValueError(f"point ({x:g}, {y:g}): need 0 to 1")
        return self._tracker.point(x, y)
