# SPDX-License-Identifier: Apache-2.0
"""Visibility of targets, and parts of objects as targets."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from dimp_ros.synthetic.image_store import CELLS, HULL, Shape
from dimp_ros.synthetic.motion import Floats, apply, invert

if TYPE_CHECKING:
    from dimp_ros.synthetic.scene import Layer

PART_SIDES = (0.35, 0.8)
"""Sides of a part, in sides of the object."""

PART_FILLED = 0.85
"""Smallest share of a part's box that the object covers."""

DRAWS = 8


def part_of(shape: Shape, rng: np.random.Generator) -> Shape | None:
    """Draw a part of an object: a rectangle in its own coordinates; None if none is well filled."""
    for _ in range(DRAWS):
        sides = rng.uniform(*PART_SIDES, 2)
        low = rng.uniform(0, 1 - sides)
        high = low + sides
        (x0, y0), (x1, y1) = (np.round(low * CELLS).astype(int), np.round(high * CELLS).astype(int))
        if shape.cells[y0:y1, x0:x1].mean() < PART_FILLED:
            continue
        cells = np.zeros_like(shape.cells)
        cells[y0:y1, x0:x1] = shape.cells[y0:y1, x0:x1]
        corners = np.array([[x, y] for y in (low[1], high[1]) for x in (low[0], high[0])], np.float32)
        return Shape(np.tile(corners, (HULL // 4, 1)), cells)
    return None


def visibility(shape: Shape, transforms: Floats, size: tuple[int, int], covers: list[tuple[Shape, Layer]]) -> Floats:
    """Return the share of a target that is inside the frame and under none of the layers drawn over it: ``[K]``."""
    step = 2  # a quarter of the cells suffices
    weight: Floats = shape.cells[::step, ::step].ravel().astype(np.float64)
    ticks = (np.arange(0, CELLS, step) + step / 2) / CELLS
    points = np.stack(np.meshgrid(ticks, ticks), -1).reshape(-1, 2)
    chosen = weight > 0.25
    placed = apply(transforms, points[chosen])
    weight = np.asarray(weight[chosen], np.float64)
    seen: Floats = ((placed >= 0) & (placed < np.array(size))).all(-1) * weight
    for cover, layer in covers:
        cell = np.floor(apply(invert(layer.transforms), placed) * CELLS).astype(int)
        hit = ((cell >= 0) & (cell < CELLS)).all(-1) & layer.shown[:, None]
        cell = np.clip(cell, 0, CELLS - 1)
        seen = seen * (1.0 - hit * cover.cells[cell[..., 1], cell[..., 0]])
    total = max(float(weight.sum()), 1e-6)
    share: Floats = seen.sum(1) / total
    return share
