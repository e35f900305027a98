# SPDX-License-Identifier: Apache-2.0
"""The window of box refinement: a rectangle around the target, resampled to a square.

Its side is a multiple of the target's size, sqrt(w * h), with the square root of the target's aspect ratio, so that
an elongated target neither leaves the window nor becomes too thin in it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from dimp_ros.geometry.box import Box
from dimp_ros.images.picture import Picture, as_picture, to_color

LARGEST_STRETCH = 2.0
"""Largest ratio of a side of the window to that of a square of the same area."""


class CloserWindow(NamedTuple):
    """A rectangle ``(x, y, w, h)`` in image pixels, resampled to ``size`` x ``size`` pixels."""

    x: float
    y: float
    w: float
    h: float
    size: int

    @classmethod
    def around(cls, box: Box, context: float, size: int) -> CloserWindow:
        """Return the window for a target's ``box``, ``context`` times as large."""
        side = context * math.sqrt(box.area)
        stretch = min(max((box.w / box.h) ** 0.25, 1 / LARGEST_STRETCH), LARGEST_STRETCH)
        w, h = side * stretch, side / stretch
        cx, cy = box.center
        return cls(cx - w / 2, cy - h / 2, w, h, size)

    def box_to_window(self, box: Box) -> Box:
        """Convert a box from image to window pixels."""
        x, y = self.size / self.w, self.size / self.h
        return Box((box.x - self.x) * x, (box.y - self.y) * y, box.w * x, box.h * y)

    def edges(self, box: Box) -> NDArray[np.float64]:
        """Return left, top, right, bottom of a box in image pixels, as fractions of the window's sides."""
        x, y, w, h = self.box_to_window(box)
        return np.array([x, y, x + w, y + h]) / self.size

    def edges_to_image(self, edges: tuple[float, float, float, float]) -> Box:
        """Convert left, top, right, bottom, as fractions of the window's sides, to a box in image pixels."""
        left, top, right, bottom = edges
        return Box(self.x + left * self.w, self.y + top * self.h, (right - left) * self.w, (bottom - top) * self.h)


def windows_at(
    point: tuple[float, float], image_size: tuple[int, int], shares: Sequence[float], size: int
) -> list[CloserWindow]:
    """Return square windows centred on a point.

    :param image_size: width and height. :param shares: sides of the windows, in units of sqrt(width * height).
    """
    sides = [share * math.sqrt(image_size[0] * image_size[1]) for share in shares]
    return [CloserWindow(point[0] - side / 2, point[1] - side / 2, side, side, size) for side in sides]


def crop_window(
    image: NDArray[np.uint8] | Picture,
    window: CloserWindow,
    change: NDArray[np.float64] | None = None,
    center: tuple[float, float] = (0.0, 0.0),
) -> NDArray[np.uint8]:
    """Resample a window of an image to ``[size, size, 3]`` BGR; the border is replicated outside the image.

    :param change: linear map ``[2, 2]`` about ``center``; the window is that of the image after it.
    """
    picture = as_picture(image)
    scale = np.diag([window.w / window.size, window.h / window.size])
    corner = np.array([window.x, window.y])
    if change is not None:
        back = np.linalg.inv(change)
        scale, corner = back @ scale, back @ (corner - center) + center
    ends = np.array([(0, 0), (0, 1), (1, 0), (1, 1)]) * window.size @ scale.T + corner
    (left, top), (right, bottom) = ends.min(0), ends.max(0)
    margin = math.ceil(np.hypot(*scale).max())
    x0 = int(np.clip(math.floor(left) - 1, 0, picture.width - 1))
    y0 = int(np.clip(math.floor(top) - 1, 0, picture.height - 1))
    x1 = int(np.clip(math.ceil(right) + margin, x0 + 1, picture.width))
    y1 = int(np.clip(math.ceil(bottom) + margin, y0 + 1, picture.height))
    part = picture.region(x0, y0, x1, y1)
    return to_color(resample(part, scale, corner - (x0, y0), window.size))


def turned_box(box: Box, change: NDArray[np.float64]) -> Box:
    """Return the box of the ellipse in ``box`` after a linear map ``[2, 2]`` about its centre.

    What is in a box seldom reaches its corners, so that the box of the turned box would be too large.
    """
    w, h = 2 * np.hypot(change[:, 0] * box.w / 2, change[:, 1] * box.h / 2)
    return Box.from_center(*box.center, float(w), float(h))


def resample(
    image: NDArray[np.uint8], matrix: NDArray[np.float64], corner: NDArray[np.float64], size: int
) -> NDArray[np.uint8]:
    """Sample ``image`` at ``matrix @ (u, v) + corner`` for the centres (u, v) of ``size`` x ``size`` pixels.

    Coordinates are continuous: pixel i covers [i, i + 1). An image that is reduced by 2 or more is averaged first.
    """
    factors = np.maximum(np.floor(np.hypot(matrix[:, 0], matrix[:, 1])), 1).astype(int)
    factors = np.minimum(factors, image.shape[1::-1])
    if factors.max() > 1 and min(image.shape[:2]) > 1:
        width, height = (n // f for n, f in zip(image.shape[1::-1], factors, strict=True))
        image = image[: height * factors[1], : width * factors[0]]  # OpenCV is faster where the ratio is whole
        ratio = 1 / factors
        image = np.asarray(cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA), np.uint8)
        matrix, corner = matrix * ratio[:, None], corner * ratio
    if image.shape[:2] == (1, 1):
        return np.full((size, size, *image.shape[2:]), image[0, 0])
    offset = matrix @ [0.5, 0.5] + corner - 0.5  # in cv2, whole coordinates are pixel centres
    sampled = cv2.warpAffine(
        image,
        np.column_stack((matrix, offset)),
        (size, size),
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_REPLICATE,
    )
    return np.asarray(sampled, np.uint8)
