# SPDX-License-Identifier: Apache-2.0
"""The fit of `dimp_ros.tracker.box_adaptation` in numpy, for backends that give the gradient."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from dimp_ros.geometry.box import iou
from dimp_ros.tracker.config import TrackerConfig
from dimp_ros.tracker.inference_backend import Floats, TargetModulation
from dimp_ros.tracker.random_numbers import UniformNumbers

SPREADS = (0.03, 0.08, 0.15, 0.3)
"""Standard deviations of the proposals, in target sides; sizes vary 1.5 times as much, by their logarithm."""

LEAST_OVERLAP = 0.1
"""Proposals that overlap less are left out, as in training."""

PROPOSALS = 40
"""Boxes in each view."""

ADAM = (0.9, 0.999, 1e-8)
"""Decay of the means of gradients and of their squares, and what is added to the latter's root."""

Gradient = Callable[[Floats, Floats], tuple[Floats, Floats]]


def draw_proposals(boxes: Floats, random: UniformNumbers) -> Floats:
    """Return wrong boxes round each of ``[V, 4]``, ``[V, PROPOSALS, 4]``."""
    shape = (len(boxes), PROPOSALS)
    spread = np.array(SPREADS, np.float32)[random.integers(len(SPREADS), *shape)][..., None]
    noise = random.normal(*shape, 4) * spread
    corner, size = boxes[:, None, :2], boxes[:, None, 2:]
    center, sides = corner + size / 2 + noise[..., :2] * size, size * np.exp(1.5 * noise[..., 2:])
    return np.concatenate((center - sides / 2, sides), -1)


def known_overlaps(proposals: Floats, boxes: Floats) -> tuple[Floats, Floats]:
    """Return ``2 * IoU - 1`` of proposals ``[V, P, 4]`` with boxes ``[V, 4]``, and their weights, ``[V, P]`` each."""
    truth = (2 * iou(proposals, boxes[:, None]) - 1).astype(np.float32)
    counts = (truth > 2 * LEAST_OVERLAP - 1).astype(np.float32)
    return truth, counts / max(counts.sum(), 1)


def fit(start: TargetModulation, gradient: Gradient, config: TrackerConfig) -> TargetModulation:
    """Return vectors after steps of Adam along a gradient; each is changed in units of its mean size.

    :param gradient: of the loss in both vectors, ``[1, M8]`` and ``[1, M16]``.
    """
    slow, fast, least = ADAM
    scales = [np.abs(vector).mean() for vector in start]
    changes, means, squares = ([np.zeros_like(vector) for vector in start] for _ in range(3))
    for step in range(1, config.box_fit_steps + 1):
        slopes = gradient(*(v + d * s for v, d, s in zip(start, changes, scales, strict=True)))
        for change, mean, square, slope, scale in zip(changes, means, squares, slopes, scales, strict=True):
            own = slope * scale
            mean += (1 - slow) * (own - mean)
            square += (1 - fast) * (own * own - square)
            size = np.sqrt(square / (1 - fast**step)) + least
            change -= config.box_fit_rate * mean / (1 - slow**step) / size
    return TargetModulation(*(v + d * s for v, d, s in zip(start, changes, scales, strict=True)))
