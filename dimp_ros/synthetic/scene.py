# SPDX-License-Identifier: Apache-2.0
"""A planned scene: the content of every frame of a synthetic sequence."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dimp_ros.synthetic.motion import Floats

Flags = NDArray[np.bool_]


@dataclass(frozen=True)
class Layer:
    """An object drawn in K frames: ``canvas`` number, ``transforms`` ``[K, 2, 3]`` from its units to the frame.

    :param shown: ``[K]``, whether it is drawn. :param gain: ``[K, 3]``, factor of its red, green and blue.
    :param bend: ``[K, KNOTS, KNOTS, 2]`` in units: the pixel at u is the canvas at u + bend(u).
    """

    canvas: int
    transforms: Floats
    shown: Flags
    gain: Floats
    bend: Floats | None = None


@dataclass(frozen=True)
class PlannedScene:
    """K frames of ``width`` x ``height``: background image, its view (image to frame), and target.

    :param layers: in drawing order. :param boxes: ``[K, 4]``, clipped to the frame. :param visible: ``[K]`` of 0..1.
    """

    width: int
    height: int
    images: NDArray[np.int64]
    views: Floats
    layers: tuple[Layer, ...]
    boxes: Floats
    visible: Floats

    def __len__(self) -> int:
        return len(self.images)
