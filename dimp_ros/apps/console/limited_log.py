# SPDX-License-Identifier: Apache-2.0
"""Log lines of what strangers can repeat, bounded in number: otherwise they could fill the disk."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

LINES, PERIOD = 3, 10.0
"""So many lines of a kind are passed on in so many seconds, and one more with the number of the others."""


class LimitedLog:
    """Passes lines on to ``log``; used in the thread of ``loop``."""

    def __init__(self, log: Callable[[str], None], loop: asyncio.AbstractEventLoop) -> None:
        self._log, self._loop = log, loop
        self._counts: dict[str, int] = {}

    def __call__(self, kind: str, text: str) -> None:
        """Log a line of a kind, or count it."""
        if kind not in self._counts:
            self._counts[kind] = 0
            self._loop.call_later(PERIOD, self._end_period, kind)
        self._counts[kind] += 1
        if self._counts[kind] <= LINES:
            self._log(text)

    def close(self) -> None:
        """Tell the numbers of the lines that were not logged until now."""
        for kind in list(self._counts):
            self._end_period(kind)

    def _end_period(self, kind: str) -> None:
        more = self._counts.pop(kind, 0) - LINES
        if more > 0:
            self._log(f"{kind}: {more} more within {PERIOD:g} s")
