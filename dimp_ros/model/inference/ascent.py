# SPDX-License-Identifier: Apache-2.0
"""Gradient ascent of boxes on the predicted overlap (section 3.5, IoU-Net of ATOM), in PyTorch."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from dimp_ros.model.backbone import Features
from dimp_ros.model.inference.network import InferenceNet
from dimp_ros.model.inference.region import Region
from dimp_ros.model.iou_net import Modulation


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
            regions = [Region.around(own, self._cells) for own in boxes.numpy()]
            least = max((region.size if region else self._cells) for region in regions)
            if len(boxes) > 1:  # all of one size
                regions = [Region.around(own, self._cells, least=least) for own in boxes.numpy()]
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
        if not all(
            region is None or region.covers(own.numpy(), self._cells)
            for region, own in zip(self._regions, boxes, strict=True)
        ):
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
