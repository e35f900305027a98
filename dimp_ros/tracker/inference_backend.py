# SPDX-License-Identifier: Apache-2.0
"""The network's part of tracking, behind one interface: PyTorch (with CUDA graphs on a GPU) or OpenVINO.

No other module of the tracker knows which one computes; `dimp_ros.tracker.backend_choice` chooses it. What lives on the
device is the backend's, a `DeviceArray`: features, samples, filters, modulation vectors, tokens. All else is numpy.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from dimp_ros.tracker.config import TrackerConfig
from dimp_ros.tracker.memory import SampleMemory
from dimp_ros.tracker.stage_timer import StageTimer

Floats: TypeAlias = NDArray[np.float32]
Crops: TypeAlias = Sequence[NDArray[np.uint8]]
"""N windows of one size, each ``[S, S, 3]`` BGR."""

DeviceArray: TypeAlias = Any
"""An array where the backend computes, a numpy array or a tensor. The tracker takes rows of it and hands it back."""


class WindowFeatures(NamedTuple):
    """Features of N windows, on the device.

    :param stride8: of the backbone, ``[N, C8, S / 8, S / 8]``. :param stride16: ``[N, C16, S / 16, S / 16]``.
    :param classifier: of the target classifier, ``[N, C, S / 16, S / 16]``; None where they are not computed yet.
    """

    stride8: DeviceArray
    stride16: DeviceArray
    classifier: DeviceArray = None

    def rows(self, rows: Sequence[int]) -> WindowFeatures:
        """Return the backbone's features of some windows."""
        return WindowFeatures(self.stride8[rows], self.stride16[rows])


class TargetModulation(NamedTuple):
    """The overlap network's modulation vectors of a target, ``[1, M8]`` and ``[1, M16]``."""

    stride8: DeviceArray
    stride16: DeviceArray


class CloserBoxes(NamedTuple):
    """``edges`` ``[N, 4]``: left, top, right, bottom in window sides; ``overlaps`` ``[N]``: predicted, 0..1."""

    edges: Floats
    overlaps: Floats


class InferenceBackend(Protocol):
    """Runs a network with fixed weights on one device. Boxes are (x, y, w, h) in pixels of the windows.

    :param name: the backend's.
    """

    name: str

    @property
    def has_box_refiner(self) -> bool:
        """Whether the weights have a box refiner, see `look_closer`."""
        ...

    @property
    def has_point_box(self) -> bool:
        """Whether they have a head for points, see `boxes_at_point`."""
        ...

    def up_to_date(self) -> bool:
        """Tell whether the network still has the weights that the backend was made from."""
        ...

    def device_bytes(self) -> int | None:
        """Return the device memory that this program has reserved; None on a CPU."""
        ...

    def to_host(self, array: DeviceArray) -> Floats:
        """Return a copy on the host."""
        ...

    def to_device(self, array: Floats) -> DeviceArray:
        """Return a copy on the device."""
        ...

    def extract(self, crops: Crops) -> WindowFeatures:
        """Return features of windows, valid as long as they are kept."""
        ...

    def extract_and_score(
        self, crops: Crops, filters: Sequence[DeviceArray], timer: StageTimer
    ) -> tuple[WindowFeatures, Floats]:
        """Extract features of search windows, valid until the next frame, and score them with the targets' filters.

        :param filters: of the target in each window, ``[1, C, k, k]`` each.
        :return: features, and scores ``[N, R, C]``.
        """
        ...

    def classification_features(self, features: WindowFeatures, kept: NDArray[np.bool_], share: float) -> DeviceArray:
        """Return classification features ``[N + D, C, H, W]`` of N windows, then of D copies of the first with dropout.

        :param kept: the backbone's channels that the copies keep, ``[D, C16]``. :param share: of kept channels; they
            are divided by it.
        """
        ...

    def learn_filter(self, samples: DeviceArray, boxes: Floats, steps: int) -> DeviceArray:
        """Return the initial filter ``[1, C, k, k]`` of samples of equal weight after ``steps`` optimiser steps.

        :param samples: ``[N, C, H, W]``. :param boxes: of the target in them, ``[N, 4]``.
        """
        ...

    def update_filter(self, filter: DeviceArray, memory: SampleMemory, steps: int) -> DeviceArray:
        """Return the filter after ``steps`` optimiser steps on all samples."""
        ...

    def reserve(self, samples: DeviceArray, capacity: int) -> DeviceArray:
        """Return an array ``[capacity, C, H, W]`` that begins with samples; its other rows are zero."""
        ...

    def score(self, samples: DeviceArray, filter: DeviceArray) -> Floats:
        """Correlate samples ``[N, C, H, W]`` with a filter; return scores ``[N, R, C]``."""
        ...

    def modulation(self, features: WindowFeatures, box: Floats) -> TargetModulation:
        """Return the overlap network's modulation vectors of the target in ``box`` ``[4]`` of one window."""
        ...

    def fit_modulation(
        self, modulation: TargetModulation, features: WindowFeatures, boxes: Floats, config: TrackerConfig
    ) -> TargetModulation:
        """Fit modulation vectors to windows of the first frame; see `dimp_ros.tracker.box_adaptation`.

        :param boxes: of the target in them, ``[N, 4]``.
        """
        ...

    def refine_boxes(
        self,
        modulation: Sequence[TargetModulation],
        features: WindowFeatures,
        boxes: Floats,
        steps: int,
        length: float,
    ) -> tuple[Floats, Floats]:
        """Refine the boxes of B targets, each in its window; see `dimp_ros.model.inference.ascent.ascend`.

        :param boxes: ``[B, P, 4]``. :return: the boxes, and the overlaps predicted before the last step, ``[B, P]``.
        """
        ...

    def target_tokens(self, crop: NDArray[np.uint8], box: Floats) -> DeviceArray:
        """Return the box refiner's tokens ``[1, T, C]`` of the target in ``box`` ``[4]`` of its window."""
        ...

    def look_closer(self, crops: Crops, tokens: Sequence[DeviceArray]) -> CloserBoxes:
        """Apply the box refiner to its windows of N targets, given the tokens of each."""
        ...

    def boxes_at_point(self, crops: Crops) -> CloserBoxes:
        """Apply the head for points to the windows around one: K boxes of each, ``[N, K, 4]`` and ``[N, K]``."""
        ...
