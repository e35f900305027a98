# SPDX-License-Identifier: Apache-2.0
"""Precise RoI pooling: the exact mean of a bilinearly interpolated feature map over each bin of a box.

The integral of a bilinear interpolation separates in x and y, so that the pooling of one box is two small matrix
products, ``out = Wy F Wx^T``. That needs no compiled extension and is differentiable in the features and in the box.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


def hat_integral(t: Tensor) -> Tensor:
    """Integrate the hat function max(0, 1 - |u|) over u from minus infinity to ``t``."""
    t = t.clamp(-1, 1)
    return torch.where(t < 0, (t + 1).square() / 2, 1 - (1 - t).square() / 2)


def bin_weights(start: Tensor, length: Tensor, bins: int, size: int) -> Tensor:
    """Return how much each of ``size`` pixels counts in the mean over each of ``bins`` equal parts of an interval.

    :param start: ``Tensor[...]``, where the interval starts, in pixels; pixel i sits at coordinate i.
    :param length: ``Tensor[...]``, its length in pixels. Where it is not positive, all weights are 0.
    :return: ``Tensor[..., bins, size]``.
    """
    valid = length > 0
    step = torch.where(valid, length, torch.ones_like(length)) / bins
    edges = start[..., None] + step[..., None] * torch.arange(bins + 1, device=start.device, dtype=start.dtype)
    pixels = torch.arange(size, device=start.device, dtype=start.dtype)
    cumulative = hat_integral(edges[..., :, None] - pixels)
    weights = (cumulative[..., 1:, :] - cumulative[..., :-1, :]) / step[..., None, None]
    return weights * valid[..., None, None]


def precise_roi_pool(features: Tensor, boxes: Tensor, output_size: int, spatial_scale: float) -> Tensor:
    """Pool ``output_size`` x ``output_size`` bins of every box from the feature map of its own image.

    :param features: ``Tensor[B, C, H, W]``.
    :param boxes: ``Tensor[B, P, 4]``, P boxes (x, y, w, h) an image, in input pixels. Degenerate boxes give 0.
    :param spatial_scale: feature pixels per input pixel, e.g. 1/16.
    :return: ``Tensor[B, P, C, output_size, output_size]``.
    """
    if features.dim() != 4 or boxes.dim() != 3 or boxes.shape[-1] != 4 or boxes.shape[0] != features.shape[0]:
        raise ValueError(
            f"expected features [B, C, H, W] and boxes [B, P, 4], got {list(features.shape)} and {list(boxes.shape)}"
        )
    batch, channels, height, width = features.shape
    count = boxes.shape[1]
    x, y, w, h = (boxes * spatial_scale).unbind(-1)
    valid = ((w > 0) & (h > 0))[..., None, None]
    wx = (bin_weights(x, w, output_size, width) * valid).to(features.dtype)  # [B, P, k, W]
    wy = (bin_weights(y, h, output_size, height) * valid).to(features.dtype)  # [B, P, k, H]
    # Rows first: one product per image for all its boxes. Channels come last, so that features in that memory format
    # are read where they lie; then one small product per row of bins.
    lines = features.permute(0, 2, 3, 1).reshape(batch, height, width * channels)
    rows = torch.matmul(wy.flatten(1, 2), lines).view(batch, count, output_size, width, channels)
    return torch.matmul(wx[:, :, None], rows).permute(0, 1, 4, 2, 3)


class PreciseRoiPool2d(nn.Module):
    """`precise_roi_pool` with a fixed output size and scale."""

    def __init__(self, output_size: int, spatial_scale: float) -> None:
        super().__init__()
        self.output_size = output_size
        self.spatial_scale = spatial_scale

    def forward(self, features: Tensor, boxes: Tensor) -> Tensor:
        """Pool ``boxes`` ``Tensor[B, P, 4]`` from ``features`` ``Tensor[B, C, H, W]``; see `precise_roi_pool`."""
        return precise_roi_pool(features, boxes, self.output_size, self.spatial_scale)

    def extra_repr(self) -> str:
        """Name the two settings in the module's printed form."""
        return f"output_size={self.output_size}, spatial_scale={self.spatial_scale}"
