# SPDX-License-Identifier: Apache-2.0
"""Tracks of everything that looks like the target: the target is the peak that continues, not the highest.

The paper takes the highest score peak (section 3.7). Here every peak of the search area is followed as a track with a
place, a motion and an appearance. A peak that continues a look-alike's track is not the target, however high it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from dimp_ros.geometry.box import Box
from dimp_ros.model.sizes import STRIDE
from dimp_ros.tracker.config import TrackerConfig
from dimp_ros.tracker.crop import SearchWindow
from dimp_ros.tracker.localization import Localization, Outcome

Floats = NDArray[np.float32]

LEAST_SCORE = 0.1
"""Score below which a peak is no candidate."""
REACH = 0.8
"""Largest distance of a peak from a track's predicted place, target sizes."""
MOTION_RATE, APPEARANCE_RATE, SCORE_RATE = 0.5, 0.1, 0.3
"""Weights of a new sighting in a track's displacement per frame, appearance and mean score."""
FORGET = 5
"""Most frames without a peak until a look-alike's track ends, and no more than those with one before."""
TARGET = 0
"""Number of the target's own track."""
APPEARANCE_COST, SCORE_COST = 1.0, 0.5
"""Weights of 1 - cosine and of the difference of scores, against the distance in reaches."""
AROUND_ROWS, AROUND_COLUMNS = np.array([[-1], [-1], [0], [0]]), np.array([[-1], [0], [-1], [0]])
"""Feature pixels around a score cell's corner."""


class Peaks(NamedTuple):
    """The n highest local maxima of a score map, the highest first.

    :param cells: ``[n, 2]`` row, column. :param scores: ``[n]``. :param places: ``[n, 2]`` x, y in image pixels.
    :param looks: appearances of unit length, ``[n, C]``.
    """

    cells: NDArray[np.intp]
    scores: Floats
    places: NDArray[np.float64]
    looks: Floats


def find_peaks(scores: Floats, features: Floats, window: SearchWindow, box: Box, count: int) -> Peaks:
    """Return the ``count`` highest local maxima; two of them are at least half a target side apart.

    :param scores: ``[R, C]``. :param features: of the classifier, ``[C, H, W]``. :param box: the target's size.
    """
    height, width = (2 * max(1, min(round(side / window.scale / STRIDE / 2), 4)) + 1 for side in (box.h, box.w))
    highest = cv2.dilate(scores, np.ones((height, width), np.uint8))
    rows, columns = np.nonzero((scores >= highest) & (scores >= LEAST_SCORE))
    order = np.argsort(-scores[rows, columns], kind="stable")[:count]
    rows, columns = rows[order], columns[order]
    center = scores[rows, columns]
    y = rows + _offsets(scores, rows, columns, center)
    x = columns + _offsets(scores.T, columns, rows, center)
    places = np.array((x, y)).T * (STRIDE * window.scale) + (window.x, window.y)
    return Peaks(np.array((rows, columns)).T, center, places, _looks(features, rows, columns))


def _offsets(scores: Floats, rows: NDArray[np.intp], columns: NDArray[np.intp], center: Floats) -> Floats:
    """Return how far maxima lie below their cells, in rows: of the parabola through a peak and its neighbours."""
    last = len(scores) - 1
    before, after = scores[np.maximum(rows - 1, 0), columns], scores[np.minimum(rows + 1, last), columns]
    offsets = 0.5 * (after - before) / np.maximum(2 * center - before - after, 1e-6)
    return np.minimum(np.maximum(offsets, -0.5), 0.5)


def _looks(features: Floats, rows: NDArray[np.intp], columns: NDArray[np.intp]) -> Floats:
    """Return mean features ``[n, C]`` of unit length around score cells, each at the corner of four feature pixels."""
    r = np.minimum(np.maximum(rows + AROUND_ROWS, 0), features.shape[1] - 1)
    c = np.minimum(np.maximum(columns + AROUND_COLUMNS, 0), features.shape[2] - 1)
    looks = features[:, r, c].sum(1).T
    return looks / np.maximum(np.sqrt((looks * looks).sum(1, keepdims=True)), 1e-6)


