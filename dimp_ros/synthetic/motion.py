# SPDX-License-Identifier: Apache-2.0
"""Smooth motion, affine transforms as 2x3 matrices, bending, boxes. K is the number of frames."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dimp_ros.synthetic.image_store import CANVAS, MARGIN

Floats = NDArray[np.float64]

KNOTS = 5
"""Control points of a bending field along each axis of a canvas."""


def smooth(rng: np.random.Generator, times: Floats, spread: tuple[float, ...]) -> Floats:
    """Draw quantities that change smoothly over ``times`` (0..1), each within about +- its ``spread``: ``[K, Q]``."""
    knots = rng.uniform(-1, 1, (3, len(spread))) * np.asarray(spread)
    return parabola(times) @ knots


def parabola(t: Floats) -> Floats:
    """Return the weights ``[K, 3]`` of three knots at 0, 1/2 and 1."""
    return np.stack((2 * (t - 0.5) * (t - 1), -4 * t * (t - 1), 2 * t * (t - 0.5)), -1)


def similarity(center: Floats, origin: Floats, scale: Floats, degrees: Floats, log_aspect: Floats) -> Floats:
    """Return transforms ``[K, 2, 3]`` that scale, stretch, rotate, and move ``origin`` to ``center``."""
    angle = np.deg2rad(degrees)
    cos, sin = np.cos(angle), np.sin(angle)
    turn = np.stack((np.stack((cos, -sin), -1), np.stack((sin, cos), -1)), -2)
    stretch = np.stack((np.exp(log_aspect / 2), np.exp(-log_aspect / 2)), -1) * scale[..., None]
    linear = turn * stretch[:, None, :]
    return np.concatenate((linear, (center - np.einsum("kij,j->ki", linear, origin))[..., None]), -1)


def apply(transforms: Floats, points: Floats) -> Floats:
    """Transform points ``[P, 2]`` or ``[K, P, 2]`` by each of ``[K, 2, 3]``: ``[K, P, 2]``."""
    return points @ transforms[:, :, :2].swapaxes(1, 2) + transforms[:, None, :, 2]


def compose(outer: Floats, inner: Floats) -> Floats:
    """Return the transforms that apply ``inner`` first, then ``outer``: ``[K, 2, 3]``."""
    linear = outer[:, :, :2] @ inner[:, :, :2]
    offset = outer[:, :, :2] @ inner[:, :, 2:] + outer[:, :, 2:]
    return np.concatenate((linear, offset), -1)


def invert(transforms: Floats) -> Floats:
    """Return the inverse transforms ``[K, 2, 3]``."""
    linear = np.linalg.inv(transforms[:, :, :2])
    return np.concatenate((linear, -linear @ transforms[:, :, 2:]), -1)


def bounding_boxes(points: Floats) -> Floats:
    """Return the bounding boxes of points ``[K, P, 2]``: ``[K, 4]``."""
    low, high = points.min(1), points.max(1)
    return np.concatenate((low, high - low), -1)


def bent(points: Floats, bend: Floats | None) -> Floats:
    """Return points ``[P, 2]`` (units) of an object after bending: ``[K, P, 2]``, or unchanged without a field."""
    if bend is None:
        return points
    moved = np.broadcast_to(points, (len(bend), *points.shape))
    for _ in range(2):  # solves u + bend(u) = point; the field is small and smooth
        moved = points - _field_at(bend, moved)
    return moved


def _field_at(bend: Floats, points: Floats) -> Floats:
    """Interpolate the field ``[K, KNOTS, KNOTS, 2]``, which spans the canvas, at unit coordinates ``[K, P, 2]``."""
    inner = CANVAS - 2 * MARGIN
    place = np.clip((MARGIN + points * inner) / CANVAS * (KNOTS - 1), 0, KNOTS - 1 - 1e-9)
    low = place.astype(int)
    part = place - low
    rows = np.arange(len(bend))[:, None]
    x, y = low[..., 0], low[..., 1]
    fx, fy = part[..., :1], part[..., 1:]
    top = bend[rows, y, x] * (1 - fx) + bend[rows, y, x + 1] * fx
    bottom = bend[rows, y + 1, x] * (1 - fx) + bend[rows, y + 1, x + 1] * fx
    return top * (1 - fy) + bottom * fy


def clip_boxes(boxes: Floats, size: tuple[int, int]) -> Floats:
    """Return the parts of boxes ``[K, 4]`` that lie inside a frame."""
    limit = np.array(size, np.float64)
    low = np.clip(boxes[:, :2], 0, limit)
    high = np.clip(boxes[:, :2] + boxes[:, 2:], 0, limit)
    return np.concatenate((low, high - low), -1)


def covered(boxes: Floats, others: Floats) -> Floats:
    """Return the share of each box ``[K, 4]`` that the other box covers."""
    low = np.maximum(boxes[:, :2], others[:, :2])
    high = np.minimum(boxes[:, :2] + boxes[:, 2:], others[:, :2] + others[:, 2:])
    share: Floats = np.clip(high - low, 0, None).prod(1) / np.maximum(boxes[:, 2:].prod(1), 1e-6)
    return share
