# SPDX-License-Identifier: Apache-2.0
"""Lost and found: where a lost target is sought, and when a find is believed.

A lost target is sought at its last place in every frame, and in the rest of the frame tile by tile, outward from there,
in the size that it had while it was well in sight: what slides behind something, or out of the picture, is a smaller
and smaller piece before it is lost, and the windows for a piece are too narrow to find the whole.
What is found at the last place soon after the loss is the target. Any other find is a *candidate*: the search window
moves there and nothing is learned until it has held for some frames. One that does not hold is dropped, and the search
goes on from the last place. Frames are counted, there is no clock here: how long to search is for the caller to decide.
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
    """What is made of a target's frame."""

    CONFIRMED = "confirmed"
    """What was found is the target, as far as its `Outcome` goes."""
    TENTATIVE = "tentative"
    """What was found may be the target."""
    LOST = "lost"


class Candidate(NamedTuple):
    """A find that may be the target: its last box, and in how many frames it has held."""

    box: Box
    frames: int


class SizeSample(NamedTuple):
    """How the target was seen in a frame: its box's sides, and the score's peak."""

    w: float
    h: float
    peak: float


@dataclass
class RedetectionState:
    """Where the search for one target stands.

    :param frames_lost: frames since the target was last CONFIRMED, 0 while it is. :param tile_index: of the next tile.
    :param candidate: a re-detection that is not yet confirmed. :param size_samples: of the last CONFIRMED frames.
    """

    frames_lost: int = 0
    tile_index: int = 0
    candidate: Candidate | None = None
    size_samples: deque[SizeSample] = field(default_factory=deque)

    def remember_size(self, box: Box, peak: float, config: TrackerConfig) -> None:
        """Note how the target, which is believed in, was seen."""
        self.size_samples.append(SizeSample(box.w, box.h, peak))
        while len(self.size_samples) > config.remembered_frames:
            self.size_samples.popleft()

    def search_box(self, last: Box, config: TrackerConfig) -> Box:
        """Return the box that is looked for: ``last``, and when the last place is no longer trusted, in another size.

        That is the median of the better half of the frames that are remembered, those with the higher peaks.
        """
        if self.frames_lost <= config.trusted_frames or not self.size_samples or not config.remembered_frames:
            return last
        usual = median(sight.peak for sight in self.size_samples)
        clear = [sight for sight in self.size_samples if sight.peak >= usual]
        return Box.from_center(*last.center, median(s.w for s in clear), median(s.h for s in clear))

    def next_tiles(self, box: Box, size: tuple[int, int], count: int, config: TrackerConfig) -> list[SearchWindow]:
        """Return the next ``count`` tiles, none of them twice; none while the target is believed in or a find watched.

        :param box: the last one believed in. :param size: width and height of the image.
        """
        if not self.frames_lost or self.candidate or count <= 0:
            return []
        every = tiles(box, size, config)
        chosen = [every[(self.tile_index + n) % len(every)] for n in range(min(count, len(every)))]
        self.tile_index = (self.tile_index + len(chosen)) % max(len(every), 1)
        return chosen

    def classify(self, places: Sequence[Localization], config: TrackerConfig) -> tuple[TrackStatus, int]:
        """Say what to make of a frame, and in which of its windows the target is.

        A candidate is TENTATIVE until its box is known: see `confirm`.

        :param places: of the usual window first, then of the tiles.
        """
        here = places[0]
        trusted = not self.candidate and (self.frames_lost <= config.trusted_frames or not config.search_tiles)
        if trusted and here.outcome is not Outcome.NOT_FOUND:
            return TrackStatus.CONFIRMED, 0
        best = max(range(len(places)), key=lambda i: (is_find(places[i], config), places[i].peak))
        return (TrackStatus.TENTATIVE, best) if is_find(places[best], config) else (TrackStatus.LOST, 0)

    def confirm(self, status: TrackStatus, last: Box, box: Box | None, config: TrackerConfig) -> TrackStatus:
        """Note how a frame ended, and return what is believed now that the box is known.

        :param last: the target's box before, a candidate's where there is one.
        :param box: the refined one, None if LOST.
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


def is_find(place: Localization, config: TrackerConfig) -> bool:
    """Tell whether a peak is high and lonely enough to be the target that was lost."""
    return (
        place.outcome is not Outcome.NOT_FOUND
        and place.peak >= config.find_threshold
        and place.distractor_ratio <= config.find_distractor_ratio
    )


def continues(last: Box, box: Box, config: TrackerConfig, *, moved: bool) -> bool:
    """Tell whether ``box`` may be the next one of what was in ``last``; ``moved``: however far away it is."""
    (x, y), (last_x, last_y) = box.center, last.center
    near = math.hypot(x - last_x, y - last_y) <= config.find_motion * math.sqrt(last.area)
    alike = 1 / config.find_growth <= box.area / last.area <= config.find_growth
    return alike and (moved or near)


def search_area(box: Box, config: TrackerConfig) -> SearchWindow:
    """Return the search window round the last box."""
    return SearchWindow.around(box.center, config.search_scale * math.sqrt(box.area), config.crop_size)


def tiles(box: Box, size: tuple[int, int], config: TrackerConfig) -> list[SearchWindow]:
    """Return windows that together show every place of an image, nearest to ``box`` first.

    Every place lies in the inner part of a tile, by at least half a target's size from its edge, or in the usual
    window, or at the image's border. Tiles reach over the border only where the image is smaller than they are.

    :param size: width and height of the image.
    """
    usual = config.search_scale * math.sqrt(box.area)
    side = config.search_tile_scale * usual
    step = max(side - math.sqrt(box.area), side / 2)
    here = tuple(min(max(at, 0.0), float(extent)) for at, extent in zip(box.center, size, strict=True))
    columns, rows = (_positions(at, extent, side, step) for at, extent in zip(here, size, strict=True))
    centers = [(x, y) for y in rows for x in columns]
    if side == usual and here == box.center:  # the first one is the usual window itself
        centers = centers[1:]
    centers.sort(key=lambda center: math.dist(center, here))
    return [SearchWindow.around(center, side, config.crop_size) for center in centers]


def _positions(start: float, extent: float, side: float, step: float) -> list[float]:
    """Return where the middles of tiles lie along one axis: ``start``, and from there outward to both borders."""
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
