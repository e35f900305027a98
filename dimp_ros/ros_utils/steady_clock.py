# SPDX-License-Identifier: Apache-2.0
"""A clock that cannot be set, and when a ROS message was sent by it."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from typing import Any

EARLY_SECONDS = 0.1
"""Largest time by which a stamp may lie in the future; beyond it, clocks disagree."""

_STEADY_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


def steady_seconds() -> float:
    """Return seconds of a clock that cannot be set; on Linux it counts the time in which the machine is suspended."""
    return time.clock_gettime(_STEADY_CLOCK)


def sent_at(info: Mapping[str, Any] | None) -> float:
    """Return when a message was sent, `steady_seconds`; NaN if that seems to be in the future.

    The middleware gives the time at which it was sent by the sender's wall clock; what waited in a queue, or while this
    process was stopped, is thereby known to be old. Clocks of different machines must agree within `EARLY_SECONDS`.

    :param info: rclpy's message info; None where rclpy has none.
    """
    now = steady_seconds()
    if info is None:
        return now
    waited = (time.time_ns() - info["source_timestamp"]) / 1e9
    return now - max(waited, 0.0) if waited >= -EARLY_SECONDS else math.nan
