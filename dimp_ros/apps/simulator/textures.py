# SPDX-License-Identifier: Apache-2.0
"""Images on the surfaces of the world: from files, or drawn."""

from __future__ import annotations

import math
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from dimp_ros.files.inputs import opencv_path
from dimp_ros.images.video import BgrImage, Video

Bytes = NDArray[np.uint8]
Singles = NDArray[np.float32]

ASSETS = Path(__file__).resolve().parent / "assets"
DOG, DOG_FRAMES = ASSETS / "dog.webp", 12
"""A trotting dog that runs to the right, in as many images side by side; see NOTICE for its origin."""
GRASS = ASSETS / "grass.webp"

LARGEST_SIDE = 1024
SMALLEST_SIDE = 8


def load_image(source: str) -> Bytes:
    """Return an image file, or the first image of a video, at most `LARGEST_SIDE` large.

    :return: [H, W, 3] BGR, or [H, W, 4] BGR and opacity, uint8.
    :raises ValueError: if there is none, with the remedy.
    """
    image = cv2.imread(opencv_path(source), cv2.IMREAD_UNCHANGED) if Path(source).is_file() else None
    if image is None or image.dtype != np.uint8 or image.ndim != 3:
        frame = next(Video(source).frames(0, 1), None)
        if frame is None or frame.image is None:
            raise ValueError(f"{source} has no image that OpenCV can read; give an image or a video")
        image = frame.image
    shrink = LARGEST_SIDE / max(image.shape[:2])
    if shrink < 1.0:
        image = cv2.resize(image, None, fx=shrink, fy=shrink, interpolation=cv2.INTER_AREA)
    return np.asarray(image, np.uint8)


def dog_images() -> list[Bytes]:
    """Return the images of a stride, [H, W, 4] each."""
    strip = cv2.imread(opencv_path(DOG), cv2.IMREAD_UNCHANGED)
    if strip is None:
        raise ValueError(f"{DOG} cannot be read: OpenCV was built without WebP; set target_picture")
    return [np.ascontiguousarray(part) for part in np.split(np.asarray(strip, np.uint8), DOG_FRAMES, axis=1)]


def noise(rng: np.random.Generator, height: int, width: int, cells: tuple[tuple[int, int, float], ...]) -> Singles:
    """Return smooth noise [height, width] in 0..1, seamless; ``cells`` are rows, columns and weight of each octave."""
    mixture = np.zeros((height, width), np.float32)
    for rows, columns, weight in cells:
        grid = np.pad(rng.random((rows, columns), np.float32), 2, mode="wrap")
        scale_y, scale_x = height / rows, width / columns
        y = (np.arange(height, dtype=np.float32) + 0.5) / scale_y + 1.5
        x = (np.arange(width, dtype=np.float32) + 0.5) / scale_x + 1.5
        columns_at, rows_at = np.meshgrid(x, y)
        mixture += weight * np.asarray(cv2.remap(grid, columns_at, rows_at, cv2.INTER_CUBIC), np.float32)
    return np.asarray((mixture - mixture.min()) / np.ptp(mixture), np.float32)


def noise_image(
    rng: np.random.Generator, low: tuple[int, int, int], high: tuple[int, int, int], size: int = 512
) -> BgrImage:
    """Return a mottled image [size, size, 3] between two BGR colours, seamless."""
    mixture = noise(rng, size, size, ((4, 4, 1.0), (16, 16, 0.7), (64, 64, 0.5), (256, 256, 0.35)))
    return _between(mixture, low, high).round().astype(np.uint8)


def landscape_image(rng: np.random.Generator, height: int = 512, width: int = 1536) -> BgrImage:
    """Return sky, hills and a line of trees, [height, width, 3], seamless to the sides; the lowest row is the ground's.

    One image covers a wall that is three times as wide as high.
    """
    up = 1.0 - (np.arange(height, dtype=np.float32)[:, None] + 0.5) / height
    blue = np.broadcast_to(np.minimum(1.3 * up, 1.0) ** 0.7, (height, width))
    image = _between(blue, (238, 228, 214), (196, 136, 78))
    clouds = noise(rng, height, width, ((4, 6, 1.0), (9, 12, 0.6), (20, 24, 0.35), (64, 80, 0.16), (128, 160, 0.08)))
    cover = np.clip((clouds - 0.5) * 4.5, 0.0, 1.0) * np.clip((up - 0.08) * 5.0, 0.0, 1.0) * 0.92
    shade = _between(np.clip(clouds * 1.6 - 0.6, 0.0, 1.0), (222, 216, 212), (255, 254, 252))
    image += (shade - image) * cover[..., None].astype(np.float32)
    for top, depth, colour in ((0.15, 0.08, (196, 178, 146)), (0.105, 0.06, (158, 158, 122))):
        ridge = top - depth + depth * noise(rng, 1, width, ((1, 5, 1.0), (1, 14, 0.5), (1, 60, 0.12)))
        image[up < ridge] = colour
    crowns = 0.035 + 0.05 * noise(rng, 1, width, ((1, 24, 1.0), (1, 90, 0.8), (1, 300, 0.45)))
    leaves = noise(rng, height, width, ((48, 144, 1.0), (120, 360, 0.9), (256, 768, 0.8)))
    light = np.clip(leaves * 0.75 + 0.35 * up / crowns - 0.15, 0.0, 1.0)
    trees = _between(light, (38, 52, 32), (112, 164, 126))
    np.copyto(image, trees, where=(up < crowns)[..., None])
    return image.round().astype(np.uint8)


