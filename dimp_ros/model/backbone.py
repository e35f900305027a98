# SPDX-License-Identifier: Apache-2.0
"""Backbones in plain PyTorch: ResNet-18, ResNet-50 and EfficientNet-Lite0, each up to stride 16.

Each returns the two feature maps that the tracker reads. All convolutions are padded symmetrically, so feature pixel i
of stride s looks at input pixel s * i in every backbone; pooling and localisation rely on that.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Features(NamedTuple):
    """Backbone features: ``stride8`` ``Tensor[N, C8, H/8, W/8]`` and ``stride16`` ``Tensor[N, C16, H/16, W/16]``."""

    stride8: Tensor
    stride16: Tensor


class Backbone(nn.Module):
    """What every backbone has: channel counts, and the statistics its input is normalised with (RGB in 0..1)."""

    channels: tuple[int, int]
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)

    def normalize(self, images: Tensor) -> Tensor:
        """Turn RGB images ``Tensor[N, 3, H, W]`` of 0..255 into what the first convolution expects."""
        mean = torch.tensor(self.mean, device=images.device, dtype=torch.float32).view(3, 1, 1) * 255
        std = torch.tensor(self.std, device=images.device, dtype=torch.float32).view(3, 1, 1) * 255
        return (images.float() - mean) / std

    def to_stride8(self, images: Tensor) -> Tensor:
        """Map normalised images ``Tensor[N, 3, H, W]`` to the features of stride 8."""
        raise NotImplementedError

    def to_stride16(self, stride8: Tensor) -> Tensor:
        """Map the features of stride 8 to those of stride 16."""
        raise NotImplementedError

    def stride8_modules(self) -> list[nn.Module]:
        """Return the modules of `to_stride8`; the others are those of `to_stride16`."""
        raise NotImplementedError

    def forward(self, images: Tensor) -> Features:
        """Map normalised images ``Tensor[N, 3, H, W]`` to `Features`."""
        stride8 = self.to_stride8(images)
        return Features(stride8, self.to_stride16(stride8))


class BasicBlock(nn.Module):
    """Residual block of two 3x3 convolutions (ResNet-18)."""

    expansion = 1

    def __init__(self, inputs: int, planes: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, planes, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = nn.Conv2d(planes, planes, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.downsample = _shortcut(inputs, planes, stride)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``Tensor[N, inputs, H, W]`` to ``Tensor[N, planes, H/stride, W/stride]``."""
        out = F.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        return F.relu(out + (x if self.downsample is None else self.downsample(x)))


