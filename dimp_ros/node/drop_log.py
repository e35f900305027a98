# SPDX-License-Identifier: Apache-2.0
"""The order of drops and starts: two services of ROS have none, and a start may wait in its client."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict

MOST_NAMES = 1000


class DropLog:
    """Numbers requests to drop targets, and tells whether a target was dropped after a number. Thread-safe.

    Numbers begin at the time of the start in milliseconds, so that they grow over restarts, of which each counts as a
    drop of all targets.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._number = self._all = time.time_ns() // 1_000_000
        self._names: OrderedDict[str, int] = OrderedDict()

    @property
    def number(self) -> int:
        """Number of the last drop."""
        with self._lock:
            return self._number

    def add(self, target_id: str) -> int:
        """Count a drop of a target, or of all if empty, and return its number."""
        with self._lock:
            self._number += 1
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
