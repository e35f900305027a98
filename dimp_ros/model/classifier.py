# SPDX-License-Identifier: Apache-2.0
"""Target classification: features, and the initialiser of the target filter (sections 3.3 and 3 of the paper)."""

from __future__ import annotations

import math

from torch import Tensor, nn

from dimp_ros.model.backbone import BasicBlock
from dimp_ros.model.optimizer import DiscriminativeOptimizer
from dimp_ros.model.precise_roi_pool import precise_roi_pool
from dimp_ros.model.sizes import STRIDE


class InstanceL2Norm(nn.Module):
    """Scale each image's features to a fixed L2 norm: ``x * scale * sqrt(C*H*W / (sum x^2 + 1e-5))``."""

    def __init__(self, scale: float) -> None:
        super().__init__()
        self.scale = scale

    def forward(self, x: Tensor) -> Tensor:
        """Normalise ``Tensor[N, C, H, W]``."""
        energy = x.square().sum(dim=(1, 2, 3), keepdim=True) + 1e-5
        return x * (self.scale * (x[0].numel() / energy).sqrt())


class FilterInitializer(nn.Module):
    """Predict the initial filter (section 3.3): convolution, pooling of the target box, mean over images."""

    def __init__(self, channels: int, kernel: int = 4) -> None:
        super().__init__()
        self.kernel = kernel
        self.filter_conv = nn.Conv2d(channels, channels, 3, padding=1)
        nn.init.normal_(self.filter_conv.weight, 0, math.sqrt(2 / (9 * channels)))
        assert self.filter_conv.bias is not None
        nn.init.zeros_(self.filter_conv.bias)

    def forward(self, features: Tensor, boxes: Tensor) -> Tensor:
        """Return a filter ``Tensor[B, C, k, k]`` from ``features`` ``[B, N, C, H, W]`` and ``boxes`` ``[B, N, 4]``."""
        batch, count = features.shape[:2]
        maps = self.filter_conv(features.flatten(0, 1))
        pooled = precise_roi_pool(maps, boxes.reshape(batch * count, 1, 4), self.kernel, 1 / STRIDE)
        return pooled.view(batch, count, *pooled.shape[2:]).mean(1)


class Classifier(nn.Module):
    """Features, initialiser and optimiser of the target filter (section 3 of the paper).

    :param inputs: channels of the backbone's stride-16 features.
    :param channels: channels of the classification features and so of the filter.
    :param residual: whether a residual block stands before the last convolution (DiMP-18).
    """

    def __init__(self, inputs: int, channels: int, *, residual: bool, kernel: int = 4) -> None:
        super().__init__()
        layers: list[nn.Module] = [BasicBlock(inputs, inputs)] if residual else []
        layers.append(nn.Conv2d(inputs, channels, 3, padding=1, bias=False))
        layers.append(InstanceL2Norm(math.sqrt(1 / (channels * kernel * kernel))))
        self.kernel = kernel
        self.feature_extractor = nn.Sequential(*layers)
        self.filter_initializer = FilterInitializer(channels, kernel)
        self.filter_optimizer = DiscriminativeOptimizer(kernel)

    def features(self, stride16: Tensor) -> Tensor:
        """Return classification features ``Tensor[N, C, H, W]`` of backbone features ``Tensor[N, C16, H, W]``."""
        return self.feature_extractor(stride16)