class Bottleneck(nn.Module):
    """Residual block of 1x1, 3x3 and 1x1 convolutions (ResNet-50)."""

    expansion = 4

    def __init__(self, inputs: int, planes: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, planes, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = nn.Conv2d(planes, planes, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.conv3 = nn.Conv2d(planes, planes * 4, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(planes * 4)
        self.downsample = _shortcut(inputs, planes * 4, stride)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``Tensor[N, inputs, H, W]`` to ``Tensor[N, 4 * planes, H/stride, W/stride]``."""
        out = F.relu(self.bn1(self.conv1(x)))
        out = F.relu(self.bn2(self.conv2(out)))
        out = self.bn3(self.conv3(out))
        return F.relu(out + (x if self.downsample is None else self.downsample(x)))


def _shortcut(inputs: int, outputs: int, stride: int) -> nn.Sequential | None:
    """Return the projection of a residual block's shortcut, or None where the identity fits."""
    if stride == 1 and inputs == outputs:
        return None
    return nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))


def residual_stage(
    block: type[BasicBlock] | type[Bottleneck], inputs: int, planes: int, depth: int, stride: int
) -> nn.Sequential:
    """Build a stage of ``depth`` residual blocks, the first of which has the stride."""
    rest = [block(planes * block.expansion, planes) for _ in range(depth - 1)]
    return nn.Sequential(block(inputs, planes, stride), *rest)


class ResNet(Backbone):
    """ResNet up to ``layer3`` with torchvision's key names; stride 8 is ``layer2``, stride 16 ``layer3``."""

    def __init__(self, block: type[BasicBlock] | type[Bottleneck], depths: tuple[int, int, int]) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.layer1 = residual_stage(block, 64, 64, depths[0], stride=1)
        self.layer2 = residual_stage(block, 64 * block.expansion, 128, depths[1], stride=2)
        self.layer3 = residual_stage(block, 128 * block.expansion, 256, depths[2], stride=2)
        self.channels = (128 * block.expansion, 256 * block.expansion)

    def to_stride8(self, images: Tensor) -> Tensor:
        """Map normalised images to the output of ``layer2``."""
        x = F.max_pool2d(F.relu(self.bn1(self.conv1(images))), 3, 2, 1)
        x = self.layer2(self.layer1(x))
        return x

    def to_stride16(self, stride8: Tensor) -> Tensor:
        """Map the output of ``layer2`` to that of ``layer3``."""
        stride16: Tensor = self.layer3(stride8)
        return stride16

    def stride8_modules(self) -> list[nn.Module]:
        """Return everything before ``layer3``."""
        return [self.conv1, self.bn1, self.layer1, self.layer2]


class InvertedResidual(nn.Module):
    """Expand, depthwise, project block of EfficientNet-Lite (no squeeze-and-excitation, ReLU6)."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, expand: int) -> None:
        super().__init__()
        hidden = inputs * expand
        self.has_expand = expand != 1
        if self.has_expand:
            self.expand_conv = nn.Conv2d(inputs, hidden, 1, bias=False)
            self.bn0 = nn.BatchNorm2d(hidden, eps=1e-3)
        self.depthwise_conv = nn.Conv2d(hidden, hidden, kernel, stride, kernel // 2, groups=hidden, bias=False)
        self.bn1 = nn.BatchNorm2d(hidden, eps=1e-3)
        self.project_conv = nn.Conv2d(hidden, outputs, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs, eps=1e-3)
        self.residual = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        """Map ``Tensor[N, inputs, H, W]`` to ``Tensor[N, outputs, H/stride, W/stride]``."""
        out = F.relu6(self.bn0(self.expand_conv(x))) if self.has_expand else x
        out = F.relu6(self.bn1(self.depthwise_conv(out)))
        out = self.bn2(self.project_conv(out))
        return out + x if self.residual else out


class EfficientNetLite0(Backbone):
    """EfficientNet-Lite0 up to block 10; stride 8 is block 4 (40 channels), stride 16 block 10 (112 channels).

    Its ImageNet weights were trained with inputs (x - 127) / 128 and TensorFlow's asymmetric padding. Symmetric padding
    samples the same convolutions at other positions, a shift of the input, and keeps features centred on 16 * i.
    """

    # kernel, stride, expansion, outputs of blocks 0..10
    SPEC = (
        (3, 1, 1, 16),
        (3, 2, 6, 24),
        (3, 1, 6, 24),
        (5, 2, 6, 40),
        (5, 1, 6, 40),
        (3, 2, 6, 80),
        (3, 1, 6, 80),
        (3, 1, 6, 80),
        (5, 1, 6, 112),
        (5, 1, 6, 112),
        (5, 1, 6, 112),
    )
    STRIDE8_BLOCK = 4
    channels = (40, 112)
    mean = (127 / 255, 127 / 255, 127 / 255)
    std = (128 / 255, 128 / 255, 128 / 255)

    def __init__(self) -> None:
        super().__init__()
        self.conv_stem = nn.Conv2d(3, 32, 3, 2, 1, bias=False)
        self.bn0 = nn.BatchNorm2d(32, eps=1e-3)
        blocks, inputs = [], 32
        for kernel, stride, expand, outputs in self.SPEC:
            blocks.append(InvertedResidual(inputs, outputs, kernel, stride, expand))
            inputs = outputs
        self.blocks = nn.ModuleList(blocks)

    def to_stride8(self, images: Tensor) -> Tensor:
        """Map normalised images to the output of block 4."""
        x = F.relu6(self.bn0(self.conv_stem(images)))
        for block in self.blocks[: self.STRIDE8_BLOCK + 1]:
            x = block(x)
        return x

    def to_stride16(self, stride8: Tensor) -> Tensor:
        """Map the output of block 4 to that of block 10."""
        x = stride8
        for block in self.blocks[self.STRIDE8_BLOCK + 1 :]:
            x = block(x)
        return x

    def stride8_modules(self) -> list[nn.Module]:
        """Return everything up to block 4."""
        return [self.conv_stem, self.bn0, *self.blocks[: self.STRIDE8_BLOCK + 1]]


def resnet18() -> ResNet:
    """Build ResNet-18 up to ``layer3`` (128 channels at stride 8, 256 at stride 16)."""
    return ResNet(BasicBlock, (2, 2, 2))


def resnet50() -> ResNet:
    """Build ResNet-50 up to ``layer3`` (512 channels at stride 8, 1024 at stride 16)."""
    return ResNet(Bottleneck, (3, 4, 6))
