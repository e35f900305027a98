# SPDX-License-Identifier: Apache-2.0
"""Quality of a tracker's confidence and of its "found": ranking, calibration, false alarms, reactions to absence.

A frame is *right* if the target is in the image and the box overlaps its true box with IoU > 0.5. The first frame,
whose box the tracker is given, does not count. Shapes: N counted frames.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn import metrics
from sklearn.metrics import brier_score_loss, roc_auc_score

from dimp_ros.evaluation.metrics import annotated, overlap
from dimp_ros.evaluation.runner import SequenceResult
from dimp_ros.evaluation.sequences import VideoSequence

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

RIGHT_OVERLAP = 0.5
BINS = 10


@dataclass(frozen=True)
class FrameLabels:
    """Labels of a track: ``present``, ``right``, ``found``: bool [N]; ``confidence``: float [N], nan if not given."""

    present: Bools
    right: Bools
    found: Bools
    confidence: Floats

    @property
    def has_confidence(self) -> bool:
        """Whether the tracker gives a confidence."""
        return bool(np.isfinite(self.confidence).any())

    def at_threshold(self, threshold: float) -> FrameLabels:
        """Return the track with ``found`` from this confidence on."""
        return replace(self, found=np.nan_to_num(self.confidence, nan=-np.inf) >= threshold)


def label_frames(result: SequenceResult, sequence: VideoSequence) -> FrameLabels:
    """Label all frames of a result but the first by the true boxes, nan where the target is absent."""
    right = overlap(result.boxes, sequence.boxes) > RIGHT_OVERLAP  # 0 where the target is absent
    confidence = np.array([np.nan if value is None else value for value in result.confidence], dtype=np.float64)
    return FrameLabels(annotated(sequence.boxes)[1:], right[1:], np.array(result.found, bool)[1:], confidence[1:])


def pool(tracks: Iterable[FrameLabels]) -> FrameLabels:
    """Concatenate the frames of several tracks."""
    fields = zip(*((t.present, t.right, t.found, t.confidence) for t in tracks), strict=True)
    present, right, found, confidence = (np.concatenate(field) for field in fields)
    return FrameLabels(present, right, found, confidence)


def auroc(scores: ArrayLike, positive: ArrayLike) -> float:
    """Return the probability that a positive scores above a negative, ties counting half; nan without either.

    :param scores: float [N]. :param positive: bool [N].
    """
    label = np.asarray(positive, dtype=bool)
    return float(roc_auc_score(label, scores)) if label.any() and not label.all() else float("nan")


@dataclass(frozen=True)
class Bin:
    """Frames with confidence in ``[low, high)`` (the last bin includes 1): mean confidence, share of right frames."""

    low: float
    high: float
    count: int
    confidence: float
    right: float


def reliability(confidence: ArrayLike, right: ArrayLike, bins: int = BINS) -> list[Bin]:
    """Sort frames into ``bins`` equal bins of confidence, without empty ones.

    :param confidence: float [N] in 0..1. :param right: bool [N]. :raises ValueError: for a confidence outside 0..1.
    """
    sure, event = np.asarray(confidence, dtype=np.float64), np.asarray(right, dtype=np.float64)
    if sure.size and not (np.isfinite(sure).all() and sure.min() >= 0 and sure.max() <= 1):
        raise ValueError(f"confidence must lie in 0..1, got {sure.min()} to {sure.max()}")
    which = np.minimum((sure * bins).astype(int), bins - 1)
    return [
        Bin(i / bins, (i + 1) / bins, int(own.sum()), float(sure[own].mean()), float(event[own].mean()))
        for i in range(bins)
        if (own := which == i).any()
    ]


def calibration_error(confidence: ArrayLike, right: ArrayLike, bins: int = BINS) -> float:
    """Return the expected calibration error: the mean over frames of |confidence - share right| of their bin."""
    parts = reliability(confidence, right, bins)
    total = sum(part.count for part in parts)
    return sum(part.count * abs(part.confidence - part.right) for part in parts) / total if total else float("nan")


def brier_score(confidence: ArrayLike, right: ArrayLike) -> float:
    """Return the mean squared difference between confidence and ``right``."""
    event = np.asarray(right, dtype=bool)
    return float(brier_score_loss(event, confidence, pos_label=True)) if event.size else float("nan")


def log_loss(confidence: ArrayLike, right: ArrayLike, floor: float = 1e-3) -> float:
    """Return the mean negative log-likelihood, with confidences clipped to ``floor`` from 0 and 1."""
    sure, event = np.clip(np.asarray(confidence, dtype=np.float64), floor, 1 - floor), np.asarray(right, dtype=bool)
    return float(metrics.log_loss(event, sure, labels=[False, True])) if event.size else float("nan")


@dataclass(frozen=True)
class Alarms:
    """Shares of frames in which "found" is wrong; nan without such frames.

    :param absent: found, of frames without the target.
    :param misplaced: found, of frames with the target and the box not on it.
    :param missed: not found, of frames with the target and the box on it.
    """

    absent: float
    misplaced: float
    missed: float


def alarms(track: FrameLabels) -> Alarms:
    """Return the false-alarm and miss rates of a track."""

    def share(found: Bools, of: Bools) -> float:
        return float(found[of].mean()) if of.any() else float("nan")

    wrong = track.present & ~track.right
    return Alarms(share(track.found, ~track.present), share(track.found, wrong), share(~track.found, track.right))


@dataclass(frozen=True)
class Reactions:
    """Reactions to absences that began while the box was on the target, one number each, inf for none.

    :param lost_after: frames reported as found before the first LOST; 0: LOST in the first frame of the absence.
    :param regained_after: frames from the return to the first with the box on the target; nan if the sequence ends with
        the absence.
    """

    lost_after: list[float]
    regained_after: list[float]


def reactions(track: FrameLabels) -> Reactions:
    """Measure the reactions to every absence that began while the target was found and the box on it."""
    lost: list[float] = []
    regained: list[float] = []
    edges = np.flatnonzero(np.diff(track.present.astype(int)))
    starts = [int(i) + 1 for i in edges if track.present[i]]
    for start in starts:
        if not (track.right[start - 1] and track.found[start - 1]):
            continue
        end = next((int(i) + 1 for i in edges if i >= start), len(track.present))
        after = next((int(i) + 1 for i in edges if i >= end), len(track.present))
        lost.append(_first(~track.found[start:end]))
        regained.append(_first((track.found & track.right)[end:after]) if end < len(track.present) else float("nan"))
    return Reactions(lost, regained)


def _first(event: Bools) -> float:
    """Return the index of the first True, inf if there is none."""
    return float(np.argmax(event)) if event.any() else float("inf")


def quantile(values: Sequence[float], share: float) -> float:
    """Return the smallest value that at least ``share`` of the values do not exceed; inf counts, nan does not."""
    kept = np.sort([value for value in values if not np.isnan(value)])
    return float(kept[max(int(np.ceil(share * len(kept))) - 1, 0)]) if len(kept) else float("nan")
