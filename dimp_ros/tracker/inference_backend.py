# SPDX-License-Identifier: Apache-2.0
"""The network's part of a frame, behind one interface: PyTorch (with CUDA graphs on a GPU) or OpenVINO.

No other module of the tracker knows which one computes; `dimp_ros.tracker.backend_choice` chooses it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from dimp_ros.model.backbone import Features
from dimp_ros.model.box_refiner import RefinedBoxes
from dimp_ros.model.dimp import DimpNet
from dimp_ros.model.iou_net import Modulation
from dimp_ros.tracker.memory import SampleMemory
from dimp_ros.tracker.stage_timer import StageTimer

Floats = NDArray[np.float32]


class FrameFeatures(NamedTuple):
    """Features and scores of N search windows; tensors on the device, valid until the next frame.

    :param features: of the classifier, ``Tensor[N, C, H, W]``. :param scores: ``[N, R, C]``, on the host.
    """

    backbone: Features
    features: Tensor
    scores: NDArray[np.float32]


class InferenceBackend(Protocol):
    """Runs a network with fixed weights on one device. Crops are ``[S, S, 3]`` BGR uint8, N of one size.

    ``name`` is the backend's, ``net`` the network with the weights it was made from.
    """

    name: str
    net: DimpNet

    def up_to_date(self) -> bool:
        """Tell whether the network still has the weights that the backend was made from."""
        ...

    def extract(self, crops: Sequence[NDArray[np.uint8]]) -> Features:
        """Return the backbone's features of crops, valid as long as they are kept."""
        ...

    def target_features(self, stride16: Tensor) -> Tensor:
        """Return classification features ``Tensor[N, C, H, W]`` of backbone features ``[N, C16, H, W]``."""
        ...

    def extract_and_score(
        self, crops: Sequence[NDArray[np.uint8]], filters: Tensor, timer: StageTimer
    ) -> FrameFeatures:
        """Extract features of search windows and score them with the targets' filters.

        :param filters: of the target in each crop, ``Tensor[N, C, k, k]``.
        """
        ...

    def refine_boxes(
        self, modulation: Modulation, backbone: Features, boxes: Floats, steps: int, length: float
    ) -> tuple[Floats, Floats]:
        """Refine the boxes of B targets; see `dimp_ros.model.inference.ascent.ascend`.

        :param boxes: ``[B, P, 4]`` in crop pixels.
        :return: the boxes, and the overlaps predicted before the last step, ``[B, P]``.
        """
        ...

    def update_filter(self, weights: Tensor, memory: SampleMemory, steps: int) -> Tensor:
        """Return the filter ``Tensor[1, C, k, k]`` after ``steps`` optimiser steps on all samples."""
        ...

    def look_closer(self, crops: Sequence[NDArray[np.uint8]], tokens: Tensor) -> RefinedBoxes:
        """Apply the box refiner to its windows of N targets, given their tokens ``Tensor[N, T, C]``."""
        ...
