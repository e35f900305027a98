# SPDX-License-Identifier: Apache-2.0
"""The network's part of a frame: features and scores, refined boxes, filter updates.

On a CPU windows are computed one after the other, and the overlap network's maps only where boxes are. On a GPU all
windows are one batch and CUDA graphs are replayed; it is synchronised twice a frame, to read scores and to read boxes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dimp_ros.model.backbone import Features
from dimp_ros.model.dimp import DimpNet
from dimp_ros.model.inference.network import InferenceNet
from dimp_ros.model.iou_net import Modulation
from dimp_ros.model.target_filter import apply_filter
from dimp_ros.tracker.box_refinement import FrameOverlap, ascend
from dimp_ros.tracker.cuda_graph import GraphedFunction
from dimp_ros.tracker.device import choose_precision, upload
from dimp_ros.tracker.memory import SampleMemory
from dimp_ros.tracker.stage_timer import StageTimer


class FrameFeatures(NamedTuple):
    """Features and scores of N search windows; tensors on the device, valid until the next frame.

    :param features: of the classifier, ``Tensor[N, C, H, W]``. :param scores: ``[N, R, C]``, on the host.
    """

    backbone: Features
    features: Tensor
    scores: NDArray[np.float32]


class InferenceEngine:
    """Runs a network with fixed weights on one device.

    :param net: in evaluation mode; its weights are copied, see `up_to_date`.
    :param precision: see `choose_precision`.
    """

    def __init__(self, net: DimpNet, device: torch.device, precision: str) -> None:
        self.net, self._device = InferenceNet(net, choose_precision(precision, device)), device
        self._scoring = GraphedFunction(self._extract_and_score)
        self._refinements: dict[tuple[int, float], GraphedFunction] = {}
        self._filter_updates: dict[int, GraphedFunction] = {}

    def up_to_date(self) -> bool:
        """Tell whether the network still has the weights that were copied."""
        return self.net.up_to_date()

    def extract_and_score(
        self, crops: Sequence[NDArray[np.uint8]], filters: Tensor, timer: StageTimer
    ) -> FrameFeatures:
        """Extract features of search windows and score them with the targets' filters.

        :param crops: N of them, ``[S, S, 3]`` BGR. :param filters: of the target in each, ``Tensor[N, C, k, k]``.
        """
        images = upload(crops, self._device)
        if self._scoring.records(self._device):
            timer.record("upload")
            stride8, stride16, features, scores = self._scoring(images, filters)
            backbone = Features(stride8, stride16)
        else:
            backbone = self.net.extract(images)
            timer.record("backbone")
            features = self.net.target_features(backbone.stride16)
            scores = apply_filter(features[:, None], filters)
        maps = scores[:, 0].cpu().numpy()
        timer.record("classify")
        return FrameFeatures(backbone, features, maps)

    def refine_boxes(
        self, modulation: Modulation, backbone: Features, boxes: Tensor, steps: int, length: float
    ) -> tuple[Tensor, Tensor]:
        """Refine the boxes of B targets; see `ascend`.

        :param boxes: ``Tensor[B, P, 4]`` in crop pixels, on the host.
        :return: the boxes, and the overlaps predicted before the last step, ``Tensor[B, P]``, both on the host.
        """
        key = (steps, length)
        if key not in self._refinements:
            self._refinements = {key: GraphedFunction(lambda *inputs: self._refine_boxes(steps, length, *inputs))}
        refined, overlaps = self._refinements[key](*modulation, *backbone, boxes.to(self._device))
        return refined.cpu(), overlaps.cpu()

    def update_filter(self, weights: Tensor, memory: SampleMemory, steps: int) -> Tensor:
        """Return the filter ``Tensor[1, C, k, k]`` after ``steps`` optimiser steps on all samples."""
        optimizer = self.net.net.classifier.filter_optimizer
        if steps not in self._filter_updates:
            self._filter_updates[steps] = GraphedFunction(lambda *inputs: (optimizer(*inputs, steps)[-1],))
        update = self._filter_updates[steps]
        # A graph is for a fixed number of samples: empty slots have weight 0.
        samples = memory.slots() if update.records(self._device) else memory.samples()
        (better,) = update(weights, *(part[None] for part in samples))
        return better.clone()

    def _extract_and_score(self, images: Tensor, filters: Tensor) -> tuple[Tensor, ...]:
        """Compute both feature maps, classification features and scores of images ``Tensor[N, 3, S, S]``."""
        backbone = self.net.extract(images)
        features = self.net.target_features(backbone.stride16)
        return *backbone, features, apply_filter(features[:, None], filters)

    def _refine_boxes(self, steps: int, length: float, *inputs: Tensor) -> tuple[Tensor, ...]:
        """Compute `refine_boxes`; the inputs are modulation, backbone and boxes as five tensors."""
        *maps, boxes = inputs
        overlap = FrameOverlap(self.net, Modulation(*maps[:2]), Features(*maps[2:]), boxes)
        return ascend(overlap, boxes, steps, length)
