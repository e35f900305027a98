# SPDX-License-Identifier: Apache-2.0
"""A clock that cannot be set, and when a ROS message was sent by it."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from typing import Any

EARLY_SECONDS = 0.1
"""Largest time by which a stamp may lie in the future; beyond it, clocks disagree."""

KEPT_SECONDS = 1.0
"""How long after the wall clock was found set back messages may still be from before: they wait in a queue of one."""

_STEP_SECONDS = 1e-3
_STEADY_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


class _WallClock:
    """How far the wall clock is ahead of the steady one. Thread-safe: one tuple holds what was seen."""

    def __init__(self) -> None:
        self._seen = -math.inf, -math.inf, -math.inf  # its lead, its lead before it was set back, until when that holds

    def look(self) -> tuple[float, float, float]:
        """Return `steady_seconds`, the wall clock's lead, and the largest by which a message may have been stamped."""
        now = time.clock_gettime(_STEADY_CLOCK)  # first: what delays the next line makes messages seem older, not newer
        lead = time.time_ns() / 1e9 - now
        before, highest, until = self._seen
        if now > until:
            highest = -math.inf
        if lead < before - _STEP_SECONDS:
            highest, until = max(before, highest), now + KEPT_SECONDS
        self._seen = lead, highest, until
        return now, lead, max(lead, highest)


_WALL_CLOCK = _WallClock()


def steady_seconds() -> float:
    """Return seconds of a clock that cannot be set; on Linux it counts the time in which the machine is suspended.

    Each call watches the wall clock, for `sent_at`.
    """
    return _WALL_CLOCK.look()[0]


def sent_at(info: Mapping[str, Any] | None) -> float:
    """Return when a message was sent, `steady_seconds`; NaN if that seems to be in the future.

    The middleware gives the time at which it was sent by the sender's wall clock; what waited in a queue, or while this
    process was stopped, is thereby known to be old. For `KEPT_SECONDS` after the wall clock was set back, a message
    counts as stamped before that. Clocks of different machines must agree within `EARLY_SECONDS`.

    :param info: rclpy's message info; None where rclpy has none.
    """
    now, lead, largest_lead = _WALL_CLOCK.look()
    if info is None:
        return now
    stamp = info["source_timestamp"] / 1e9
    return min(now, stamp - largest_lead) if stamp - lead <= now + EARLY_SECONDS else math.nan
