#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Plot learning curves: tools/env python tools/plot_training.py OUT.png NAME=RUN/log.jsonl [NAME=RUN/log.jsonl ...]."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot as plt

from dimp_ros.files.json_file import named_errors
from dimp_ros.files.outputs import OutputFile, check_outputs

PANELS = {"iou": "overlap loss", "final": "score error, final filter", "initial": "score error, first filter"}
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7")


def main() -> int:
    """Read the logs and write the plot; return the exit code: 2 for a log or an output that cannot be used."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("logs", nargs="+", help="NAME=log.jsonl of a training run")
    options = parser.parse_args()
    if options.out.suffix != ".png":
        parser.error(f"out is {options.out}; it must end in .png")
    try:
        plot(options.out, options.logs)
    except (ValueError, OSError) as error:
        print(f"plot_training: {error}", file=sys.stderr)
        return 2
    print(f"written: {options.out}")
    return 0


def plot(out: Path, logs: Sequence[str]) -> None:
    """Plot logs, each NAME=PATH.

    :raises ValueError, OSError: if a log cannot be read, or the plot not be written.
    """
    check_outputs([("out", out)], [("the log", Path(entry.partition("=")[2])) for entry in logs])
    figure, axes = plt.subplots(1, len(PANELS), figsize=(13, 3.8), constrained_layout=True)
    for colour, entry in zip(COLOURS, logs, strict=False):
        name, _, path = entry.partition("=")
        with named_errors(path, "give the log.jsonl of a training run"):
            text = Path(path).read_text(encoding="utf-8").splitlines()
            cut = [line for line in text if line.startswith('{"step": ') and not line.endswith("}")]  # loss of power
            lines = [dict(json.loads(line)) for line in text if line not in cut]
        for axis, key in zip(axes, PANELS, strict=True):
            for kind, style in ((None, {"alpha": 0.5, "linewidth": 1}), ("held_out", {"marker": "o", "markersize": 4})):
                chosen = [line for line in lines if line.get("kind") == kind and key in line]
                if chosen:
                    label = f"{name}, {'held-out pictures' if kind else 'training'}"
                    steps = [line["step"] for line in chosen]
                    axis.plot(steps, [line[key] for line in chosen], color=colour, label=label, **style)
    for axis, title in zip(axes, PANELS.values(), strict=True):
        axis.set(title=title, xlabel="steps", ylim=(0, None))
        axis.grid(alpha=0.3)
    axes[0].legend(fontsize=8)
    with OutputFile(out) as partial:
        figure.savefig(partial, dpi=110)


if __name__ == "__main__":
    sys.exit(main())
