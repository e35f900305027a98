# SPDX-License-Identifier: Apache-2.0
"""How often the box that is found at a point on an object is the object's, by its size.

``python -m dimp_ros.evaluation.point_boxes --clips CLIPS``

The points lie within the middle half of the first known box of every track. A box is right at an IoU above 0.5; a point
that is refused counts as wrong.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from dimp_ros.datasets.clips import read_films
from dimp_ros.datasets.film import Film
from dimp_ros.files.arguments import number, whole
from dimp_ros.files.program import command
from dimp_ros.geometry.box import Box, iou
from dimp_ros.images.picture import ArrayPicture
from dimp_ros.model.checkpoints.checkpoint import load_model
from dimp_ros.tracker.backend_choice import choose_precision
from dimp_ros.tracker.config import TrackerConfig
from dimp_ros.tracker.device import choose_device
from dimp_ros.tracker.inference_backend import InferenceBackend
from dimp_ros.tracker.point_box import agreed, rank_boxes
from dimp_ros.tracker.torch_backend import TorchBackend

PROGRAM = "python -m dimp_ros.evaluation.point_boxes"

SIZES = (0, 32, 64, 128, 256, 10_000)
"""Classes of the longer side of a box, pixels."""

THRESHOLDS = (0.0, 0.2, 0.3, 0.4, 0.5, 0.6)


class PointResult(NamedTuple):
    """A point: kind of the film's boxes, longer side of the true box in pixels, predicted and true overlap of the box
    that was found, and the overlap of the best of all candidates.
    """

    kind: str
    size: float
    predicted: float
    overlap: float
    best: float
    milliseconds: float


def first_boxes(clips: Path, split: str) -> Iterator[tuple[str, NDArray[np.uint8], Box]]:
    """Yield for every track the kind of its film, and the first frame with a known box and this box."""
    for film in read_films(clips, split):
        read = Film(film.path, frames=film.frames)
        for track in film.tracks:
            known = np.flatnonzero(np.isfinite(track.boxes).all(1))
            if len(known):
                yield film.kind, read(int(known[0])), Box(*(float(v) for v in track.boxes[known[0]]))


def evaluate_points(
    backend: InferenceBackend, clips: Path, split: str, points: int, seed: int = 0
) -> list[PointResult]:
    """Find boxes at ``points`` random points of every track."""
    rng, results = np.random.default_rng(seed), []
    for kind, image, truth in first_boxes(clips, split):
        for x, y in rng.uniform(0.25, 0.75, (points, 2)):
            clock = time.perf_counter()
            ranked = rank_boxes(backend, ArrayPicture(image), (truth.x + x * truth.w, truth.y + y * truth.h))
            found = agreed(ranked)
            milliseconds = (time.perf_counter() - clock) * 1e3
            overlaps = iou(np.array([one.box for one in (found, *ranked)]), np.array(truth))
            best, size = float(overlaps.max()), max(truth.w, truth.h)
            results.append(PointResult(kind, size, found.overlap, float(overlaps[0]), best, milliseconds))
    return results


def print_table(results: list[PointResult], threshold: float) -> None:
    """Print the shares by size and kind, and for several thresholds of the predicted overlap."""

    def line(label: str, some: list[PointResult]) -> None:
        if some:
            right = np.mean([one.overlap > 0.5 and one.predicted >= threshold for one in some])
            refused = np.mean([one.predicted < threshold for one in some])
            best = np.mean([one.best > 0.5 for one in some])
            print(f"{label:24s}{len(some):8d}{right:10.1%}{refused:10.1%}{best:18.1%}")

    print(f"{'':24s}{'points':>8s}{'IoU > 0.5':>10s}{'refused':>10s}{'best candidate':>18s}")
    for low, high in pairwise(SIZES):
        label = f"{low} to {high} px" if high < SIZES[-1] else f"from {low} px"
        line(label, [one for one in results if low <= one.size < high])
    for kind in sorted({one.kind for one in results}):
        line(kind, [one for one in results if one.kind == kind])
    line("all", results)
    print(f"\n{'point_threshold':24s}{'answered':>10s}{'of these IoU > 0.5':>20s}")
    for value in THRESHOLDS:
        kept = [one for one in results if one.predicted >= value]
        right = np.mean([one.overlap > 0.5 for one in kept]) if kept else float("nan")
        print(f"{value:<24g}{len(kept) / len(results):10.1%}{right:20.1%}")
    times = sorted(one.milliseconds for one in results)
    print(f"\nmedian {statistics.median(times):.1f} ms a point, 95 % within {times[int(0.95 * len(times))]:.1f} ms")


@command(PROGRAM)
def main(argv: list[str] | None = None) -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(prog=PROGRAM, description=__doc__)
    parser.add_argument("--clips", type=Path, required=True, help="folder of films with tracks (clips.jsonl)")
    parser.add_argument("--split", default="val")
    parser.add_argument("--points", type=whole(), default=5, help="of every track")
    parser.add_argument("--model", default="dimp_lite", help="name, or path of a weights file")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--threads", type=whole(), default=2)
    parser.add_argument("--threshold", type=number(0, 1), default=TrackerConfig.point_threshold, help="point_threshold")
    arguments = parser.parse_args(argv)
    try:
        results = _evaluate(arguments)
    except (ValueError, OSError) as error:
        print(f"{PROGRAM}: {error}", file=sys.stderr)
        return 2
    print_table(results, arguments.threshold)
    return 0


def _evaluate(arguments: argparse.Namespace) -> list[PointResult]:
    """Evaluate as the arguments say.

    :raises ValueError, OSError: naming what cannot be used.
    """
    splits = {film.split for film in read_films(arguments.clips) if film.tracks}
    if arguments.split not in splits:
        there = ", ".join(sorted(splits)) or "no film with tracks"
        raise ValueError(f"--split {arguments.split!r} is none of {arguments.clips}, which has: {there}")
    torch.set_num_threads(arguments.threads)
    device = choose_device(arguments.device)
    model, _ = load_model(arguments.model)
    model = model.to(str(device)).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    backend = TorchBackend(model, device, choose_precision("auto", device))
    results = evaluate_points(backend, arguments.clips, arguments.split, arguments.points)
    if not results:
        raise ValueError(f"no track of the split {arguments.split!r} of {arguments.clips} has a known box")
    return results


if __name__ == "__main__":
    raise SystemExit(main())
