# SPDX-License-Identifier: Apache-2.0
"""From a score map to a decision: where the target is, and whether a distractor competes with it (section 3.7)."""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from dimp_ros.tracker.config import TrackerConfig


class Outcome(Enum):
    """The four outcomes of localisation: only NORMAL and HARD_NEGATIVE frames are learned."""

    NORMAL = "normal"
    HARD_NEGATIVE = "hard negative"
    UNCERTAIN = "uncertain"
    NOT_FOUND = "not found"


class Localization(NamedTuple):
    """The target's score cell ``(row, column)``, the highest score, and second peak / first peak."""

    outcome: Outcome
    cell: tuple[int, int]
    peak: float
    distractor_ratio: float


def highest(scores: NDArray[np.float32]) -> Localization:
    """Return the maximum of a score map, without any decision: for the first frame."""
    cell = _argmax(scores)
    return Localization(Outcome.NORMAL, cell, float(scores[cell]), 0.0)


def localize(
    scores: NDArray[np.float32],
    target_cells: tuple[float, float],
    last_cell: tuple[float, float] | None,
    config: TrackerConfig,
) -> Localization:
    """Decide where the target is.

    The second peak is the highest score outside a neighbourhood of the first. If it is nearly as high, the one of both
    that is within reach of the last position is the target, and the other a hard negative.

    :param scores: ``[R, C]``. :param target_cells: height and width of the target in score cells.
    :param last_cell: row and column of its last position; None where the last position is not used, as in a tile.
    """
    first = _argmax(scores)
    peak = float(scores[first])
    masked = scores.copy()
    rows, columns = (
        slice(max(round(at - config.neighborhood * extent / 2), 0), round(at + config.neighborhood * extent / 2) + 1)
        for at, extent in zip(first, target_cells, strict=True)
    )
    masked[rows, columns] = -np.inf
    second = _argmax(masked)
    second_peak = max(float(masked[second]), 0.0)
    ratio = min(second_peak / peak, 1.0) if peak > 0 else 0.0
    if peak < config.not_found_threshold or not np.isfinite(peak):
        return Localization(Outcome.NOT_FOUND, first, peak, ratio)

    if ratio > config.distractor_threshold:
        if last_cell is None:
            return Localization(Outcome.UNCERTAIN, first, peak, ratio)
        reach = config.displacement_share * np.sqrt(scores.size) / 2
        first_near, second_near = (float(np.hypot(*np.subtract(at, last_cell))) < reach for at in (first, second))
        if first_near and not second_near:
            return Localization(Outcome.HARD_NEGATIVE, first, peak, ratio)
        if second_near and not first_near:
            return Localization(Outcome.HARD_NEGATIVE, second, peak, ratio)
        return Localization(Outcome.UNCERTAIN, first, peak, ratio)
    if ratio > config.hard_negative_threshold and second_peak > config.not_found_threshold:
        return Localization(Outcome.HARD_NEGATIVE, first, peak, ratio)
    return Localization(Outcome.NORMAL, first, peak, ratio)


def _argmax(scores: NDArray[np.float32]) -> tuple[int, int]:
    """Return row and column of the maximum."""
    row, column = np.unravel_index(int(np.argmax(scores)), scores.shape)
    return int(row), int(column)
