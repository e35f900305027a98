# SPDX-License-Identifier: Apache-2.0
"""First-order compensation of delay: where a measured value will be when a command given now has its effect."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections import deque

_HISTORY_SECONDS = 3.0
_LARGEST_STEP = 0.25


class DelayCompensator:
    """One number that is measured late, and that own motion changes meanwhile.

    What own motion does to the value is integrated from the commands, through the lag with which the robot follows
    them, and taken out of each measurement at the time it was taken. What is left is the target's own doing: its rate
    is estimated from that, and both are put together again for the time asked for:

        value(t) = filtered + rate (t - taken) + own(t) - own(taken)

    The filter of value and rate is a critically damped g-h filter (fading memory of first order): with the residual
    r = measured - predicted, h the time since the last image, and k = exp(-h / rate_time),

        filtered = predicted + (1 - k²) r,        rate = rate + (1 - k)² r / h

    so that noise of a measurement reaches neither the value nor the rate in full, and a constant rate leaves no lag.
    All times are seconds of the steady clock.

    :param period: of an angle that goes round, such as an azimuth; the residual is the shorter way.
    """

    def __init__(self, period: float = math.inf) -> None:
        self._period = period
        self._own = 0.0
        self._own_rate = 0.0
        self._history: deque[tuple[float, float]] = deque()  # time, integral of own motion until then
        self._taken: float | None = None
        self._rest = 0.0  # filtered, without own motion, at that time
        self.rate = 0.0
        """The target's own part in the change of the value, a second; low-pass filtered."""

    @property
    def known(self) -> bool:
        """Whether there is a measurement to predict from."""
        return self._taken is not None

    def forget(self) -> None:
        """Forget measurements; own motion goes on."""
        self._taken, self.rate = None, 0.0

    def advance(self, now: float, own_rate: float, response_time: float) -> None:
        """Take note of what was commanded since the last call.

        :param own_rate: change of the value a second once the robot obeys. :param response_time: time constant of the
            lag with which it does, seconds.
        """
        if not (math.isfinite(now) and math.isfinite(own_rate)):
            return
        before = self._history[-1][0] if self._history else now
        if now < before or now - before > _LARGEST_STEP:  # what happened meanwhile is not known
            self._history.clear()
            self._own_rate, before = 0.0, now
            self.forget()
        step = now - before
        # The exact solution of the lag over the step, for a command that is held.
        weight = math.exp(-step / response_time) if response_time > 0.0 else 0.0
        transient = (self._own_rate - own_rate) * response_time * (1.0 - weight)
        self._own += own_rate * step + transient
        self._own_rate = own_rate + (self._own_rate - own_rate) * weight
        self._history.append((now, self._own))
        while self._history[0][0] < now - _HISTORY_SECONDS:
            self._history.popleft()

    def measure(self, value: float, taken: float, rate_time: float, gap: float, limit: float) -> None:
        """Take a measurement.

        :param taken: when. :param rate_time: time constant of the filter, seconds. :param gap: after so many seconds
            without a measurement, the filter starts anew. :param limit: largest rate that is believed.
        """
        rest = value - self._own_at(taken)
        step = taken - self._taken if self._taken is not None else math.inf
        if step <= 1e-6 and step > -gap:  # the same image again, or one that was overtaken
            return
        if not 0.0 < step <= gap:
            self.rate = 0.0
        else:
            keep = math.exp(-step / rate_time)
            predicted = self._rest + self.rate * step
            residual = math.remainder(rest - predicted, self._period)
            rest = predicted + (1.0 - keep**2) * residual
            self.rate = min(max(self.rate + (1.0 - keep) ** 2 * residual / step, -limit), limit)
        self._taken, self._rest = taken, rest

    def predict(self, at: float) -> float:
        """Return the value at a time not before the last `advance`, for the commands as they are.

        :raises ValueError: if nothing was measured.
        """
        if self._taken is None:
            raise ValueError("nothing was measured yet; call measure() first")
        ahead = at - self._history[-1][0] if self._history else 0.0
        return self._rest + self.rate * (at - self._taken) + self._own + self._own_rate * ahead

    def error(self, at: float, set_point: float) -> float:
        """Return by how much the value will exceed a set point, see `predict`; of an angle the shorter way."""
        return math.remainder(self.predict(at) - set_point, self._period)

    def _own_at(self, time: float) -> float:
        """Return the integral of own motion at a time, between the ticks by interpolation."""
        history = self._history
        if not history:
            return self._own
        index = bisect_right(history, time, key=lambda entry: entry[0])
        if index in (0, len(history)):
            return history[0 if index == 0 else -1][1]
        (t0, own0), (t1, own1) = history[index - 1], history[index]
        return own0 + (own1 - own0) * (time - t0) / (t1 - t0)


def beyond(value: float, band: float) -> float:
    """Return how far a value lies outside of a dead band."""
    return math.copysign(max(abs(value) - band, 0.0), value)
