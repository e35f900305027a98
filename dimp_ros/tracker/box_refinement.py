# SPDX-License-Identifier: Apache-2.0
"""Box refinement: gradient ascent on the predicted overlap from several proposals (section 3.5, IoU-Net of ATOM).

The error that refinement makes on the first frame, where the box is known, may be subtracted from reported boxes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from dimp_ros.geometry.box import Box
from dimp_ros.model.backbone import Features
from dimp_ros.model.inference.network import InferenceNet
from dimp_ros.model.inference.region import Region
from dimp_ros.model.iou_net import Modulation
from dimp_ros.model.sizes import STRIDE
from dimp_ros.tracker.config import TrackerConfig
from dimp_ros.tracker.target_state import TrackedTarget

EdgeErrors = tuple[float, float, float, float]
"""Errors of left, top, right and bottom of a box, in its sides."""

RefineBoxes = Callable[[Modulation, Features, Tensor, int, float], tuple[Tensor, Tensor]]


def starting_boxes(box: Box, config: TrackerConfig, generator: torch.Generator) -> Tensor:
    """Return the proposals ``Tensor[P, 4]`` in crop pixels: the predicted box, then jittered ones."""
    size, shortest = math.sqrt(box.area), min(box.w, box.h) / 3
    jitter = torch.rand((config.proposals - 1, 4), generator=generator).numpy() * 2 - 1
    boxes = np.tile(np.array(box, dtype=np.float32), (config.proposals, 1))
    center = boxes[1:, :2] + boxes[1:, 2:] / 2 + jitter[:, :2] * np.float32(config.jitter_center * size)
    sides = np.maximum(boxes[1:, 2:] + jitter[:, 2:] * np.float32(config.jitter_size * size), np.float32(shortest))
    boxes[1:, :2], boxes[1:, 2:] = center - sides / 2, sides
    return torch.from_numpy(boxes)


class OverlapPredictor(Protocol):
    """Predicts ``2 * IoU - 1`` of boxes ``Tensor[B, P, 4]`` in the search windows of B targets."""

    def __call__(self, boxes: Tensor) -> Tensor:
        """Return the predictions ``Tensor[B, P]``."""
        ...

    def value_and_gradient(self, boxes: Tensor) -> tuple[Tensor, Tensor]:
        """Return the predictions, and the gradient of each in its own box."""
        ...


class FrameOverlap:
    """The predicted overlap of boxes with B targets, each in its own search window.

    On a CPU the overlap network's maps are computed around the boxes only, and as a whole once a box leaves that
    region. On a GPU whole maps are computed: reading boxes back would synchronise.

    :param backbone: of B windows. :param boxes: the proposals, ``Tensor[B, P, 4]`` in crop pixels.
    """

    def __init__(self, net: InferenceNet, modulation: Modulation, backbone: Features, boxes: Tensor) -> None:
        self._net, self._modulation, self._backbone = net, modulation, backbone
        self._cells = backbone.stride16.shape[-1]
        regions: list[Region | None] = [None] * len(boxes)
        if boxes.device.type == "cpu":
            regions = [Region.around(own, self._cells) for own in boxes]
            least = max((region.size if region else self._cells) for region in regions)
            if len(boxes) > 1:  # all of one size
                regions = [Region.around(own, self._cells, least=least) for own in boxes]
        self._compute_maps(regions)

    def __call__(self, boxes: Tensor) -> Tensor:
        """Predict ``2 * IoU - 1`` of boxes ``Tensor[B, P, 4]`` in crop pixels."""
        self._ensure_covered(boxes)
        return self._overlap(boxes - self._corners)

    def value_and_gradient(self, boxes: Tensor) -> tuple[Tensor, Tensor]:
        """Return the predictions, and the gradient of each in its own box."""
        self._ensure_covered(boxes)
        return self._overlap.value_and_gradient(boxes - self._corners)

    def _ensure_covered(self, boxes: Tensor) -> None:
        """Compute whole maps if a box has left its region."""
        if not all(r is None or r.covers(own, self._cells) for r, own in zip(self._regions, boxes, strict=True)):
            self._compute_maps([None] * len(self._regions))

    def _compute_maps(self, regions: list[Region | None]) -> None:
        self._regions = regions
        self._overlap = self._net.overlap.for_targets(
            self._modulation, self._net.overlap_features(self._backbone, regions)
        )
        corners = [(*(region.corner if region else (0, 0)), 0, 0) for region in regions]
        self._corners = torch.tensor(corners, dtype=torch.float32)[:, None] if any(regions) else 0


def ascend(overlap: OverlapPredictor, boxes: Tensor, steps: int, length: float) -> tuple[Tensor, Tensor]:
    """Ascend the predicted overlap: ``b <- b + length * gradient * (w, h, w, h)``, ``steps`` times.

    :param boxes: ``Tensor[B, P, 4]``.
    :return: the boxes, and the prediction ``2 * IoU - 1`` of each before its last step: another prediction would take
        a tenth of the time.
    """
    if not steps:
        return boxes, overlap(boxes)
    for _ in range(steps):
        value, gradient = overlap.value_and_gradient(boxes)
        boxes = boxes + length * gradient * boxes[..., 2:].repeat(1, 1, 2)
    return boxes, value


def average_best(boxes: Tensor, overlaps: Tensor, config: TrackerConfig) -> Box | None:
    """Return the mean of the ``best_boxes`` boxes with the highest overlap, without those of an extreme aspect ratio.

    :param boxes: ``Tensor[P, 4]``. :param overlaps: ``Tensor[P]``. :return: None where no box is left.
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
    backbone: Features,
    size: tuple[int, int],
    config: TrackerConfig,
) -> list[Box]:
    """Refine the boxes of targets at the score peaks of their last search results; return them in image pixels.

    :param refine_boxes: see `InferenceBackend.refine_boxes`.
    :param backbone: features of those results' crops. :param size: width and height of the image.
    """
    boxes_at_peaks = peak_boxes(targets, size, config)
    starts = [target.last.window.box_to_crop(box) for target, box in zip(targets, boxes_at_peaks, strict=True)]
    proposals = torch.stack([starting_boxes(s, config, t.generator) for s, t in zip(starts, targets, strict=True)])
    modulation = Modulation(
        torch.cat([target.modulation.stride8 for target in targets]),
        torch.cat([target.modulation.stride16 for target in targets]),
    )
    boxes, overlaps = refine_boxes(modulation, backbone, proposals, config.refine_steps, config.refine_step_length)
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
    backbone: Features,
    size: tuple[int, int],
    config: TrackerConfig,
    count: int = 4,
) -> EdgeErrors:
    """Refine the box of a target in its first frame ``count`` times and return the mean errors of its edges.

    :param backbone: features of the first frame's crop, ``Tensor[1, ...]``.
    """
    repeated = Features(*(maps.expand(count, -1, -1, -1) for maps in backbone))
    last = replace(target.last)
    boxes = refine([target] * count, refine_boxes, repeated, size, config)
    target.last = last
    return mean_errors([edge_errors(box, target.box) for box in boxes])
