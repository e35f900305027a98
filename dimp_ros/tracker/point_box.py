# SPDX-License-Identifier: Apache-2.0
"""The box of the object at a point, so that a tap is enough to start a target."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from dimp_ros.geometry.box import Box, check_box, check_point, iou
from dimp_ros.images.closer_window import crop_window, windows_at
from dimp_ros.images.picture import Picture
from dimp_ros.model.sizes import POINT_SIZE, POINT_WINDOWS
from dimp_ros.tracker.config import TrackerConfig
from dimp_ros.tracker.inference_backend import InferenceBackend

SHARPNESS = 4
"""Power of the predicted overlap with which a candidate counts."""


class CandidateBox(NamedTuple):
    """A box in image pixels, within the image, and its predicted overlap with the object, 0..1."""

    box: Box
    overlap: float


def rank_boxes(backend: InferenceBackend, picture: Picture, point: tuple[float, float]) -> list[CandidateBox]:
    """Return the boxes found in windows of several sizes around a point, the best first.

    :raises ValueError: if the point is outside the image, or the network has no head for points.
    """
    check_point(point, picture.width, picture.height)
    if not backend.has_point_box:
        raise ValueError("these weights cannot find an object at a point, as those of dimp_lite can: give a box")
    windows = windows_at(point, (picture.width, picture.height), POINT_WINDOWS, POINT_SIZE)
    boxes = backend.boxes_at_point([crop_window(picture, window) for window in windows])
    candidates = []
    for window, edges, overlaps in zip(windows, boxes.edges.tolist(), boxes.overlaps.tolist(), strict=True):
        for (left, top, right, bottom), overlap in zip(edges, overlaps, strict=True):
            box = window.edges_to_image((left, top, right, bottom)).clipped(picture.width, picture.height)
            valid = all(map(math.isfinite, (*box, overlap)))
            candidates.append(CandidateBox(box, overlap) if valid else CandidateBox(Box(*point, 0.0, 0.0), 0.0))
    return sorted(candidates, key=lambda candidate: candidate.overlap, reverse=True)


def agreed(candidates: Sequence[CandidateBox]) -> CandidateBox:
    """Return what the candidates agree on: the mean of those that overlap the one with the most support.

    The weight of a candidate is a power of its predicted overlap; its support is the weighted overlap of all with it.
    """
    boxes = np.array([candidate.box for candidate in candidates])
    overlaps = np.array([candidate.overlap for candidate in candidates])
    weights, overlap = overlaps**SHARPNESS, iou(boxes[:, None], boxes[None])
    best = int((overlap @ weights).argmax())
    weights = weights * (overlap[best] > 0.5)
    if not weights.sum() > 0:
        return candidates[0]
    corners = np.concatenate((boxes[:, :2], boxes[:, :2] + boxes[:, 2:]), 1)
    left, top, right, bottom = (float(v) for v in weights @ corners / weights.sum())
    return CandidateBox(Box(left, top, right - left, bottom - top), float(overlaps[weights > 0].max()))


def find_box(backend: InferenceBackend, picture: Picture, point: tuple[float, float], config: TrackerConfig) -> Box:
    """Return the box of the object at a point, in image pixels.

    :raises ValueError: as `rank_boxes`, or if no box reaches ``config.point_threshold`` or the best one is too small.
    """
    box, overlap = agreed(rank_boxes(backend, picture, point))
    if overlap < config.point_threshold:
        raise ValueError(
            f"no object stands out at point ({point[0]:g}, {point[1]:g}): the best box has a predicted overlap of "
            f"{overlap:.2f}, and point_threshold is {config.point_threshold:g}; draw a box around the target instead"
        )
    return check_box(box, picture.width, picture.height, min_side=config.min_target_side)
