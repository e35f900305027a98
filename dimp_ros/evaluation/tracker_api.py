# SPDX-License-Identifier: Apache-2.0
"""The interface of trackers that are evaluated."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from dimp_ros.geometry.box import Box

if TYPE_CHECKING:
    pass


class BaselineUnavailable(RuntimeError):
    """A tracker cannot run on this machine; the message tells the remedy."""


class Prediction(NamedTuple):
    """What a tracker says about a frame: a box always, whether it believes in it, and how much if it can tell."""

    box: Box
    found: bool = True
    confidence: float | None = None


class BenchmarkTracker(Protocol):
    """The two calls of the field's toolkits. Images are HxWx3 uint8 BGR, boxes x, y, w, h in float pixels."""

    def init(self, image: NDArray[np.uint8], box: Box) -> None:
        """Start on the target in `box`, forgetting any earlier one."""
        ...

    def update(self, image: NDArray[np.uint8]) -> Prediction:
        """Follow the target to the next image."""
        ...
