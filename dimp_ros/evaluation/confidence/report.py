# SPDX-License-Identifier: Apache-2.0
"""Figures of a run that measures confidence."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from dimp_ros.evaluation.confidence.metrics import (
    Alarms,
    Bin,
    FrameLabels,
    Reactions,
    alarms,
    auroc,
    brier_score,
    calibration_error,
    label_frames,
    pool,
    quantile,
    reactions,
    reliability,
)
from dimp_ros.evaluation.report import markdown_table
from dimp_ros.evaluation.runner import SequenceResult
from dimp_ros.evaluation.sequences import VideoSequence

HALF = 0.5
RESAMPLES = 300


@dataclass(frozen=True)
class AbsenceFigures:
    """Absences that began while the tracker was on its target; frames, inf for "never", nan for none.

    `lost_median`, `lost_90`: frames until LOST in half and 90 % of them. `never_lost`: share without LOST. `regained`:
    share of the returns after which its box was on the target before the next absence; `regained_median`: frames until
    then.
    """

    absences: int
    lost_median: float
    lost_90: float
    never_lost: float
    regained: float
    regained_median: float


@dataclass(frozen=True)
class ConfidenceFigures:
    """Quality of a tracker's confidence over all frames of all sequences but the first of each.

    `auroc` separates right frames from all others, `auroc_absent` from those without the target, `auroc_misplaced` from
    those whose box is off it; `auroc_interval` are the 2.5 and 97.5 percentiles of a bootstrap over sequences.
    `default`: false alarms and misses of the tracker's own "found"; `at_half`: of confidence >= 0.5. Figures of the
    confidence are nan if the tracker gives none.
    """

    tracker: str
    frames: int
    absent: int
    right: int
    auroc: float
    auroc_interval: tuple[float, float]
    auroc_absent: float
    auroc_misplaced: float
    calibration_error: float
    brier: float
    default: Alarms
    at_half: Alarms
    reactions: AbsenceFigures
    bins: list[Bin]
    sequences: dict[str, dict[str, float]]
    errors: dict[str, str]


def summarize(results: Iterable[SequenceResult], sequences: Sequence[VideoSequence]) -> list[ConfidenceFigures]:
    """Return the figures of a run per tracker, in the order in which trackers first appear."""
    by_name = {sequence.name: sequence for sequence in sequences}
    by_tracker: dict[str, list[SequenceResult]] = {}
    for result in results:
        by_tracker.setdefault(result.tracker, []).append(result)
    return [_figures(name, own, by_name) for name, own in by_tracker.items()]


def _figures(tracker: str, results: Sequence[SequenceResult], sequences: dict[str, VideoSequence]) -> ConfidenceFigures:
    ordered = sorted(results, key=lambda result: result.sequence)
    tracks = {result.sequence: label_frames(result, sequences[result.sequence]) for result in ordered}
    everything = pool(tracks.values())
    sure = _with_confidence(everything)
    at_half = everything.at_threshold(HALF) if everything.has_confidence else None
    nothing = Alarms(math.nan, math.nan, math.nan)
    return ConfidenceFigures(
        tracker=tracker,
        frames=len(everything.right),
        absent=int((~everything.present).sum()),
        right=int(everything.right.sum()),
        auroc=auroc(sure.confidence, sure.right),
        auroc_interval=_interval(list(tracks.values())),
        auroc_absent=_auroc_of(sure, lambda track: track.right | ~track.present),
        auroc_misplaced=_auroc_of(sure, lambda track: track.present),
        calibration_error=calibration_error(sure.confidence, sure.right),
        brier=brier_score(sure.confidence, sure.right),
        default=alarms(everything),
        at_half=alarms(at_half) if at_half is not None else nothing,
        reactions=_absences([reactions(track) for track in tracks.values()]),
        bins=reliability(sure.confidence, sure.right),
        sequences={name: _of_sequence(track) for name, track in tracks.items()},
        errors={result.sequence: result.error for result in ordered if result.error},
    )


def _of_sequence(track: FrameLabels) -> dict[str, float]:
    sure = _with_confidence(track)
    return {
        "frames": len(track.right),
        "absent": int((~track.present).sum()),
        "right": int(track.right.sum()),
        "auroc": auroc(sure.confidence, sure.right),
        **{f"alarm_{name}": value for name, value in asdict(alarms(track)).items()},
    }


def _with_confidence(track: FrameLabels) -> FrameLabels:
    """Return the frames with a confidence."""
    given = np.isfinite(track.confidence)
    return FrameLabels(track.present[given], track.right[given], track.found[given], track.confidence[given])


def _auroc_of(track: FrameLabels, which: Callable[[FrameLabels], Any]) -> float:
    frames = which(track)
    return auroc(track.confidence[frames], track.right[frames])


def _interval(tracks: Sequence[FrameLabels]) -> tuple[float, float]:
    """Return the 2.5 and 97.5 percentiles of the AUROC in a bootstrap over sequences."""
    rng = np.random.default_rng(0)
    values = []
    for _ in range(RESAMPLES):
        drawn = _with_confidence(pool([tracks[i] for i in rng.integers(len(tracks), size=len(tracks))]))
        values.append(auroc(drawn.confidence, drawn.right))
    kept = [value for value in values if not math.isnan(value)]
    return (float(np.quantile(kept, 0.025)), float(np.quantile(kept, 0.975))) if kept else (math.nan, math.nan)


def _absences(each: Sequence[Reactions]) -> AbsenceFigures:
    lost = [value for item in each for value in item.lost_after]
    regained = [value for item in each for value in item.regained_after if not math.isnan(value)]
    back = [value for value in regained if math.isfinite(value)]
    return AbsenceFigures(
        absences=len(lost),
        lost_median=quantile(lost, 0.5),
        lost_90=quantile(lost, 0.9),
        never_lost=float(np.isinf(lost).mean()) if lost else math.nan,
        regained=len(back) / len(regained) if regained else math.nan,
        regained_median=quantile(back, 0.5),
    )


def _percent(value: float) -> str:
    return "-" if math.isnan(value) else f"{100 * value:.1f} %"


def _number(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.3f}"


def _frames(value: float) -> str:
    return "-" if math.isnan(value) else "never" if math.isinf(value) else f"{value:.0f}"


ROWS: tuple[tuple[str, Callable[[ConfidenceFigures], str]], ...] = (
    ("AUROC of the confidence", lambda f: _number(f.auroc)),
    ("… 95 % interval, over sequences", lambda f: " to ".join(_number(v) for v in f.auroc_interval)),
    ("… right against absent", lambda f: _number(f.auroc_absent)),
    ("… right against misplaced", lambda f: _number(f.auroc_misplaced)),
    ("expected calibration error", lambda f: _number(f.calibration_error)),
    ("Brier score", lambda f: _number(f.brier)),
    ("frames that are right", lambda f: _percent(f.right / f.frames)),
    ("false alarms, target absent", lambda f: _percent(f.default.absent)),
    ("false alarms, box misplaced", lambda f: _percent(f.default.misplaced)),
    ("misses (box right, said LOST)", lambda f: _percent(f.default.missed)),
    ("same at confidence 0.5: absent", lambda f: _percent(f.at_half.absent)),
    ("… misplaced", lambda f: _percent(f.at_half.misplaced)),
    ("… misses", lambda f: _percent(f.at_half.missed)),
    ("absences that began on the target", lambda f: str(f.reactions.absences)),
    ("frames until LOST, median", lambda f: _frames(f.reactions.lost_median)),
    ("frames until LOST, 90 %", lambda f: _frames(f.reactions.lost_90)),
    ("absences never noticed", lambda f: _percent(f.reactions.never_lost)),
    ("found again after the return", lambda f: _percent(f.reactions.regained)),
    ("frames until then, median", lambda f: _frames(f.reactions.regained_median)),
)


def table(figures: Sequence[ConfidenceFigures]) -> str:
    """Return a Markdown table with a column per tracker."""
    rows = [[title, *(show(figure) for figure in figures)] for title, show in ROWS]
    return markdown_table(["over all frames", *(figure.tracker for figure in figures)], rows)
