# SPDX-License-Identifier: Apache-2.0
"""Re-detection of a lost target: where to search, and when a detection counts as the target again.

The paper's procedure (section 3.7) only reports a low score; what follows is this package's own.

- A lost target is searched for at its last position in every frame, and in the rest of the image tile by tile, outward
  from there. Windows have the size for the target's usual size: a target that is occluded gradually shrinks before it
  is lost, and windows for the last piece would be too small to find the whole.
- A detection at the last position within ``trusted_frames`` of the loss is the target (CONFIRMED).
- Any other detection is a candidate (TENTATIVE): the search window moves there, nothing is learned, and it is CONFIRMED
  after ``find_frames`` consecutive frames. A candidate that fails is dropped.

Frames are counted, not seconds: how long to search is the caller's decision.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum
from statistics import median
from typing import NamedTuple

from dimp_ros.geometry.box import Box
from dimp_ros.tracker.config import TrackerConfig
from dimp_ros.tracker.crop import SearchWindow
from dimp_ros.tracker.localization import Localization, Outcome


class TrackStatus(Enum):
    """Status of a track after a frame."""

    CONFIRMED = "confirmed"
    """The detection is the target, subject to its `Outcome`."""
    TENTATIVE = "tentative"
    """The detection is a re-detection that is not confirmed yet."""
    LOST = "lost"


class Candidate(NamedTuple):
    """A re-detection that is not confirmed yet: its last box, and the number of frames it was seen in."""

    box: Box
    frames: int


class SizeSample(NamedTuple):
    """The target's box sides and score peak in a frame."""

    w: float
    h: float
    peak: float


@dataclass
class RedetectionState:
    """State of the search for one target.

    :param frames_lost: frames since the target was last CONFIRMED, 0 while it is.
    :param tile_index: of the next tile to search. :param size_samples: of the last CONFIRMED frames.
    """

    frames_lost: int = 0
    tile_index: int = 0
    candidate: Candidate | None = None
    size_samples: deque[SizeSample] = field(default_factory=deque)

    def remember_size(self, box: Box, peak: float, config: TrackerConfig) -> None:
        """Add the size sample of a CONFIRMED frame."""
        self.size_samples.append(SizeSample(box.w, box.h, peak))
        while len(self.size_samples) > config.remembered_frames:
            self.size_samples.popleft()

    def scale(self, x: float, y: float) -> None:
        """Convert to an image whose sides are ``x`` and ``y`` times as long; its tiles are searched from the first."""
        self.tile_index = 0
        if self.candidate:
            self.candidate = self.candidate._replace(box=self.candidate.box.scaled(x, y))
        self.size_samples = deque(SizeSample(s.w * x, s.h * y, s.peak) for s in self.size_samples)

    def search_box(self, last: Box, config: TrackerConfig) -> Box:
        """Return the box to search for: ``last``; after ``trusted_frames`` with the target's usual size.

        The usual size is the median over the remembered frames whose score peak is at least the median peak.
        """
        if self.frames_lost <= config.trusted_frames or not self.size_samples or not config.remembered_frames:
            return last
        median_peak = median(sample.peak for sample in self.size_samples)
        clear = [sample for sample in self.size_samples if sample.peak >= median_peak]
        return Box.from_center(*last.center, median(s.w for s in clear), median(s.h for s in clear))

    def next_tiles(self, box: Box, size: tuple[int, int], count: int, config: TrackerConfig) -> list[SearchWindow]:
        """Return the next ``count`` tiles, each at most once; none while CONFIRMED or while there is a candidate.

        :param box: the last confirmed one. :param size: width and height of the image.
        """
        if not self.frames_lost or self.candidate or count <= 0:
            return []
        every = tiles(box, size, config)
        chosen = [every[(self.tile_index + n) % len(every)] for n in range(min(count, len(every)))]
        self.tile_index = (self.tile_index + len(chosen)) % max(len(every), 1)
        return chosen

    def classify(self, localizations: Sequence[Localization], config: TrackerConfig) -> tuple[TrackStatus, int]:
        """Return a frame's status, and the index of the window that the target is in.

        TENTATIVE is preliminary until the box is known: see `confirm`.

        :param localizations: in the search area first, then in the tiles.
        """
        at_last = localizations[0]
        trusted = not self.candidate and (self.frames_lost <= config.trusted_frames or not config.search_tiles)
        if trusted and at_last.outcome is not Outcome.NOT_FOUND:
            return TrackStatus.CONFIRMED, 0
        best = max(
            range(len(localizations)),
            key=lambda n: (is_redetection(localizations[n], config), localizations[n].peak),
        )
        if is_redetection(localizations[best], config):
            return TrackStatus.TENTATIVE, best
        return TrackStatus.LOST, 0

    def confirm(self, status: TrackStatus, last: Box, box: Box | None, config: TrackerConfig) -> TrackStatus:
        """Update the state at the end of a frame, and return the final status.

        :param status: from `classify`. :param last: the box before this frame, the candidate's where there is one.
        :param box: the refined one; None if LOST.
        """
        if status is TrackStatus.TENTATIVE and box is not None:
            frames = 1 if self.candidate is None else self.candidate.frames + 1
            if not continues(last, box, config, moved=self.candidate is None):
                status = TrackStatus.LOST
            elif frames < config.find_frames:
                self.candidate = Candidate(box, frames)
                self.frames_lost += 1
                return TrackStatus.TENTATIVE
            else:
                status = TrackStatus.CONFIRMED
        self.candidate = None
        if status is TrackStatus.CONFIRMED:
            self.frames_lost = self.tile_index = 0
        else:
            self.frames_lost += 1
        return status


