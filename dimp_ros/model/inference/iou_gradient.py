# SPDX-License-Identifier: Apache-2.0
"""The predicted overlap and its gradient in the boxes, in closed form (section 3.5).

Box refinement needs this gradient several times a frame, and autograd would spend most of the time on small operations.
Here a network in evaluation mode is reduced to the part that depends on the box: pooling of features that are already
modulated, one linear layer per stride (batch norm folded in), ReLU and a weighted sum. The derivative of the pooling
weights is known, as that of the hat function's integral. Small tensors of both strides and axes are computed together.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from dimp_ros.model.backbone import Features
from dimp_ros.model.inference.packed_linear import PackedLinear
from dimp_ros.model.iou_net import IoUNet, LinearBlock, Modulation

MOST_PIXELS = 256
"""Longest side of a feature map; a search window has 1,024 pixels at most, and a feature 8."""


class _Head(NamedTuple):
    """What follows the pooling of one stride, the same for all targets.

    :param forward: from pooled regions ``[N, k * k * C]``, channels last, to the hidden layer ``[N, hidden]``.
    :param backward: from derivatives in the hidden layer to those in the pooled regions.
    :param scale: feature pixels per input pixel.
    """

    forward: PackedLinear
    backward: PackedLinear
    bins: int
    scale: float


class OverlapHead:
    """The part of an `IoUNet` that depends on the box, with its batch norm folded in.

    :param net: in evaluation mode; its weights are copied.
    :param dtype: of the linear layers; None for that of the weights.
    """

    def __init__(self, net: IoUNet, dtype: torch.dtype | None = None) -> None:
        if net.training:
            raise ValueError(
                "the network is in training mode, where batch norm depends on the batch; call eval() first"
            )
        parts = [
            _fold(layer, pool.output_size, pool.spatial_scale, dtype)
            for layer, pool in ((net.fc3_rt, net.pool3_t), (net.fc4_rt, net.pool4_t))
        ]
        self.heads = [head for head, _ in parts]
        self.offset = torch.cat([offset for _, offset in parts])
        self.weight = net.iou_predictor.weight.detach()[0]
        self.bias = net.iou_predictor.bias.detach()
        self.hat = _Hat(self.heads, self.weight)

    def for_targets(self, modulation: Modulation, features: Features) -> TargetOverlap:
        """Return the overlap of boxes with B targets in B images.

        :param modulation: of the targets. :param features: of the images, from `IoUNet.features`.
        """
        return TargetOverlap(self, modulation, features)


class TargetOverlap:
    """The predicted overlap of boxes ``Tensor[B, P, 4]`` (x, y, w, h) in crop pixels; see `OverlapHead.for_targets`."""

    def __init__(self, head: OverlapHead, modulation: Modulation, features: Features) -> None:
        self._head = head
        self._strides = [_Stride(*parts) for parts in zip(head.heads, modulation, features, strict=True)]
        self._pixels = max(max(stride.height, stride.width) for stride in self._strides)
        if self._pixels > MOST_PIXELS:
            raise ValueError(f"a feature map is {self._pixels} pixels long; it must be at most {MOST_PIXELS}")

    def __call__(self, boxes: Tensor) -> Tensor:
        """Predict ``2 * IoU - 1``, as `IoUNet.forward` does: ``Tensor[B, P]``."""
        weights = self._head.hat.weights(boxes, self._pixels)
        hidden = torch.cat([stride.forward(weights.values[:, :, n])[1] for n, stride in enumerate(self._strides)], 1)
        return self._predicted(hidden, boxes)

    def value_and_gradient(self, boxes: Tensor) -> tuple[Tensor, Tensor]:
        """Predict, and differentiate each prediction in its own x, y, w and h: ``Tensor[B, P]``, ``[B, P, 4]``.

        Backwards through the weighted sum, ReLU and linear layers to the pooled regions, from them to the pooling
        weights along both axes, and on to the boxes.
        """
        weights = self._head.hat.weights(boxes, self._pixels)
        values = weights.values
        rows, layers = zip(*(stride.forward(values[:, :, n]) for n, stride in enumerate(self._strides)), strict=True)
        hidden = torch.cat(layers, 1)
        slope = (hidden > 0) * self._head.weight  # in the hidden layer
        by_weights = torch.zeros_like(values)
        for n, (stride, part) in enumerate(zip(self._strides, slope.chunk(2, 1), strict=True)):
            stride.backward(part, values[:, :, n], rows[n], by_weights[:, :, n])
        predicted = self._predicted(hidden, boxes)
        # The sum of all pooled features times the derivatives in them: the linear layers without their offsets.
        pooled = predicted - self._head.bias - (slope @ self._head.offset).view(predicted.shape)
        return predicted, weights.backward(by_weights, pooled)

    def _predicted(self, hidden: Tensor, boxes: Tensor) -> Tensor:
        """Return the weighted sum of the hidden layer ``[B * P, 2 * hidden]`` as ``[B, P]``."""
        return torch.addmv(self._head.bias, hidden.to(boxes.dtype), self._head.weight).view(boxes.shape[:2])


def folded_linear(layer: LinearBlock, bins: int) -> tuple[Tensor, Tensor]:
    """Fold batch norm into the linear layer of a stride, and order its inputs as pooling gives them.

    :return: the matrix ``Tensor[bins * bins * C, hidden]``, and the offset ``Tensor[hidden]``.
    """
    norm = layer.bn
    assert norm.running_mean is not None
    assert norm.running_var is not None
    factor = (norm.weight / (norm.running_var + norm.eps).sqrt()).detach()
    offset = (layer.linear.bias.detach() - norm.running_mean) * factor + norm.bias.detach()
    # [hidden, C, k * k] to [k * k, C, hidden]
    folded = (layer.linear.weight.detach() * factor[:, None]).unflatten(1, (-1, bins * bins)).permute(2, 1, 0)
    return folded.flatten(0, 1), offset


def _fold(layer: LinearBlock, bins: int, scale: float, dtype: torch.dtype | None) -> tuple[_Head, Tensor]:
    """Return the head of a stride, and the offset of its linear layer."""
    matrix, offset = folded_linear(layer, bins)
    dtype = dtype or matrix.dtype
    forward, backward = PackedLinear(matrix, offset, True, dtype), PackedLinear(matrix.T, None, False, dtype)
    return _Head(forward, backward, bins, scale), offset


class _Stride:
    """A stride's pooling and linear layer for B targets.

    Weights are ``[B, P, 2, bins, pixels]``, along x and along y; entries beyond its bins and pixels are ignored.
    """

    def __init__(self, head: _Head, modulation: Tensor, features: Tensor) -> None:
        self._head = head
        # Modulation multiplies channels and pooling is linear: the features are multiplied, once for all boxes.
        maps = features.permute(0, 2, 3, 1) * modulation[:, None, None]
        self._batch, self.height, self.width, self._channels = maps.shape
        self._lines = maps.reshape(self._batch, self.height, self.width * self._channels)

    def forward(self, weights: Tensor) -> tuple[Tensor, Tensor]:
        """Return the features pooled along y ``[B, P, ky, W, C]``, and the hidden layer ``[B * P, hidden]``."""
        along_x, along_y = self._axes(weights)
        count, bins = weights.shape[1], self._head.bins
        rows = torch.bmm(along_y.reshape(self._batch, count * bins, self.height), self._lines)
        rows = rows.view(self._batch, count, bins, self.width, self._channels)
        pooled = torch.matmul(along_x[:, :, None], rows)  # B, P, ky, kx, C
        return rows, self._head.forward(pooled.view(self._batch * count, -1))

    def backward(self, slope: Tensor, weights: Tensor, rows: Tensor, by_weights: Tensor) -> None:
        """Turn derivatives in the hidden layer ``[B * P, hidden]`` into those in the weights, ``by_weights``."""
        along_x, (by_x, by_y) = self._axes(weights)[0], self._axes(by_weights)
        bins = self._head.bins
        region = self._head.backward(slope).to(rows.dtype)
        region = region.view(self._batch, -1, bins, bins, self._channels)
        torch.sum(torch.matmul(region, rows.mT), 2, out=by_x)
        by_rows = torch.matmul(along_x.mT[:, :, None], region).view(self._batch, -1, self._lines.shape[-1])
        by_y.copy_(torch.bmm(by_rows, self._lines.mT).view(by_y.shape))

    def _axes(self, weights: Tensor) -> tuple[Tensor, Tensor]:
        """Return the part of weights that is this stride's, along x and along y."""
        bins = self._head.bins
        return weights[:, :, 0, :bins, : self.width], weights[:, :, 1, :bins, : self.height]


