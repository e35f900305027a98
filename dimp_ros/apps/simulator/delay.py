# SPDX-License-Identifier: Apache-2.0
"""A queue whose items come out after a fixed delay: latency of images, of commands, of a tracker."""

from __future__ import annotations

import math
from collections import deque
from typing import Generic, TypeVar

Item = TypeVar("Item")


class DelayLine(Generic[Item]):
    """Things come out in the order in which they went in, ``delay`` seconds later.

    :param delay: seconds, 0 or more.
    :raises ValueError: for another delay.
    """

    def __init__(self, delay: float) -> None:
        if not 0.0 <= delay < math.inf:
            raise ValueError(f"delay is {delay!r} s, but must be 0 or more and finite")
        self.delay = delay
        self._items: deque[tuple[float, Item]] = deque()

    def push(self, time: float, item: Item) -> None:
        """Put ``item`` in at ``time``, in seconds, not before the last one's."""
        self._items.append((time + self.delay, item))

    def pop(self, time: float) -> Item | None:
        """Return the newest item that has come out by ``time``, dropping those before it; None if there is none."""
        newest = None
        while self._items and self._items[0][0] <= time + 1e-9:
            newest = self._items.popleft()[1]
        return newest

    def pop_all(self, time: float) -> list[Item]:
        """Return all items that have come out by ``time``, oldest first."""
        out = []
        while self._items and self._items[0][0] <= time + 1e-9:
            out.append(self._items.popleft()[1])
        return out
