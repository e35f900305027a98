# SPDX-License-Identifier: Apache-2.0
"""Augmentation of the first frame: shifted, flipped, blurred and rotated views of one large crop (section 3.7)."""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from dimp_ros.geometry.box import Box
from dimp_ros.tracker.config import TrackerConfig


class View(NamedTuple):
    """One view: ``image`` ``[S, S, 3]`` uint8 and the target's ``box`` in its pixels."""

    image: NDArray[np.uint8]
    box: Box


def first_frame_views(
    large: NDArray[np.uint8], box: Box, config: TrackerConfig, rng: np.random.Generator
) -> list[View]:
    """Return the views that the filter is learned from, the plain one first.

    A box moves with its view's shift only; rotations and flips keep it.

    :param large: ``[2S, 2S, 3]``, the crop at twice the size. :param box: the target in the plain crop.
    """
    size = config.crop_size
    views = [_view(large, box, size, (0, 0))]
    if not config.augment:
        return views
    if config.augment_shift > 0:
        step = round(config.augment_shift * size / 2)
        views += [_view(large, box, size, (dx, dy)) for dx in (-step, step) for dy in (-step, step)]

    def extra() -> tuple[int, int]:
        dx, dy = np.rint(rng.uniform(-1, 1, 2) * config.augment_extra_shift * size)
        return int(dx), int(dy)

    if config.augment_flip:
        views.append(_view(np.ascontiguousarray(large[:, ::-1]), box, size, extra()))
    for sigma_x, sigma_y in zip(config.augment_blurs[::2], config.augment_blurs[1::2], strict=True):
        blurred = cv2.GaussianBlur(large, (0, 0), sigmaX=sigma_x, sigmaY=sigma_y)
        views.append(_view(blurred, box, size, extra()))
    for degrees in config.augment_rotations:
        turn = cv2.getRotationMatrix2D((size - 0.5, size - 0.5), degrees, 1)
        turned = cv2.warpAffine(large, turn, (2 * size, 2 * size), borderMode=cv2.BORDER_REPLICATE)
        views.append(_view(turned, box, size, extra()))
    return views


def _view(large: NDArray[np.uint8], box: Box, size: int, shift: tuple[int, int]) -> View:
    """Cut the view whose content is shifted by ``shift`` whole pixels."""
    x, y = size // 2 - shift[0], size // 2 - shift[1]
    return View(large[y : y + size, x : x + size], Box(box.x + shift[0], box.y + shift[1], box.w, box.h))
