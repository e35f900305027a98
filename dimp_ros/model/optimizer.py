# SPDX-License-Identifier: Apache-2.0
"""The learned discriminative loss and its steepest-descent optimiser (sections 3.1 and 3.2 of the paper).

With scores ``s = x * f`` of the filter f, the residuals are ``r = v * (m*s + (1-m)*max(0, s) - y)`` and the loss is
``L(f) = sum_j gamma_j ||r_j||^2 + lambda^2 ||f||^2``. Label y, target mask m and weight v are learned functions of the
distance to the target's centre. A step goes along the gradient by the length that minimises the Gauss-Newton model
of the loss. Everything is two correlations and elementwise work; no autograd is needed to use it.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from dimp_ros.model.sizes import STRIDE
from dimp_ros.model.target_filter import apply_filter, apply_filter_adjoint


class LossMaps(NamedTuple):
    """What the loss asks of each score cell, all ``Tensor[B, N, H', W']``: label, target mask and spatial weight."""

    label: Tensor
    mask: Tensor
    weight: Tensor


class DistanceFunction(nn.Module):
    """A learned function of distance, piecewise linear between ``bins`` knots and constant after the last one.

    Its values are kept as the weight of a 1x1 convolution on triangular basis functions, which is what it is equal to.
    """

    def __init__(self, values: Tensor, spacing: float) -> None:
        super().__init__()
        self.spacing = spacing
        self.weight = nn.Parameter(values.reshape(1, -1, 1, 1).clone())

    def forward(self, distance: Tensor) -> Tensor:
        """Evaluate the function at ``distance`` ``Tensor[...]`` in score cells."""
        knots = self.weight.flatten()
        position = (distance / self.spacing).clamp(0, knots.numel() - 1)
        lower = position.floor().long()
        fraction = position - lower
        upper = (lower + 1).clamp(max=knots.numel() - 1)
        return knots[lower] * (1 - fraction) + knots[upper] * fraction


class DiscriminativeOptimizer(nn.Module):
    """Minimise the discriminative loss of a filter by steepest descent with the Gauss-Newton step length.

    :param kernel: side of the filter in feature pixels.
    :param bins: knots of the learned distance functions. :param spacing: score cells between two knots.
    """

    MIN_REGULARIZATION = 1e-3
    MIN_CURVATURE = 1e-8

    def __init__(self, kernel: int = 4, bins: int = 100, spacing: float = 0.1) -> None:
        super().__init__()
        self.kernel = kernel
        distance = torch.arange(bins, dtype=torch.float32) * spacing
        sigma = (1 / 4) / 5 * 18
        gaussian = torch.exp(-0.5 * (distance / sigma).square())
        self.log_step_length = nn.Parameter(torch.tensor([math.log(0.9)]))
        self.filter_reg = nn.Parameter(torch.tensor([0.1]))
        self.label_map_predictor = DistanceFunction(gaussian - gaussian[-1], spacing)
        self.target_mask_predictor = nn.Sequential(
            DistanceFunction(3 * torch.tanh(2 - distance), spacing), nn.Sigmoid()
        )
        self.spatial_weight_predictor = DistanceFunction(torch.ones(bins), spacing)

    def loss_maps(self, boxes: Tensor, size: tuple[int, int]) -> LossMaps:
        """Return what the loss asks of ``size`` score cells for targets ``Tensor[B, N, 4]`` in crop pixels."""
        center = (boxes[..., :2] + boxes[..., 2:] / 2) / STRIDE - 0.5 * (self.kernel % 2)
        rows = torch.arange(size[0], device=boxes.device, dtype=boxes.dtype)
        columns = torch.arange(size[1], device=boxes.device, dtype=boxes.dtype)
        dy = rows[:, None] - center[..., 1, None, None]
        dx = columns[None, :] - center[..., 0, None, None]
        distance = (dx.square() + dy.square()).sqrt()
        return LossMaps(
            self.label_map_predictor(distance),
            self.target_mask_predictor(distance),
            self.spatial_weight_predictor(distance),
        )

    def regularization(self) -> Tensor:
        """Return lambda squared ``Tensor[1]``."""
        return self.filter_reg.abs().clamp(min=self.MIN_REGULARIZATION).square()

    def residuals(self, scores: Tensor, maps: LossMaps) -> tuple[Tensor, Tensor]:
        """Return the residuals r and their derivative dr/ds, both shaped like ``scores`` ``Tensor[B, N, H', W']``."""
        slope = (1 - maps.mask) / 2 * scores.sign() + (1 + maps.mask) / 2  # 1 above zero, the mask below
        return maps.weight * (slope * scores - maps.label), maps.weight * slope

    def loss(self, weights: Tensor, features: Tensor, maps: LossMaps, sample_weight: Tensor) -> Tensor:
        """Evaluate L(f) per sequence, ``Tensor[B]``; arguments as in `step`."""
        residual, _ = self.residuals(apply_filter(features, weights), maps)
        data = (sample_weight[..., None, None] * residual.square()).sum((1, 2, 3))
        return data + self.regularization() * weights.square().sum((1, 2, 3))

    def step(self, weights: Tensor, features: Tensor, maps: LossMaps, sample_weight: Tensor) -> Tensor:
        """Take one step of steepest descent.

        :param weights: filters ``Tensor[B, C, k, k]``.
        :param features: ``Tensor[B, N, C, H, W]``. :param maps: see `loss_maps`.
        :param sample_weight: gamma, ``Tensor[B, N]``, summing to 1 over a sequence's images.
        :return: the new filters.
        """
        gradient, alpha = self.gradient_and_step_length(weights, features, maps, sample_weight)
        return weights - (self.log_step_length.exp() * alpha)[:, None, None, None] * gradient

    def gradient_and_step_length(
        self, weights: Tensor, features: Tensor, maps: LossMaps, sample_weight: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return half the loss's gradient g ``Tensor[B, C, k, k]`` and the Gauss-Newton step length ``Tensor[B]``."""
        gamma = sample_weight[..., None, None]
        reg = self.regularization()
        residual, slope = self.residuals(apply_filter(features, weights), maps)
        gradient = apply_filter_adjoint(features, gamma * slope * residual, self.kernel) + reg * weights
        h = slope * apply_filter(features, gradient)
        squared = gradient.square().sum((1, 2, 3))
        curvature = (gamma * h.square()).sum((1, 2, 3)) + reg * squared
        return gradient, squared / curvature.clamp(min=self.MIN_CURVATURE)

    def forward(
        self, weights: Tensor, features: Tensor, boxes: Tensor, sample_weight: Tensor | None = None, steps: int = 5
    ) -> list[Tensor]:
        """Return every iterate of the filter, the given one first: ``steps + 1`` tensors ``[B, C, k, k]``.

        :param features: ``Tensor[B, N, C, H, W]``. :param boxes: ``Tensor[B, N, 4]`` in crop pixels.
        :param sample_weight: ``Tensor[B, N]``; equal weights where None.
        """
        batch, count, _, height, width = features.shape
        if sample_weight is None:
            sample_weight = features.new_full((batch, count), 1 / count)
        even = 1 - self.kernel % 2
        maps = self.loss_maps(boxes, (height + even, width + even))
        iterates = [weights]
        for _ in range(steps):
            iterates.append(self.step(iterates[-1], features, maps, sample_weight))
        return iterates
