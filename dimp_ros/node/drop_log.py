# SPDX-License-Identifier: Apache-2.0
"""The order of drops and starts: two services of ROS have none, and a start may wait in its client or here."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable

MOST_NAMES, MOST_TIMES = 1000, 1000
"""Names that were dropped, and times of drops, that are kept."""

LONGEST_WAIT = 15_000_000_000
"""So long after the clock was set, nanoseconds, requests may come that were timed before."""

STEP = 50_000_000
"""By so much, nanoseconds, the clock is set and not slewed."""

READING = 5_000_000
"""Reading both clocks takes less, nanoseconds."""


class DropLog:
    """Numbers requests to drop targets, and tells whether a target was dropped after a number. Thread-safe.

    Numbers begin at the time of the start in milliseconds, so that they grow over restarts, of which each counts as a
    drop of all targets.

    :param clock: returns the time by which requests are timed, nanoseconds; it may be set.
    :param steady: returns the time of a clock that cannot be set, nanoseconds.
    """

    def __init__(self, clock: Callable[[], int] = time.time_ns, steady: Callable[[], int] = time.monotonic_ns) -> None:
        self._lock, self._clock, self._steady = threading.Lock(), clock, steady
        self._offset = clock() - steady()
        self._set: int | None = None  # when the clock was set last, by the steady one
        self._number = self._all = clock() // 1_000_000
        self._names: OrderedDict[str, int] = OrderedDict()
        self.detections_held = False
        """Whether an operator has dropped the target that is taken from detections: then no other one is taken."""
        # Of drops: when they were received, when they were counted by the steady clock, and their numbers.
        self._times: deque[tuple[int, int, int]] = deque(maxlen=MOST_TIMES)

    @property
    def number(self) -> int:
        """Number of the last drop."""
        with self._lock:
            self._watch()
            return self._number

    def number_at(self, received: int) -> int:
        """Return the number of the last drop when a request was received.

        After the clock was set it is not known which was first, for a while: then all drops of late count as later.

        :param received: nanoseconds of the clock; 0 if it is not known: then that of the last drop.
        """
        with self._lock:
            now, was_set = self._clock(), self._watch()
            begin = self._steady() - LONGEST_WAIT
            if not received:
                return self._number
            if was_set or received > now:
                later = [number for _, counted, number in self._times if counted > begin]
            else:
                later = [number for when, _, number in self._times if received < when <= now]
            return min(later, default=self._number + 1) - 1

    def _watch(self) -> bool:
        """Return whether the clock was set of late."""
        steady = self._steady()
        offset = self._clock() - steady
        if self._steady() - steady < READING:  # else this thread has waited between the two
            if abs(offset - self._offset) > STEP:
                self._set = steady
            self._offset = offset
        return self._set is not None and steady - self._set < LONGEST_WAIT

    def add(self, target_id: str, received: int = 0) -> int:
        """Count a drop of a target, or of all if empty, and return its number.

        :param received: when the request was received, nanoseconds of the clock; 0 for now.
        """
        with self._lock:
            self._watch()
            self._number += 1
            self._times.append((received or self._clock(), self._steady(), self._number))
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
