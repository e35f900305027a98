# SPDX-License-Identifier: Apache-2.0
"""The overlap network's prediction and its gradient in the boxes, in closed form.

Refinement climbs this gradient several times a frame. With autograd most of that time goes into building and walking a
graph of small operations on whole feature maps. Here a network in evaluation mode is reduced to what depends on the
box: pooling, modulation, one linear layer per stride (batch norm folded into it), ReLU and a weighted sum. The pooling
weights' derivatives are written out, since the hat function is the derivative of its integral; and on a CPU only the
part of the features under the boxes is touched.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from dimp_ros.model.backbone import Features
from dimp_ros.model.iou_net import IoUNet, LinearBlock, Modulation
from dimp_ros.model.precise_roi_pool import hat_integral


class _Head(NamedTuple):
    """What follows the pooling of one stride, the same for all targets.

    :param matrix: ``[k * k * C, hidden]``, for pooled regions with channels last. :param offset: ``[hidden]``.
    :param weight: ``[hidden]``, of the last layer. :param scale: feature pixels per input pixel.
    """

    matrix: Tensor
    offset: Tensor
    weight: Tensor
    bins: int
    scale: float


class OverlapHead:
    """The part of an `IoUNet` that depends on the box, with its batch norm folded in.

    :param net: in evaluation mode; later changes of its weights are not noticed.
    """

    def __init__(self, net: IoUNet) -> None:
        if net.training:
            raise ValueError(
                "the network is in training mode, where batch norm depends on the batch; call eval() first"
            )
        hidden = net.fc3_rt.linear.out_features
        weight = net.iou_predictor.weight.detach()[0]
        self.bias = net.iou_predictor.bias.detach()
        self.heads = (
            _fold(net.fc3_rt, net.pool3_t.output_size, weight[:hidden], net.pool3_t.spatial_scale),
            _fold(net.fc4_rt, net.pool4_t.output_size, weight[hidden:], net.pool4_t.spatial_scale),
        )

    def __call__(self, modulation: Modulation, features: Features, boxes: Tensor) -> Tensor:
        """Predict ``2 * IoU - 1`` of boxes, as `IoUNet.forward` does."""
        total = self.bias.expand(boxes.shape[:2])
        for head, modulated, maps in zip(self.heads, modulation, features, strict=True):
            total = total + _Stride(head, modulated, maps, boxes * head.scale).value
        return total

    def value_and_gradient(self, modulation: Modulation, features: Features, boxes: Tensor) -> tuple[Tensor, Tensor]:
        """Predict ``2 * IoU - 1`` of boxes, and differentiate each prediction in its own x, y, w and h.

        :param modulation: of B targets. :param features: of B pictures, from `IoUNet.features`.
        :param boxes: ``Tensor[B, P, 4]`` (x, y, w, h) in crop pixels. :return: ``Tensor[B, P]``, ``Tensor[B, P, 4]``.
        """
        total, gradient = self.bias.expand(boxes.shape[:2]), torch.zeros_like(boxes)
        for head, modulated, maps in zip(self.heads, modulation, features, strict=True):
            stride = _Stride(head, modulated, maps, boxes * head.scale)
            total = total + stride.value
            gradient = gradient + stride.gradient() * head.scale
        return total, gradient


def _fold(layer: LinearBlock, bins: int, weight: Tensor, scale: float) -> _Head:
    """Fold batch norm into the linear layer of a stride, and order its inputs as pooling gives them."""
    norm = layer.bn
    assert norm.running_mean is not None
    assert norm.running_var is not None
    factor = (norm.weight / (norm.running_var + norm.eps).sqrt()).detach()
    offset = (layer.linear.bias.detach() - norm.running_mean) * factor + norm.bias.detach()
    # [hidden, C, k * k] to [k * k, C, hidden]
    folded = (layer.linear.weight.detach() * factor[:, None]).unflatten(1, (-1, bins * bins)).permute(2, 1, 0)
    return _Head(folded.flatten(0, 1).contiguous(), offset, weight, bins, scale)


class _Stride:
    """A stride's share of the prediction, for ``boxes`` ``[B, P, 4]`` in feature pixels: ``value`` ``[B, P]``."""

    def __init__(self, head: _Head, modulation: Tensor, features: Tensor, boxes: Tensor) -> None:
        features, boxes = _under(features, boxes)
        batch, channels, height, width = features.shape
        count, bins = boxes.shape[1], head.bins
        valid = (boxes[..., 2:] > 0).all(-1)[..., None, None]
        self.head, self.modulation = head, modulation[:, None, None, None]
        self.wx = _Weights(boxes[..., 0], boxes[..., 2], bins, width, valid)
        self.wy = _Weights(boxes[..., 1], boxes[..., 3], bins, height, valid)
        self.lines = features.permute(0, 2, 3, 1).reshape(batch, height, width * channels)
        rows = torch.bmm(self.wy.values.flatten(1, 2), self.lines)
        self.rows = rows.view(batch, count, bins, width, channels)
        self.pooled = torch.matmul(self.wx.values[:, :, None], self.rows) * self.modulation  # [B, P, ky, kx, C]
        self.hidden = self.pooled.view(batch * count, -1) @ head.matrix + head.offset
        self.value = (self.hidden.clamp(min=0) @ head.weight).view(batch, count)

    def gradient(self) -> Tensor:
        """Differentiate in the boxes, ``[B, P, 4]``.

        Backwards through ReLU, linear layer and modulation to the regions, from them to the pooling weights along x
        ``[B, P, kx, W]`` and y ``[B, P, ky, H]``, and on to the intervals.
        """
        region = torch.where(self.hidden > 0, self.head.weight, 0.0) @ self.head.matrix.T
        region = region.view(self.pooled.shape) * self.modulation
        by_wx = torch.matmul(region, self.rows.mT).sum(2)
        by_rows = torch.matmul(self.wx.values.mT[:, :, None], region).view(len(region), -1, self.lines.shape[-1])
        by_wy = torch.bmm(by_rows, self.lines.mT).view(self.wy.values.shape)
        (by_x, by_w), (by_y, by_h) = self.wx.backward(by_wx), self.wy.backward(by_wy)
        return torch.stack((by_x, by_y, by_w, by_h), -1)