def is_redetection(localization: Localization, config: TrackerConfig) -> bool:
    """Tell whether a peak is high and unambiguous enough to be the lost target."""
    return (
        localization.outcome is not Outcome.NOT_FOUND
        and localization.peak >= config.find_threshold
        and localization.distractor_ratio <= config.find_distractor_ratio
    )


def continues(last: Box, box: Box, config: TrackerConfig, *, moved: bool) -> bool:
    """Tell whether ``box`` can follow ``last`` in the next frame; with ``moved`` only sizes are compared."""
    (x, y), (last_x, last_y) = box.center, last.center
    near = math.hypot(x - last_x, y - last_y) <= config.find_motion * math.sqrt(last.area)
    similar = 1 / config.find_growth <= box.area / last.area <= config.find_growth
    return similar and (moved or near)


def search_area(box: Box, config: TrackerConfig) -> SearchWindow:
    """Return the search window around a box."""
    return SearchWindow.around(box.center, config.search_scale * math.sqrt(box.area), config.crop_size)


def tiles(box: Box, size: tuple[int, int], config: TrackerConfig) -> list[SearchWindow]:
    """Return windows that together cover an image, nearest to ``box`` first.

    Every position is at least half a target size inside a tile, the search area of ``box``, or the image border. Tiles
    extend beyond the border only where the image is smaller than they are.

    :param size: width and height of the image.
    """
    usual = config.search_scale * math.sqrt(box.area)
    side = config.search_tile_scale * usual
    step = max(side - math.sqrt(box.area), side / 2)
    here = tuple(min(max(at, 0.0), float(extent)) for at, extent in zip(box.center, size, strict=True))
    columns, rows = (_positions(at, extent, side, step) for at, extent in zip(here, size, strict=True))
    centers = [(x, y) for y in rows for x in columns]
    if side == usual and here == box.center:  # the first one is the search area itself
        centers = centers[1:]
    centers.sort(key=lambda center: math.dist(center, here))
    return [SearchWindow.around(center, side, config.crop_size) for center in centers]


def _positions(start: float, extent: float, side: float, step: float) -> list[float]:
    """Return the centres of tiles along one axis: ``start``, and from there outward to both borders."""
    low, high = min(side / 2, extent / 2), max(extent - side / 2, extent / 2)
    positions = [start]
    at = start
    while at > low:
        at = max(at - step, low)
        positions.append(at)
    at = start
    while at < high:
        at = min(at + step, high)
        positions.append(at)
    return positions
