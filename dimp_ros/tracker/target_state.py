# SPDX-License-Identifier: Apache-2.0
"""State of one tracked target, and a read-only copy of it for debugging and comparison."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from dimp_ros.geometry.box import Box
from dimp_ros.tracker.candidate_tracks import CandidateTracks
from dimp_ros.tracker.config import TrackerConfig
from dimp_ros.tracker.crop import SearchWindow
from dimp_ros.tracker.inference_backend import DeviceArray, Floats, TargetModulation
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
    filter: DeviceArray
    localization: Localization
    proposals: Floats | None = None
    boxes: Floats | None = None
    overlaps: Floats | None = None


@dataclass
class TrackedTarget:
    """A target: its last box, target filter, modulation vectors of the overlap network, and training samples.

    :param box: the last CONFIRMED one. :param image_size: width and height of the last image.
    :param random: for jittered boxes. :param last: the result of the last frame.
    :param frame: 0 on the first frame, incremented by every update.
    :param tokens: of the box refiner, ``[1, T, C]``; None where the weights have none.
    :param box_quality: of the box in this frame, 0..1: see `closer_look`; None without a box refiner.
    :param box_overlap: its predicted overlap, likewise. :param usual_overlap: mean over the last CONFIRMED frames.
    :param edge_errors: of the refined box in the first frame: left, top, right, bottom, in box sides.
    :param reported_box: ``box`` with the first frame's error subtracted.
    :param refused_box: the refined box of this frame, likewise, where it was refused; else None.
    """

    box: Box
    image_size: tuple[int, int]
    filter: DeviceArray
    modulation: TargetModulation
    memory: SampleMemory
    random: UniformNumbers
    last: SearchResult
    frame: int = 0
    status: TrackStatus = TrackStatus.CONFIRMED
    redetection: RedetectionState = field(default_factory=RedetectionState)
    tracks: CandidateTracks = field(default_factory=CandidateTracks)
    tokens: DeviceArray = None
    box_quality: float | None = None
    box_overlap: float | None = None
    usual_overlap: float = 0.0
    edge_errors: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 0.0)
    reported_box: Box = field(init=False)
    refused_box: Box | None = None

    def __post_init__(self) -> None:
        self.reported_box = self.box

    def predicted_box(self, config: TrackerConfig) -> Box:
        """Return the box that the next search window is centred on: the candidate's, where there is one."""
        candidate = self.redetection.candidate
        return candidate.box if candidate else self.redetection.search_box(self.box, config)

    def fit_to(self, size: tuple[int, int]) -> None:
        """Convert positions and sizes to an image of ``size`` (w, h), which shows the field of view of the last one."""
        if size == self.image_size:
            return
        x, y = (new / old for new, old in zip(size, self.image_size, strict=True))
        self.image_size = size
        self.box, self.reported_box = self.box.scaled(x, y), self.reported_box.scaled(x, y)
        self.refused_box = None
        self.redetection.scale(x, y)
        self.tracks.scale(x, y)

    def move(self, move: Callable[[DeviceArray], DeviceArray]) -> None:
        """Move everything that lives on the backend's device."""
        self.filter = move(self.filter)
        self.modulation = TargetModulation(*map(move, self.modulation))
        self.memory.move(move)
        self.tokens = None if self.tokens is None else move(self.tokens)
        self.last.filter = move(self.last.filter)

    def inspect(self, to_host: Callable[[DeviceArray], Floats]) -> FrameInspection:
        """Return copies of everything behind the last result.

        :param to_host: copies from the backend's device.
        """
        last, memory = self.last, self.memory
        return FrameInspection(
            frame=self.frame,
            image=last.image.copy(),
            window=last.window,
            scores=last.scores.copy(),
            localization=last.localization,
            filter=to_host(last.filter[0]),
            next_filter=to_host(self.filter[0]),
            modulation=TargetModulation(*(to_host(vector[0]) for vector in self.modulation)),
            proposals=None if last.proposals is None else last.proposals.copy(),
            refined_boxes=None if last.boxes is None else last.boxes.copy(),
            overlaps=None if last.overlaps is None else last.overlaps.copy(),
            box=self.box,
            sample_features=to_host(memory.features),
            sample_boxes=memory.boxes.copy(),
            sample_weights=memory.weights,
        )


@dataclass(frozen=True)
class FrameInspection:
    """Everything behind a target's last `TrackResult`, in numpy; boxes are (x, y, w, h) in crop pixels.

    :param frame: 0 on the first frame, incremented by every update.
    :param image: the network's input, ``[S, S, 3]`` BGR uint8. :param window: its position in the image.
    :param scores: ``[R, C]``; cell (row, column) is a target centre at crop pixel (16 column, 16 row).
    :param localization: the decision made from them; on the first frame their maximum.
    :param filter: ``[C, 4, 4]``, the filter behind ``scores``. :param next_filter: after this frame was learned.
    :param modulation: the overlap network's, two vectors.
    :param proposals: ``[P, 4]``, where refinement started; None on the first frame and where the target was not
        found. :param refined_boxes: ``[P, 4]``, where it ended.
    :param overlaps: ``[P]``, the prediction ``2 * IoU - 1`` before its last step.
    :param box: the confirmed box after this frame, in image pixels.
    :param sample_features: the memory's, ``[N, C, H, W]``, with ``sample_boxes`` ``[N, 4]`` and
        ``sample_weights`` ``[N]``, after this frame was added.
    """

    frame: int
    image: NDArray[np.uint8]
    window: SearchWindow
    scores: NDArray[np.float32]
    localization: Localization
    filter: Floats
    next_filter: Floats
    modulation: TargetModulation
    proposals: Floats | None
    refined_boxes: Floats | None
    overlaps: Floats | None
    box: Box
    sample_features: Floats
    sample_boxes: Floats
    sample_weights: Floats


def evidence_of(localization: Localization, box_quality: float | None) -> float:
    """Return what the confidence is a function of.

    The score peak alone, or its product with the absence of a distractor and the quality of the refined box.
    """
    if box_quality is None:
        return localization.peak
    return localization.peak * (1 - min(max(localization.distractor_ratio, 0.0), 1.0)) * box_quality
