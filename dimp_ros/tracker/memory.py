# SPDX-License-Identifier: Apache-2.0
"""The sample memory that the target filter is optimised on (section 3.7)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]


class SampleMemory:
    """A fixed number of samples: classification features, target boxes and weights that sum to 1.

    The first frame's samples are never replaced, and together keep at least a given share of the weight.

    :param features: ``[capacity, C, H, W]`` on the backend's device, which begins with the first frame's N samples.
    :param boxes: of the first frame, ``[N, 4]`` in crop pixels.
    :param first_share: least weight of the first frame's samples together.
    """

    def __init__(self, features: Any, boxes: Floats, first_share: float) -> None:
        self.first = self.count = len(boxes)
        if len(features) <= self.first:
            raise ValueError(f"capacity is {len(features)}; it must exceed the {self.first} samples of the first frame")
        self._features = features
        self._boxes = np.zeros((len(features), 4), np.float32)
        self._boxes[: self.first] = boxes
        self._weights = np.zeros(len(features))
        self._weights[: self.first] = 1 / self.first
        self.first_share = first_share
        self._previous: int | None = None

    @property
    def features(self) -> Any:
        """Features of the samples held, ``[count, C, H, W]``, a view on the device."""
        return self._features[: self.count]

    @property
    def boxes(self) -> Floats:
        """Target boxes of the samples held, ``[count, 4]``, a view."""
        return self._boxes[: self.count]

    @property
    def weights(self) -> Floats:
        """Weights of the samples held, ``[count]``, summing to 1."""
        return self._weights[: self.count].astype(np.float32)

    def samples(self) -> tuple[Any, Floats, Floats]:
        """Return features, boxes and weights of the samples held."""
        return self.features, self.boxes, self.weights

    def slots(self) -> tuple[Any, Floats, Floats]:
        """Return the same of all slots; empty ones have weight 0 and zero features."""
        return self._features, self._boxes, self._weights.astype(np.float32)

    def move(self, move: Callable[[Any], Any]) -> None:
        """Move the features to another device."""
        self._features = move(self._features)

    def add(self, features: Any, box: Floats, rate: float) -> None:
        """Add a sample; when full it replaces the one with the least weight that is not from the first frame.

        :param features: ``[C, H, W]`` on the device. :param box: ``[4]``.
        :param rate: its weight is the previous sample's / (1 - rate), that of the very first one ``rate``.
        """
        if self.count < len(self._weights):
            slot = self.count
            self.count += 1
        else:
            slot = self.first + int(self._weights[self.first :].argmin())
        if self._previous is None:
            self._weights *= 1 - rate
            self._weights[slot] = rate
        else:
            self._weights[slot] = self._weights[self._previous] / (1 - rate)
        self._weights /= self._weights.sum()
        share = self._weights[: self.first].sum()
        if share < self.first_share:
            self._weights[: self.first] = self.first_share / self.first
            self._weights[self.first :] *= (1 - self.first_share) / (1 - share)
        self._features[slot] = features
        self._boxes[slot] = box
        self._previous = slot
