# SPDX-License-Identifier: Apache-2.0
"""Figures of a run, as tables for people and as JSON for programs."""

from __future__ import annotations

import json
import math
import platform
from collections.abc import Iterable
from collections.abc import Sequence as List
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from dimp_ros.evaluation.metrics import annotated, precision, success_auc, success_curve
from dimp_ros.evaluation.runner import SequenceResult
from dimp_ros.evaluation.sequences import Sequence

SPEED_REFERENCE = "csrt"
"""Times are given relative to this tracker's in the same run, because milliseconds do not travel between machines."""


@dataclass(frozen=True)
class SequenceFigures:
    """A tracker's figures on one sequence; `auc` and `p20` in [0, 1], `milliseconds` per update, nan if none ran."""

    auc: float
    p20: float
    milliseconds: float
    frames: int
    annotated: int
    found: int
    success: list[float]
    error: str | None


@dataclass(frozen=True)
class TrackerFigures:
    """A tracker's figures in a run: `auc` and `p20` are means over sequences, `milliseconds` the mean update."""

    tracker: str
    auc: float
    p20: float
    milliseconds: float
    time_ratio: float | None
    errors: int
    sequences: dict[str, SequenceFigures]


def _sequence_figures(result: SequenceResult, sequence: Sequence) -> SequenceFigures:
    updates = result.milliseconds[1:]
    return SequenceFigures(
        auc=success_auc(result.boxes, sequence.boxes),
        p20=precision(result.boxes, sequence.boxes),
        milliseconds=float(np.mean(updates)) if updates else math.nan,
        frames=len(sequence),
        annotated=int(annotated(sequence.boxes).sum()),
        found=sum(result.found),
        success=[round(float(value), 6) for value in success_curve(result.boxes, sequence.boxes)],
        error=result.error,
    )


def _mean_update(results: Iterable[SequenceResult]) -> float:
    times = [value for result in results for value in result.milliseconds[1:]]
    return float(np.mean(times)) if times else math.nan


def summarize(results: Iterable[SequenceResult], sequences: List[Sequence]) -> list[TrackerFigures]:
    """Turn the results of a run into figures, a tracker each, in the order in which trackers first appear.

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
    figures = []
    for tracker, own in by_tracker.items():
        each = {sequence.name: _sequence_figures(own[sequence.name], sequence) for sequence in sequences}
        milliseconds = _mean_update(own.values())
        ratio = milliseconds / reference
        figures.append(
            TrackerFigures(
                tracker=tracker,
                auc=float(np.mean([item.auc for item in each.values()])),
                p20=float(np.mean([item.p20 for item in each.values()])),
                milliseconds=milliseconds,
                time_ratio=ratio if math.isfinite(ratio) else None,
                errors=sum(item.error is not None for item in each.values()),
                sequences=each,
            )
        )
    return figures


def _table(header: List[str], rows: Iterable[List[str]]) -> str:
    """Lay out a Markdown table, the first column left-aligned, the others right-aligned."""
    rows = [list(row) for row in rows]
    widths = [max(len(row[column]) for row in [list(header), *rows]) for column in range(len(header))]

    def line(cells: List[str]) -> str:
        first, *others = [
            cell.ljust(width) if not i else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(cells, widths, strict=True))
        ]
        return "| " + " | ".join([first, *others]) + " |"

    rule = "|" + "|".join("-" * (width + 1) + (":" if i else "-") for i, width in enumerate(widths)) + "|"
    return "\n".join([line(header), rule, *(line(row) for row in rows)])


def sequence_table(figures: List[TrackerFigures]) -> str:
    """Return the AUC, in percent, of every tracker on every sequence; a track that ended in an error is starred."""
    names = list(figures[0].sequences)

    def cell(item: SequenceFigures) -> str:
        return f"{100 * item.auc:.1f}{'*' if item.error else ''}"

    rows = [[name, *(cell(figure.sequences[name]) for figure in figures)] for name in names]
    return _table(["AUC by sequence", *(figure.tracker for figure in figures)], rows)


def summary_table(figures: List[TrackerFigures]) -> str:
    """Return AUC and P20, in percent, as means over sequences, and the time of an update relative to CSRT's."""
    rows = [
        [
            figure.tracker,
            f"{100 * figure.auc:.1f}",
            f"{100 * figure.p20:.1f}",
            f"{figure.time_ratio:.2f}" if figure.time_ratio is not None else "-",
        ]
        for figure in figures
    ]
    return _table([f"mean of {len(figures[0].sequences)} sequences", "AUC", "P20", "time / CSRT's"], rows)


def write_json(path: Path, figures: List[TrackerFigures], settings: dict[str, Any]) -> None:
    """Write the figures of a run, with its settings and what it ran on."""
    document = {
        "settings": settings,
        "machine": {"python": platform.python_version(), "opencv": cv2.__version__, "processor": platform.machine()},
        "trackers": {figure.tracker: asdict(figure) for figure in figures},
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(_without_nan(document), indent=1), encoding="utf-8")


def _without_nan(value: Any) -> Any:
    """Replace numbers that JSON has no form for by null."""
    if isinstance(value, dict):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_without_nan(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
