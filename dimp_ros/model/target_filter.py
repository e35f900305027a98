# SPDX-License-Identifier: Apache-2.0
"""The correlation of features with a target filter, and its adjoint, each as one matrix product.

Shapes: a batch holds B sequences with N images each. Features are ``Tensor[B, N, C, H, W]``, filters
``Tensor[B, C, k, k]``, scores ``Tensor[B, N, H', W']``; an even k gives H' = H + 1. Score cell (i, j) stands for a
target whose centre is at crop coordinate (16 j, 16 i).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def apply_filter(features: Tensor, weights: Tensor) -> Tensor:
    """Correlate every image's features with its sequence's filter, padded by half the kernel.

    One matrix product gives every kernel tap's response at every feature pixel; summing them shifted gives the scores.

    :param features: ``Tensor[B, N, C, H, W]``.
    :param weights: ``Tensor[B, C, k, k]``.
    :return: scores ``Tensor[B, N, H + 2 * (k // 2) - k + 1, ...]``.
    """
    batch, count, _, height, width = features.shape
    kernel = weights.shape[-1]
    taps = weights.flip(-2, -1).flatten(2).mT[:, None]  # [B, 1, k*k, C]
    responses = torch.matmul(taps, features.flatten(3))  # [B, N, k*k, H*W]
    size = (height + 2 * (kernel // 2) - kernel + 1, width + 2 * (kernel // 2) - kernel + 1)
    scores = F.fold(responses.flatten(0, 1), size, kernel, padding=kernel - 1 - kernel // 2)
    return scores.view(batch, count, *size)


def apply_filter_adjoint(features: Tensor, residuals: Tensor, kernel: int) -> Tensor:
    """Apply the adjoint of `apply_filter` with respect to the filter, summed over a sequence's images.

    :param features: ``Tensor[B, N, C, H, W]``.
    :param residuals: ``Tensor[B, N, H', W']``, shaped like the scores.
    :return: ``Tensor[B, C, kernel, kernel]``.
    """
    batch, count, channels = features.shape[:3]
    shifted = F.unfold(residuals.flatten(0, 1)[:, None], kernel, padding=kernel - 1 - kernel // 2)
    shifted = shifted.view(batch, count, kernel * kernel, -1)
    taps = torch.matmul(shifted, features.flatten(3).mT).sum(1)  # [B, k*k, C]
    return taps.mT.view(batch, channels, kernel, kernel).flip(-2, -1)
