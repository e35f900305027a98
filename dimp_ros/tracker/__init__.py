# SPDX-License-Identifier: Apache-2.0
"""The online tracker: `DimpTracker` follows boxes through a stream of images.

`DimpTracker` is imported when it is first asked for, and torch when a backend needs it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dimp_ros.tracker.config import TrackerConfig
from dimp_ros.tracker.result import TargetState, TrackResult

if TYPE_CHECKING:
    from dimp_ros.tracker.tracker import DimpTracker

__all__ = ["DimpTracker", "TargetState", "TrackResult", "TrackerConfig"]


def __getattr__(name: str) -> Any:
    """Import the tracker on first use."""
    if name == "DimpTracker":
        from dimp_ros.tracker.tracker import DimpTracker

        return DimpTracker
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
