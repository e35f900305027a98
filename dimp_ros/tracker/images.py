# SPDX-License-Identifier: Apache-2.0
"""What the tracker takes for an image."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray


def check_image(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return the image if the tracker can use it.

    :raises ValueError: with its type and shape, and what they must be.
    """
    if not isinstance(image, np.ndarray):
        raise ValueError(f"an image must be a numpy array, got {type(image).__name__}")
    color = image.ndim == 3 and image.shape[2] == 3
    if image.dtype != np.uint8 or not (color or image.ndim == 2) or image.size == 0:
        raise ValueError(
            f"an image must be uint8, [H, W, 3] BGR or [H, W] grey, got {image.dtype} {list(image.shape)}; convert it"
        )
    return image


def to_color(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Give a grey crop three channels."""
    return cv2.cvtColor(image, cv2.COLOR_GRAY2BGR) if image.ndim == 2 else image
