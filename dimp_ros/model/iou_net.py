# SPDX-License-Identifier: Apache-2.0
"""Overlap prediction (the IoU-Net of ATOM): how well a proposed box overlaps a target known from one image.

A reference branch turns the first image and its box into two modulation vectors; a test branch pools proposals
from the current image's features, modulates them and predicts ``2 * IoU - 1``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dimp_ros.model.backbone import Features
from dimp_ros.model.precise_roi_pool import PreciseRoiPool2d


class Modulation(NamedTuple):
    """What the overlap network remembers of a target: ``stride8`` ``Tensor[B, C3]``, ``stride16`` ``Tensor[B, C4]``."""

    stride8: Tensor
    stride16: Tensor


class LinearBlock(nn.Module):
    """Linear layer, batch norm and ReLU on flattened ``[C, k, k]`` regions."""

    def __init__(self, channels: int, kernel: int, outputs: int) -> None:
        super().__init__()
        self.linear = nn.Linear(channels * kernel * kernel, outputs)
        self.bn = nn.BatchNorm1d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``Tensor[N, C, k, k]`` to ``Tensor[N, outputs]``."""
        return F.relu(self.bn(self.linear(x.flatten(1))))


def conv_block(inputs: int, outputs: int, kernel: int = 3, padding: int = 1) -> nn.Sequential:
    """Build convolution with bias, batch norm and ReLU."""
    convolution = nn.Conv2d(inputs, outputs, kernel, padding=padding)
    nn.init.kaiming_normal_(convolution.weight, mode="fan_in")
    assert convolution.bias is not None
    nn.init.zeros_(convolution.bias)
    return nn.Sequential(convolution, nn.BatchNorm2d(outputs), nn.ReLU(inplace=True))


class IoUNet(nn.Module):
    """Predict the overlap of boxes with the target.

    :param inputs: channels of the backbone's features at stride 8 and 16.
    :param reference: widths of the reference branch's convolutions at stride 8 and 16.
    :param test: widths of the test branch at stride 8 and 16, and so of the modulation vectors.
    :param hidden: width of the pooled vectors.
    """

    def __init__(
        self,
        inputs: tuple[int, int],
        reference: tuple[int, int] = (128, 256),
        test: tuple[int, int] = (256, 256),
        hidden: int = 256,
    ) -> None:
        super().__init__()
        self.conv3_1r = conv_block(inputs[0], reference[0])
        self.conv3_1t = conv_block(inputs[0], test[0])
        self.conv3_2t = conv_block(test[0], test[0])
        self.fc3_1r = conv_block(reference[0], hidden, padding=0)
        self.conv4_1r = conv_block(inputs[1], reference[1])
        self.conv4_1t = conv_block(inputs[1], test[1])
        self.conv4_2t = conv_block(test[1], test[1])
        self.fc34_3r = conv_block(hidden + reference[1], test[0], kernel=1, padding=0)
        self.fc34_4r = conv_block(hidden + reference[1], test[1], kernel=1, padding=0)
        self.fc3_rt = LinearBlock(test[0], 5, hidden)
        self.fc4_rt = LinearBlock(test[1], 3, hidden)
        self.iou_predictor = nn.Linear(2 * hidden, 1)
        self.pool3_r = PreciseRoiPool2d(3, 1 / 8)
        self.pool4_r = PreciseRoiPool2d(1, 1 / 16)
        self.pool3_t = PreciseRoiPool2d(5, 1 / 8)
        self.pool4_t = PreciseRoiPool2d(3, 1 / 16)

    def modulation(self, backbone: Features, boxes: Tensor) -> Modulation:
        """Return the modulation vectors of targets ``boxes`` ``Tensor[B, 4]`` (crop pixels) in B reference images."""
        pooled3 = self.pool3_r(self.conv3_1r(backbone.stride8), boxes[:, None])[:, 0]
        pooled4 = self.pool4_r(self.conv4_1r(backbone.stride16), boxes[:, None])[:, 0]
        joint = torch.cat((self.fc3_1r(pooled3), pooled4), dim=1)
        return Modulation(self.fc34_3r(joint).flatten(1), self.fc34_4r(joint).flatten(1))

    def features(self, backbone: Features) -> Features:
        """Return the test branch's features of B images, before modulation."""
        return Features(
            self.conv3_2t(self.conv3_1t(backbone.stride8)),
            self.conv4_2t(self.conv4_1t(backbone.stride16)),
        )

    def forward(self, modulation: Modulation, features: Features, boxes: Tensor) -> Tensor:
        """Predict ``2 * IoU - 1`` of P proposals an image.

        :param modulation: of B targets. :param features: of B images, from `features`.
        :param boxes: ``Tensor[B, P, 4]`` (x, y, w, h) in crop pixels.
        :return: ``Tensor[B, P]``.
        """
        # Modulation multiplies channels and pooling is linear, so the small pooled regions are multiplied.
        pooled3 = self.pool3_t(features.stride8, boxes) * modulation.stride8[:, None, :, None, None]
        pooled4 = self.pool4_t(features.stride16, boxes) * modulation.stride16[:, None, :, None, None]
        joint = torch.cat((self.fc3_rt(pooled3.flatten(0, 1)), self.fc4_rt(pooled4.flatten(0, 1))), dim=1)
        return self.iou_predictor(joint).view(boxes.shape[:2])


def overlap_and_gradient(
    net: Callable[[Modulation, Features, Tensor], Tensor], modulation: Modulation, features: Features, boxes: Tensor
) -> tuple[Tensor, Tensor]:
    """Predict ``2 * IoU - 1`` of boxes, and the gradient of each prediction in its own box.

    :param net: an `IoUNet`; the other arguments as for its ``forward``.
    :return: predictions ``Tensor[B, P]`` and gradients ``Tensor[B, P, 4]``, by x, y, w and h in crop pixels.
    """
    with torch.enable_grad():
        variable = boxes.detach().requires_grad_(True)
        overlaps = net(modulation, features, variable)
        (gradient,) = torch.autograd.grad(overlaps.sum(), variable)
    return overlaps.detach(), gradient
