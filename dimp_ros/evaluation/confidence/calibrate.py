# SPDX-License-Identifier: Apache-2.0
"""Fit the map from a tracker's evidence to confidence, and check it by cross-validation.

    python -m dimp_ros.evaluation.confidence.calibrate WEIGHTS --videos VIDEOS [--write]
    python -m dimp_ros.evaluation.confidence.calibrate WEIGHTS --store RUN/store/held_out [--write]
    python -m dimp_ros.evaluation.confidence.calibrate WEIGHTS --images IMAGES [--write]

Videos are annotated ones that were not trained on; the target is hidden for some frames where the video is long enough.
Without them, sequences are rendered from held-out images: occluders cover the target, it leaves the image, and in every
other sequence it is hidden for a quarter of the frames.
"""

from __future__ import annotations

import argparse
import math
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from tqdm import tqdm

from dimp_ros.evaluation.confidence.metrics import auroc, brier_score, calibration_error, log_loss
from dimp_ros.evaluation.confidence.occlusion import HiddenSequence, find_cover_patch, hide, with_absences
from dimp_ros.evaluation.layouts.registry import load_sequences
from dimp_ros.evaluation.sequences import VideoSequence
from dimp_ros.evaluation.trackers import split_names
from dimp_ros.files.arguments import whole
from dimp_ros.files.outputs import check_outputs, write_bytes
from dimp_ros.files.program import command
from dimp_ros.geometry.box import Box, iou
from dimp_ros.model.checkpoints.weights_file import with_knots
from dimp_ros.model.confidence import ConfidenceMap
from dimp_ros.synthetic.sequences import SyntheticFrame, held_out_store, synthetic_sequences
from dimp_ros.tracker import DimpTracker

PROGRAM = "python -m dimp_ros.evaluation.confidence.calibrate"

HIDDEN_FRAMES = range(14, 22)
"""In these frames of every other sequence the target is hidden."""

SEEN, HIDDEN = 0.4, 0.1
KNOTS = 8
SMOOTHNESS = 10.0
"""Penalty on bends of the log-odds, see `fit_map`."""

FOLDS = 5
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Followed:
    """Results, one entry per frame after the first of each sequence.

    :param sequence: number of the sequence. :param evidence: see `TrackResult`. :param overlap: IoU of the last box.
    :param visible: visible share of the target. :param lost: whether the tracker reported LOST.
    """

    sequence: NDArray[np.int64]
    evidence: Floats
    overlap: Floats
    visible: Floats
    lost: NDArray[np.bool_]

    @property
    def right(self) -> NDArray[np.bool_]:
        """Whether the target was visible and the box on it (IoU above 0.5)."""
        return (self.overlap > 0.5) & (self.visible > HIDDEN)


def hide_target(frames: list[SyntheticFrame]) -> list[SyntheticFrame]:
    """Return the frames with the target hidden in `HIDDEN_FRAMES`; unchanged if nothing can cover it."""
    result, source = list(frames), None
    for index in HIDDEN_FRAMES:
        frame = frames[index]
        if frame.visible < HIDDEN or min(frame.box.w, frame.box.h) < 4:
            continue
        source = find_cover_patch(frame.image, frame.box, source)
        if source is None:
            return frames
        result[index] = SyntheticFrame(hide(frame.image, frame.box, source), frame.box, 0.0)
    return result


def rendered(source: Iterator[list[SyntheticFrame]], sequences: int) -> Iterator[list[SyntheticFrame]]:
    """Yield ``sequences`` synthetic sequences; in every other one the target is hidden for some frames."""
    for number in range(sequences):
        yield hide_target(next(source)) if number % 2 else next(source)


def filmed(videos: Iterable[VideoSequence]) -> Iterator[Iterator[SyntheticFrame]]:
    """Yield the frames of videos with the target hidden where that is possible; ``visible`` is nan if it is unknown."""
    for video in videos:
        yield _frames(with_absences(video) or video)


def _frames(video: VideoSequence) -> Iterator[SyntheticFrame]:
    covers = video.covers if isinstance(video, HiddenSequence) else {}
    for index, values in enumerate(video.boxes):
        box = covers[index][0] if index in covers else Box(*(float(value) for value in values))
        if index in covers:
            visible = 0.0
        elif math.isfinite(box.x):
            visible = 1.0
        else:
            visible = math.nan if video.gaps_unknown else 0.0
        yield SyntheticFrame(video.image(index), box, visible)


