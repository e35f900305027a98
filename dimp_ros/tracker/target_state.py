# SPDX-License-Identifier: Apache-2.0
"""What the tracker keeps of a target, and what it shows of it to those who compare or debug."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dimp_ros.geometry.box import Box
from dimp_ros.model.iou_net import Modulation
from dimp_ros.tracker.config import TrackerConfig
from dimp_ros.tracker.crop import SearchWindow
from dimp_ros.tracker.localization import Localization
from dimp_ros.tracker.memory import SampleMemory
from dimp_ros.tracker.redetection import RedetectionState, TrackStatus


@dataclass
class SearchResult:
    """A target in one window of a frame; references to what was computed anyway, nothing is copied for it.

    :param image: the crop, ``[S, S, 3]`` BGR. :param scores: ``[R, C]``, of ``filter`` as it was before the frame was
        learned. :param localization: what was made of them. The last three are None where no box was refined.
    """

    window: SearchWindow
    image: NDArray[np.uint8]
    scores: NDArray[np.float32]
    filter: Tensor
    localization: Localization
    proposals: Tensor | None = None
    boxes: Tensor | None = None
    overlaps: Tensor | None = None


@dataclass
class TrackedTarget:
    """What is known of one target: its last box, its filter, the overlap network's modulation, its samples.

    :param box: the last one believed in. :param last: the window of the last frame in which it was, or else was sought.
    :param tokens: what the box refiner remembers, ``Tensor[1, T, C]``; None where the weights have none.
    :param reported_box: the same as ``box`` with the first frame's error taken back.
    :param edge_errors: of the refined box in the first frame: left, top, right, bottom, in its sides.
    """

    box: Box
    filter: Tensor
    modulation: Modulation
    memory: SampleMemory
    generator: torch.Generator
    last: SearchResult
    frame: int = 0
    status: TrackStatus = TrackStatus.CONFIRMED
    redetection: RedetectionState = field(default_factory=RedetectionState)
    tokens: Tensor | None = None
    edge_errors: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 0.0)
    reported_box: Box = field(init=False)

    def __post_init__(self) -> None:
        self.reported_box = self.box

    def predicted_box(self, config: TrackerConfig) -> Box:
        """Return where the target is looked for: at the candidate's box, where there is one, else at the last one."""
        return (
            self.redetection.candidate.box
            if self.redetection.candidate
            else self.redetection.search_box(self.box, config)
        )

    def to(self, device: torch.device) -> None:
        """Move everything that is computed with to a device."""
        self.filter = self.filter.to(device)
        self.modulation = Modulation(*(vector.to(device) for vector in self.modulation))
        self.memory.to(device)
        self.tokens = None if self.tokens is None else self.tokens.to(device)
        self.last.filter = self.last.filter.to(device)

    def inspect(self) -> FrameInspection:
        """Return copies of everything that the last frame was decided with."""
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
            proposals=None if last.proposals is None else _copy(last.proposals),
            refined_boxes=None if last.boxes is None else _copy(last.boxes),
            overlaps=None if last.overlaps is None else _copy(last.overlaps),
            box=self.box,
            sample_features=_copy(memory.features),
            sample_boxes=_copy(memory.boxes),
            sample_weights=_copy(memory.weights),
        )


@dataclass(frozen=True)
class FrameInspection:
    """Everything behind a target's last `TrackResult`; boxes are (x, y, w, h) in crop pixels, tensors on the CPU.

    :param frame: 0 on the first frame, counted up by every update.
    :param image: the crop that the network saw, ``[S, S, 3]`` BGR uint8. :param window: where it is in the image.
    :param scores: ``[R, C]``; cell (row, column) stands for a target centred at crop pixel (16 column, 16 row).
    :param localization: what was made of the scores; on the first frame just the highest one.
    :param filter: ``Tensor[C, 4, 4]``, the filter behind ``scores``. :param next_filter: after the frame was learned.
    :param modulation: the overlap network's, two vectors.
    :param proposals: ``Tensor[P, 4]``, the boxes that refinement started from; None on the first frame
        and where the target was not found.
    :param refined_boxes: ``Tensor[P, 4]``, where it ended.
    :param overlaps: ``Tensor[P]``, the prediction ``2 * IoU - 1`` where its last step began.
    :param box: the box believed in after the frame, in image pixels.
    :param sample_features: the memory's, ``Tensor[N, C, H, W]``, with ``sample_boxes`` ``Tensor[N, 4]`` and
        ``sample_weights`` ``Tensor[N]``, after the frame was added.
    """

    frame: int
    image: NDArray[np.uint8]
    window: SearchWindow
    scores: NDArray[np.float32]
    localization: Localization
    filter: Tensor
    next_filter: Tensor
    modulation: Modulation
    proposals: Tensor | None
    refined_boxes: Tensor | None
    overlaps: Tensor | None
    box: Box
    sample_features: Tensor
    sample_boxes: Tensor
    sample_weights: Tensor


def _copy(tensor: Tensor) -> Tensor:
    """Return a copy on the CPU."""
    return tensor.detach().to("cpu", copy=True)
