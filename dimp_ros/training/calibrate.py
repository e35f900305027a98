# SPDX-License-Identifier: Apache-2.0
"""Follow targets through newly made sequences, and fit what a score peak says of the box.

    python -m dimp_ros.training.calibrate WEIGHTS --pictures PICTURES [--write]

The sequences are made of the training pictures, by other seeds than in training: they are new motions, scenes and
occlusions of objects that the network may have seen.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from dimp_ros.geometry import iou
from dimp_ros.tracker import DimpTracker
from dimp_ros.training.pictures import PictureSet
from dimp_ros.training.synthesis import SequenceMaker

SEED = 1_000_003
"""First part of the seed of every sequence; no training run has it."""

LENGTH = 24
SEEN, HIDDEN = 0.4, 0.1


@dataclass(frozen=True)
class Followed:
    """What was found over all sequences, one entry a frame after the first: ``peak``, ``overlap``, ``visible``."""

    peak: NDArray[np.float64]
    overlap: NDArray[np.float64]
    visible: NDArray[np.float64]

    @property
    def right(self) -> NDArray[np.bool_]:
        """Whether the target was in sight and the box on it (IoU above 0.5)."""
        return (self.overlap > 0.5) & (self.visible > HIDDEN)


def follow(tracker: DimpTracker, maker: SequenceMaker, sequences: int) -> Followed:
    """Run the tracker on ``sequences`` made sequences of `LENGTH` frames."""
    rows: list[tuple[float, float, float]] = []
    made = number = 0
    bar = tqdm(total=sequences, desc="made sequences", mininterval=5)
    while made < sequences:
        rng = np.random.default_rng((SEED, number))
        number += 1
        frames = maker.make(rng, np.linspace(0, 1, LENGTH, dtype=np.float64), clean=3)
        if frames is None or frames[0].visible < 0.7 or min(frames[0].box.w, frames[0].box.h) < 10:
            continue
        tracker.drop()
        tracker.init(frames[0].image, frames[0].box)
        for frame in frames[1:]:
            result = tracker.update(frame.image)
            rows.append((result.peak, float(iou(np.array(result.last_box), np.array(frame.box))), frame.visible))
        made += 1
        bar.update()
    bar.close()
    return Followed(*np.array(rows).T)


def fit_logistic(x: NDArray[np.float64], right: NDArray[np.bool_], ridge: float = 1e-3) -> tuple[float, float]:
    """Fit P(right) = 1 / (1 + exp(-slope * (x - midpoint))) by Newton's method; return midpoint and slope."""
    design = np.stack((x, np.ones_like(x)), 1)
    weights = np.zeros(2)
    for _ in range(50):
        p = 1 / (1 + np.exp(-np.clip(design @ weights, -30, 30)))
        gradient = design.T @ (right - p) - ridge * weights
        hessian = (design * (p * (1 - p))[:, None]).T @ design + ridge * np.eye(2)
        step = np.linalg.solve(hessian, gradient)
        weights += step
        if np.abs(step).max() < 1e-8:
            break
    slope, offset = weights
    if slope <= 0:
        raise ValueError(f"higher peaks are not more often right (slope {slope:.3g}): there is nothing to calibrate")
    return float(-offset / slope), float(slope)


def main(arguments: list[str] | None = None) -> int:
    """Measure, fit and, on demand, write midpoint and slope into the weights file."""
    parser = argparse.ArgumentParser(prog="python -m dimp_ros.training.calibrate", description=main.__doc__)
    parser.add_argument("weights", type=Path, help="a .safetensors file")
    parser.add_argument("--pictures", type=Path, required=True, help="folder with annotations.jsonl and images/")
    parser.add_argument("--sequences", type=int, default=100)
    parser.add_argument("--write", action="store_true", help="store midpoint and slope in the file")
    options = parser.parse_args(arguments)

    from dimp_ros.model.checkpoint import load_model, save_weights

    tracker = DimpTracker(str(options.weights), device="cpu")
    found = follow(tracker, SequenceMaker(PictureSet(options.pictures)), options.sequences)
    seen, hidden = found.visible > SEEN, found.visible < HIDDEN
    lost = found.peak < tracker.config.not_found_threshold
    midpoint, slope = fit_logistic(found.peak, found.right)
    print(f"target in sight: mean IoU {found.overlap[seen].mean():.3f}, IoU > 0.5 in {found.right[seen].mean():.1%}")
    print(f"said to be lost: {lost[seen].mean():.1%} of frames in sight, {lost[hidden].mean():.1%} of frames hidden")
    print(f"confidence: midpoint {midpoint:.3f}, slope {slope:.2f} ({len(found.peak)} frames)")
    if options.write:
        import torch

        net, info = load_model(str(options.weights))
        info = replace(info, confidence_midpoint=round(midpoint, 4), confidence_slope=round(slope, 3))
        save_weights(options.weights, net, info, torch.float16)
    return 0


if __name__ == "__main__":
    sys.exit(main())