def follow(tracker: Any, source: Iterable[Iterable[SyntheticFrame]]) -> Followed:
    """Run the tracker on sequences; frames of which it is not known whether the target is visible do not count."""
    rows: list[tuple[float, ...]] = []
    for number, sequence in enumerate(tqdm(source, desc="sequences", mininterval=5, disable=None)):
        frames = iter(sequence)
        first = next(frames)
        tracker.drop()
        tracker.init(first.image, first.box)
        for frame in frames:
            result = tracker.update(frame.image)
            if math.isnan(frame.visible):
                continue
            overlap = float(iou(np.array(result.last_box), np.array(frame.box)))
            rows.append((number, result.evidence, overlap, frame.visible, result.box is None))
    sequence, evidence, overlaps, visible, lost = np.array(rows).reshape(-1, 5).T
    return Followed(sequence.astype(np.int64), evidence, overlaps, visible, lost.astype(bool))


def fit_logistic(x: Floats, right: NDArray[np.bool_], ridge: float = 1e-3) -> tuple[float, float]:
    """Fit P(right) = 1 / (1 + exp(-slope * (x - midpoint))); return midpoint and slope.

    :raises ValueError: if higher x are not more often right.
    """
    if right.all() or not right.any():
        raise ValueError(
            f"{right.sum()} of {len(right)} frames are right: nothing to calibrate; give more or other sequences"
        )
    fitted = LogisticRegression(C=1 / ridge, solver="newton-cholesky", tol=1e-10).fit(x[:, None], right)
    slope, offset = float(fitted.coef_[0, 0]), float(fitted.intercept_[0])
    if slope <= 0:
        raise ValueError(f"higher peaks are not more often right (slope {slope:.3g}): there is nothing to calibrate")
    return -offset / slope, slope


def fit_map(peak: Floats, right: NDArray[np.bool_]) -> ConfidenceMap:
    """Fit a monotone map with `KNOTS` evenly spaced knots by maximum likelihood.

    The fit starts from a logistic function, and bends of its log-odds are penalised.

    :param peak: float [N]. :param right: bool [N]. :raises ValueError: if there is nothing to calibrate.
    """
    import torch
    from torch.nn.functional import softplus

    midpoint, slope = fit_logistic(peak, right)
    knots = np.linspace(peak.min(), peak.max(), KNOTS)
    basis = torch.from_numpy(np.stack([np.interp(peak, knots, unit) for unit in np.eye(KNOTS)], 1))
    event = torch.from_numpy(right.astype(np.float64))
    width = float(knots[1] - knots[0])
    rise = np.full(KNOTS - 1, np.log(np.expm1(slope * width)))
    values = torch.from_numpy(np.concatenate(([slope * (knots[0] - midpoint)], rise))).requires_grad_(True)

    def log_odds() -> Any:
        return values[0] + torch.cat((values.new_zeros(1), softplus(values[1:]).cumsum(0)))

    def closure() -> Any:
        optimizer.zero_grad()
        probability = (basis @ torch.sigmoid(log_odds())).clamp(1e-6, 1 - 1e-6)
        likelihood = event * probability.log() + (1 - event) * (1 - probability).log()
        bends = (log_odds().diff() / (width * slope)).diff()
        loss = -likelihood.sum() + SMOOTHNESS * bends.square().sum()
        loss.backward()
        return loss

    optimizer = torch.optim.LBFGS([values], max_iter=200, line_search_fn="strong_wolfe")
    optimizer.step(closure)
    confidences = torch.sigmoid(log_odds()).tolist()
    return ConfidenceMap(tuple(zip(knots.round(4).tolist(), np.round(confidences, 6).tolist(), strict=True)))


def logistic_map(peak: Floats, right: NDArray[np.bool_]) -> ConfidenceMap:
    """Fit a logistic function, to compare `fit_map` with."""
    return ConfidenceMap.logistic(*fit_logistic(peak, right))


def unseen(found: Followed, fit: Callable[[Floats, NDArray[np.bool_]], ConfidenceMap]) -> Floats:
    """Return the confidence of every frame by a map fitted to the sequences of the other folds."""
    fold = found.sequence % FOLDS
    result = np.empty(len(found.evidence))
    for part in range(FOLDS):
        own = fold == part
        fitted = fit(found.evidence[~own], found.right[~own])
        result[own] = [fitted(value) for value in found.evidence[own]]
    return result