class _Hat:
    """How much each pixel counts in each bin, as `bin_weights` has it, for both strides at once.

    It is the difference of the hat's integral, ``1/2 + t - t |t| / 2`` between -1 and 1, at the ends of a bin, over the
    bin's length; t is the end's distance from the pixel. Ends of bins are ``scale * (start + length * share)`` with
    ``share = number / bins``.
    """

    def __init__(self, heads: list[_Head], like: Tensor) -> None:
        def column(values: list[float]) -> Tensor:
            return torch.tensor(values, device=like.device, dtype=like.dtype)[:, None, None, None]

        most = max(head.bins for head in heads)
        self.scale = column([head.scale for head in heads])  # strides, axes, ends, pixels
        self.per_length = column([head.bins / head.scale for head in heads])
        numbers = torch.arange(most + 1, device=like.device, dtype=like.dtype)[:, None]
        self.reach = numbers / self.per_length
        # From derivatives in t to those in start and length, but for what each box's length divides by.
        self.by_ends = torch.stack(((self.scale * self.per_length).expand_as(self.reach), self.reach * self.per_length))
        self.by_ends = self.by_ends.flatten(1).T.contiguous()
        self._opposite = -torch.arange(MOST_PIXELS, device=like.device, dtype=like.dtype)

    def weights(self, boxes: Tensor, pixels: int) -> _Weights:
        """Return the weights of boxes ``[B, P, 4]`` for maps of so many pixels at most along each axis."""
        return _Weights(self, boxes, self._opposite[:pixels])


