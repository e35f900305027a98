# SPDX-License-Identifier: Apache-2.0
"""The overlap network's prediction and its gradient in the boxes, in closed form.

Refinement climbs this gradient several times a frame. With autograd most of that time goes into building and walking a
graph of small operations on whole feature maps. Here a network in evaluation mode is reduced to what depends on the
box: pooling of features that have been modulated before, one linear layer per stride (batch norm folded into it), ReLU
and a weighted sum. The pooling weights' derivatives are written out, since the hat function is the derivative of its
integral.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from dimp_ros.model.backbone import Features
from dimp_ros.model.iou_net import IoUNet, LinearBlock, Modulation


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
    :param dtype: what the linear layers are computed with; None for that of the weights.
    """

    def __init__(self, net: IoUNet, dtype: torch.dtype | None = None) -> None:
        if net.training:
            raise ValueError(
                "the network is in training mode, where batch norm depends on the batch; call eval() first"
            )
        hidden = net.fc3_rt.linear.out_features
        weight = net.iou_predictor.weight.detach()[0]
        self.bias = net.iou_predictor.bias.detach()
        self.heads = (
            _fold(net.fc3_rt, net.pool3_t.output_size, weight[:hidden], net.pool3_t.spatial_scale, dtype),
            _fold(net.fc4_rt, net.pool4_t.output_size, weight[hidden:], net.pool4_t.spatial_scale, dtype),
        )

    def of(self, modulation: Modulation, features: Features) -> TargetOverlap:
        """Return the overlap of boxes with B targets in B pictures.

        :param modulation: of the targets. :param features: of the pictures, from `IoUNet.features`.
        """
        return TargetOverlap(self, modulation, features)


class TargetOverlap:
    """The predicted overlap of boxes ``Tensor[B, P, 4]`` (x, y, w, h) in crop pixels; see `OverlapHead.of`."""

    def __init__(self, head: OverlapHead, modulation: Modulation, features: Features) -> None:
        self._bias = head.bias
        self._strides = [_Stride(*parts) for parts in zip(head.heads, modulation, features, strict=True)]

    def __call__(self, boxes: Tensor) -> Tensor:
        """Predict ``2 * IoU - 1``, as `IoUNet.forward` does: ``Tensor[B, P]``."""
        total = self._bias
        for stride in self._strides:
            total = total + stride.value(boxes)
        return total

    def value_and_gradient(self, boxes: Tensor) -> tuple[Tensor, Tensor]:
        """Predict, and differentiate each prediction in its own x, y, w and h: ``Tensor[B, P]``, ``[B, P, 4]``."""
        total, gradient = self._bias, torch.zeros_like(boxes)
        for stride in self._strides:
            value, slope = stride.value_and_gradient(boxes)
            total, gradient = total + value, gradient + slope
        return total, gradient


def _fold(layer: LinearBlock, bins: int, weight: Tensor, scale: float, dtype: torch.dtype | None) -> _Head:
    """Fold batch norm into the linear layer of a stride, and order its inputs as pooling gives them."""
    norm = layer.bn
    assert norm.running_mean is not None
    assert norm.running_var is not None
    factor = (norm.weight / (norm.running_var + norm.eps).sqrt()).detach()
    offset = (layer.linear.bias.detach() - norm.running_mean) * factor + norm.bias.detach()
    # [hidden, C, k * k] to [k * k, C, hidden]
    folded = (layer.linear.weight.detach() * factor[:, None]).unflatten(1, (-1, bins * bins)).permute(2, 1, 0)
    return _Head(folded.flatten(0, 1).to(dtype).contiguous(), offset, weight, bins, scale)


