# SPDX-License-Identifier: Apache-2.0
"""Whether the next image is worth waiting for.

Where inference is slower than the camera, an image already waits when the last one is done, on average for half the
interval between images, and the box of it is that much older than it need be. Where the next image is due soon,
waiting for it costs a little of the rate and gives boxes of fresher images. Where inference keeps up, nothing is waited
for: every image is used.
"""

from __future__ import annotations

import statistics
from collections import deque

REMEMBERED = 9
"""So many intervals and durations are kept; their medians count."""

ENOUGH = 3
"""With fewer of them nothing is waited for."""

LATE = 0.2
"""How much later than expected the next image may come, in intervals, before it is given up."""


class Pace:
    """Knows how often images come and how long one takes. Times are seconds of a monotonic clock.

    Not thread-safe: to be called with one lock held.
    """

    def __init__(self) -> None:
        self._arrival: float | None = None
        self._intervals: deque[float] = deque(maxlen=REMEMBERED)
        self._durations: deque[float] = deque(maxlen=REMEMBERED)

    def arrived(self, now: float) -> None:
        """Note that an image has come."""
        if self._arrival is not None:
            self._intervals.append(now - self._arrival)
        self._arrival = now

    def worked(self, seconds: float) -> None:
        """Note how long an image took."""
        self._durations.append(seconds)

    def patience(self, now: float, share: float) -> float:
        """Return for how many seconds to wait for an image newer than the last one; 0 to take that.

        :param share: the longest wait, in intervals between images, 0 to 1.
        """
        if self._arrival is None or share <= 0 or min(len(self._intervals), len(self._durations)) < ENOUGH:
            return 0.0
        interval = statistics.median(self._intervals)
        due = self._arrival + interval - now
        if statistics.median(self._durations) <= interval or not 0 < due <= share * interval:
            return 0.0
        return due + LATE * interval
