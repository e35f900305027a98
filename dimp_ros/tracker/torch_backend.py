# SPDX-License-Identifier: Apache-2.0
"""The network's part of a frame in PyTorch; see `dimp_ros.tracker.inference_backend`.

On a CPU windows are computed one after the other, and the overlap network's maps only where boxes are. On a GPU all
windows are one batch and CUDA graphs are replayed; it is synchronised twice a frame, to read scores and to read boxes.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dimp_ros.model.backbone import Features
from dimp_ros.model.box_refiner import RefinedBoxes
from dimp_ros.model.dimp import DimpNet
from dimp_ros.model.inference.ascent import FrameOverlap, ascend
from dimp_ros.model.inference.network import InferenceNet
from dimp_ros.model.iou_net import Modulation
from dimp_ros.model.target_filter import apply_filter
from dimp_ros.tracker.cuda_graph import GraphedFunction
from dimp_ros.tracker.device import upload
from dimp_ros.tracker.inference_backend import Floats, FrameFeatures
from dimp_ros.tracker.memory import SampleMemory
from dimp_ros.tracker.stage_timer import StageTimer


class TorchBackend:
    """Runs a network with fixed weights on one device.

    :param net: in evaluation mode; its weights are copied, see `up_to_date`. :param precision: of the networks.
    """

    name = "torch"

    def __init__(self, net: DimpNet, device: torch.device, precision: torch.dtype) -> None:
        self.net, self._device = net, device
        self._fused = InferenceNet(net, precision)
        self._scoring = GraphedFunction(self._extract_and_score)
        self._refinements: dict[tuple[int, float], GraphedFunction] = {}
        self._filter_updates: dict[int, GraphedFunction] = {}

    def up_to_date(self) -> bool:
        """Tell whether the network still has the weights that were copied."""
        return self._fused.up_to_date()

    def extract(self, crops: Sequence[NDArray[np.uint8]]) -> Features:
        """Return the backbone's features of crops."""
        return self._fused.extract(upload(crops, self._device))

    def target_features(self, stride16: Tensor) -> Tensor:
        """Return classification features of backbone features."""
        return self._fused.target_features(stride16)

    def extract_and_score(
        self, crops: Sequence[NDArray[np.uint8]], filters: Tensor, timer: StageTimer
    ) -> FrameFeatures:
        """Extract features of search windows and score them with the targets' filters."""
        images = upload(crops, self._device)
        if self._scoring.records(self._device):
            timer.record("upload")
            stride8, stride16, features, scores = self._scoring(images, filters)
            backbone = Features(stride8, stride16)
        else:
            backbone = self._fused.extract(images)
            timer.record("backbone")
            features = self._fused.target_features(backbone.stride16)
            scores = apply_filter(features[:, None], filters)
        maps = scores[:, 0].cpu().numpy()
        timer.record("classify")
        return FrameFeatures(backbone, features, maps)

    def refine_boxes(
        self, modulation: Modulation, backbone: Features, boxes: Floats, steps: int, length: float
    ) -> tuple[Floats, Floats]:
        """Refine the boxes of B targets; see `ascend`."""
        key = (steps, length)
        if key not in self._refinements:
            self._refinements = {key: GraphedFunction(lambda *inputs: self._refine_boxes(steps, length, *inputs))}
        refined, overlaps = self._refinements[key](*modulation, *backbone, torch.from_numpy(boxes).to(self._device))
        return refined.cpu().numpy(), overlaps.cpu().numpy()

    def update_filter(self, weights: Tensor, memory: SampleMemory, steps: int) -> Tensor:
        """Return the filter ``Tensor[1, C, k, k]`` after ``steps`` optimiser steps on all samples."""
        optimizer = self.net.classifier.filter_optimizer
        if steps not in self._filter_updates:
            self._filter_updates[steps] = GraphedFunction(lambda *inputs: (optimizer(*inputs, steps)[-1],))
        update = self._filter_updates[steps]
        # A graph is for a fixed number of samples: empty slots have weight 0.
        samples = memory.slots() if update.records(self._device) else memory.samples()
        (better,) = update(weights, *(part[None] for part in samples))
        return better.clone()

    def look_closer(self, crops: Sequence[NDArray[np.uint8]], tokens: Tensor) -> RefinedBoxes:
        """Apply the box refiner to its windows."""
        assert self.net.box_refiner is not None
        refined: RefinedBoxes = self.net.box_refiner(Features(*(maps.float() for maps in self.extract(crops))), tokens)
        return refined

    def _extract_and_score(self, images: Tensor, filters: Tensor) -> tuple[Tensor, ...]:
        """Compute both feature maps, classification features and scores of images ``Tensor[N, 3, S, S]``."""
        backbone = self._fused.extract(images)
        features = self._fused.target_features(backbone.stride16)
        return *backbone, features, apply_filter(features[:, None], filters)

    def _refine_boxes(self, steps: int, length: float, *inputs: Tensor) -> tuple[Tensor, ...]:
        """Compute `refine_boxes`; the inputs are modulation, backbone and boxes as five tensors."""
        *maps, boxes = inputs
        overlap = FrameOverlap(self._fused, Modulation(*maps[:2]), Features(*maps[2:]), boxes)
        return ascend(overlap, boxes, steps, length)
