# SPDX-License-Identifier: Apache-2.0
"""Box refinement by a closer look: the box refiner sees a small window around the target, in one pass."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from dimp_ros.geometry.box import Box
from dimp_ros.images.closer_window import CloserWindow, crop_window
from dimp_ros.images.picture import Picture
from dimp_ros.model.backbone import Features
from dimp_ros.model.box_refiner import CONTEXT, WINDOW_SIZE
from dimp_ros.model.inference.network import InferenceNet
from dimp_ros.tracker.box_refinement import clip_box, edge_errors, peak_boxes
from dimp_ros.tracker.config import TrackerConfig
from dimp_ros.tracker.device import upload
from dimp_ros.tracker.target_state import TrackedTarget

FIRST_LOOKS = ((0.0, 0.0, 1.0, 1.0), (0.06, -0.06, 1.1, 0.92), (-0.06, 0.06, 0.92, 1.1), (0.04, 0.04, 1.08, 1.08))
"""Perturbed boxes of the first frame from which the errors are measured: shift and size in box sides."""


def _features(net: InferenceNet, picture: Picture, windows: Sequence[CloserWindow], device: torch.device) -> Features:
    crops = [crop_window(picture, window) for window in windows]
    return Features(*(maps.float() for maps in net.extract(upload(crops, device))))


def remember_target(net: InferenceNet, picture: Picture, box: Box, device: torch.device) -> Tensor:
    """Return the box refiner's tokens of a target, ``Tensor[1, T, C]``."""
    assert net.box_refiner is not None
    window = CloserWindow.around(box, CONTEXT, WINDOW_SIZE)
    own = torch.tensor([window.box_to_window(box)], dtype=torch.float32, device=device)
    return net.box_refiner.tokens(_features(net, picture, [window], device), own)


def look_closer(
    net: InferenceNet, picture: Picture, boxes: Sequence[Box], tokens: Tensor, device: torch.device
) -> list[Box]:
    """Refine boxes in image pixels once; one that cannot be refined stays.

    :param tokens: of the targets, ``Tensor[B, T, C]``.
    """
    assert net.box_refiner is not None
    windows = [CloserWindow.around(box, CONTEXT, WINDOW_SIZE) for box in boxes]
    edges = net.box_refiner(_features(net, picture, windows, device), tokens).edges.tolist()
    refined = []
    for box, window, (left, top, right, bottom) in zip(boxes, windows, edges, strict=True):
        valid = all(map(math.isfinite, (left, top, right, bottom))) and left < right and top < bottom
        refined.append(window.edges_to_image((left, top, right, bottom)) if valid else box)
    return refined


def refine_closer(
    targets: Sequence[TrackedTarget], net: InferenceNet, picture: Picture, config: TrackerConfig, device: torch.device
) -> list[Box]:
    """Refine the boxes of targets at the score peaks of their last search results; return them in image pixels."""
    size = (picture.width, picture.height)
    boxes = peak_boxes(targets, size, config)
    tokens = torch.cat([target.tokens for target in targets if target.tokens is not None])
    for _ in range(config.closer_looks):
        boxes = [clip_box(box, size, config) for box in look_closer(net, picture, boxes, tokens, device)]
    return boxes


def measure_errors_closer(
    target: TrackedTarget, net: InferenceNet, picture: Picture, config: TrackerConfig, device: torch.device
) -> None:
    """Refine perturbed boxes of a target in its first frame and keep the mean errors of the edges."""
    assert target.tokens is not None
    truth = target.box
    cx, cy = truth.center
    boxes = [
        Box.from_center(cx + x * truth.w, cy + y * truth.h, w * truth.w, h * truth.h) for x, y, w, h in FIRST_LOOKS
    ]
    tokens = target.tokens.expand(len(boxes), -1, -1)
    for _ in range(config.closer_looks):
        boxes = look_closer(net, picture, boxes, tokens, device)
    errors = [edge_errors(box, truth) for box in boxes]
    left, top, right, bottom = (sum(values) / len(boxes) for values in zip(*errors, strict=True))
    target.edge_errors = (left, top, right, bottom)
