# SPDX-License-Identifier: Apache-2.0
"""A plot of a recorded loop: errors, states with their age, commands."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from dimp_ros.apps.simulator.metrics import BAND, SEEN, LoopFigures, LoopRecording
from dimp_ros.files.outputs import OutputFile

AXES = {"vehicle": ("forward m/s", "left m/s", "up m/s", "", "", "yaw rad/s")}
ARM_AXES = ("x m/s", "y m/s", "z m/s", "about x rad/s", "about y rad/s", "about z rad/s")
STATE_COLOURS = {"TRACKING": "#009e73", "UNCERTAIN": "#e69f00", "LOST": "#d55e00", "UNINITIALIZED": "#999999"}
"""Colours of the states, distinguishable with any kind of colour vision."""


def plot_loop(recording: LoopRecording, figures: LoopFigures, path: Path, *, mode: str, title: str) -> None:
    """Draw a recording into a PNG; times count from the closing of the loop.

    :param mode: vehicle or arm, whose commands have other names.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, (top, middle, bottom) = pyplot.subplots(
        3, 1, sharex=True, figsize=(9, 7.5), gridspec_kw={"height_ratios": (3, 1, 3)}, constrained_layout=True
    )
    zero = recording.enabled
    _draw_errors(top, recording, figures)
    for name, colour in STATE_COLOURS.items():
        states = [one for one in recording.states if one.state == name]
        times, ages = [one.time - zero for one in states], [one.age * 1e3 for one in states]
        if times:
            middle.scatter(times, ages, s=6, color=colour, label=name)
    middle.set_ylabel("age of the\nstate, ms")
    middle.set_ylim(bottom=0)
    middle.legend(loc="upper right", fontsize=8, ncol=4)
    names = AXES.get(mode, ARM_AXES)
    times = [one.time - zero for one in recording.commands]
    for index, name in enumerate(names):
        values = [one.twist[index] for one in recording.commands]
        if name and values and np.abs(values).max() > 0.0:
            bottom.plot(times, values, linewidth=1, label=name)
    bottom.set_ylabel("command")
    bottom.set_xlabel("seconds since the loop was closed")
    if bottom.lines:
        bottom.legend(loc="upper right", fontsize=8, ncol=3)
    for axes in (top, middle, bottom):
        axes.grid(alpha=0.3)
        if recording.killed is not None:
            axes.axvline(recording.killed - zero, color="black", linestyle=":", linewidth=1)
    figure.suptitle(title)
    path.parent.mkdir(parents=True, exist_ok=True)
    with OutputFile(path) as partial:
        figure.savefig(partial, dpi=110)
    pyplot.close(figure)


def _draw_errors(axes: Any, recording: LoopRecording, figures: LoopFigures) -> None:
    """Draw where the target was, with the band, and the time in which it was hidden in grey."""
    zero = recording.enabled
    times = np.array([one.time - zero for one in recording.errors])
    for name, values, colour in (
        ("across, image widths", [one.x for one in recording.errors], "#0072b2"),
        ("down, image heights", [one.y for one in recording.errors], "#cc79a7"),
    ):
        axes.plot(times, values, linewidth=1.2, color=colour, label=name)
    axes.axhspan(-BAND, BAND, color="#009e73", alpha=0.12, label=f"within {BAND:.0%} of the set point")
    hidden = np.array([one.visible < SEEN for one in recording.errors])
    if hidden.any():
        axes.fill_between(times, 0, 1, where=hidden, color="black", alpha=0.12, transform=axes.get_xaxis_transform())
    if figures.settling_seconds is not None:
        axes.axvline(figures.settling_seconds, color="#009e73", linestyle="--", linewidth=1, label="settled")
    axes.set_ylim(-0.55, 0.55)
    axes.set_ylabel("target from set point")
    axes.legend(loc="upper right", fontsize=8, ncol=2)
