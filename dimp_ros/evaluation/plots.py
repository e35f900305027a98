# SPDX-License-Identifier: Apache-2.0
"""Success, precision and normalised precision plots of a run as PNG files. Needs matplotlib, no display."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from dimp_ros.evaluation.metrics import (
    NORMALIZED_THRESHOLDS,
    PRECISION_PIXELS,
    PRECISION_THRESHOLDS,
    SUCCESS_THRESHOLDS,
    Floats,
)
from dimp_ros.evaluation.report import TrackerFigures
from dimp_ros.files.outputs import OutputFile

COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#7F7F7F", "#000000")
"""Okabe and Ito's colour-blind safe colours, with grey for the pale yellow."""

DASHES = ("-", "--", ":", "-.")
"""Dashes distinguish lines in greyscale, and more trackers than there are colours."""


class Plot(NamedTuple):
    """A plot: a curve of `TrackerFigures`, its thresholds, and the score that ranks the trackers."""

    curve: str
    thresholds: Floats
    score: str
    title: str
    horizontal: str
    legend: str


PLOTS = (
    Plot("success", SUCCESS_THRESHOLDS, "auc", "Success", "overlap threshold", "AUC, %"),
    Plot("precision", PRECISION_THRESHOLDS, "p20", "Precision", "centre error threshold, px", "at 20 px, %"),
    Plot(
        "normalized_precision",
        NORMALIZED_THRESHOLDS,
        "pnorm",
        "Normalised precision",
        "centre error threshold, target sizes",
        "AUC, %",
    ),
)


def write_plots(folder: Path, figures: Sequence[TrackerFigures], emphasized: Sequence[str] = ()) -> list[Path]:
    """Write success.png, precision.png and normalized_precision.png into `folder` and return their paths.

    A tracker has the same colour in all of them. The legend is sorted by the score it shows, in percent. `emphasized`
    trackers are drawn thick and on top. Raise ImportError, with the remedy, if matplotlib is not installed.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError("plots need matplotlib; pip install matplotlib") from error
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    height = 4.2 + (0.22 * len(figures) if _long(figures) else 0)
    for plot in PLOTS:
        figure = Figure(figsize=(7.2, height), dpi=200, layout="constrained")
        FigureCanvasAgg(figure)
        draw_plot(figure.add_subplot(), plot, figures, emphasized)
        paths.append(folder / f"{plot.curve}.png")
        with OutputFile(paths[-1]) as partial:
            figure.savefig(partial, metadata={"Software": None})
    return paths


def _long(figures: Sequence[TrackerFigures]) -> bool:
    """Tell whether names are too long for a legend beside the axes."""
    return max(len(figure.tracker) for figure in figures) > 24


def draw_plot(axes: Any, plot: Plot, figures: Sequence[TrackerFigures], emphasized: Sequence[str]) -> None:
    """Draw a plot on matplotlib's ``axes``; see `write_plots`."""
    styled = sorted(figures, key=lambda figure: figure.tracker not in emphasized)  # they get the first colours
    ranked = sorted(enumerate(styled), key=lambda item: -getattr(item[1], plot.score))
    for index, figure in ranked:
        own = figure.tracker in emphasized
        axes.plot(
            plot.thresholds,
            [100 * value for value in getattr(figure, plot.curve)],
            color=COLORS[index % len(COLORS)],
            linestyle="-" if own else DASHES[(index // len(COLORS) + index) % len(DASHES)],
            linewidth=3.0 if own else 1.6,
            zorder=3 if own else 2,
            clip_on=False,  # a curve on the edge keeps its width
            label=f"{100 * getattr(figure, plot.score):.1f}  {figure.tracker}",
        )
    if plot.score == "p20":
        axes.axvline(PRECISION_PIXELS, color="#999999", linewidth=0.8, zorder=1)
    count = len(figures[0].sequences)
    axes.set_title(f"{plot.title}, mean of {count} sequence{'s' * (count != 1)}", loc="left", fontsize=12)
    axes.set_xlabel(plot.horizontal)
    axes.set_ylabel("share of frames, %")
    axes.set_xlim(plot.thresholds[0], plot.thresholds[-1])
    axes.set_ylim(0, 100)
    axes.grid(color="#DDDDDD", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    _add_legend(axes, plot, figures, emphasized)


def _add_legend(axes: Any, plot: Plot, figures: Sequence[TrackerFigures], emphasized: Sequence[str]) -> None:
    """Put the ranking beside the axes, or below them if names are long."""
    place = {"loc": "upper left", "bbox_to_anchor": (0.0, -0.14) if _long(figures) else (1.01, 1.0)}
    legend = axes.legend(
        title=plot.legend,
        alignment="left",
        fontsize=9,
        frameon=False,
        handlelength=3.0,
        **place,
    )
    for text in legend.get_texts():
        if text.get_text().split("  ", 1)[1] in emphasized:
            text.set_fontweight("bold")
