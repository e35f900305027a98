# SPDX-License-Identifier: Apache-2.0
"""Box refinement: gradient ascent of the predicted overlap from several starting boxes."""

from __future__ import annotations

import math
from typing import Protocol

import torch
from torch import Tensor

from dimp_ros.geometry import Box
from dimp_ros.model.backbone import Features
from dimp_ros.model.iou_net import Modulation
from dimp_ros.tracker.config import TrackerConfig


def starting_boxes(box: Box, config: TrackerConfig, generator: torch.Generator) -> Tensor:
    """Return the predicted box and jittered ones, ``Tensor[P, 4]`` in crop pixels."""
    size = math.sqrt(box.area)
    boxes = torch.tensor(box, dtype=torch.float32).repeat(config.proposals, 1)
    jitter = torch.rand((config.proposals - 1, 4), generator=generator) * 2 - 1
    shortest = min(box.w, box.h) / 3
    center = boxes[1:, :2] + boxes[1:, 2:] / 2 + jitter[:, :2] * config.jitter_center * size
    sides = (boxes[1:, 2:] + jitter[:, 2:] * config.jitter_size * size).clamp(min=shortest)
    boxes[1:] = torch.cat((center - sides / 2, sides), dim=1)
    return boxes


class Overlap(Protocol):
    """Predicts ``2 * IoU - 1`` of boxes; `OverlapHead` does."""

    def __call__(self, modulation: Modulation, features: Features, boxes: Tensor) -> Tensor:
        """Return the predictions."""
        ...

    def value_and_gradient(self, modulation: Modulation, features: Features, boxes: Tensor) -> tuple[Tensor, Tensor]:
        """Return the predictions, and the gradient of each in its own box."""
        ...


def ascend(
    overlap: Overlap, modulation: Modulation, features: Features, boxes: Tensor, steps: int, length: float
) -> tuple[Tensor, Tensor]:
    """Move boxes uphill on the predicted overlap: ``b <- b + length * gradient * (w, h, w, h)``, ``steps`` times.

    :param boxes: ``Tensor[B, P, 4]`` of B pictures. :return: the boxes and the prediction ``2 * IoU - 1`` for them.
    """
    for _ in range(steps):
        _, gradient = overlap.value_and_gradient(modulation, features, boxes)
        boxes = boxes + length * gradient * boxes[..., 2:].repeat(1, 1, 2)
    return boxes, overlap(modulation, features, boxes)


def choose(boxes: Tensor, overlaps: Tensor, config: TrackerConfig) -> Box | None:
    """Average the best boxes of sane shape; None where there is none.

    :param boxes: ``Tensor[P, 4]``. :param overlaps: ``Tensor[P]``, the prediction for each.
    """
    sides = boxes[:, 2:].clamp(min=1.0)
    aspect = sides[:, 0] / sides[:, 1]
    sane = (aspect < config.max_aspect) & (aspect > 1 / config.max_aspect) & torch.isfinite(boxes).all(1)
    boxes, overlaps = torch.cat((boxes[:, :2], sides), dim=1)[sane], overlaps[sane]
    if not len(boxes):
        return None
    best = overlaps.topk(min(config.best_boxes, len(overlaps))).indices
    return Box(*boxes[best].mean(0).tolist())
