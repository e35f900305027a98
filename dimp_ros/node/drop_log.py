# SPDX-License-Identifier: Apache-2.0
"""The order of drops and starts: two services of ROS have none, and a start may wait in its client or here."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable

MOST_NAMES, MOST_TIMES = 1000, 1000
LONGEST_WAIT = 60_000_000_000
"""A request that seems to have waited for longer, nanoseconds, comes from before the clock was set."""


class DropLog:
    """Numbers requests to drop targets, and tells whether a target was dropped after a number. Thread-safe.

    Numbers begin at the time of the start in milliseconds, so that they grow over restarts, of which each counts as a
    drop of all targets.

    :param clock: returns the time by which requests are timed, nanoseconds; it may be set.
    """

    def __init__(self, clock: Callable[[], int] = time.time_ns) -> None:
        self._lock, self._clock = threading.Lock(), clock
        self._number = self._all = clock() // 1_000_000
        self._names: OrderedDict[str, int] = OrderedDict()
        self.detections_held = False
        """Whether an operator has dropped the target that is taken from detections: then no other one is taken."""
        self._times: deque[tuple[int, int]] = deque(maxlen=MOST_TIMES)  # when a drop was received, and its number

    @property
    def number(self) -> int:
        """Number of the last drop."""
        with self._lock:
            return self._number

    def number_at(self, received: int) -> int:
        """Return the number of the last drop when a request was received.

        :param received: nanoseconds of the clock; 0 if it is not known: then that of the last drop.
        """
        now = self._clock()
        with self._lock:
            if not received or not 0 <= now - received <= LONGEST_WAIT:
                return self._number
            return min((number - 1 for when, number in self._times if received < when <= now), default=self._number)

    def add(self, target_id: str, received: int = 0) -> int:
        """Count a drop of a target, or of all if empty, and return its number.

        :param received: when the request was received, nanoseconds of the clock; 0 for now.
        """
        with self._lock:
            self._number += 1
            self._times.append((received or self._clock(), self._number))
            if not target_id:
                self._all = self._number
                self._names.clear()
                return self._number
            self._names[target_id] = self._number
            self._names.move_to_end(target_id)
            if len(self._names) > MOST_NAMES:  # what is not known any more counts as dropped
                self._all = self._names.popitem(last=False)[1]
            return self._number

    def dropped_since(self, target_id: str, number: int) -> bool:
        """Return whether a target, or all targets, were dropped after the drop of that number."""
        with self._lock:
            return max(self._all, self._names.get(target_id, 0)) > number