def assign(cost: Floats) -> dict[int, int]:
    """Pair rows with columns, the least cost first; infinite costs stay apart."""
    pairs: dict[int, int] = {}
    for flat in np.argsort(cost, axis=None).tolist():
        row, column = divmod(flat, cost.shape[1])
        if not np.isfinite(cost[row, column]):
            break
        if row not in pairs and column not in pairs.values():
            pairs[row] = column
    return pairs


def _without_look_alikes(
    tile: Localization, window: SearchWindow, places: NDArray[np.float64], size: float
) -> Localization:
    """Reject the peak of a tile that lies on one of ``places``, those of look-alikes."""
    row, column = tile.cell
    x, y = window.x + column * STRIDE * window.scale, window.y + row * STRIDE * window.scale
    near = np.hypot(places[:, 0] - x, places[:, 1] - y) < REACH * size
    return tile._replace(outcome=Outcome.NOT_FOUND) if near.any() else tile


@dataclass
class CandidateTracks:
    """The K tracks of one target's search areas: number `TARGET` is its own, the others are look-alikes.

    :param places: ``[K, 2]`` x, y in image pixels. :param motions: displacement per frame. :param looks: ``[K, C]``.
    :param scores: mean scores. :param ages: frames in which each was seen. :param missed: frames since.
    :param hidden: frames in a row in which only look-alikes were in sight.
    """

    places: NDArray[np.float64] = field(default_factory=lambda: np.empty((0, 2)))
    motions: NDArray[np.float64] = field(default_factory=lambda: np.empty((0, 2)))
    looks: Floats = field(default_factory=lambda: np.empty((0, 0), np.float32))
    scores: Floats = field(default_factory=lambda: np.empty(0, np.float32))
    ages: NDArray[np.intp] = field(default_factory=lambda: np.empty(0, np.intp))
    missed: NDArray[np.intp] = field(default_factory=lambda: np.empty(0, np.intp))
    hidden: int = 0

    def start(self, peaks: Peaks, cell: tuple[int, int]) -> None:
        """Begin with the peaks of a frame in which the target is at ``cell``; without it there are no tracks."""
        own = (peaks.cells == cell).all(1)
        if own.any():
            self._add(peaks, np.argsort(~own, kind="stable"))

    def scale(self, x: float, y: float) -> None:
        """Convert to an image whose sides are ``x`` and ``y`` times as long."""
        self.places, self.motions = self.places * (x, y), self.motions * (x, y)

    def decide(
        self,
        localizations: Sequence[Localization],
        peaks: Peaks,
        windows: Sequence[SearchWindow],
        size: float,
        config: TrackerConfig,
    ) -> list[Localization]:
        """Correct the decisions of `localize` by the tracks, and continue them.

        :param localizations: in the search area, whose ``peaks`` are given, then in tiles. :param windows: the same.
        :param size: of the target, sqrt(w h) in image pixels.
        """
        in_area, *in_tiles = localizations
        if not len(self.scores):
            if in_area.outcome is not Outcome.NOT_FOUND:
                self.start(peaks, in_area.cell)
            return list(localizations)
        pairs = assign(self._cost(peaks, size))
        decision, taken = self._choose(in_area, peaks, pairs, config)
        self._continue(peaks, pairs, taken)
        if decision.outcome is not Outcome.NOT_FOUND:
            self.hidden = 0
        if 0 < self.hidden < config.candidate_hidden:
            known = self.places[1:][self.ages[1:] >= config.candidate_frames]
            in_tiles = [
                _without_look_alikes(tile, window, known, size)
                for tile, window in zip(in_tiles, windows[1:], strict=True)
            ]
        return [decision, *in_tiles]

    def _choose(
        self, localization: Localization, peaks: Peaks, pairs: dict[int, int], config: TrackerConfig
    ) -> tuple[Localization, int | None]:
        """Return the decision, and the number of the peak that the target's own track continues with.

        :param localization: of `localize`. :param pairs: track number -> peak number.
        """
        own = pairs.get(TARGET)
        at = np.flatnonzero((peaks.cells == localization.cell).all(1))
        if localization.outcome is Outcome.NOT_FOUND or not len(at) or at[0] == own:
            return localization, own
        chosen = int(at[0])
        if self.scores[TARGET] < config.find_threshold:
            return localization, chosen
        score = float(peaks.scores[own]) if own is not None else -np.inf
        known = any(
            self.ages[track] >= config.candidate_frames
            and config.candidate_share * self.scores[track] <= self.scores[TARGET]
            for track, peak in pairs.items()
            if peak == chosen
        )
        if own is not None and score >= config.not_found_threshold:
            if known or score >= config.candidate_share * self.scores[TARGET]:
                row, column = peaks.cells[own].tolist()
                ratio = score / float(peaks.scores[chosen])
                clear = ratio >= config.hard_negative_threshold
                outcome = Outcome.HARD_NEGATIVE if clear else Outcome.UNCERTAIN
                return Localization(outcome, (row, column), score, min(ratio, 1 / ratio)), own
        elif known and self.hidden < config.candidate_hidden:
            self.hidden += 1
            peak = min(localization.peak, config.not_found_threshold)
            return Localization(Outcome.NOT_FOUND, localization.cell, peak, 1.0), own
        return localization, chosen

    def _predicted(self) -> NDArray[np.float64]:
        """Return where tracks are expected, at constant velocity over at most three frames."""
        return self.places + np.minimum(self.missed + 1, 3)[:, None] * self.motions

    def _cost(self, peaks: Peaks, size: float) -> Floats:
        """Return the cost of each track continuing with each peak, ``[K, n]``: by distance, appearance and score."""
        (x, y), (at_x, at_y) = self._predicted().T, peaks.places.T
        distance = np.hypot(x[:, None] - at_x, y[:, None] - at_y) / size
        looks, scores = 1 - self.looks @ peaks.looks.T, np.abs(self.scores[:, None] - peaks.scores)
        cost = distance / REACH + APPEARANCE_COST * looks + SCORE_COST * scores
        cost[distance > REACH] = np.inf
        return np.asarray(cost, np.float32)

    def _continue(self, peaks: Peaks, pairs: dict[int, int], taken: int | None) -> None:
        """Continue tracks with their peaks, the target's own with ``taken``; start tracks for the other peaks."""
        merged = [track for track, peak in pairs.items() if track != TARGET and peak == taken]
        jumped = pairs.get(TARGET) != taken
        pairs = {track: peak for track, peak in pairs.items() if track != TARGET and peak != taken}
        if taken is not None:
            pairs[TARGET] = taken
        seen, of = np.array(list(pairs.keys()), np.intp), np.array(list(pairs.values()), np.intp)
        moved = (peaks.places[of] - self.places[seen]) / (self.missed[seen] + 1)[:, None]
        self.motions[seen] += MOTION_RATE * (moved - self.motions[seen])
        self.places[seen] = peaks.places[of]
        mixed = self.looks[seen] + APPEARANCE_RATE * (peaks.looks[of] - self.looks[seen])
        self.looks[seen] = mixed / np.maximum(np.sqrt((mixed * mixed).sum(1, keepdims=True)), 1e-6)
        self.scores[seen] += SCORE_RATE * (peaks.scores[of] - self.scores[seen])
        self.ages[seen] += 1
        self.missed += 1
        self.missed[seen] = 0
        if jumped and taken is not None:
            self.motions[TARGET] = 0
        kept = self.missed <= np.minimum(self.ages, FORGET)
        kept[TARGET] = True
        kept[merged] = False
        if not kept.all():
            for name in ("places", "motions", "looks", "scores", "ages", "missed"):
                setattr(self, name, getattr(self, name)[kept])
        new = [peak for peak in range(len(peaks.scores)) if peak not in pairs.values()]
        if new:
            self._add(peaks, np.array(new))

    def _add(self, peaks: Peaks, which: NDArray[np.intp]) -> None:
        """Start tracks with some of the peaks."""
        self.places = np.concatenate((self.places.reshape(-1, 2), peaks.places[which]))
        self.motions = np.concatenate((self.motions, np.zeros((len(which), 2))))
        self.looks = np.concatenate((self.looks.reshape(-1, peaks.looks.shape[1]), peaks.looks[which]))
        self.scores = np.concatenate((self.scores, peaks.scores[which]))
        self.ages = np.concatenate((self.ages, np.ones(len(which), np.intp)))
        self.missed = np.concatenate((self.missed, np.zeros(len(which), np.intp)))
