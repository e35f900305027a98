# SPDX-License-Identifier: Apache-2.0
"""The search window: a square part of the image, resampled to the network's input size."""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from dimp_ros.geometry.box import Box
from dimp_ros.images.picture import Picture, as_picture


class SearchWindow(NamedTuple):
    """A square window: corner ``(x, y)`` and ``side`` in image pixels, resampled to ``size`` x ``size`` crop pixels.

    Image and crop coordinates are continuous: the window's corner is crop coordinate 0, its far side ``size``.
    """

    x: float
    y: float
    side: float
    size: int

    @classmethod
    def around(cls, center: tuple[float, float], side: float, size: int) -> SearchWindow:
        """Return the window centred on ``center`` (image pixels)."""
        return cls(center[0] - side / 2, center[1] - side / 2, side, size)

    @property
    def scale(self) -> float:
        """Image pixels per crop pixel."""
        return self.side / self.size

    @property
    def box(self) -> Box:
        """The window itself, in image pixels."""
        return Box(self.x, self.y, self.side, self.side)

    def box_to_crop(self, box: Box) -> Box:
        """Convert a box from image to crop pixels."""
        return Box((box.x - self.x) / self.scale, (box.y - self.y) / self.scale, box.w / self.scale, box.h / self.scale)

    def box_to_image(self, box: Box) -> Box:
        """Convert a box from crop to image pixels."""
        return Box(self.x + box.x * self.scale, self.y + box.y * self.scale, box.w * self.scale, box.h * self.scale)


def crop(image: NDArray[np.uint8] | Picture, window: SearchWindow) -> NDArray[np.uint8]:
    """Resample the window from an image; outside, the image's border is replicated.

    Only the part of the image under the window is read. A window at least twice as large as its crop is averaged by an
    integer factor first, to avoid aliasing.

    :param image: ``[H, W, C]`` or ``[H, W]`` uint8, or a `Picture`.
    :return: ``[size, size, C]`` (or ``[size, size]``), contiguous.
    """
    part, window = _under(as_picture(image), window)
    factor = int(window.scale)
    if factor == 3:
        factor = 2  # by which OpenCV averages five times as fast
    if factor > 1:
        part, window = _reduce(part, window, factor)
    if part.shape[:2] == (1, 1):  # beyond a corner; OpenCV 4.5 does not take a single pixel
        return np.full((window.size, window.size, *part.shape[2:]), part[0, 0])
    scale = window.scale
    # cv2 works with pixel indices; index i lies at coordinate i + 0.5
    transform = np.array([[scale, 0, window.x + scale / 2 - 0.5], [0, scale, window.y + scale / 2 - 0.5]])
    return cv2.warpAffine(
        part,
        transform,
        (window.size, window.size),
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_REPLICATE,
    )


def _under(picture: Picture, window: SearchWindow) -> tuple[NDArray[np.uint8], SearchWindow]:
    """Return the part of an image that the window needs, and the window relative to that part's corner.

    It has a margin of one pixel for the interpolation, and is never empty: there must be a border to replicate.
    """
    x0 = int(np.clip(np.floor(window.x) - 1, 0, picture.width - 1))
    y0 = int(np.clip(np.floor(window.y) - 1, 0, picture.height - 1))
    x1 = int(np.clip(np.ceil(window.x + window.side) + 1, x0 + 1, picture.width))
    y1 = int(np.clip(np.ceil(window.y + window.side) + 1, y0 + 1, picture.height))
    moved = SearchWindow(window.x - x0, window.y - y0, window.side, window.size)
    return picture.region(x0, y0, x1, y1), moved


def _reduce(part: NDArray[np.uint8], window: SearchWindow, factor: int) -> tuple[NDArray[np.uint8], SearchWindow]:
    """Average the window by an integer ``factor``, in blocks that begin at its corner or the border."""
    height, width = part.shape[:2]
    x0 = int(np.clip(np.floor(window.x), 0, width - 1))
    y0 = int(np.clip(np.floor(window.y), 0, height - 1))
    x1 = int(np.clip(np.ceil(window.x + window.side), x0 + 1, width))
    y1 = int(np.clip(np.ceil(window.y + window.side), y0 + 1, height))
    x1, y1 = min(x1 + (x0 - x1) % factor, width), min(y1 + (y0 - y1) % factor, height)  # whole blocks, if there are
    part = part[y0:y1, x0:x1]
    moved = SearchWindow((window.x - x0) / factor, (window.y - y0) / factor, window.side / factor, window.size)
    if part.shape[:2] == (1, 1):
        return part, moved
    right, bottom = -part.shape[1] % factor, -part.shape[0] % factor
    if right or bottom:
        part = cv2.copyMakeBorder(part, 0, bottom, 0, right, cv2.BORDER_REPLICATE)
    size = part.shape[1] // factor, part.shape[0] // factor
    return cv2.resize(part, size, interpolation=cv2.INTER_AREA), moved
