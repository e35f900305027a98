# SPDX-License-Identifier: Apache-2.0
"""The network for tracking: the functions of `DimpNet` with fused convolutions, in the precision of the device."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dimp_ros.model.backbone import (
    Backbone,
    BasicBlock,
    Bottleneck,
    EfficientNetLite0,
    Features,
    InvertedResidual,
    ResNet,
)
from dimp_ros.model.dimp import DimpNet
from dimp_ros.model.inference.fused_conv import NONE, RELU, RELU6, FusedConvolution
from dimp_ros.model.inference.iou_gradient import OverlapHead
from dimp_ros.model.inference.region import Region

Layer = Callable[[Tensor], Tensor]


class InferenceNet:
    """The functions of a `DimpNet` that the tracker needs, with fixed weights.

    :param net: in evaluation mode, on its device; its weights are copied, see `up_to_date`.
    :param dtype: of convolutions and linear layers. Pooling, scores and the filter's optimiser are float32 always.
    """

    def __init__(self, net: DimpNet, dtype: torch.dtype = torch.float32) -> None:
        self.net, self.dtype = net, dtype
        self._versions = versions(net)
        device = next(net.parameters()).device
        self._mean, self._std = (
            torch.tensor(values, device=device) * 255
            for values in (net.feature_extractor.mean, net.feature_extractor.std)
        )
        self._to_stride8, self._to_stride16 = _backbone(net.feature_extractor, dtype)
        self._refiner = None if net.box_refiner is None else _backbone(net.box_refiner.backbone, dtype)
        *blocks, convolution, self._norm = net.classifier.feature_extractor
        self._classify = _chain([*(_residual(b, dtype) for b in blocks), FusedConvolution(convolution, dtype=dtype)])
        overlap = net.bb_regressor
        self._overlap8 = _chain([_conv_block(part, dtype) for part in (overlap.conv3_1t, overlap.conv3_2t)])
        self._overlap16 = _chain([_conv_block(part, dtype) for part in (overlap.conv4_1t, overlap.conv4_2t)])
        self.overlap = OverlapHead(overlap, dtype)

    def up_to_date(self) -> bool:
        """Tell whether the network still has the weights that were copied."""
        return self._versions == versions(self.net)

    def extract(self, images: Tensor) -> Features:
        """Return the backbone's features of RGB images ``Tensor[N, 3, H, W]`` with values 0..255.

        On a CPU images are computed one after the other: intermediate results stay in cache, the bits are the same.
        """
        return self._extract(images, self._to_stride8, self._to_stride16)

    def refiner_features(self, images: Tensor) -> Features:
        """Return the features of the box refiner's backbone, float32, of images as `extract` takes."""
        assert self._refiner is not None
        features = self._extract(images, *self._refiner)
        return Features(features.stride8.float(), features.stride16.float())

    def _extract(self, images: Tensor, to_stride8: Layer, to_stride16: Layer) -> Features:
        parts = []
        for part in images.split(1) if images.device.type == "cpu" else [images]:
            stride8 = to_stride8(self._normalized(part))
            parts.append(Features(stride8, to_stride16(stride8)))
        return parts[0] if len(parts) == 1 else Features(*(torch.cat(maps) for maps in zip(*parts, strict=True)))

    def _normalized(self, images: Tensor) -> Tensor:
        """Equal `Backbone.normalize`, on whole rows: the inner loop over three channels would be slow."""
        count, channels, height, width = images.shape
        lines = images.permute(0, 2, 3, 1).reshape(count, height, width * channels).float()
        lines = ((lines - self._mean.repeat(width)) / self._std.repeat(width)).to(self.dtype)
        return lines.view(count, height, width, channels).permute(0, 3, 1, 2)

    def target_features(self, stride16: Tensor) -> Tensor:
        """Return classification features ``Tensor[N, C, H, W]``, float32, of backbone features ``[N, C16, H, W]``."""
        features: Tensor = self._norm(self._classify(stride16.to(self.dtype)).float())
        return features

    def overlap_features(self, backbone: Features, regions: Sequence[Region | None]) -> Features:
        """Return the overlap network's features of N images, float32; of a region of each where it is not None.

        :param regions: N of them, all of one size; the result equals that part of the whole maps.
        """
        if all(region is None for region in regions):
            return Features(self._overlap8(backbone.stride8).float(), self._overlap16(backbone.stride16).float())
        parts = [
            Features(
                _in_region(self._overlap8, stride8, region, 2).float(),
                _in_region(self._overlap16, stride16, region, 1).float(),
            )
            for stride8, stride16, region in zip(
                backbone.stride8.split(1), backbone.stride16.split(1), regions, strict=True
            )
        ]
        return parts[0] if len(parts) == 1 else Features(*(torch.cat(maps) for maps in zip(*parts, strict=True)))


