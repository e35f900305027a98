# SPDX-License-Identifier: Apache-2.0
"""Rate control for one browser's link: when the next image is sent, and in which quality."""

from __future__ import annotations

from typing import NamedTuple

WINDOW = 2
"""Largest number of images in flight. Two keep a link with long delay busy; more would only fill its queues."""

MAX_STATUSES = 4
"""Largest number of small messages in flight."""

TOO_SLOW_SECONDS = 0.25
QUICK_SECONDS = 0.08
"""Smoothed time of an image beyond the link's own delay: above the first the quality is lowered, below the second it
may be raised. With two images in flight, the first corresponds to about eight images per second."""

MIN_PATIENCE, MAX_PATIENCE = 15, 480
"""Consecutive quick images before the quality is raised; doubled each time it had to be lowered again."""

PROBE_SECONDS = 5.0
"""Period of measuring the link's delay, by a small message sent while no image is in flight."""

PROBE_TRIPS = 20
"""A probe costs a round trip or two without images, so there are at least so many round trips between two."""

FORGET_SECONDS = 60.0
"""Measurements of the delay that are older are discarded."""

_SMOOTHING = 0.3


class _Sent(NamedTuple):
    at: float
    image: bool
    free: bool


class RateControl:
    """Keeps track of the messages sent to one client and their acknowledgements, and selects rate and quality.

    A queue lowers the quality, a constant delay (a satellite link) does not: the measure is the time beyond that of a
    small message that was sent while no image was in flight. All times are seconds of one clock, read by the caller.

    :param levels: number of quality levels; 0 is the best. :param max_rate: images per second.
    """

    def __init__(self, levels: int, max_rate: float, now: float) -> None:
        self._levels = levels
        self._period = 1.0 / max_rate
        self._in_flight: dict[int, _Sent] = {}
        self._next_at = now
        self._base: list[tuple[float, float]] = []  # time, round trip of a probe
        self._extra: float | None = None
        self._slow = self._quick = 0
        self._patience = MIN_PATIENCE
        self._since_better = MAX_PATIENCE
        self._arrivals: list[float] = []
        self.level = min(1, levels - 1)
        """Quality level of the next image."""

    def may_send_image(self, now: float) -> bool:
        """Return whether an image may be sent now."""
        images = sum(sent.image for sent in self._in_flight.values())
        return images < WINDOW and now >= self._next_at and not self.wants_probe(now)

    def may_send_status(self) -> bool:
        """Return whether a small message may be sent now."""
        return sum(not sent.image for sent in self._in_flight.values()) < MAX_STATUSES

    def wants_probe(self, now: float) -> bool:
        """Return whether the delay must be measured: by a small message while no image is in flight."""
        if not self._base:
            return True
        at, trip = self._base[-1]
        return now - at >= max(PROBE_SECONDS, PROBE_TRIPS * trip)

    def is_idle(self) -> bool:
        """Return whether every message is acknowledged."""
        return not self._in_flight

    def wait_seconds(self, now: float) -> float:
        """Return the seconds until the next image may be sent, 0 or more."""
        return max(0.0, self._next_at - now)

    def sent(self, number: int, now: float, *, image: bool) -> None:
        """Record that message ``number`` is sent."""
        free = not any(sent.image for sent in self._in_flight.values())
        self._in_flight[number] = _Sent(now, image, free)
        if image:
            self._next_at = max(self._next_at + self._period, now)  # no burst after a delay

    def acknowledged(self, number: int, now: float) -> None:
        """Record the acknowledgement of message ``number``.

        :raises ValueError: if it was not in flight.
        """
        sent = self._in_flight.pop(number, None)
        if sent is None:
            raise ValueError(f"message {number} is acknowledged but not in flight")
        trip = now - sent.at
        if not sent.image:
            if sent.free:
                self._base = [(at, value) for at, value in self._base if now - at < FORGET_SECONDS] + [(now, trip)]
            return
        self._arrivals = [*self._arrivals[-19:], now]
        extra = max(0.0, trip - min((value for _, value in self._base), default=0.0))
        self._extra = extra if self._extra is None else self._extra + _SMOOTHING * (extra - self._extra)
        self._adapt()

    def _adapt(self) -> None:
        assert self._extra is not None
        self._since_better += 1
        self._slow = self._slow + 1 if self._extra > TOO_SLOW_SECONDS else 0
        self._quick = self._quick + 1 if self._extra < QUICK_SECONDS else 0
        if self._slow >= 2 and self.level < self._levels - 1:
            if self._since_better <= 2 * MIN_PATIENCE:
                self._patience = min(MAX_PATIENCE, 2 * self._patience)
            self._change(1)
        elif self._quick >= self._patience and self.level > 0:
            self._change(-1)
            self._since_better = 0

    def _change(self, step: int) -> None:
        self.level += step
        self._slow = self._quick = 0
        self._extra = None

    def seconds_unanswered(self, now: float) -> float:
        """Return the age of the oldest message in flight, seconds; 0 if there is none."""
        return max((now - sent.at for sent in self._in_flight.values()), default=0.0)

    def round_trip(self) -> float:
        """Return the shortest recent round trip, seconds; 0 while unknown."""
        return min((value for _, value in self._base), default=0.0)

    def rate(self, now: float) -> float:
        """Return the recent rate of acknowledged images, 1/s."""
        recent = [at for at in self._arrivals if now - at < 3.0]
        if len(recent) < 2:
            return 0.0
        return (len(recent) - 1) / max(recent[-1] - recent[0], 1e-3)
