# SPDX-License-Identifier: Apache-2.0
"""What cameras do to pictures: exposure, colour, blur, noise and compression, on uint8 BGR crops."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

Image = NDArray[Any]  # uint8; cv2's stubs do not say so


def relight(image: Image, rng: np.random.Generator, strength: float) -> Image:
    """Change exposure, contrast and the balance of colours by up to ``strength`` (0.2 is 20 %)."""
    gain = 1 + rng.uniform(-strength, strength)
    balance = gain * (1 + rng.uniform(-strength / 3, strength / 3, 3))
    offset = 128 * rng.uniform(-strength, strength) / 2
    table = np.clip(np.arange(256)[:, None] * balance + offset, 0, 255).astype(np.uint8)
    return cv2.LUT(image, table[:, None, :])


def motion_blur(image: Image, rng: np.random.Generator, longest: int) -> Image:
    """Smear the image along a random direction over 3 to ``longest`` pixels."""
    length = int(rng.integers(3, longest + 1)) | 1
    kernel = np.zeros((length, length), np.float32)
    kernel[length // 2] = 1
    turn = cv2.getRotationMatrix2D(((length - 1) / 2, (length - 1) / 2), rng.uniform(0, 180), 1)
    kernel = cv2.warpAffine(kernel, turn, (length, length))
    return cv2.filter2D(image, -1, kernel / kernel.sum(), borderType=cv2.BORDER_REPLICATE)


def low_resolution(image: Image, rng: np.random.Generator) -> Image:
    """Shrink the image 1.5 to 3.5 times and enlarge it again, as a small or far target looks in its search window."""
    height, width = image.shape[:2]
    factor = rng.uniform(1.5, 3.5)
    small = cv2.resize(image, (int(width / factor), int(height / factor)), interpolation=cv2.INTER_AREA)
    return cv2.resize(small, (width, height), interpolation=cv2.INTER_LINEAR)


def noise(image: Image, rng: np.random.Generator, sigma: float) -> Image:
    """Add Gaussian sensor noise of standard deviation ``sigma`` grey levels."""
    grain = rng.standard_normal(image.shape, dtype=np.float32) * sigma
    return np.clip(image + grain, 0, 255).astype(np.uint8)


def compress(image: Image, rng: np.random.Generator) -> Image:
    """Put the image through JPEG at a quality of 20 to 80."""
    _, data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(20, 81))])
    result = cv2.imdecode(data, cv2.IMREAD_COLOR)
    assert result is not None
    return result


def degrade(image: Image, rng: np.random.Generator) -> Image:
    """Apply a random choice of the above, each rarely, as one frame of a video differs from the next."""
    if rng.random() < 0.7:
        image = relight(image, rng, 0.2)
    if rng.random() < 0.15:
        image = motion_blur(image, rng, 13)
    if rng.random() < 0.1:
        image = low_resolution(image, rng)
    if rng.random() < 0.15:
        image = noise(image, rng, rng.uniform(2, 10))
    if rng.random() < 0.2:
        image = compress(image, rng)
    return image
