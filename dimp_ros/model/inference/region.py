# SPDX-License-Identifier: Apache-2.0
"""The part of a search window that box refinement needs feature maps of."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from dimp_ros.model.sizes import STRIDE


class Region(NamedTuple):
    """A square of ``size`` times ``size`` cells of 16 crop pixels, its first cell at ``column`` and ``row``."""

    column: int
    row: int
    size: int

    @property
    def corner(self) -> tuple[int, int]:
        """Its first cell's x and y in crop pixels."""
        return self.column * STRIDE, self.row * STRIDE

    @classmethod
    def around(cls, boxes: NDArray[np.floating], cells: int, growth: float = 0.15, least: int = 0) -> Region | None:
        """Return the region in which boxes can be pooled, move and grow a little; None for the whole window.

        :param boxes: ``[P, 4]`` in crop pixels. :param cells: side of the search window in cells.
        :param growth: margin on each side, as a share of the longest side. :param least: least size, in cells.
        """
        bounds = _bounds(boxes)
        room = growth * max(bounds[2] - bounds[0], bounds[3] - bounds[1])
        if not math.isfinite(room):
            return None
        first = [math.floor((low - room) / STRIDE) for low in bounds[:2]]
        last = [math.ceil((high + room) / STRIDE) for high in bounds[2:]]
        # Even sizes only: convolutions are prepared for each size.
        size = max(2 * math.ceil((max(b - a for a, b in zip(first, last, strict=True)) + 1) / 2), least)
        if size >= cells:
            return None
        column, row = (min(max((a + b + 1 - size) // 2, 0), cells - size) for a, b in zip(first, last, strict=True))
        return cls(column, row, size)

    def covers(self, boxes: NDArray[np.floating], cells: int) -> bool:
        """Tell whether boxes ``[P, 4]`` (crop pixels) are pooled in it as in the whole search window."""
        x0, y0, x1, y1 = _bounds(boxes)
        # Pooling reads one more pixel on each side; beyond the search window there is none.
        return all(
            (start == 0 or low >= start * STRIDE)
            and (start + self.size == cells or high <= (start + self.size - 1) * STRIDE)
            for start, low, high in ((self.column, x0, x1), (self.row, y0, y1))
        )


def _bounds(boxes: NDArray[np.floating]) -> list[float]:
    """Return the left, top, right and bottom end of all boxes."""
    corners, sides = boxes[:, :2], boxes[:, 2:]
    ends: list[float] = [*corners.min(0).tolist(), *(corners + sides).max(0).tolist()]
    return ends
