# SPDX-License-Identifier: Apache-2.0
"""Augmentation of the first frame: shifted, flipped, blurred and rotated views of one large crop (section 3.7)."""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from dimp_ros.geometry.box import Box
from dimp_ros.tracker.config import TrackerConfig


class ViewChange(NamedTuple):
    """How a view differs from the plain crop; with the defaults, not at all.

    :param shift: of its content in whole pixels, after everything else. :param flip: left and right change places.
    :param blur: standard deviations of the Gaussian in x and y, pixels. :param degrees: of a rotation about the centre.
    """

    shift: tuple[int, int] = (0, 0)
    flip: bool = False
    blur: tuple[float, float] | None = None
    degrees: float = 0.0


class View(NamedTuple):
    """One view: ``image`` ``[S, S, 3]`` uint8 and the target's ``box`` in its pixels."""

    image: NDArray[np.uint8]
    box: Box


def view_changes(config: TrackerConfig, rng: np.random.Generator) -> list[ViewChange]:
    """Return the changes of the views that the filter is learned from; the plain view is the first."""
    changes, size = [ViewChange()], config.crop_size
    if not config.augment:
        return changes
    if config.augment_shift > 0:
        step = round(config.augment_shift * size / 2)
        changes += [ViewChange((dx, dy)) for dx in (-step, step) for dy in (-step, step)]

    def extra() -> tuple[int, int]:
        dx, dy = np.rint(rng.uniform(-1, 1, 2) * config.augment_extra_shift * size)
        return int(dx), int(dy)

    if config.augment_flip:
        changes.append(ViewChange(extra(), flip=True))
    for sigmas in zip(config.augment_blurs[::2], config.augment_blurs[1::2], strict=True):
        changes.append(ViewChange(extra(), blur=sigmas))
    return [*changes, *(ViewChange(extra(), degrees=degrees) for degrees in config.augment_rotations)]


def first_frame_views(
    large: NDArray[np.uint8], box: Box, config: TrackerConfig, rng: np.random.Generator
) -> list[View]:
    """Return the views that the filter is learned from, the plain one first.

    A box moves with its view's shift only; rotations and flips keep it.

    :param large: ``[2S, 2S, 3]``, the crop at twice the size. :param box: the target in the plain crop.
    """
    return [_view(large, box, config.crop_size, change) for change in view_changes(config, rng)]


def _view(large: NDArray[np.uint8], box: Box, size: int, change: ViewChange) -> View:
    """Cut a view from the large crop after its change."""
    (dx, dy), flip, blur, degrees = change
    if flip:
        large = np.ascontiguousarray(large[:, ::-1])
    if blur:
        large = cv2.GaussianBlur(large, (0, 0), sigmaX=blur[0], sigmaY=blur[1])
    if degrees:
        turn = cv2.getRotationMatrix2D((size - 0.5, size - 0.5), degrees, 1)
        large = cv2.warpAffine(large, turn, (2 * size, 2 * size), borderMode=cv2.BORDER_REPLICATE)
    x, y = size // 2 - dx, size // 2 - dy
    return View(large[y : y + size, x : x + size], Box(box.x + dx, box.y + dy, box.w, box.h))
