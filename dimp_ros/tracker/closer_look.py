# SPDX-License-Identifier: Apache-2.0
"""Box refinement by a closer look: the box refiner sees a small window around the target, in one pass.

Its box may be averaged with that of gradient ascent: `average_boxes`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from dimp_ros.geometry.box import Box, iou
from dimp_ros.images.closer_window import CloserWindow, crop_window
from dimp_ros.images.picture import Picture
from dimp_ros.model.sizes import CLOSER_CONTEXT, CLOSER_SIZE
from dimp_ros.tracker.box_refinement import EdgeErrors, clip_box, edge_errors, mean_errors, peak_boxes
from dimp_ros.tracker.config import TrackerConfig
from dimp_ros.tracker.inference_backend import DeviceArray, InferenceBackend
from dimp_ros.tracker.target_state import TrackedTarget

FIRST_LOOKS = ((0.0, 0.0, 1.0, 1.0), (0.06, -0.06, 1.1, 0.92), (-0.06, 0.06, 0.92, 1.1), (0.12, 0.1, 1.25, 1.2))
"""Wrong boxes of the first frame, on which the errors are measured: shift and size in sides of the true one."""

AGREEMENT = 0.4
"""Least overlap of two methods' boxes that are averaged."""

CLOSER_SHARE = 0.8
"""Weight of the box refiner's box in that average."""


USUAL_RATE = 0.05
"""Weight of a confirmed frame in a target's usual predicted overlap."""

QUALITY_POWER = 2
"""Of the predicted overlap in a target's box quality, chosen for the AUROC of the confidence: 1 to 4 hardly differ."""

AGREEMENT_POWER = 2
"""Of the overlap of the two methods' boxes, chosen likewise."""


def uses_refiner(backend: InferenceBackend, config: TrackerConfig) -> bool:
    """Tell whether boxes are refined by a closer look."""
    return backend.has_box_refiner and config.closer_looks > 0


def uses_ascent(backend: InferenceBackend, config: TrackerConfig) -> bool:
    """Tell whether boxes are refined by gradient ascent, alone or besides a closer look."""
    return config.refine_steps > 0 or not uses_refiner(backend, config)


def shows_target(target: TrackedTarget, config: TrackerConfig) -> bool:
    """Tell whether the refined box is the target's: its predicted overlap is not much less than it usually is.

    True without a box refiner.
    """
    return target.box_overlap is None or target.box_overlap >= config.least_overlap_ratio * target.usual_overlap


def remember_overlap(target: TrackedTarget) -> None:
    """Let the predicted overlap of a confirmed frame change the usual one."""
    if target.box_overlap is not None:
        rate = USUAL_RATE if target.usual_overlap else 1.0
        target.usual_overlap += rate * (target.box_overlap - target.usual_overlap)


def average_boxes(targets: Sequence[TrackedTarget], closer: Sequence[Box], ascended: Sequence[Box]) -> list[Box]:
    """Return the weighted means of the box refiner's boxes and those of gradient ascent; the former, where they differ.

    The errors of the two methods are largely independent, so their overlap is a factor of the targets' box quality.
    """
    boxes = []
    for target, first, second in zip(targets, closer, ascended, strict=True):
        agreement = float(iou(np.array(first), np.array(second)))
        boxes.append(Box(*average_values(first, second)) if agreement > AGREEMENT else first)
        if target.box_quality is not None:
            target.box_quality *= agreement**AGREEMENT_POWER
    return boxes


def average_values(closer: Sequence[float], ascended: Sequence[float]) -> tuple[float, ...]:
    """Return the weighted means of numbers of both methods."""
    return tuple(CLOSER_SHARE * a + (1 - CLOSER_SHARE) * b for a, b in zip(closer, ascended, strict=True))


def remember_target(
    target: TrackedTarget, backend: InferenceBackend, picture: Picture, config: TrackerConfig
) -> EdgeErrors | None:
    """Set the box refiner's tokens of a target; return the mean errors of the edges that it finds in the first frame.

    None if ``first_frame_correction`` does not ask for them, or if there is no refined box.
    """
    box = target.box
    own = CloserWindow.around(box, CLOSER_CONTEXT, CLOSER_SIZE)
    cx, cy = box.center
    looks = FIRST_LOOKS if config.first_frame_correction else ()
    wrong = [Box.from_center(cx + x * box.w, cy + y * box.h, w * box.w, h * box.h) for x, y, w, h in looks]
    target.tokens = backend.target_tokens(crop_window(picture, own), np.array(own.box_to_window(box), np.float32))
    if not looks:
        return None
    windows = [CloserWindow.around(other, CLOSER_CONTEXT, CLOSER_SIZE) for other in wrong]
    found = backend.look_closer([crop_window(picture, window) for window in windows], [target.tokens] * len(windows))
    target.usual_overlap = float(np.nan_to_num(found.overlaps).mean())
    errors = []
    for window, (left, top, right, bottom) in zip(windows, found.edges.tolist(), strict=True):
        if all(map(math.isfinite, (left, top, right, bottom))) and left < right and top < bottom:
            errors.append(edge_errors(window.edges_to_image((left, top, right, bottom)), box))
    return mean_errors(errors) if errors else None


class CloserBox(NamedTuple):
    """A refined box in image pixels, and its predicted overlap with the target, 0..1."""

    box: Box
    overlap: float


def look_closer(
    backend: InferenceBackend, picture: Picture, boxes: Sequence[Box], tokens: Sequence[DeviceArray]
) -> list[CloserBox]:
    """Refine boxes in image pixels once; one that cannot be refined stays, with a predicted overlap of 0.

    :param tokens: of each target.
    """
    windows = [CloserWindow.around(box, CLOSER_CONTEXT, CLOSER_SIZE) for box in boxes]
    found = backend.look_closer([crop_window(picture, window) for window in windows], tokens)
    refined = []
    rows = zip(boxes, windows, found.edges.tolist(), found.overlaps.tolist(), strict=True)
    for box, window, (left, top, right, bottom), overlap in rows:
        valid = all(map(math.isfinite, (left, top, right, bottom, overlap))) and left < right and top < bottom
        edges = window.edges_to_image((left, top, right, bottom)) if valid else box
        refined.append(CloserBox(edges, overlap if valid else 0.0))
    return refined


def refine_closer(
    targets: Sequence[TrackedTarget], backend: InferenceBackend, picture: Picture, config: TrackerConfig
) -> list[Box]:
    """Refine the boxes of targets at the score peaks of their last search results; return them in image pixels.

    The targets' box quality is set: the predicted overlap to the power of ``QUALITY_POWER``.
    """
    size = (picture.width, picture.height)
    boxes = peak_boxes(targets, size, config)
    tokens = [target.tokens for target in targets]
    for _ in range(config.closer_looks):
        refined = look_closer(backend, picture, boxes, tokens)
        boxes = [clip_box(box, size, config) for box, _ in refined]
        for target, (_, overlap) in zip(targets, refined, strict=True):
            target.box_overlap, target.box_quality = overlap, overlap**QUALITY_POWER
    return boxes