class _Stride:
    """A stride's share of the prediction."""

    def __init__(self, head: _Head, modulation: Tensor, features: Tensor) -> None:
        self.head = head
        # Modulation multiplies channels and pooling is linear: the features are multiplied, once for all boxes.
        maps = features.permute(0, 2, 3, 1) * modulation[:, None, None]
        self.batch, self.height, self.width, self.channels = maps.shape
        self.lines = maps.reshape(self.batch, self.height, self.width * self.channels)
        self.numbers = torch.arange(head.bins + 1, device=maps.device, dtype=maps.dtype)[:, None]
        self.pixels = torch.arange(max(self.height, self.width), device=maps.device, dtype=maps.dtype)

    def value(self, boxes: Tensor) -> Tensor:
        """Return the share of each box, ``[B, P]``."""
        return self._forward(boxes, _Weights(self, boxes))[-1]

    def value_and_gradient(self, boxes: Tensor) -> tuple[Tensor, Tensor]:
        """Return shares, and their derivatives in the boxes ``[B, P, 4]``.

        Backwards through ReLU and linear layer to the pooled regions, from them to the pooling weights along x
        ``[B, P, kx, W]`` and y ``[B, P, ky, H]``, and on to the intervals.
        """
        weights = _Weights(self, boxes)
        rows, hidden, value = self._forward(boxes, weights)
        slope = torch.where(hidden > 0, self.head.weight, 0.0).to(self.head.matrix.dtype)
        bins = self.head.bins
        region = (slope @ self.head.matrix.T).to(rows.dtype).view(*boxes.shape[:2], bins, bins, self.channels)
        by_weights = torch.zeros_like(weights.values)
        by_weights[..., 0, :, : self.width] = torch.matmul(region, rows.mT).sum(2)
        by_rows = torch.matmul(weights.x.mT[:, :, None], region).view(self.batch, -1, self.lines.shape[-1])
        by_weights[..., 1, :, : self.height] = torch.bmm(by_rows, self.lines.mT).view(weights.y.shape)
        return value, weights.backward(by_weights) * self.head.scale

    def _forward(self, boxes: Tensor, weights: _Weights) -> tuple[Tensor, Tensor, Tensor]:
        """Return the features pooled along y ``[B, P, ky, W, C]``, the hidden layer, and the shares."""
        (batch, count), bins, head = boxes.shape[:2], self.head.bins, self.head
        rows = torch.bmm(weights.y.reshape(batch, count * bins, self.height), self.lines)
        rows = rows.view(batch, count, bins, self.width, self.channels)
        pooled = torch.matmul(weights.x[:, :, None], rows).view(batch * count, -1)  # ky, kx, C
        hidden = (pooled.to(head.matrix.dtype) @ head.matrix).to(rows.dtype) + head.offset
        return rows, hidden, (hidden.clamp(min=0) @ head.weight).view(batch, count)


class _Weights:
    """The pooling weights of boxes ``[B, P, 4]`` along both axes, ``values`` ``[B, P, 2, bins, size]``.

    They are those of `bin_weights`: how much a pixel counts is the difference of the hat's integral,
    ``1/2 + t - t |t| / 2`` between -1 and 1, at the ends of a bin.
    """

    def __init__(self, stride: _Stride, boxes: Tensor) -> None:
        boxes = boxes * stride.head.scale
        self.numbers, length = stride.numbers, boxes[..., 2:]
        valid = (length > 0).all(-1)[..., None, None, None]
        self.step = (torch.where(length > 0, length, 1.0) / stride.head.bins)[..., None, None]
        ends = (boxes[..., :2, None, None] + self.step * self.numbers) - stride.pixels
        self.ends = ends.clamp_(-1, 1)
        self.distance = self.ends.abs()
        integral = self.ends * torch.rsub(self.distance, 1, alpha=0.5)
        self.scale = valid / self.step
        self.values = (integral[..., 1:, :] - integral[..., :-1, :]) * self.scale
        self.x = self.values[..., 0, :, : stride.width]
        self.y = self.values[..., 1, :, : stride.height]

    def backward(self, slope: Tensor) -> Tensor:
        """Turn derivatives in the weights into those in x, y, w and h (in feature pixels)."""
        hat = 1 - self.distance
        moved = hat * self.numbers
        scaled = slope * self.scale
        by_start = (scaled * (hat[..., 1:, :] - hat[..., :-1, :])).sum((-2, -1))
        by_step = (scaled * (moved[..., 1:, :] - moved[..., :-1, :] - self.values)).sum((-2, -1))
        # (scaled * values / (scale * step)): scale is 1 / step where a box is valid, and all is 0 where it is not.
        return torch.cat((by_start, by_step / (len(self.numbers) - 1)), -1)
