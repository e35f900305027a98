# SPDX-License-Identifier: Apache-2.0
"""Test videos of the benchmark: synthetic ones of textured patches that move over a textured ground, or a folder."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from dimp_ros.geometry.box import Box, check_box

SIDE = 60
"""Side of a synthetic target, pixels."""

SUFFIXES = (".bmp", ".jpeg", ".jpg", ".png", ".webp")


class BenchmarkVideo(Protocol):
    """An endless sequence of frames with targets in the first one."""

    size: tuple[int, int]
    """Width and height in pixels."""
    name: str
    """What the video is called in tables."""

    def frame(self, number: int) -> NDArray[np.uint8]:
        """Return frame ``number``, ``[H, W, 3]`` BGR."""
        ...

    def boxes(self, number: int, count: int) -> list[Box]:
        """Return where ``count`` targets are in frame ``number``; of a folder that is known of the first one only."""
        ...


def _texture(rng: np.random.Generator, width: int, height: int, cells: int, low: int, high: int) -> NDArray[np.uint8]:
    coarse = rng.integers(low, high, (math.ceil(height / cells) + 1, math.ceil(width / cells) + 1, 3), dtype=np.uint8)
    return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)


class SyntheticVideo:
    """Up to eight patches, each going round a place of its own. A frame depends on nothing but its number and the seed.

    :param size: width and height in pixels, at least 320 x 240. :param side: of a patch, pixels.
    """

    MOST = 8

    def __init__(self, size: tuple[int, int] = (640, 480), side: int = SIDE, seed: int = 0) -> None:
        if size[0] < 320 or size[1] < 240:
            raise ValueError(
                f"size is {size[0]} x {size[1]}; it must be at least 320 x 240 for the patches to have room"
            )
        rng = np.random.default_rng(seed)
        self.size, self.side = size, side
        self.name = f"{size[0]}x{size[1]}" + (f"@{side}" if side != SIDE else "")
        self._ground = _texture(rng, *size, 40, 60, 180)
        self._patches = [_texture(rng, side, side, side // 5, 0, 255) for _ in range(self.MOST)]

    def boxes(self, number: int, count: int) -> list[Box]:
        """Return the boxes of the first ``count`` patches.

        :raises ValueError: for more than eight.
        """
        if not 1 <= count <= self.MOST:
            raise ValueError(f"count is {count}; there are from 1 to {self.MOST} patches")
        return [Box(*self._corner(number, patch), self.side, self.side) for patch in range(count)]

    def frame(self, number: int) -> NDArray[np.uint8]:
        """Draw a frame with all patches."""
        image = self._ground.copy()
        for n, patch in enumerate(self._patches):
            x, y = self._corner(number, n)
            image[y : y + self.side, x : x + self.side] = patch
        return image

    def _corner(self, number: int, patch: int) -> tuple[int, int]:
        column, row = patch % 4, patch // 4
        cell = (self.size[0] / 4, self.size[1] / 2)
        room = (cell[0] - self.side) / 2, (cell[1] - self.side) / 2
        angle = 2 * math.pi * (number / 60 + patch / self.MOST)
        x = (column + 0.5) * cell[0] - self.side / 2 + 0.8 * min(room[0], 40) * math.cos(angle)
        y = (row + 0.5) * cell[1] - self.side / 2 + 0.8 * min(room[1], 40) * math.sin(angle)
        return round(x), round(y)


class ImageFolderVideo:
    """The images of a folder in the order of their names, forwards and backwards.

    :param box: the target in the first one, (x, y, w, h) in pixels; more targets are as many copies of it.
    :raises ValueError: if there are no images, or the box is not in the first one.
    """

    def __init__(self, folder: Path, box: Box) -> None:
        self._paths = sorted(path for path in folder.glob("*") if path.suffix.lower() in SUFFIXES)
        if not self._paths:
            raise ValueError(f"no images ({', '.join(SUFFIXES)}) in {str(folder)!r}; give a folder that holds some")
        first = self.frame(0)
        self.size = (first.shape[1], first.shape[0])
        self.name = f"{self.size[0]}x{self.size[1]}"
        self._box = check_box(box, *self.size, min_side=4.0)

    def boxes(self, number: int, count: int) -> list[Box]:
        """Return the first frame's box, ``count`` times."""
        return [self._box] * count

    def frame(self, number: int) -> NDArray[np.uint8]:
        """Read a frame."""
        last = max(len(self._paths) - 1, 1)
        at = number % (2 * last)
        path = self._paths[min(at if at <= last else 2 * last - at, len(self._paths) - 1)]
        image = cv2.imread(str(path), cv2.IMREAD_COLOR)
        if image is None:
            raise ValueError(f"image {str(path)!r} cannot be read; remove it or fetch it again")
        return image