def planks_image(rng: np.random.Generator, planks: int = 9, height: int = 320, width: int = 640) -> Bytes:
    """Return a fence of upright planks with pointed tops, [height, width, 4]."""
    grain = noise(rng, height, width, ((3, planks * 14, 1.0), (8, planks * 40, 0.8), (24, width // 2, 0.5)))
    image = _between(grain, (62, 92, 128), (128, 168, 204))
    side = width / planks
    x = np.arange(width, dtype=np.float32) + 0.5
    inside = np.abs(x % side / side - 0.5) * 2.0  # 0 in a plank's middle, 1 at its edges
    image *= np.repeat(rng.uniform(0.82, 1.08, planks), math.ceil(side))[:width][None, :, None]
    image *= (1.0 - 0.55 * np.clip((inside - 0.9) * 10.0, 0.0, 1.0))[None, :, None]
    for rail in (0.28, 0.78):  # shade of the rails' nails
        row = int(rail * height)
        for plank in range(planks):
            cv2.circle(image, (int((plank + 0.5) * side), row), max(2, height // 110), (50, 60, 66), cv2.FILLED)
    y = (np.arange(height, dtype=np.float32)[:, None] + 0.5) / height
    opaque = y > 0.09 * inside[None] ** 2
    return np.dstack([np.clip(image, 0, 255), np.where(opaque, 255, 0)]).round().astype(np.uint8)


def gear_image(rng: np.random.Generator, size: int = 256, teeth: int = 18) -> Bytes:
    """Return a gear of turned steel with a brass bush and three holes, [size, size, 4]."""
    y, x = (np.mgrid[0:size, 0:size].astype(np.float32) + 0.5) / size * 2.0 - 1.0
    radius, angle = np.hypot(x, y), np.arctan2(y, x)
    rings = noise(rng, 1, 4 * size, ((1, 40, 1.0), (1, 200, 1.0)))[0]
    turned = rings[np.minimum(radius * 2 * size, 4 * size - 1).astype(int)]
    light = 0.5 + 0.28 * np.cos(2.0 * angle - 0.9) + 0.12 * np.cos(4.0 * angle) + 0.2 * (turned - 0.5)
    image = _between(np.clip(light, 0.0, 1.0), (70, 66, 62), (238, 234, 230))
    brass = _between(np.clip(light, 0.0, 1.0), (30, 84, 118), (130, 214, 250))
    image = np.where(((radius > 0.16) & (radius < 0.34))[..., None], brass, image)
    image *= (1.0 - 0.5 * (np.abs(radius - 0.70) < 0.02) - 0.4 * (np.abs(radius - 0.34) < 0.015))[..., None]
    tooth = np.clip(np.cos(teeth * angle) * 2.2, -1.0, 1.0)
    opaque = (radius < 0.89 + 0.09 * tooth) & (radius > 0.16)
    for spoke in range(3):
        turn = 2.0 * math.pi * spoke / 3 + 0.4
        opaque &= np.hypot(x - 0.52 * math.cos(turn), y - 0.52 * math.sin(turn)) > 0.11
    return np.dstack([np.clip(image, 0, 255), np.where(opaque, 255, 0)]).round().astype(np.uint8)


def shadow_image(size: int = 64) -> Bytes:
    """Return a soft shadow [size, size, 4]."""
    y, x = (np.mgrid[0:size, 0:size] + 0.5) / size * 2.0 - 1.0
    opacity = 150.0 * np.clip(1.0 - np.hypot(x, y), 0.0, 1.0) ** 0.8
    return np.dstack([np.zeros((size, size, 3)), opacity]).round().astype(np.uint8)


def cut_out(image: Bytes) -> Bytes:
    """Return an image as [H, W, 4]: one without an opacity as an ellipse."""
    if image.shape[2] == 4:
        return image
    height, width = image.shape[:2]
    y, x = np.mgrid[0:height, 0:width]
    inside = ((x + 0.5) / width * 2 - 1) ** 2 + ((y + 0.5) / height * 2 - 1) ** 2 <= 1.0
    return np.dstack([image, np.where(inside, 255, 0)]).astype(np.uint8)


def pyramid(texture: Bytes) -> list[Bytes]:
    """Return ``texture`` and halves of it down to `SMALLEST_SIDE`, so that what is far away does not flicker.

    The colours of one with an opacity are multiplied by it.
    """
    if texture.shape[2] == 4:
        opacity = texture[..., 3:].astype(np.uint16)
        texture = np.dstack([(texture[..., :3] * opacity + 127) // 255, texture[..., 3]]).astype(np.uint8)
    levels = [texture]
    while min(levels[-1].shape[:2]) >= 2 * SMALLEST_SIDE:
        height, width = levels[-1].shape[:2]
        half = cv2.resize(levels[-1], (width // 2, height // 2), interpolation=cv2.INTER_AREA)
        levels.append(np.asarray(half, np.uint8))
    return levels


def _between(share: NDArray[np.floating], low: tuple[int, ...], high: tuple[int, ...]) -> Singles:
    """Return colours [..., 3] between two, as far from the first as ``share`` [...] in 0..1 says."""
    dark, light = np.array(low, np.float32), np.array(high, np.float32)
    return np.asarray(dark + share[..., None] * (light - dark), np.float32)
