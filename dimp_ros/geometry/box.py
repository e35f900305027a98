# SPDX-License-Identifier: Apache-2.0
"""Boxes and their conventions.

A box is ``(x, y, w, h)`` in float pixels, x to the right, y down, ``(x, y)`` the top-left corner. Pixel i covers the
interval [i, i + 1) of an image, so a box around the whole of a W x H image is ``(0, 0, W, H)``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class Box(NamedTuple):
    """An axis-aligned box ``(x, y, w, h)`` in float pixels with its top-left corner at ``(x, y)``."""

    x: float
    y: float
    w: float
    h: float

    @property
    def center(self) -> tuple[float, float]:
        """Centre ``(cx, cy)`` in pixels."""
        return self.x + self.w / 2, self.y + self.h / 2

    @property
    def area(self) -> float:
        """Area in square pixels."""
        return self.w * self.h

    @property
    def is_point(self) -> bool:
        """Whether the box has no size: it is a point on an object whose box is to be found."""
        return self.w == 0 and self.h == 0

    @classmethod
    def from_center(cls, cx: float, cy: float, w: float, h: float) -> Box:
        """Make a box from its centre and its size, all in pixels."""
        return cls(cx - w / 2, cy - h / 2, w, h)

    def scaled(self, x: float, y: float) -> Box:
        """Return the box in an image whose sides are ``x`` and ``y`` times as long."""
        return Box(self.x * x, self.y * y, self.w * x, self.h * y)

    def clipped(self, width: float, height: float) -> Box:
        """Return the part of the box inside a ``width`` x ``height`` image; its size is 0 where there is none."""
        x0, y0 = min(max(self.x, 0.0), width), min(max(self.y, 0.0), height)
        x1, y1 = min(max(self.x + self.w, 0.0), width), min(max(self.y + self.h, 0.0), height)
        return Box(x0, y0, x1 - x0, y1 - y0)


def check_box(box: Sequence[float], width: int, height: int, *, min_side: float, min_visible: float = 0.1) -> Box:
    """Return ``box`` as a `Box` if a target can be followed from it in a ``width`` x ``height`` image.

    :param box: ``(x, y, w, h)`` in pixels of that image.
    :param min_side: the shortest side accepted, in pixels.
    :param min_visible: the least share of the box's area that must lie inside the image, 0..1.
    :raises ValueError: with the value received, the range allowed and the remedy.
    """
    values = [float(v) for v in box]
    if len(values) != 4:
        raise ValueError(f"a box has 4 numbers (x, y, w, h), got {len(values)}: {values}")
    shown = "(" + ", ".join(f"{v:g}" for v in values) + ")"
    if not all(math.isfinite(v) for v in values):
        raise ValueError(f"box {shown} has a number that is not finite; give x, y, w, h in pixels")
    result = Box(*values)
    if result.w < min_side or result.h < min_side:
        raise ValueError(
            f"box {shown} is {result.w:g} x {result.h:g} px; both sides must be at least {min_side:g} px: "
            "draw a larger box or use an image of higher resolution"
        )
    visible = result.clipped(width, height).area / result.area
    if visible < min_visible:
        raise ValueError(
            f"box {shown} has {visible:.0%} of its area inside the {width} x {height} image; at least "
            f"{min_visible:.0%} must be: draw it around a visible object, in pixels of this image"
        )
    return result


def check_point(point: tuple[float, float], width: int, height: int) -> None:
    """Check that a point lies in a ``width`` x ``height`` image.

    :raises ValueError: with the value received, the range allowed and the remedy.
    """
    x, y = point
    if not (0 <= x <= width and 0 <= y <= height):  # false for NaN, too
        raise ValueError(
            f"point ({x:g}, {y:g}) is outside the {width} x {height} image; give x from 0 to {width} and y from 0 to "
            f"{height}, in pixels of this image"
        )


def iou(a: NDArray[np.floating], b: NDArray[np.floating]) -> NDArray[np.floating]:
    """Return the intersection over union of boxes ``a`` and ``b``, both ``[..., 4]`` as (x, y, w, h), broadcast.

    A pair whose union is empty has IoU 0; a box with a NaN gives NaN.
    """
    a, b = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    sides = np.minimum(a[..., :2] + a[..., 2:], b[..., :2] + b[..., 2:]) - np.maximum(a[..., :2], b[..., :2])
    inter = np.clip(sides, 0, None).prod(-1)
    union = a[..., 2:].prod(-1) + b[..., 2:].prod(-1) - inter
    return np.divide(inter, union, out=np.where(np.isnan(union), np.nan, 0.0), where=union > 0)
