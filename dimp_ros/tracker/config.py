# SPDX-License-Identifier: Apache-2.0
"""Every constant of the online procedure, with its range and what it does."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields
from typing import Any


def _setting(default: Any, low: float | None, high: float | None, text: str, *, live: bool = True) -> Any:
    """Make a dataclass field that knows its allowed range (None: any), its one-line description, and if it is live."""
    return field(default=default, metadata={"range": (low, high), "text": text, "live": live})


@dataclass(frozen=True)
class TrackerConfig:
    """Settings of `DimpTracker`; the defaults are those of the paper's reference. Checked on construction.

    The metadata of every field holds ``range`` (inclusive; None where unbounded), ``text``, and ``live``: whether it
    may change while targets are followed, by giving the tracker another configuration between two frames. What concerns
    the first frame then holds for the targets that are started afterwards.
    """

    # Search window
    crop_size: int = _setting(288, 96, 1024, "side of the network's input, pixels; a multiple of 32", live=False)
    search_scale: float = _setting(5.0, 2.0, 10.0, "side of the search window in target sizes, sqrt(w * h)", live=False)
    min_target_side: float = _setting(4.0, 2.0, 100.0, "shortest side of a box that is accepted or kept, pixels")
    point_threshold: float = _setting(
        0.4, 0.0, 1.0, "least predicted overlap of the box found at a point; the point is refused below it"
    )
    # First frame
    augment: bool = _setting(True, None, None, "learn the first frame from shifted, flipped, blurred and rotated views")
    augment_shift: float = _setting(0.6, 0.0, 0.9, "shift of the four shifted views, in half crops")
    augment_extra_shift: float = _setting(1 / 6, 0.0, 0.25, "largest random shift of the other views, in crops")
    augment_flip: bool = _setting(True, None, None, "add a flipped view")
    augment_blurs: tuple[float, ...] = _setting(
        (3.0, 1.0, 1.0, 3.0, 2.0, 2.0), 0.1, 50.0, "sigma x, sigma y of each blurred view in turn, crop pixels"
    )
    augment_rotations: tuple[float, ...] = _setting(
        (10.0, -10.0, 45.0, -45.0), -180.0, 180.0, "angles of the rotated views, degrees"
    )
    dropout_copies: int = _setting(2, 0, 10, "copies of the plain view with channel dropout")
    dropout_rate: float = _setting(0.2, 0.0, 0.9, "dropout rate of those copies")
    init_steps: int = _setting(10, 0, 100, "optimiser steps on the first frame")
    # Localisation
    not_found_threshold: float = _setting(0.25, -1.0, 1.0, "score peak below which the target is not found")
    distractor_threshold: float = _setting(0.8, 0.0, 1.0, "ambiguous if second peak / first peak exceeds this")
    hard_negative_threshold: float = _setting(0.5, 0.0, 1.0, "hard negative if second peak / first peak exceeds this")
    lost_confidence: float = _setting(
        0.0, 0.0, 1.0, "confidence below which a target is reported LOST; search and learning go on"
    )
    tracking_confidence: float = _setting(0.0, 0.0, 1.0, "least confidence of TRACKING; a box with less is UNCERTAIN")
    neighborhood: float = _setting(2.2, 0.5, 10.0, "neighbourhood of the first peak without a second one, target sizes")
    displacement_share: float = _setting(0.8, 0.0, 2.0, "largest displacement in a frame, in half score maps")
    candidates: int = _setting(
        0, 0, 16, "score peaks that are followed as tracks, the target's and look-alikes'; 0: the highest is the target"
    )
    candidate_frames: int = _setting(
        3, 1, 100, "frames after which a look-alike's track is trusted, so that its peak is not the target's"
    )
    candidate_share: float = _setting(
        0.9, 0.0, 2.0, "peak / mean peak of the target's own track from which a higher new peak is not taken instead"
    )
    candidate_hidden: int = _setting(
        10, 0, 10000, "frames in which a look-alike is not taken for a target that has vanished"
    )
    max_outside: float = _setting(0.3, 0.0, 0.5, "how far the centre may leave the image, in target sizes")
    # Lost and found
    search_tiles: int = _setting(
        4, 0, 64, "tiles searched per frame for lost targets, besides their last position; 0: only the last position"
    )
    search_tile_scale: float = _setting(1.0, 1.0, 4.0, "side of a tile, in sides of the search window")
    trusted_frames: int = _setting(
        10, 0, 10000, "frames after a loss in which a detection at the last position is confirmed at once"
    )
    find_threshold: float = _setting(
        0.5, -1.0, 1.0, "least score peak of other re-detections; not_found_threshold if that is higher"
    )
    find_distractor_ratio: float = _setting(
        0.6, 0.0, 1.0, "second peak / first peak above which such a re-detection is dropped"
    )
    find_frames: int = _setting(3, 1, 100, "consecutive frames until a re-detection is confirmed")
    find_motion: float = _setting(1.0, 0.0, 10.0, "largest displacement between those frames, target sizes")
    find_growth: float = _setting(2.0, 1.0, 10.0, "largest ratio of areas between those frames")
    remembered_frames: int = _setting(
        60,
        0,
        10000,
        "a lost target is searched in its median size over the clearer half of so many frames; 0: its last size",
    )
    # Box refinement
    proposals: int = _setting(10, 1, 64, "boxes to refine; the first is the predicted one, the others are jittered")
    jitter_center: float = _setting(0.05, 0.0, 1.0, "largest displacement of a jittered box, target sizes")
    jitter_size: float = _setting(0.25, 0.0, 1.0, "largest change of a jittered box's sides, target sizes")
    refine_steps: int = _setting(
        5, 0, 50, "gradient ascent steps on the predicted overlap; 0: none, and no average with a box refiner's box"
    )
    refine_step_length: float = _setting(1.0, 0.0, 10.0, "length of those steps")
    max_aspect: float = _setting(6.0, 1.0, 100.0, "refined boxes with a larger aspect ratio are dropped")
    box_fit_steps: int = _setting(
        0, 0, 100, "steps that fit the overlap network's modulation to the first frame; 0: no fit"
    )
    box_fit_rate: float = _setting(0.1, 0.0, 1.0, "learning rate of those steps")
    closer_looks: int = _setting(
        1,
        0,
        4,
        "passes of the box refiner, where the weights have one, averaged with gradient ascent; 0: that alone",
    )
    least_overlap_ratio: float = _setting(
        0.0,
        0.0,
        1.0,
        "predicted overlap / its usual value below which the refined box is not the target's; 0: not used",
    )
    first_frame_correction: float = _setting(
        0.0,
        0.0,
        1.0,
        "share of the first frame's box error that is subtracted from every reported box; 0: no correction",
    )
    correction_frames: float = _setting(
        30.0, 0.0, 10000.0, "time constant of the decay of the remaining correction, frames; 0: no remaining correction"
    )
    best_boxes: int = _setting(3, 1, 64, "number of best boxes that are averaged")
    # Memory and learning
    memory_size: int = _setting(50, 16, 1000, "capacity of the sample memory", live=False)
    learning_rate: float = _setting(0.01, 0.0, 0.5, "weight of a new sample relative to the others")
    hard_negative_rate: float = _setting(0.02, 0.0, 0.5, "the same for a hard negative")
    first_frame_share: float = _setting(0.25, 0.0, 1.0, "least total weight of the first frame's samples")
    update_interval: int = _setting(20, 1, 10000, "frames between two optimiser runs")
    update_steps: int = _setting(2, 0, 50, "optimiser steps of such a run; 0: no learning")
    hard_negative_steps: int = _setting(1, 0, 50, "optimiser steps at once on a hard negative")
    # Randomness
    seed: int = _setting(0, 0, 2**31 - 1, "seed of the first frame's shifts and dropout and of the jittered boxes")

    def __post_init__(self) -> None:
        """Check every value against its range.

        :raises ValueError: naming the field, the value and the range.
        """
        for item in fields(self):
            low, high = item.metadata["range"]
            value = getattr(self, item.name)
            if isinstance(item.default, tuple):
                value = tuple(value)
                object.__setattr__(self, item.name, value)
            if low is None or isinstance(value, bool):
                continue
            for number in value if isinstance(value, tuple) else (value,):
                if not math.isfinite(number) or number < low or (high is not None and number > high):
                    raise ValueError(
                        f"{item.name} is {value!r}; it must be from {low} to {high}: {item.metadata['text']}"
                    )
        if len(self.augment_blurs) % 2:
            raise ValueError(f"augment_blurs is {self.augment_blurs}; it must be pairs: sigma x, sigma y, sigma x, ...")
        if self.crop_size % 32:
            raise ValueError(f"crop_size is {self.crop_size}; it must be a multiple of 32 (an even number of cells)")
        if self.best_boxes > self.proposals:
            raise ValueError(f"best_boxes is {self.best_boxes}; it must not exceed proposals ({self.proposals})")
        if self.memory_size <= self.first_samples:
            raise ValueError(
                f"memory_size is {self.memory_size}; it must exceed the {self.first_samples} samples of the first frame"
            )

    @classmethod
    def deterministic(cls, **settings: Any) -> TrackerConfig:
        """Return the defaults, changed by ``settings``, without any random element.

        No extra shift of the first frame's views, no dropout copies, and only the predicted box is refined: jittered by
        nothing, the others would be the same box. What is left does not depend on ``seed``.
        """
        return cls(**{**DETERMINISTIC, **settings})

    @property
    def first_samples(self) -> int:
        """How many training samples the first frame gives."""
        views = 1
        if self.augment:
            views += 4 * (self.augment_shift > 0) + self.augment_flip
            views += len(self.augment_blurs) // 2 + len(self.augment_rotations)
        return views + self.dropout_copies


DETERMINISTIC: dict[str, Any] = {
    "augment_extra_shift": 0.0,
    "dropout_copies": 0,
    "jitter_center": 0.0,
    "jitter_size": 0.0,
    "proposals": 1,
    "best_boxes": 1,
}
"""The settings that switch off everything random, see `TrackerConfig.deterministic`."""
