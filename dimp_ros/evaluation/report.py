# SPDX-License-Identifier: Apache-2.0
"""Figures of a run as Markdown tables and JSON."""

from __future__ import annotations

import json
import math
import platform
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from dimp_ros.evaluation.metrics import (
    AVERAGE_OVERLAP_THRESHOLDS,
    NORMALIZED_THRESHOLDS,
    PRECISION_PIXELS,
    PRECISION_THRESHOLDS,
    SUCCESS_THRESHOLDS,
    Floats,
    annotated,
    counted_overlaps,
    normalized_precision_curve,
    precision_curve,
    success_curve,
)
from dimp_ros.evaluation.runner import SequenceResult
from dimp_ros.evaluation.sequences import VideoSequence
from dimp_ros.files.outputs import write_text

SPEED_REFERENCE = "csrt"
"""Times are given relative to this tracker's in the same run, because milliseconds do not compare between machines."""


@dataclass(frozen=True)
class SequenceFigures:
    """A tracker's figures on one sequence.

    `auc`, `p20`, `pnorm`, `ao`, `sr50`, `sr75` are in [0, 1]; the last three are nan where only the first frame counts.
    `milliseconds`: mean per update, nan if none ran. `counted`: the frames behind `ao`. `success` (21 values),
    `precision` (51) and `normalized_precision` (51) are curves, over the thresholds in `dimp_ros.evaluation.metrics`.
    """

    auc: float
    p20: float
    pnorm: float
    ao: float
    sr50: float
    sr75: float
    milliseconds: float
    frames: int
    annotated: int
    counted: int
    found: int
    success: list[float]
    precision: list[float]
    normalized_precision: list[float]
    error: str | None


@dataclass(frozen=True)
class TrackerFigures:
    """A tracker's figures in a run.

    `auc`, `p20`, `pnorm` and the curves of those names are means over sequences. `ao`, `sr50`, `sr75` and
    `average_overlap_success` (101 values) are GOT-10k's: over all frames of all sequences. `milliseconds`: mean update.
    """

    tracker: str
    auc: float
    p20: float
    pnorm: float
    ao: float
    sr50: float
    sr75: float
    milliseconds: float
    time_ratio: float | None
    errors: int
    success: list[float]
    precision: list[float]
    normalized_precision: list[float]
    average_overlap_success: list[float]
    sequences: dict[str, SequenceFigures]


def _numbers(curve: Floats) -> list[float]:
    return [round(float(value), 6) for value in curve]


def _mean(values: Any) -> float:
    return float(np.mean(values)) if len(values) else math.nan


def _overlaps(result: SequenceResult, sequence: VideoSequence) -> Floats:
    return counted_overlaps(result.boxes, sequence.boxes, result.image_size, sequence.origin)


def _sequence_figures(result: SequenceResult, sequence: VideoSequence) -> SequenceFigures:
    success = success_curve(result.boxes, sequence.boxes)
    precision = precision_curve(result.boxes, sequence.boxes)
    normalized = normalized_precision_curve(result.boxes, sequence.boxes)
    overlaps = _overlaps(result, sequence)
    return SequenceFigures(
        auc=_mean(success),
        p20=float(precision[PRECISION_THRESHOLDS == PRECISION_PIXELS][0]),
        pnorm=_mean(normalized),
        ao=_mean(overlaps),
        sr50=_mean(overlaps > 0.5),
        sr75=_mean(overlaps > 0.75),
        milliseconds=_mean(result.milliseconds[1:]),
        frames=len(sequence),
        annotated=int(annotated(sequence.boxes).sum()),
        counted=len(overlaps),
        found=sum(result.found),
        success=_numbers(success),
        precision=_numbers(precision),
        normalized_precision=_numbers(normalized),
        error=result.error,
    )


def _mean_update(results: Iterable[SequenceResult]) -> float:
    return _mean([value for result in results for value in result.milliseconds[1:]])


def summarize(results: Iterable[SequenceResult], sequences: Sequence[VideoSequence]) -> list[TrackerFigures]:
    """Return the figures of a run per tracker, in the order in which trackers first appear.

    Raise ValueError if a tracker lacks a sequence that another has: means over different sequences do not compare.
    """
    by_tracker: dict[str, dict[str, SequenceResult]] = {}
    for result in results:
        by_tracker.setdefault(result.tracker, {})[result.sequence] = result
    wanted = {sequence.name for sequence in sequences}
    for tracker, own in by_tracker.items():
        if set(own) != wanted:
            raise ValueError(f"{tracker} has results for {len(own)} of {len(wanted)} sequences; run it on all of them")
    reference = _mean_update(by_tracker.get(SPEED_REFERENCE, {}).values())
    return [_tracker_figures(tracker, own, sequences, reference) for tracker, own in by_tracker.items()]


def _tracker_figures(
    tracker: str, own: dict[str, SequenceResult], sequences: Sequence[VideoSequence], reference: float
) -> TrackerFigures:
    each = {sequence.name: _sequence_figures(own[sequence.name], sequence) for sequence in sequences}
    overlaps = np.concatenate([_overlaps(own[sequence.name], sequence) for sequence in sequences])
    milliseconds = _mean_update(own.values())
    ratio = milliseconds / reference

    def mean_curve(name: str) -> list[float]:
        return _numbers(np.mean([getattr(item, name) for item in each.values()], axis=0))

    return TrackerFigures(
        tracker=tracker,
        auc=_mean([item.auc for item in each.values()]),
        p20=_mean([item.p20 for item in each.values()]),
        pnorm=_mean([item.pnorm for item in each.values()]),
        ao=_mean(overlaps),
        sr50=_mean(overlaps > 0.5),
        sr75=_mean(overlaps > 0.75),
        milliseconds=milliseconds,
        time_ratio=ratio if math.isfinite(ratio) else None,
        errors=sum(item.error is not None for item in each.values()),
        success=mean_curve("success"),
        precision=mean_curve("precision"),
        normalized_precision=mean_curve("normalized_precision"),
        average_overlap_success=[_mean(overlaps > threshold) for threshold in AVERAGE_OVERLAP_THRESHOLDS],
        sequences=each,
    )


