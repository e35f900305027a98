# SPDX-License-Identifier: Apache-2.0
"""Rate control for one browser's link: when the next image is sent, and in which quality."""

from __future__ import annotations

from typing import NamedTuple

WINDOW = 2
"""Largest number of images in flight. Two keep a link with a long way busy; more would only wait in its queues."""

MAX_STATUSES = 4
"""Largest number of small messages in flight."""

TOO_SLOW_SECONDS = 0.25
QUICK_SECONDS = 0.08
"""Smoothed time that a picture takes beyond the way itself: above the first it is too large, below the second it may
grow. With two under way, the first means some eight pictures a second."""

MIN_PATIENCE, MAX_PATIENCE = 15, 480
"""Quick pictures in a row before the next are larger; doubled each time that turned out to be too much."""

PROBE_SECONDS = 5.0
"""Time after which the way itself is measured anew, by a small message that no picture is before."""

PROBE_TRIPS = 20
"""That costs a round trip or two without pictures, so it waits for so many of them at least."""

FORGET_SECONDS = 60.0
"""Measurements of the way that are older count no more: links change."""

_SMOOTHING = 0.3


class _Sent(NamedTuple):
    at: float
    picture: bool
    free: bool


class RateControl:
    """Keeps the account of what was sent to one client and what it has acknowledged.

    A fixed delay, as of a satellite, is no reason for worse pictures; a queue is. So what counts is the time beyond
    that of a small message which no picture was before. All times are seconds of one clock that the caller reads.

    :param levels: how many qualities there are; 0 is the best. :param max_rate: pictures a second.
    """

    def __init__(self, levels: int, max_rate: float, now: float) -> None:
        self._levels = levels
        self._period = 1.0 / max_rate
        self._under_way: dict[int, _Sent] = {}
        self._next_at = now
        self._base: list[tuple[float, float]] = []  # when, round trip of a message that no picture was before
        self._extra: float | None = None
        self._slow = self._quick = 0
        self._patience = MIN_PATIENCE
        self._since_better = MAX_PATIENCE
        self._arrivals: list[float] = []
        self.level = min(1, levels - 1)
        """Index of the quality for the next picture."""

    def may_send_picture(self, now: float) -> bool:
        """Return whether a picture may be sent now."""
        pictures = sum(sent.picture for sent in self._under_way.values())
        return pictures < WINDOW and now >= self._next_at and not self.wants_probe(now)

    def may_send_status(self) -> bool:
        """Return whether a small message may be sent now, beside the pictures."""
        return sum(not sent.picture for sent in self._under_way.values()) < MAX_STATUSES

    def wants_probe(self, now: float) -> bool:
        """Return whether the next message is to be a small one, that no picture is before."""
        if not self._base:
            return True
        at, trip = self._base[-1]
        return now - at >= max(PROBE_SECONDS, PROBE_TRIPS * trip)

    def is_idle(self) -> bool:
        """Return whether all that was sent is acknowledged."""
        return not self._under_way

    def wait_seconds(self, now: float) -> float:
        """Return how long to wait for the time of the next picture, 0 or more."""
        return max(0.0, self._next_at - now)

    def sent(self, number: int, now: float, *, picture: bool) -> None:
        """Note that message ``number`` goes out."""
        free = not any(sent.picture for sent in self._under_way.values())
        self._under_way[number] = _Sent(now, picture, free)
        if picture:
            self._next_at = max(self._next_at + self._period, now)  # what was late is not made up for in a burst

    def acknowledged(self, number: int, now: float) -> None:
        """Note that the client has message ``number``.

        :raises ValueError: if it was not under way.
        """
        sent = self._under_way.pop(number, None)
        if sent is None:
            raise ValueError(f"message {number} is acknowledged but not under way")
        trip = now - sent.at
        if not sent.picture:
            if sent.free:
                self._base = [(at, value) for at, value in self._base if now - at < FORGET_SECONDS] + [(now, trip)]
            return
        self._arrivals = [*self._arrivals[-19:], now]
        extra = max(0.0, trip - min((value for _, value in self._base), default=0.0))
        self._extra = extra if self._extra is None else self._extra + _SMOOTHING * (extra - self._extra)
        self._judge()

    def _judge(self) -> None:
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
        """Return for how long the oldest message under way has been so; 0 if there is none."""
        return max((now - sent.at for sent in self._under_way.values()), default=0.0)

    def round_trip(self) -> float:
        """Return the shortest way there and back of late, 0 while it is not known."""
        return min((value for _, value in self._base), default=0.0)

    def rate(self, now: float) -> float:
        """Return how many pictures a second have arrived of late."""
        recent = [at for at in self._arrivals if now - at < 3.0]
        if len(recent) < 2:
            return 0.0
        return (len(recent) - 1) / max(recent[-1] - recent[0], 1e-3)