class _Weights:
    """The pooling weights of intervals, ``values`` ``[B, P, bins, size]`` as `bin_weights` gives them."""

    def __init__(self, start: Tensor, length: Tensor, bins: int, size: int, valid: Tensor) -> None:
        self.numbers = torch.arange(bins + 1, device=start.device, dtype=start.dtype)
        self.step = (torch.where(length > 0, length, 1.0) / bins)[..., None, None]
        pixels = torch.arange(size, device=start.device, dtype=start.dtype)
        self.distance = start[..., None, None] + self.step * self.numbers[:, None] - pixels
        self.scale = valid / self.step
        self.values = hat_integral(self.distance).diff(dim=-2) * self.scale

    def backward(self, slope: Tensor) -> tuple[Tensor, Tensor]:
        """Turn derivatives in the weights into those in start and length, ``[B, P]`` each."""
        hat = (1 - self.distance.abs()).clamp(min=0)
        by_start = hat.diff(dim=-2) * self.scale
        by_step = (hat * self.numbers[:, None]).diff(dim=-2) * self.scale - self.values / self.step
        return (slope * by_start).sum((-2, -1)), (slope * by_step).sum((-2, -1)) / (len(self.numbers) - 1)


def _under(features: Tensor, boxes: Tensor) -> tuple[Tensor, Tensor]:
    """Cut the features to what lies under any of the boxes, on a CPU; a GPU would have to be waited for."""
    if features.device.type != "cpu":
        return features, boxes
    height, width = features.shape[-2:]
    low_x, low_y = boxes[..., :2].amin((0, 1)).tolist()
    high_x, high_y = (boxes[..., :2] + boxes[..., 2:]).amax((0, 1)).tolist()
    if not all(math.isfinite(v) for v in (low_x, low_y, high_x, high_y)):
        return features, boxes
    # A pixel reaches one pixel to each side; at least one pixel is left.
    x0, y0 = min(max(math.floor(low_x) - 1, 0), width - 1), min(max(math.floor(low_y) - 1, 0), height - 1)
    x1, y1 = max(math.ceil(high_x) + 2, x0 + 1), max(math.ceil(high_y) + 2, y0 + 1)
    return features[..., y0:y1, x0:x1], boxes - boxes.new_tensor((x0, y0, 0, 0))