def _in_region(layers: Layer, maps: Tensor, region: Region | None, per_cell: int) -> Tensor:
    """Apply two 3x3 convolutions to a region of ``maps`` ``Tensor[1, C, H, W]`` and its halo.

    :param per_cell: pixels of the maps per cell of the region.
    """
    if region is None:
        return layers(maps)
    halo = 2
    height, width = maps.shape[-2:]
    (y0, y1), (x0, x1) = ((start * per_cell, (start + region.size) * per_cell) for start in (region.row, region.column))
    top, left = max(y0 - halo, 0), max(x0 - halo, 0)
    # At the border of the maps there is no halo: the convolutions pad with zeros there in both cases.
    out = layers(maps[..., top : min(y1 + halo, height), left : min(x1 + halo, width)])
    return out[..., y0 - top : y1 - top, x0 - left : x1 - left]


def versions(net: nn.Module) -> list[tuple[int, int]]:
    """Return values that change when a weight is written to or replaced."""
    return [(tensor.data_ptr(), tensor._version) for tensor in (*net.parameters(), *net.buffers())]


def _chain(layers: Sequence[Layer]) -> Layer:
    """Return the function that applies one layer after the other."""

    def apply(x: Tensor) -> Tensor:
        for layer in layers:
            x = layer(x)
        return x

    return apply


def _conv_block(block: nn.Sequential, dtype: torch.dtype) -> Layer:
    """Fold the overlap network's convolution, batch norm and ReLU."""
    convolution, norm, _ = block
    return FusedConvolution(convolution, norm, RELU, dtype)


def _inverted(block: nn.Module, dtype: torch.dtype) -> Layer:
    """Fold a block of EfficientNet-Lite."""
    assert isinstance(block, InvertedResidual)
    first = [FusedConvolution(block.expand_conv, block.bn0, RELU6, dtype)] if block.has_expand else []
    expand = _chain([*first, FusedConvolution(block.depthwise_conv, block.bn1, RELU6, dtype)])
    project = FusedConvolution(block.project_conv, block.bn2, NONE, dtype)
    return lambda x: project(expand(x), x if block.residual else None)


def _residual(block: nn.Module, dtype: torch.dtype) -> Layer:
    """Fold a block of a ResNet."""
    assert isinstance(block, (BasicBlock, Bottleneck))
    pairs = [(block.conv1, block.bn1), (block.conv2, block.bn2)]
    if isinstance(block, Bottleneck):
        pairs.append((block.conv3, block.bn3))
    *inner, last = pairs
    begin = _chain([FusedConvolution(conv, norm, RELU, dtype) for conv, norm in inner])
    end = FusedConvolution(last[0], last[1], RELU, dtype)
    if block.downsample is None:
        return lambda x: end(begin(x), x)
    shortcut = FusedConvolution(block.downsample[0], block.downsample[1], NONE, dtype)
    return lambda x: end(begin(x), shortcut(x))


def _backbone(net: Backbone, dtype: torch.dtype) -> tuple[Layer, Layer]:
    """Return a backbone's `to_stride8` and `to_stride16`, folded."""
    if isinstance(net, EfficientNetLite0):
        stem = FusedConvolution(net.conv_stem, net.bn0, RELU6, dtype)
        blocks = [_inverted(block, dtype) for block in net.blocks]
        return _chain([stem, *blocks[: net.STRIDE8_BLOCK + 1]]), _chain(blocks[net.STRIDE8_BLOCK + 1 :])
    assert isinstance(net, ResNet)
    stem = FusedConvolution(net.conv1, net.bn1, RELU, dtype)
    early = [_residual(block, dtype) for layer in (net.layer1, net.layer2) for block in layer]
    late = [_residual(block, dtype) for block in net.layer3]
    return _chain([stem, lambda x: F.max_pool2d(x, 3, 2, 1), *early]), _chain(late)
