# SPDX-License-Identifier: Apache-2.0
"""The box refiner as it is trained: the first layers of its backbone are fixed, so that their features are kept."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from dimp_ros.model.backbone import EfficientNetLite0, Features
from dimp_ros.model.box_refiner import BoxRefiner


class RefinerTraining(BoxRefiner):
    """The refiner in training: its backbone keeps its batch statistics, and all its weights up to stride 4."""

    FIXED_BLOCKS = 3

    def __init__(self) -> None:
        super().__init__(lite := EfficientNetLite0())
        self.fixed = [lite.conv_stem, lite.bn0, *lite.blocks[: self.FIXED_BLOCKS]]
        for module in self.fixed:
            module.requires_grad_(False)
        self.train()

    def train(self, mode: bool = True) -> RefinerTraining:
        """Set the mode of everything but the backbone."""
        super().train(mode)
        self.backbone.eval()
        return self

    def to_stride4(self, images: Tensor) -> Tensor:
        """Map RGB windows ``Tensor[B, 3, S, S]`` of 0..255 to the backbone's features of stride 4."""
        x = self.backbone.normalize(images).contiguous(memory_format=torch.channels_last)
        stem, norm, *blocks = self.fixed
        x = F.relu6(norm(stem(x)))
        for block in blocks:
            x = block(x)
        return x

    def to_features(self, stride4: Tensor) -> Features:
        """Map them to those of stride 8 and 16."""
        stride8 = stride4
        for block in self.backbone.stride8_modules()[len(self.fixed) :]:
            stride8 = block(stride8)
        return Features(stride8, self.backbone.to_stride16(stride8))


def to_images(windows: NDArray[np.uint8]) -> Tensor:
    """Turn BGR windows ``[B, S, S, 3]`` into RGB images ``Tensor[B, 3, S, S]``."""
    return torch.from_numpy(np.ascontiguousarray(windows[..., ::-1])).permute(0, 3, 1, 2)
