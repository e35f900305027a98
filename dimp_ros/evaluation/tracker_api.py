# SPDX-License-Identifier: Apache-2.0
"""The interface of trackers that are evaluated."""

from __future__ import annotations

from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from dimp_ros.geometry.box import Box


class BaselineUnavailable(RuntimeError):
    """A tracker cannot run on this machine; the message has the remedy."""


class Prediction(NamedTuple):
    """Result of a frame: a box always, whether the target is found, and a confidence if the tracker has one."""

    box: Box
    found: bool = True
    confidence: float | None = None


class BenchmarkTracker(Protocol):
    """The two methods of tracking toolkits. Images are HxWx3 uint8 BGR, boxes x, y, w, h in float pixels."""

    def init(self, image: NDArray[np.uint8], box: Box) -> None:
        """Start on the target in `box`; replaces an earlier target."""
        ...

    def update(self, image: NDArray[np.uint8]) -> Prediction:
        """Track the target in the next image."""
        ...
