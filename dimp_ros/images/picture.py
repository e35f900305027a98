# SPDX-License-Identifier: Apache-2.0
"""Images as the tracker takes them: arrays, or objects that convert only the requested region."""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

import cv2
import numpy as np
from numpy.typing import DTypeLike, NDArray


@runtime_checkable
class Picture(Protocol):
    """An image that returns any region of itself, so that only the requested pixels are converted."""

    @property
    def width(self) -> int:
        """Width in pixels."""
        ...

    @property
    def height(self) -> int:
        """Height in pixels."""
        ...

    def region(self, x0: int, y0: int, x1: int, y1: int) -> NDArray[np.uint8]:
        """Return the pixels [x0, x1) x [y0, y1) as uint8 ``[H, W, 3]`` BGR or ``[H, W]`` grey; not to be written to.

        The corners lie inside the image, and the region has at least one pixel.
        """
        ...


class WholePicture:
    """Converts a whole `Picture` to an array: ``np.asarray(picture)`` is uint8 ``[H, W, 3]`` BGR."""

    def __array__(self, dtype: DTypeLike = None, copy: bool | None = None) -> NDArray[Any]:
        assert isinstance(self, Picture)
        whole = to_color(self.region(0, 0, self.width, self.height))
        return np.array(whole, dtype) if copy else whole.astype(dtype or np.uint8, copy=False)


class ArrayPicture(WholePicture):
    """An array as a `Picture`; its regions are views."""

    def __init__(self, pixels: NDArray[np.uint8]) -> None:
        self.pixels = pixels

    @property
    def width(self) -> int:
        """Width in pixels."""
        return int(self.pixels.shape[1])

    @property
    def height(self) -> int:
        """Height in pixels."""
        return int(self.pixels.shape[0])

    def region(self, x0: int, y0: int, x1: int, y1: int) -> NDArray[np.uint8]:
        """Return a view of the region."""
        return self.pixels[y0:y1, x0:x1]


def as_picture(image: NDArray[np.uint8] | Picture) -> Picture:
    """Return the image as a `Picture` if it is valid.

    :param image: uint8, ``[H, W, 3]`` BGR or ``[H, W]`` grey, or a `Picture`.
    :raises ValueError: for another type or shape.
    """
    if isinstance(image, Picture):
        return image
    if not isinstance(image, np.ndarray):
        raise ValueError(f"an image must be a numpy array or a Picture, got {type(image).__name__}")
    color = image.ndim == 3 and image.shape[2] == 3
    if image.dtype != np.uint8 or not (color or image.ndim == 2) or image.size == 0:
        raise ValueError(
            f"an image must be uint8, [H, W, 3] BGR or [H, W] grey, got {image.dtype} {list(image.shape)}; convert it"
        )
    return ArrayPicture(image)


def to_color(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return an image with three channels."""
    return cv2.cvtColor(image, cv2.COLOR_GRAY2BGR) if image.ndim == 2 else image
