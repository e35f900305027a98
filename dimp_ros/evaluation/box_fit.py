# SPDX-License-Identifier: Apache-2.0
"""How well the tracker draws a box that it has just been shown.

``python -m dimp_ros.evaluation.box_fit --sequences DIR``

The tracker is started on the first frame of each sequence and updated with the same image, or with the image shifted,
scaled or turned about the target by a known amount. No annotation but the first box is needed.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from dimp_ros.evaluation.cli import setting
from dimp_ros.evaluation.layouts.registry import load_sequences
from dimp_ros.evaluation.metrics import overlap
from dimp_ros.evaluation.tracker_api import BenchmarkTracker
from dimp_ros.evaluation.trackers import DimpBenchmark
from dimp_ros.files.arguments import whole
from dimp_ros.files.program import command
from dimp_ros.geometry.box import Box
from dimp_ros.images.closer_window import turned_box

PROGRAM = "python -m dimp_ros.evaluation.box_fit"


class ChangedView(NamedTuple):
    """A change of the image about the target's centre: shift in target sizes, scale, and angle in degrees."""

    name: str
    shift: tuple[float, float] = (0.0, 0.0)
    scale: float = 1.0
    angle: float = 0.0


VIEWS = (
    ChangedView("shown"),
    ChangedView("shifted", shift=(0.3, -0.2)),
    ChangedView("larger", scale=1.15),
    ChangedView("smaller", scale=1 / 1.15),
    ChangedView("turned", angle=10.0),
)


def changed(image: NDArray[np.uint8], box: Box, view: ChangedView) -> tuple[NDArray[np.uint8], Box]:
    """Return an image after a view's change, and where the target is in it.

    The target's box after a turn is that of the ellipse in its box: what is in a box seldom reaches its corners.
    """
    if view.shift == (0.0, 0.0) and view.scale == 1 and view.angle == 0:
        return image, box
    angle = math.radians(view.angle)
    forward = view.scale * np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    turned = turned_box(box, forward)
    center = np.array(box.center)
    moved = center + np.array(view.shift) * (box.w, box.h)
    offset = moved - 0.5 - forward @ (center - 0.5)  # cv2 counts from the centres of pixels
    out = cv2.warpAffine(
        image,
        np.column_stack((forward, offset)),
        (image.shape[1], image.shape[0]),
        flags=cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_REPLICATE,
    )
    return np.asarray(out, np.uint8), Box.from_center(float(moved[0]), float(moved[1]), turned.w, turned.h)


def box_fit(
    tracker: BenchmarkTracker, image: NDArray[np.uint8], box: Box, views: Iterable[ChangedView] = VIEWS
) -> dict[str, float]:
    """Return for each view the overlap of the tracker's box with the true one, 0 where it is not found."""
    found = {}
    for view in views:
        changed_image, truth = changed(image, box, view)
        tracker.init(image, box)
        prediction = tracker.update(changed_image)
        found[view.name] = float(overlap([prediction.box], [truth])[0]) if prediction.found else 0.0
    return found


@command(PROGRAM)
def main(argv: list[str] | None = None) -> int:
    """Print the mean overlaps over all sequences; return 0, or 2 for a bad request."""
    parser = argparse.ArgumentParser(prog=PROGRAM, description=__doc__)
    parser.add_argument("--sequences", type=Path, required=True, metavar="DIR", help="as for dimp-eval")
    parser.add_argument("--only", help="names of sequences, with commas")
    parser.add_argument("--model", default="dimp_lite", help="name, or path of a weights file")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--threads", type=whole(), default=1)
    parser.add_argument("--set", type=setting, action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--each", action="store_true", help="print every sequence")
    arguments = parser.parse_args(argv)
    try:
        _measure(arguments)
    except (ValueError, OSError, ImportError) as error:
        print(f"{PROGRAM}: {error}", file=sys.stderr)
        return 2
    return 0


def _measure(arguments: argparse.Namespace) -> None:
    """Measure and print as the arguments say.

    :raises ValueError, OSError, ImportError: naming what cannot be used.
    """
    sequences = load_sequences(arguments.sequences, arguments.only.split(",") if arguments.only else None)
    tracker = DimpBenchmark(arguments.model, arguments.device, dict(arguments.set), arguments.threads)
    names = [view.name for view in VIEWS]
    print("mean overlap of the estimated box with the given one")
    print(f"{'':40s} " + " ".join(f"{name:>8s}" for name in names))
    rows: dict[str, list[dict[str, float]]] = {}
    for sequence in sequences:
        fit = box_fit(tracker, sequence.image(0), sequence.init_box)
        if sequence.film is not None:
            sequence.film.close()
        rows.setdefault(str(sequence.meta.get("kind") or "all"), []).append(fit)
        if arguments.each:
            print(f"{sequence.name[-40:]:40s} " + " ".join(f"{fit[name]:8.3f}" for name in names), flush=True)
    every = [fit for fits in rows.values() for fit in fits]
    for label, fits in [*rows.items(), ("all", every)] if len(rows) > 1 else [("all", every)]:
        text = " ".join(f"{np.mean([fit[name] for fit in fits]):8.3f}" for name in names)
        print(f"{f'{label} ({len(fits)})':40s} {text}")


if __name__ == "__main__":
    raise SystemExit(main())
