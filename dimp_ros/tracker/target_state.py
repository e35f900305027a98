# SPDX-License-Identifier: Apache-2.0
"""State of one tracked target, and a read-only copy of it for debugging and comparison."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dimp_ros.geometry.box import Box
from dimp_ros.model.iou_net import Modulation
from dimp_ros.tracker.candidate_tracks import CandidateTracks
from dimp_ros.tracker.config import TrackerConfig
from dimp_ros.tracker.crop import SearchWindow
from dimp_ros.tracker.localization import Localization
from dimp_ros.tracker.memory import SampleMemory
from dimp_ros.tracker.random_numbers import UniformNumbers
from dimp_ros.tracker.redetection import RedetectionState, TrackStatus


@dataclass
class SearchResult:
    """A target in one search window of a frame; references only, nothing is copied.

    :param image: the crop, ``[S, S, 3]`` BGR. :param scores: ``[R, C]``, of ``filter``, before this frame was learned.
    :param localization: the decision made from them. The last three are None where no box was refined.
    """

    window: SearchWindow
    image: NDArray[np.uint8]
    scores: NDArray[np.float32]
    filter: Tensor
    localization: Localization
    proposals: NDArray[np.float32] | None = None
    boxes: NDArray[np.float32] | None = None
    overlaps: NDArray[np.float32] | None = None


@dataclass
class TrackedTarget:
    """A target: its last box, target filter, modulation vectors of the overlap network, and training samples.

    :param box: the last CONFIRMED one. :param random: for jittered boxes. :param last: the result of the last frame.
    :param frame: 0 on the first frame, incremented by every update.
    :param tokens: of the box refiner, ``Tensor[1, T, C]``; None where the weights have none.
    :param box_quality: of the box in this frame, 0..1: see `closer_look`; None without a box refiner.
    :param edge_errors: of the refined box in the first frame: left, top, right, bottom, in box sides.
    :param reported_box: ``box`` with the first frame's error subtracted.
    """

    box: Box
    filter: Tensor
    modulation: Modulation
    memory: SampleMemory
    random: UniformNumbers
    last: SearchResult
    frame: int = 0
    status: TrackStatus = TrackStatus.CONFIRMED
    redetection: RedetectionState = field(default_factory=RedetectionState)
    tracks: CandidateTracks = field(default_factory=CandidateTracks)
    tokens: Tensor | None = None
    box_quality: float | None = None
    edge_errors: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 0.0)
    reported_box: Box = field(init=False)

    def __post_init__(self) -> None:
        self.reported_box = self.box

    def predicted_box(self, config: TrackerConfig) -> Box:
        """Return the box that the next search window is centred on: the candidate's, where there is one."""
        candidate = self.redetection.candidate
        return candidate.box if candidate else self.redetection.search_box(self.box, config)

    def to(self, device: torch.device) -> None:
        """Move all tensors to a device."""
        self.filter = self.filter.to(device)
        self.modulation = Modulation(*(vector.to(device) for vector in self.modulation))
        self.memory.to(device)
        self.tokens = None if self.tokens is None else self.tokens.to(device)
        self.last.filter = self.last.filter.to(device)

    def inspect(self) -> FrameInspection:
        """Return copies of everything behind the last result."""
        last, memory = self.last, self.memory
        return FrameInspection(
            frame=self.frame,
            image=last.image.copy(),
            window=last.window,
            scores=last.scores.copy(),
            localization=last.localization,
            filter=_copy(last.filter[0]),
            next_filter=_copy(self.filter[0]),
            modulation=Modulation(*(_copy(vector[0]) for vector in self.modulation)),
            proposals=None if last.proposals is None else last.proposals.copy(),
            refined_boxes=None if last.boxes is None else last.boxes.copy(),
            overlaps=None if last.overlaps is None else last.overlaps.copy(),
            box=self.box,
            sample_features=_copy(memory.features),
            sample_boxes=_copy(memory.boxes),
            sample_weights=_copy(memory.weights),
        )


@dataclass(frozen=True)
class FrameInspection:
    """Everything behind a target's last `TrackResult`; boxes are (x, y, w, h) in crop pixels, tensors on the CPU.

    :param frame: 0 on the first frame, incremented by every update.
    :param image: the network's input, ``[S, S, 3]`` BGR uint8. :param window: its position in the image.
    :param scores: ``[R, C]``; cell (row, column) is a target centre at crop pixel (16 column, 16 row).
    :param localization: the decision made from them; on the first frame their maximum.
    :param filter: ``Tensor[C, 4, 4]``, the filter behind ``scores``. :param next_filter: after this frame was learned.
    :param modulation: the overlap network's, two vectors.
    :param proposals: ``[P, 4]``, where refinement started; None on the first frame and where the target was not
        found. :param refined_boxes: ``[P, 4]``, where it ended.
    :param overlaps: ``[P]``, the prediction ``2 * IoU - 1`` before its last step.
    :param box: the confirmed box after this frame, in image pixels.
    :param sample_features: the memory's, ``Tensor[N, C, H, W]``, with ``sample_boxes`` ``Tensor[N, 4]`` and
        ``sample_weights`` ``Tensor[N]``, after this frame was added.
    """

    frame: int
    image: NDArray[np.uint8]
    window: SearchWindow
    scores: NDArray[np.float32]
    localization: Localization
    filter: Tensor
    next_filter: Tensor
    modulation: Modulation
    proposals: NDArray[np.float32] | None
    refined_boxes: NDArray[np.float32] | None
    overlaps: NDArray[np.float32] | None
    box: Box
    sample_features: Tensor
    sample_boxes: Tensor
    sample_weights: Tensor


def evidence_of(localization: Localization, box_quality: float | None) -> float:
    """Return what the confidence is a function of.

    The score peak alone, or its product with the absence of a distractor and the quality of the refined box.
    """
    if box_quality is None:
        return localization.peak
    return localization.peak * (1 - min(max(localization.distractor_ratio, 0.0), 1.0)) * box_quality


def _copy(tensor: Tensor) -> Tensor:
    """Return a copy on the CPU."""
    return tensor.detach().to("cpu", copy=True)
