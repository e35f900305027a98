# SPDX-License-Identifier: Apache-2.0
"""From a score peak to a confidence: a monotone map that is stored with the weights it was fitted for."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

Knots = tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class ConfidenceMap:
    """A map from score peaks to 0..1 that never falls: linear between ``knots``, constant beyond the outer ones.

    :param knots: pairs (peak, confidence), at least two, peaks rising, confidences not falling.
    :raises ValueError: for other knots.
    """

    knots: Knots

    def __post_init__(self) -> None:
        """Check the knots."""
        values = np.array(self.knots, dtype=np.float64)
        if values.ndim != 2 or values.shape[0] < 2 or values.shape[1] != 2 or not np.isfinite(values).all():
            raise ValueError(f"knots are {self.knots}; give at least two pairs (peak, confidence) of finite numbers")
        peaks, confidences = values.T
        if (np.diff(peaks) <= 0).any() or (np.diff(confidences) < 0).any():
            raise ValueError(f"knots are {self.knots}; peaks must rise and confidences must not fall: fit them anew")
        if confidences[0] < 0 or confidences[-1] > 1:
            raise ValueError(f"knots are {self.knots}; confidences must be from 0 to 1")

    def __call__(self, peak: float) -> float:
        """Return the confidence for a peak; 0 for one that is not a number."""
        if math.isnan(peak):
            return 0.0
        peaks, confidences = zip(*self.knots, strict=True)
        return float(np.interp(peak, peaks, confidences))

    @property
    def threshold_50(self) -> float | None:
        """The least peak with confidence 0.5; None if there is none."""
        for (p0, c0), (p1, c1) in itertools.pairwise(self.knots):
            if c0 <= 0.5 <= c1:
                return p0 if c0 == 0.5 else p0 + (p1 - p0) * (0.5 - c0) / (c1 - c0)
        return None

    @classmethod
    def logistic(cls, midpoint: float, slope: float) -> ConfidenceMap:
        """Return 1 / (1 + exp(-slope * (peak - midpoint))), up to 2e-4, as a map of this kind."""
        log_odds = np.linspace(-9, 9, 181)
        peaks, confidences = midpoint + log_odds / slope, 1 / (1 + np.exp(-log_odds))
        return cls(tuple(zip(peaks.tolist(), confidences.tolist(), strict=True)))


def read_knots(values: Sequence[Sequence[float]]) -> Knots:
    """Return knots as they come from a file as pairs of floats; raise ValueError if they are no map."""
    try:
        knots = tuple((float(peak), float(confidence)) for peak, confidence in values)
    except OverflowError as error:  # a whole number beyond all floats
        raise ValueError(f"knots are beyond the range of numbers ({error}): fit them anew") from error
    return ConfidenceMap(knots).knots if knots else ()


DEFAULT_CONFIDENCE = ConfidenceMap.logistic(midpoint=0.4, slope=10.0)
"""For weights without a map of their own: of other trainings, or random ones."""
