# SPDX-License-Identifier: Apache-2.0
"""The network's part in a frame, run as the device at hand runs it best.

A CPU takes one window after the other and only the parts of feature maps that are needed. A GPU takes all windows as
one batch and replays recorded graphs; it is waited for twice a frame, where scores and where boxes are read.
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
    """What the network makes of N windows; tensors on the device, which hold until the next frame.

    :param backbone: of N windows. :param features: for the classifier, ``Tensor[N, C, H, W]``.
    :param scores: ``[N, R, C]``, on the host.
    """

    backbone: Features
    features: Tensor
    scores: NDArray[np.float32]


class InferenceEngine:
    """Runs a network with fixed weights.

    :param net: in evaluation mode; later changes of its weights are not noticed, see `up_to_date`.
    :param precision: see `choose_precision`.
    """

    def __init__(self, net: DimpNet, device: torch.device, precision: str) -> None:
        self.net, self._device = InferenceNet(net, choose_precision(precision, device)), device
        self._scoring = GraphedFunction(self._extract_and_score)
        self._refinements: dict[tuple[int, float], GraphedFunction] = {}
        self._filter_updates: dict[int, GraphedFunction] = {}

    def up_to_date(self) -> bool:
        """Say whether the network still has the weights that this was made with."""
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
        :return: the boxes and the overlaps predicted at the last step, ``Tensor[B, P]``, both on the host.
        """
        key = (steps, length)
        if key not in self._refinements:
            self._refinements = {key: GraphedFunction(lambda *inputs: self._refine_boxes(steps, length, *inputs))}
        refined, overlaps = self._refinements[key](*modulation, *backbone, boxes.to(self._device))
        return refined.cpu(), overlaps.cpu()

    def update_filter(self, weights: Tensor, memory: SampleMemory, steps: int) -> Tensor:
        """Return a filter ``Tensor[1, C, k, k]`` after some steps of the optimiser on all samples."""
        optimizer = self.net.net.classifier.filter_optimizer
        if steps not in self._filter_updates:
            self._filter_updates[steps] = GraphedFunction(lambda *inputs: (optimizer(*inputs, steps)[-1],))
        update = self._filter_updates[steps]
        # A graph is for one number of samples: places without one weigh nothing.
        samples = memory.slots() if update.records(self._device) else memory.samples()
        (better,) = update(weights, *(part[None] for part in samples))
        return better.clone()

    def _extract_and_score(self, images: Tensor, filters: Tensor) -> tuple[Tensor, ...]:
        """Compute a `FrameFeatures` of ``Tensor[N, 3, S, S]``."""
        backbone = self.net.extract(images)
        features = self.net.target_features(backbone.stride16)
        return *backbone, features, apply_filter(features[:, None], filters)

    def _refine_boxes(self, steps: int, length: float, *inputs: Tensor) -> tuple[Tensor, ...]:
        """Compute `refine_boxes` with modulation, backbone and boxes as five tensors."""
        *maps, boxes = inputs
        overlap = FrameOverlap(self.net, Modulation(*maps[:2]), Features(*maps[2:]), boxes)
        return ascend(overlap, boxes, steps, length)
