# SPDX-License-Identifier: Apache-2.0
"""Reliability plots, and contact sheets of frames with the target hidden."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from dimp_ros.evaluation.confidence.metrics import BINS
from dimp_ros.evaluation.confidence.occlusion import HiddenSequence
from dimp_ros.evaluation.confidence.report import ConfidenceFigures
from dimp_ros.files.outputs import OutputFile
from dimp_ros.geometry.box import Box
from dimp_ros.images.files import read_image, write_image

CELL = 240
"""Side of a cell of a sheet, pixels."""


def write_reliability_plot(path: Path, figures: Sequence[ConfidenceFigures]) -> None:
    """Draw the share of right frames over the confidence per tracker, and the number of frames.

    Trackers without a confidence are left out. :raises ImportError: if matplotlib is missing.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError("plots need matplotlib: pip install matplotlib") from error
    sure = [figure for figure in figures if figure.bins]
    chart = Figure(figsize=(6, 7.5), layout="constrained")
    top, bottom = chart.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    top.plot((0, 1), (0, 1), color="0.6", linestyle="--", linewidth=1, label="ideal")
    width = 0.8 / BINS / max(len(sure), 1)
    for number, figure in enumerate(sure):
        color = f"C{number}"
        label = f"{figure.tracker} (AUROC {figure.auroc:.2f}, ECE {figure.calibration_error:.2f})"
        top.plot([b.confidence for b in figure.bins], [b.right for b in figure.bins], "o-", color=color, label=label)
        middles = [(b.low + b.high) / 2 + (number - (len(sure) - 1) / 2) * width for b in figure.bins]
        bars = bottom.bar(middles, [b.count for b in figure.bins], width, color=color)
        bottom.bar_label(bars, fontsize=5, rotation=90, padding=2)
    top.set(xlim=(0, 1), ylim=(0, 1), ylabel="share of frames with the target there and IoU > 0.5")
    chart.legend(loc="outside upper center", fontsize="small")
    top.grid(alpha=0.3)
    bottom.set(xlabel="confidence", ylabel="frames", yscale="log")
    bottom.set_ylim(0.8, 10 * max((b.count for figure in sure for b in figure.bins), default=1))
    path.parent.mkdir(parents=True, exist_ok=True)
    with OutputFile(path) as partial:
        chart.savefig(partial, dpi=120)


def write_sheet(path: Path, sequence: HiddenSequence, columns: int = 6) -> None:
    """Write an image of hidden frames, spread over the sequence: the original above the covered one."""
    hidden = sorted(sequence.covers)
    chosen = [hidden[i] for i in np.linspace(0, len(hidden) - 1, min(columns, len(hidden))).astype(int)]
    pairs = []
    for index in chosen:
        box = sequence.covers[index][0]
        frames = (read_image(sequence.frames[index]), sequence.image(index))
        pairs.append(np.vstack([_around(frame, box) for frame in frames]))
    path.parent.mkdir(parents=True, exist_ok=True)
    write_image(path, np.hstack(pairs))


def _around(image: NDArray[np.uint8], box: Box) -> NDArray[np.uint8]:
    """Crop a square of five target sizes around the box, `CELL` pixels wide."""
    side = max(5 * np.sqrt(box.area), 50.0)
    scale = CELL / side
    (cx, cy), half = box.center, CELL / 2
    transform = np.array([[scale, 0, half - cx * scale], [0, scale, half - cy * scale]])
    flags = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    return np.asarray(cv2.warpAffine(image, transform, (CELL, CELL), flags=flags), dtype=np.uint8)
