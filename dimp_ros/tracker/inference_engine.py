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


class Look(NamedTuple):
    """What the network makes of N windows; tensors on the device, which hold until the next frame.

    :param backbone: of N windows. :param features: for the classifier, ``Tensor[N, C, H, W]``.
    :param scores: ``[N, R, C]``, on the host.
    """

    backbone: Features
    features: Tensor
    scores: NDArray[np.float32]


class Engine:
    """Runs a network with fixed weights.

    :param net: in evaluation mode; later changes of its weights are not noticed, see `up_to_date`.
    :param precision: see `choose_precision`.
    """

    def __init__(self, net: DimpNet, device: torch.device, precision: str) -> None:
        self.net, self._device = InferenceNet(net, choose_precision(precision, device)), device
        self._look = GraphedFunction(self._looked)
        self._climbs: dict[tuple[int, float], GraphedFunction] = {}
        self._improvements: dict[int, GraphedFunction] = {}

    def up_to_date(self) -> bool:
        """Say whether the network still has the weights that this was made with."""
        return self.net.up_to_date()

    def look(self, crops: Sequence[NDArray[np.uint8]], filters: Tensor, clock: StageTimer) -> Look:
        """Look for targets in windows.

        :param crops: N of them, ``[S, S, 3]`` BGR. :param filters: of the target in each, ``Tensor[N, C, k, k]``.
        """
        images = upload(crops, self._device)
        if self._look.records(self._device):
            clock.lap("upload")
            stride8, stride16, features, scores = self._look(images, filters)
            backbone = Features(stride8, stride16)
        else:
            backbone = self.net.extract(images)
            clock.lap("backbone")
            features = self.net.target_features(backbone.stride16)
            scores = apply_filter(features[:, None], filters)
        maps = scores[:, 0].cpu().numpy()
        clock.lap("classify")
        return Look(backbone, features, maps)

    def refine_boxes(
        self, modulation: Modulation, backbone: Features, boxes: Tensor, steps: int, length: float
    ) -> tuple[Tensor, Tensor]:
        """Refine the boxes of B targets; see `ascend`.

        :param boxes: ``Tensor[B, P, 4]`` in crop pixels, on the host.
        :return: the boxes and the overlaps predicted at the last step, ``Tensor[B, P]``, both on the host.
        """
        key = (steps, length)
        if key not in self._climbs:
            self._climbs = {key: GraphedFunction(lambda *inputs: self._climbed(steps, length, *inputs))}
        climbed, overlaps = self._climbs[key](*modulation, *backbone, boxes.to(self._device))
        return climbed.cpu(), overlaps.cpu()

    def improve(self, weights: Tensor, memory: SampleMemory, steps: int) -> Tensor:
        """Return a filter ``Tensor[1, C, k, k]`` after some steps of the optimiser on all samples."""
        optimizer = self.net.net.classifier.filter_optimizer
        if steps not in self._improvements:
            self._improvements[steps] = GraphedFunction(lambda *inputs: (optimizer(*inputs, steps)[-1],))
        improvement = self._improvements[steps]
        # A graph is for one number of samples: places without one weigh nothing.
        samples = memory.places() if improvement.records(self._device) else memory.samples()
        (better,) = improvement(weights, *(part[None] for part in samples))
        return better.clone()

    def _looked(self, images: Tensor, filters: Tensor) -> tuple[Tensor, ...]:
        """Compute a `Look` of ``Tensor[N, 3, S, S]``."""
        backbone = self.net.extract(images)
        features = self.net.target_features(backbone.stride16)
        return *backbone, features, apply_filter(features[:, None], filters)

    def _climbed(self, steps: int, length: float, *inputs: Tensor) -> tuple[Tensor, ...]:
        """Compute `refine_boxes` with modulation, backbone and boxes as five tensors."""
        *maps, boxes = inputs
        overlap = FrameOverlap(self.net, Modulation(*maps[:2]), Features(*maps[2:]), boxes)
        return ascend(overlap, boxes, steps, length)
