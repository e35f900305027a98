# SPDX-License-Identifier: Apache-2.0
"""How a command may change: within limits and slew rates while moving, straight down to zero otherwise."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from dimp_ros.apps.steering.safety import PAUSE_SECONDS


class CommandLimiter:
    """The last command, and the next one that may follow it.

    A stop that has begun is carried through: whatever is wanted meanwhile, the command reaches zero before it rises.

    :param uniform: scale all components alike where one is too quick, so that the direction of the change is kept, and
        where the speed or the turn as a whole is too large: their limits are the smallest of three in ``high`` each.
    """

    def __init__(self, *, uniform: bool = False) -> None:
        self._uniform = uniform
        self._time: float | None = None
        # Of the stop under way: when it began, with which command, and in how many seconds it reaches zero.
        self._stopping: tuple[float, NDArray[np.float64], float] | None = None
        self.command: NDArray[np.float64] = np.zeros(6)

    @property
    def stopping(self) -> bool:
        """Whether a stop has begun and has not reached zero yet."""
        return self._stopping is not None

    def drive(
        self,
        wanted: NDArray[np.float64],
        low: NDArray[np.float64],
        high: NDArray[np.float64],
        slew: NDArray[np.float64],
        now: float,
        smoothing: NDArray[np.float64] | None = None,
    ) -> NDArray[np.float64]:
        """Return the command [6] nearest to ``wanted`` within ``low`` .. ``high`` that ``slew`` a second can reach.

        Limits that were lowered hold at once. While a stop is under way it is the next command of that instead.

        :param smoothing: time constants [6] with which the command approaches ``wanted``, seconds; 0 or None for none.
        Where ``wanted`` or ``now`` is not finite, the command is zero at once.
        """
        step = self._step(now)
        if not (math.isfinite(step) and np.isfinite(wanted).all()):
            return self.halt()
        if self._stopping is not None:
            return self._ramp(*self._stopping, now)
        begin = self._within(self.command, low, high)
        change = self._within(wanted, low, high) - begin
        if smoothing is not None:
            change = change * np.where(smoothing > 0.0, 1.0 - np.exp(-step / np.maximum(smoothing, 1e-9)), 1.0)
        most = slew * step
        if self._uniform:
            share = np.divide(most, np.abs(change), out=np.ones(6), where=np.abs(change) > most)
            change = change * share.min()
        else:
            change = np.clip(change, -most, most)
        self.command = self._within(begin + change, low, high)
        return self.command

    def _within(
        self, twist: NDArray[np.float64], low: NDArray[np.float64], high: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """Return a twist [6] within the limits; a uniform one keeps its direction."""
        if not self._uniform:
            return np.clip(twist, low, high)
        with np.errstate(over="ignore"):
            lengths = np.linalg.norm(twist.reshape(2, 3), axis=1)
        most = high.reshape(2, 3).min(1)
        share = np.divide(most, lengths, out=np.ones(2), where=lengths > most)
        return np.clip(twist * share.min(), low, high)  # of rounding

    def stop(self, now: float, seconds: float) -> NDArray[np.float64]:
        """Return the command [6] on the straight line to zero, which is reached ``seconds`` after the last motion."""
        before = self._time
        step = self._step(now)
        if not math.isfinite(step) or not self.command.any():
            return self.halt()
        if self._stopping is not None:
            begin, command, _ = self._stopping
        else:  # from the last tick of motion: its reason may have gone right after that
            begin, command = now if before is None else before, self.command
        self._stopping = begin, command, seconds
        return self._ramp(*self._stopping, now)

    def halt(self) -> NDArray[np.float64]:
        """Return zero [6] at once."""
        self._stopping = None
        self.command = np.zeros(6)
        return self.command

    def _ramp(self, begin: float, command: NDArray[np.float64], seconds: float, now: float) -> NDArray[np.float64]:
        left = 1.0 - (now - begin) / seconds if seconds > 0.0 else 0.0
        if not left > 1e-9:
            return self.halt()
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
