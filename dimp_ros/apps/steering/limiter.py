# SPDX-License-Identifier: Apache-2.0
"""How a command may change: within limits and slew rates while moving, straight down to zero otherwise."""

from __future__ import annotations

import math
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from dimp_ros.apps.steering.safety import PAUSE_SECONDS

Array = NDArray[np.float64]


class CommandLimits(Protocol):
    """How large a command [6] may be, and how quickly it may change."""

    def within(self, command: Array) -> Array:
        """Return the command that is used in place of ``command``: itself where that is allowed."""

    def reachable(self, change: Array, seconds: float) -> Array:
        """Return as much of a change as is allowed in ``seconds``."""


class AxisLimits(NamedTuple):
    """Limits of each axis by itself.

    :param low, high: m/s and rad/s. :param slew: largest change a second.
    """

    low: Array
    high: Array
    slew: Array

    def within(self, command: Array) -> Array:
        """Return the command, clipped."""
        return np.clip(command, self.low, self.high)

    def reachable(self, change: Array, seconds: float) -> Array:
        """Return the change, clipped."""
        return np.clip(change, -self.slew * seconds, self.slew * seconds)


class VectorLimits(NamedTuple):
    """Limits of the lengths of the two vectors. All six components are scaled alike, so that the direction is kept.

    :param speed, turn: m/s and rad/s. :param acceleration, turn_acceleration: largest change a second.
    """

    speed: float
    turn: float
    acceleration: float
    turn_acceleration: float

    def share(self, command: Array) -> float:
        """Return by what a command is multiplied, 0 to 1."""
        return _share(command, self.speed, self.turn)

    def within(self, command: Array) -> Array:
        """Return the command, scaled."""
        return command * self.share(command)

    def reachable(self, change: Array, seconds: float) -> Array:
        """Return the change, scaled."""
        return change * _share(change, self.acceleration * seconds, self.turn_acceleration * seconds)


class CommandLimiter:
    """The last command, and the next one that may follow it.

    A stop that has begun is carried through: whatever is wanted meanwhile, the command reaches zero before it rises.
    `limits` may be replaced at any time: the next command is within them, however far the last one was beyond.
    """

    def __init__(self, limits: CommandLimits) -> None:
        self.limits = limits
        self._time: float | None = None
        # Of the stop under way: when it began, with which command, and in how many seconds it reaches zero.
        self._stopping: tuple[float, Array, float] | None = None
        self.command: Array = np.zeros(6)

    @property
    def stopping(self) -> bool:
        """Whether a stop has begun and has not reached zero yet."""
        return self._stopping is not None

    def drive(self, wanted: Array, now: float, smoothing: Array | None = None) -> Array:
        """Return the command [6] within the limits that is nearest to ``wanted`` of those that can be reached by now.

        While a stop is under way it is the next command of that instead.

        :param smoothing: time constants [6] with which the command approaches ``wanted``, seconds; 0 or None for none.
        Where ``wanted`` or ``now`` is not finite, the command is zero at once.
        """
        step = self._step(now)
        if not (math.isfinite(step) and np.isfinite(wanted).all()):
            return self.halt()
        if self._stopping is not None:
            return self._ramp(*self._stopping, now)
        command = self.limits.within(self.command)
        change = self.limits.within(wanted) - command
        if smoothing is not None:
            change = change * np.where(smoothing > 0.0, 1.0 - np.exp(-step / np.maximum(smoothing, 1e-9)), 1.0)
        self.command = self.limits.within(command + self.limits.reachable(change, step))
        return self.command

    def stop(self, now: float, seconds: float) -> Array:
        """Return the command [6] on the straight line to zero, which is reached ``seconds`` after the last motion."""
        before = self._time
        step = self._step(now)
        if not math.isfinite(step) or not self.command.any():
            return self.halt()
        if self._stopping is not None:
            begin, command, least = self._stopping
        else:  # from the last tick of motion: its reason may have gone right after that
            begin, command, least = now if before is None else before, self.command, seconds
        return self._ramp(begin, command, min(seconds, least), now)

    def halt(self) -> Array:
        """Return zero [6] at once."""
        self._stopping = None
        self.command = np.zeros(6)
        return self.command

    def _ramp(self, begin: float, command: Array, seconds: float, now: float) -> Array:
        left = 1.0 - (now - begin) / seconds if seconds > 0.0 else 0.0
        if not left > 1e-9:
            return self.halt()
        command = self.limits.within(command)
        self._stopping = begin, command, seconds
        self.command = command * min(left, 1.0)
        return self.command

    def _step(self, now: float) -> float:
        """Return seconds since the last call; start from zero after a pause. NaN for an invalid or reversed clock."""
        before, self._time = self._time, now if math.isfinite(now) else None
        if self._time is None or (before is not None and now < before):
            return math.nan
        if before is None or now - before > PAUSE_SECONDS:
            self.halt()
            return 0.0
        return now - before


def _share(vectors: Array, linear: float, angular: float) -> float:
    """Return the factor, 1 at most, by which neither half of [6] is longer than its limit."""
    lengths = (math.hypot(*vectors[:3]), linear), (math.hypot(*vectors[3:]), angular)
    return min((most / length for length, most in lengths if length > most), default=1.0)
