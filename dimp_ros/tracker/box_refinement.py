# SPDX-License-Identifier: Apache-2.0
"""Box refinement: gradient ascent on the predicted overlap from several proposals (section 3.5, IoU-Net of ATOM).

The error that refinement makes on the first frame, where the box is known, may be subtracted from reported boxes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from dimp_ros.geometry.box import Box
from dimp_ros.model.sizes import STRIDE
from dimp_ros.tracker.config import TrackerConfig
from dimp_ros.tracker.inference_backend import Floats, TargetModulation, WindowFeatures
from dimp_ros.tracker.random_numbers import UniformNumbers
from dimp_ros.tracker.target_state import TrackedTarget

EdgeErrors = tuple[float, float, float, float]
"""Errors of left, top, right and bottom of a box, in its sides."""

RefineBoxes = Callable[[Sequence[TargetModulation], WindowFeatures, Floats, int, float], tuple[Floats, Floats]]


def starting_boxes(box: Box, config: TrackerConfig, random: UniformNumbers) -> Floats:
    """Return the proposals ``[P, 4]`` in crop pixels: the predicted box, then jittered ones."""
    size, shortest = math.sqrt(box.area), min(box.w, box.h) / 3
    jitter = random(config.proposals - 1, 4) * 2 - 1
    boxes = np.tile(np.array(box, dtype=np.float32), (config.proposals, 1))
    center = boxes[1:, :2] + boxes[1:, 2:] / 2 + jitter[:, :2] * np.float32(config.jitter_center * size)
    sides = np.maximum(boxes[1:, 2:] + jitter[:, 2:] * np.float32(config.jitter_size * size), np.float32(shortest))
    boxes[1:, :2], boxes[1:, 2:] = center - sides / 2, sides
    return boxes


def average_best(boxes: Floats, overlaps: Floats, config: TrackerConfig) -> Box | None:
    """Return the mean of the ``best_boxes`` boxes with the highest overlap, without those of an extreme aspect ratio.

    :param boxes: ``[P, 4]``. :param overlaps: ``[P]``. :return: None where no box is left.
    """
    valid = []
    for (x, y, w, h), overlap in zip(boxes.tolist(), overlaps.tolist(), strict=True):
        box = Box(x, y, max(w, 1.0), max(h, 1.0))
        if all(map(math.isfinite, box)) and 1 / config.max_aspect < box.w / box.h < config.max_aspect:
            valid.append((overlap, box))
    best = [box for _, box in sorted(valid, key=lambda pair: pair[0], reverse=True)[: config.best_boxes]]
    return Box(*(sum(values) / len(best) for values in zip(*best, strict=True))) if best else None


def clip_box(box: Box, size: tuple[int, int], config: TrackerConfig) -> Box:
    """Limit a box's sides, and its distance from an image of ``size`` (w, h): see ``max_outside``."""
    least, outside = config.min_target_side, config.max_outside
    w, h = (min(max(side, least), 2.0 * max(size)) for side in (box.w, box.h))
    cx, cy = (
        min(max(center, -outside * side), extent + outside * side)
        for center, side, extent in zip(box.center, (w, h), size, strict=True)
    )
    return Box.from_center(cx, cy, w, h)


def peak_boxes(targets: Sequence[TrackedTarget], size: tuple[int, int], config: TrackerConfig) -> list[Box]:
    """Return the boxes of targets at the score peaks of their last search results, in image pixels: not refined yet."""
    starts = []
    for target in targets:
        window, (row, column) = target.last.window, target.last.localization.cell
        last = window.box_to_crop(target.predicted_box(config))
        moved = window.box_to_image(Box.from_center(column * STRIDE, row * STRIDE, last.w, last.h))
        starts.append(clip_box(moved, size, config))
    return starts


def refine(
    targets: Sequence[TrackedTarget],
    refine_boxes: RefineBoxes,
    features: WindowFeatures,
    size: tuple[int, int],
    config: TrackerConfig,
) -> list[Box]:
    """Refine the boxes of targets at the score peaks of their last search results; return them in image pixels.

    :param refine_boxes: see `InferenceBackend.refine_boxes`.
    :param features: of those results' crops. :param size: width and height of the image.
    """
    boxes_at_peaks = peak_boxes(targets, size, config)
    starts = [target.last.window.box_to_crop(box) for target, box in zip(targets, boxes_at_peaks, strict=True)]
    proposals = np.stack([starting_boxes(s, config, t.random) for s, t in zip(starts, targets, strict=True)])
    modulation = [target.modulation for target in targets]
    boxes, overlaps = refine_boxes(modulation, features, proposals, config.refine_steps, config.refine_step_length)
    result = []
    for n, target in enumerate(targets):
        frame = target.last
        frame.proposals, frame.boxes, frame.overlaps = proposals[n], boxes[n], overlaps[n]
        best = average_best(boxes[n], overlaps[n], config) or starts[n]
        result.append(clip_box(frame.window.box_to_image(best), size, config))
    return result


def correction_share(frame: int, config: TrackerConfig) -> float:
    """Return the share of the first frame's error that is subtracted in a frame; the first one has number 0."""
    kept = config.first_frame_correction if frame else 0.0
    if not kept or not config.correction_frames:
        return kept
    return kept + (1 - kept) * math.exp(-(frame - 1) / config.correction_frames)


def reported(box: Box, target: TrackedTarget, config: TrackerConfig, frame: int) -> Box:
    """Return a target's box in a frame with its first frame's error subtracted.

    Only the reported box changes; search window and learning do not depend on it.
    """
    share = correction_share(frame, config)
    return corrected(box, target.edge_errors, share) if share else box


def corrected(box: Box, errors: Sequence[float], share: float) -> Box:
    """Subtract a share of the errors of a box's edges (left, top, right, bottom, in box sides)."""
    left, top, right, bottom = (share * error for error in errors)
    return Box(
        box.x - left * box.w,
        box.y - top * box.h,
        box.w * max(1 - right + left, 0.1),
        box.h * max(1 - bottom + top, 0.1),
    )


def edge_errors(box: Box, truth: Box) -> EdgeErrors:
    """Return how far left, top, right and bottom of a box are off, in its sides."""
    return (
        (box.x - truth.x) / box.w,
        (box.y - truth.y) / box.h,
        (box.x + box.w - truth.x - truth.w) / box.w,
        (box.y + box.h - truth.y - truth.h) / box.h,
    )


def mean_errors(errors: Sequence[EdgeErrors]) -> EdgeErrors:
    """Return the mean of each edge's errors."""
    left, top, right, bottom = (sum(values) / len(errors) for values in zip(*errors, strict=True))
    return left, top, right, bottom


def measure_edge_errors(
    target: TrackedTarget,
    refine_boxes: RefineBoxes,
    features: WindowFeatures,
    size: tuple[int, int],
    config: TrackerConfig,
    count: int = 4,
) -> EdgeErrors:
    """Refine the box of a target in its first frame ``count`` times and return the mean errors of its edges.

    :param features: of the first frame's crop.
    """
    last = replace(target.last)
    boxes = refine([target] * count, refine_boxes, features.rows([0] * count), size, config)
    target.last = last
    return mean_errors([edge_errors(box, target.box) for box in boxes])
