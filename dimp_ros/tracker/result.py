# SPDX-License-Identifier: Apache-2.0
"""Results of the tracker: `TrackResult` of one frame, `TargetEstimate` as published and used by the applications."""

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
    """The box may be on a distractor: one competes, or the target was re-detected and is not confirmed yet."""
    LOST = 3
    """The target is not in sight; there is no box."""


@dataclass(frozen=True)
class TrackResult:
    """A target after one frame.

    :param target_id: the name given at ``init``.
    :param state: see `TargetState`.
    :param box: ``(x, y, w, h)`` in image pixels; None when LOST. It may reach over the image's border.
    :param last_box: ``box``; where the target is LOST the box in this image that was refused, since it fits the target
        less than usual; else the last confirmed one. For benchmarks that demand a box for every frame, never for
        control.
    :param confidence: 0..1, rises with ``evidence``; at 0.5 as many boxes are right as wrong, see docs/confidence.md.
    :param peak: highest score of the target filter in the search window; about 1 on the target, about 0 off it.
    :param distractor_ratio: second peak relative to the first, 0..1.
    :param search_window: ``(x, y, w, h)`` in image pixels.
    :param evidence: the peak; with a box refiner the peak times ``1 - distractor_ratio`` and the quality of the box, 0
        where no box was refined.
    :param stage_ms: wall time of each stage, milliseconds.
    :param confirming: the target was re-detected and is not confirmed yet; state is UNCERTAIN.
    """

    target_id: str
    state: TargetState
    box: Box | None
    last_box: Box
    confidence: float
    peak: float
    distractor_ratio: float
    search_window: Box
    evidence: float = 0.0
    stage_ms: dict[str, float] = field(default_factory=dict)
    confirming: bool = False


@dataclass(frozen=True)
class TargetEstimate:
    """One target in one image: what the node publishes and what the applications act on.

    `dimp_ros.ros_utils.messages` converts it to and from ``msg/TargetState``; no other place does.

    :param box: ``(x, y, w, h)`` in image pixels; None unless TRACKING or UNCERTAIN.
    :param start: number of the start of the target, another one when it starts over; 0 where it is not known.
    :param confidence: 0..1; 0 without a box. :param peak: see `TrackResult`. :param distractor_ratio: likewise.
    :param frames_since_seen: images processed since the target was last TRACKING; 0 where it is in this one.
    :param seconds_since_seen: the same in seconds of image stamps.
    :param stamp: of the image, nanoseconds. :param age: of the image at publication, seconds.
    :param bearing: unit vector to the middle of the box in the optical frame (x right, y down, z forward); None where
        it is not known.
    """

    target_id: str = ""
    state: TargetState = TargetState.UNINITIALIZED
    box: Box | None = None
    confidence: float = 0.0
    peak: float = 0.0
    distractor_ratio: float = 0.0
    frames_since_seen: int = 0
    seconds_since_seen: float = 0.0
    stamp: int = 0
    age: float = 0.0
    bearing: tuple[float, float, float] | None = None
    start: int = 0