class _Weights:
    """The weights of boxes, ``values`` ``[B, P, strides, 2, bins, pixels]`` with the two axes x and y; see `_Hat`."""

    def __init__(self, hat: _Hat, boxes: Tensor, opposite: Tensor) -> None:
        start, length = boxes[:, :, None, :2, None, None], boxes[:, :, None, 2:, None, None]
        self._hat = hat
        self._inverse = torch.where(length > 0, length.reciprocal(), 0.0)  # a box without area has no weights
        ends = torch.addcmul(opposite, start, hat.scale)
        ends = torch.addcmul(ends, length, hat.reach).clamp_(-1, 1)
        self._distance = ends.abs()
        integral = ends * torch.rsub(self._distance, 1, alpha=0.5)
        self._factor = self._inverse * hat.per_length
        self.values = (integral[..., 1:, :] - integral[..., :-1, :]) * self._factor

    def backward(self, slope: Tensor, total: Tensor) -> Tensor:
        """Turn derivatives in the weights into those in the boxes, ``[B, P, 4]``.

        :param total: the sum of all weights along one axis times the derivatives in them, ``[B, P]``; it is the same
            for both axes, and is what a length that grows takes from the weights.
        """
        # What a bin's end gives to one bin it takes from the next.
        by_end = torch.nn.functional.pad(slope, (0, 0, 1, 1))
        by_end = (by_end[..., :-1, :] - by_end[..., 1:, :]) * (1 - self._distance)
        by_end = by_end.sum(-1).transpose(2, 3).flatten(3)  # boxes, axes, (strides and ends)
        by_start, by_length = (by_end @ self._hat.by_ends).unbind(-1)
        gradient = torch.stack((by_start, by_length - total[..., None]), 2) * self._inverse[:, :, 0, :, 0].mT
        return gradient.flatten(2)
