# SPDX-License-Identifier: Apache-2.0
"""What the tracker says of a target after each frame."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum

from dimp_ros.geometry.box import Box


class TargetState(IntEnum):
    """What to make of a result; the numbers are those of ``msg/TargetState``."""

    UNINITIALIZED = 0
    """No target was given yet."""
    TRACKING = 1
    """The target is where the box is."""
    UNCERTAIN = 2
    """The box may be on something else that looks like the target: a second one, or a find that has yet to hold."""
    LOST = 3
    """The target is not in sight; there is no box."""


@dataclass(frozen=True)
class TrackResult:
    """A target after one frame.

    :param target_id: the name given at ``init``.
    :param state: see `TargetState`.
    :param box: ``(x, y, w, h)`` in image pixels; None when LOST. It may reach over the image's border.
    :param last_box: the last box believed in, never a find that has yet to hold. For benchmarks that demand a box for
        every frame, never for control.
    :param confidence: 0..1, rises with ``peak``; at 0.5 as many boxes are right as wrong, see docs/confidence.md.
    :param peak: highest score of the target filter in the search window; about 1 on the target, about 0 off it.
    :param distractor_ratio: second peak relative to the first, 0..1.
    :param search_window: ``(x, y, w, h)`` in image pixels, where the target was sought.
    :param stage_ms: wall time of each stage, milliseconds.
    :param confirming: the target was lost, and the box is a find that has yet to hold; state is UNCERTAIN.
    """

    target_id: str
    state: TargetState
    box: Box | None
    last_box: Box
    confidence: float
    peak: float
    distractor_ratio: float
    search_window: Box
    stage_ms: dict[str, float] = field(default_factory=dict)
    confirming: bool = False