def report(found: Followed, stored: ConfidenceMap) -> str:
    """Describe the tracker's results, and the stored, a logistic and the fitted map on unseen frames."""
    seen, hidden = found.visible > SEEN, found.visible < HIDDEN
    lines = [
        f"target visible: mean IoU {found.overlap[seen].mean():.3f}, IoU > 0.5 in {found.right[seen].mean():.1%}",
        f"reported LOST: {found.lost[seen].mean():.1%} of {seen.sum()} visible frames, "
        + (f"{found.lost[hidden].mean():.1%} of {hidden.sum()} hidden" if hidden.any() else "none was hidden"),
        "",
        f"{'on sequences not fitted to':28}{'log loss':>10}{'Brier':>8}{'ECE':>8}{'AUROC':>8}",
    ]
    for name, confidence in (
        ("before: as stored", np.array([stored(value) for value in found.evidence])),
        ("logistic", unseen(found, logistic_map)),
        (f"after: {KNOTS} knots", unseen(found, fit_map)),
    ):
        figures = [measure(confidence, found.right) for measure in (log_loss, brier_score, calibration_error, auroc)]
        lines.append(f"{name:28}" + "".join(f"{v:{w}.4f}" for v, w in zip(figures, (10, 8, 8, 8), strict=True)))
    return "\n".join(lines)


@command(PROGRAM)
def main(arguments: list[str] | None = None) -> int:
    """Measure, fit and, with --write, store the confidence map in the weights file."""
    parser = argparse.ArgumentParser(prog=PROGRAM, description=main.__doc__)
    parser.add_argument("weights", type=Path, help="a .safetensors file")
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--store", type=Path, help="held-out images of a training run: RUN/store/held_out")
    where.add_argument("--images", type=Path, help="folder with annotations.jsonl and images/")
    where.add_argument("--videos", type=Path, help="folder of annotated sequences, as for dimp-eval")
    parser.add_argument("--only", type=split_names, help="with --videos: take these sequences only")
    parser.add_argument(
        "--sequences", type=whole(FOLDS), default=100, help="of rendered ones, their number (default: 100)"
    )
    parser.add_argument("--precision", default="float32", help="of the networks (default: float32)")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N (default: auto)")
    parser.add_argument("--write", action="store_true", help="store the map in the file, and change nothing else of it")
    options = parser.parse_args(arguments)
    if options.write and (options.weights.suffix != ".safetensors" or not options.weights.is_file()):
        parser.error(f"--write stores safetensors, and {options.weights} is no such file; convert it (dimp-convert)")
    try:
        _calibrate(options)
    except (ValueError, OSError) as error:
        print(f"{parser.prog}: {error}", file=sys.stderr)
        return 2
    return 0


def _calibrate(options: argparse.Namespace) -> None:
    if options.write:
        check_outputs([("--write", options.weights)], [])
    before = options.weights.read_bytes() if options.write else b""
    tracker = DimpTracker(str(options.weights), device=options.device, precision=options.precision)
    if options.write:
        with_knots(before, tracker.info.confidence.knots)  # fails now, not after minutes of measuring
    with tempfile.TemporaryDirectory() as folder:
        if options.videos:
            found = follow(tracker, filmed(load_sequences(options.videos, options.only)))
        else:
            store = options.store or held_out_store(options.images, Path(folder))
            found = follow(tracker, rendered(synthetic_sequences(store), options.sequences))
    fitted = fit_map(found.evidence, found.right)
    print(report(found, tracker.info.confidence))
    print(f"fitted to all {len(found.evidence)} frames; confidence 0.5 at an evidence of {fitted.threshold_50}")
    print(
        "knots (evidence: confidence): " + ", ".join(f"{evidence:.3f}: {value:.3f}" for evidence, value in fitted.knots)
    )
    if options.write:
        if options.weights.read_bytes() != before:
            raise ValueError(
                f"{options.weights} has changed since it was measured, and the knots are those of the weights before: "
                "nothing is written; repeat the command"
            )
        write_bytes(options.weights, with_knots(before, fitted.knots))


if __name__ == "__main__":
    sys.exit(main())