LONG_NAME = 14
"""Trackers with longer names are numbered in tables."""


def _labels(figures: Sequence[TrackerFigures]) -> list[str]:
    numbered = any(len(figure.tracker) > LONG_NAME for figure in figures)
    return [f"({number})" if numbered else figure.tracker for number, figure in enumerate(figures, start=1)]


def markdown_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Lay out a Markdown table, the first column left-aligned, the others right-aligned."""
    rows = [list(row) for row in rows]
    widths = [max(len(row[column]) for row in [list(header), *rows]) for column in range(len(header))]

    def line(cells: Sequence[str]) -> str:
        first, *others = [
            cell.ljust(width) if not i else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(cells, widths, strict=True))
        ]
        return "| " + " | ".join([first, *others]) + " |"

    rule = "|" + "|".join("-" * (width + 1) + (":" if i else "-") for i, width in enumerate(widths)) + "|"
    return "\n".join([line(header), rule, *(line(row) for row in rows)])


def sequence_table(figures: Sequence[TrackerFigures]) -> str:
    """Return the AUC, in percent, of every tracker on every sequence; a track that ended in an error has a star."""
    names = list(figures[0].sequences)

    def cell(item: SequenceFigures) -> str:
        return f"{100 * item.auc:.1f}{'*' if item.error else ''}"

    rows = [[name, *(cell(figure.sequences[name]) for figure in figures)] for name in names]
    return markdown_table(["AUC by sequence", *_labels(figures)], rows)


def summary_table(figures: Sequence[TrackerFigures]) -> str:
    """Return the figures of a run in percent, milliseconds an update, and their ratio to CSRT's in the same run."""
    header = ["AUC", "P20", "Pnorm", "AO", "SR50", "SR75", "ms", "time / CSRT's"]
    rows = []
    for label, figure in zip(_labels(figures), figures, strict=True):
        shares = (figure.auc, figure.p20, figure.pnorm, figure.ao, figure.sr50, figure.sr75)
        rows.append(
            [
                figure.tracker if label == figure.tracker else f"{label} {figure.tracker}",
                *(f"{100 * share:.1f}" if math.isfinite(share) else "-" for share in shares),
                f"{figure.milliseconds:.1f}" if math.isfinite(figure.milliseconds) else "-",
                f"{figure.time_ratio:.2f}" if figure.time_ratio is not None else "-",
            ]
        )
    count = len(figures[0].sequences)
    return markdown_table([f"mean of {count} sequence{'s' * (count != 1)}", *header], rows)


def kind_table(figures: Sequence[TrackerFigures], sequences: Sequence[VideoSequence]) -> str:
    """Return figures in percent by kind of annotation: means over films of the means over their tracks.

    Empty where the sequences do not say their ``kind`` and ``film``. A film with many tracks counts as one.
    """
    films: dict[str, dict[str, list[str]]] = {}
    for sequence in sequences:
        if not {"kind", "film"} <= sequence.meta.keys():
            return ""
        films.setdefault(sequence.meta["kind"], {}).setdefault(sequence.meta["film"], []).append(sequence.name)
    rows = []
    for kind, own in films.items():
        for label, figure in zip(_labels(figures), figures, strict=True):
            means = [
                _mean([_mean([getattr(figure.sequences[name], key) for name in names]) for names in own.values()])
                for key in ("auc", "p20", "pnorm", "sr50", "sr75")
            ]
            tracks = sum(map(len, own.values()))
            rows.append([f"{kind}, {label}", str(len(own)), str(tracks), *(f"{100 * mean:.1f}" for mean in means)])
    return markdown_table(["mean over films", "films", "tracks", "AUC", "P20", "Pnorm", "SR50", "SR75"], rows)


def write_json(path: Path, figures: Sequence[TrackerFigures], settings: dict[str, Any]) -> None:
    """Write the figures of a run, with its settings and what it ran on."""
    thresholds = {
        "success": _numbers(SUCCESS_THRESHOLDS),
        "precision": _numbers(PRECISION_THRESHOLDS),
        "normalized_precision": _numbers(NORMALIZED_THRESHOLDS),
        "average_overlap_success": _numbers(AVERAGE_OVERLAP_THRESHOLDS),
    }
    write_document(path, figures, {"settings": settings, "thresholds": thresholds})


def write_document(path: Path, figures: Sequence[Any], more: dict[str, Any]) -> None:
    """Write figures, dataclasses with a ``tracker``, and ``more`` as JSON; numbers that are not finite become null."""
    machine = {"python": platform.python_version(), "opencv": cv2.__version__, "processor": platform.machine()}
    trackers = {figure.tracker: asdict(figure) for figure in figures}
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, json.dumps(_without_nan({**more, "machine": machine, "trackers": trackers}), indent=1))


def _without_nan(value: Any) -> Any:
    """Replace numbers that are not finite by null, recursively."""
    if isinstance(value, dict):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_without_nan(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
