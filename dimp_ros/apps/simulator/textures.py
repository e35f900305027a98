# SPDX-License-Identifier: Apache-2.0
"""What surfaces look like: pictures from files, or made ones that a tracker can hold on to."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from dimp_ros.files.inputs import opencv_path
from dimp_ros.images.video import Picture, Video

LARGEST_SIDE = 1024
SMALLEST_SIDE = 8


def load_picture(source: str) -> Picture:
    """Return a picture, or the first frame of a video, as [H, W, 3] uint8 BGR, at most `LARGEST_SIDE` large.

    :raises ValueError: if there is none, with the remedy.
    """
    picture = cv2.imread(opencv_path(source)) if Path(source).is_file() else None
    if picture is None:
        frame = next(Video(source).frames(0, 1), None)
        if frame is None:
            raise ValueError(f"{source} has no frame that OpenCV can read; give a picture or a video")
        picture = frame[1]
    shrink = LARGEST_SIDE / max(picture.shape[:2])
    if shrink < 1.0:
        picture = cv2.resize(picture, None, fx=shrink, fy=shrink, interpolation=cv2.INTER_AREA)
    return np.asarray(picture, np.uint8)


def noise_picture(
    rng: np.random.Generator, low: tuple[int, int, int], high: tuple[int, int, int], size: int = 512
) -> Picture:
    """Return a mottled picture [size, size, 3] between two colours (blue, green, red), coarse and fine, seamless."""
    mixture = np.zeros((size, size), np.float32)
    for cells, weight in ((4, 1.0), (16, 0.7), (64, 0.5), (256, 0.35)):
        grid = np.pad(rng.random((cells, cells), np.float32), 2, mode="wrap")
        zoom = size // cells
        fine = cv2.resize(grid, None, fx=zoom, fy=zoom, interpolation=cv2.INTER_CUBIC)
        mixture += weight * fine[2 * zoom : 2 * zoom + size, 2 * zoom : 2 * zoom + size]
    mixture = (mixture - mixture.min()) / (mixture.max() - mixture.min())
    dark, light = np.array(low, np.float32), np.array(high, np.float32)
    return np.asarray(dark + mixture[..., None] * (light - dark), np.float32).round().astype(np.uint8)


def brick_picture(rng: np.random.Generator) -> Picture:
    """Return a brick wall, [512, 512, 3]; every brick of a shade of its own."""
    picture = noise_picture(rng, (150, 160, 165), (190, 200, 205))
    for row in range(16):
        for column in range(-1, 8):
            x, y = column * 64 + (row % 2) * 32, row * 32
            colour = np.array([60, 80, 140]) + rng.integers(-25, 26)
            cv2.rectangle(picture, (x + 2, y + 2), (x + 61, y + 29), colour.tolist(), cv2.FILLED)
    grain = noise_picture(rng, (0, 0, 0), (60, 60, 60))
    return np.asarray(cv2.add(picture, grain), np.uint8)


def target_picture(rng: np.random.Generator, size: int = 256) -> Picture:
    """Return a bright pattern [size, size, 3] of blocks in colours that walls and grounds do not have."""
    palette = np.array([(40, 220, 250), (230, 120, 30), (40, 40, 230), (250, 250, 250), (120, 40, 170), (60, 200, 60)])
    blocks = palette[rng.permutation(np.arange(25) % len(palette)).reshape(5, 5)].astype(np.uint8)
    picture = cv2.resize(blocks, (size, size), interpolation=cv2.INTER_NEAREST)
    cv2.circle(picture, (size // 2, size // 2), size // 5, (20, 20, 20), size // 16, cv2.LINE_AA)
    return np.asarray(picture, np.uint8)


def with_ellipse(picture: Picture) -> NDArray[np.uint8]:
    """Return ``picture`` as [H, W, 4], blue, green and red times an opacity that is 0 outside of its ellipse."""
    height, width = picture.shape[:2]
    y, x = np.mgrid[0:height, 0:width]
    inside = ((x + 0.5) / width * 2 - 1) ** 2 + ((y + 0.5) / height * 2 - 1) ** 2 <= 1.0
    return np.dstack([picture * inside[..., None], np.where(inside, 255, 0)]).astype(np.uint8)


def opaque(picture: Picture) -> NDArray[np.uint8]:
    """Return ``picture`` as [H, W, 4], opaque all over."""
    return np.dstack([picture, np.full(picture.shape[:2], 255, np.uint8)])


def pyramid(texture: NDArray[np.uint8]) -> list[NDArray[np.uint8]]:
    """Return ``texture`` and halves of it down to `SMALLEST_SIDE`, so that what is far away does not flicker."""
    levels = [texture]
    while min(levels[-1].shape[:2]) >= 2 * SMALLEST_SIDE:
        height, width = levels[-1].shape[:2]
        half = cv2.resize(levels[-1], (width // 2, height // 2), interpolation=cv2.INTER_AREA)
        levels.append(np.asarray(half, np.uint8))
    return levels
