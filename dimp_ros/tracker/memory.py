# SPDX-License-Identifier: Apache-2.0
"""The sample memory that the target filter is optimised on (section 3.7)."""

from __future__ import annotations

import torch
from torch import Tensor


class SampleMemory:
    """A fixed number of samples: classification features, target boxes and weights that sum to 1.

    The first frame's samples are never replaced, and together keep at least a given share of the weight.

    :param features: of the first frame, ``Tensor[N, C, H, W]``. :param boxes: ``Tensor[N, 4]`` in crop pixels.
    :param capacity: maximum number of samples. :param first_share: least weight of the first frame's samples together.
    """

    def __init__(self, features: Tensor, boxes: Tensor, capacity: int, first_share: float) -> None:
        self.first = len(features)
        if capacity <= self.first:
            raise ValueError(f"capacity is {capacity}; it must exceed the {self.first} samples of the first frame")
        self._features = features.new_zeros((capacity, *features.shape[1:]))
        self._boxes = boxes.new_zeros((capacity, 4))
        self._features[: self.first] = features
        self._boxes[: self.first] = boxes
        self._weights = torch.zeros(capacity, dtype=torch.float64)
        self._weights[: self.first] = 1 / self.first
        self.first_share = first_share
        self.count = self.first
        self._previous: int | None = None

    @property
    def features(self) -> Tensor:
        """Features of the samples held, ``Tensor[count, C, H, W]``, a view."""
        return self._features[: self.count]

    @property
    def boxes(self) -> Tensor:
        """Target boxes of the samples held, ``Tensor[count, 4]``, a view."""
        return self._boxes[: self.count]

    @property
    def weights(self) -> Tensor:
        """Weights of the samples held, ``Tensor[count]``, summing to 1."""
        return self._weights[: self.count].to(self._features)

    def samples(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return features, boxes and weights of the samples held."""
        return self.features, self.boxes, self.weights

    def slots(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return the same of all slots; empty ones have weight 0 and zero features."""
        return self._features, self._boxes, self._weights.to(self._features)

    def to(self, device: torch.device) -> None:
        """Move the samples to a device."""
        self._features, self._boxes = self._features.to(device), self._boxes.to(device)

    def add(self, features: Tensor, box: Tensor, rate: float) -> None:
        """Add a sample; when full it replaces the one with the least weight that is not from the first frame.

        :param features: ``Tensor[C, H, W]``. :param box: ``Tensor[4]``.
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
