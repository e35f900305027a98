# SPDX-License-Identifier: Apache-2.0
"""Measure re-detection: how often and how soon a lost target is found again, and how often something else is.

    python -m dimp_ros.evaluation.redetection --store RUN/store/held_out --number 40
    python -m dimp_ros.evaluation.redetection --sequences SEQUENCES --only NAME,...

Settings may be tuned on synthetic sequences (`dimp_ros.synthetic.disappearance`); annotated ones only measure. The
default baseline is the same tracker without the search for lost targets.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from dimp_ros.evaluation.layouts.registry import load_sequences
from dimp_ros.evaluation.tracker_api import BaselineUnavailable
from dimp_ros.evaluation.trackers import TrackerSpec, load_tracker, split_names
from dimp_ros.files.arguments import whole
from dimp_ros.files.outputs import check_outputs, write_text
from dimp_ros.files.program import command
from dimp_ros.geometry.box import Box, iou
from dimp_ros.images.files import write_image
from dimp_ros.tracker.result import TargetState

PROGRAM = "python -m dimp_ros.evaluation.redetection"
DEFAULT_TRACKERS = "dimp_lite,dimp_lite@search_tiles=0"
IOU_HIT, IOU_MISS = 0.5, 0.1
"""IoU above which a box is on the target, and below which it is on something else."""

BEFORE = 12
"""A return counts if the tracker was on the target in one of the last so many frames with the target visible."""


class ScoredFrame(NamedTuple):
    """A tracker's result in a frame, and the true box (None: absent)."""

    state: TargetState
    box: Box | None
    truth: Box | None
    milliseconds: float = 0.0

    @property
    def overlap(self) -> float:
        """IoU of box and truth, 0 where either is missing."""
        return float(iou(np.array(self.box), np.array(self.truth))) if self.box and self.truth else 0.0

    @property
    def on(self) -> bool:
        """Whether the tracker reports TRACKING and is on the target."""
        return self.state is TargetState.TRACKING and self.overlap > IOU_HIT

    @property
    def false(self) -> bool:
        """Whether the tracker reports TRACKING and is on something else."""
        return self.state is TargetState.TRACKING and self.overlap < IOU_MISS


@dataclass
class RedetectionCounts:
    """Counts of a tracker over sequences.

    :param returns: returns of a target that had been tracked. :param delays: frames until re-detection, of the returns
        that were found; 0: the frame of the return. :param frames: all frames.
    :param false: false frames, see `ScoredFrame`. :param false_finds: runs of false frames.
    :param on: frames with the tracker on the target. :param present: frames with the target.
    :param slow_ms: times of the LOST frames. :param usual_ms: of the others.
    """

    returns: int = 0
    delays: list[int] = field(default_factory=list)
    frames: int = 0
    false: int = 0
    false_finds: int = 0
    on: int = 0
    present: int = 0
    slow_ms: list[float] = field(default_factory=list)
    usual_ms: list[float] = field(default_factory=list)

    def add(self, frames: Sequence[ScoredFrame], returns: Iterable[int]) -> None:
        """Count a sequence. :param returns: frames in which the target reappears."""
        returns = sorted(returns)
        for at, end in itertools.pairwise([*returns, len(frames)]):
            before = [frame for frame in frames[:at] if frame.truth is not None][-BEFORE:]
            if not any(frame.on for frame in before):
                continue
            self.returns += 1
            found = next((n for n in range(at, end) if frames[n].on), None)
            if found is not None:
                self.delays.append(found - at)
        false = [frame.false for frame in frames]
        self.frames += len(frames)
        self.false += sum(false)
        self.false_finds += sum(now and not before for before, now in itertools.pairwise([False, *false]))
        self.on += sum(frame.on for frame in frames)
        self.present += sum(frame.truth is not None for frame in frames)
        for frame in frames:
            (self.slow_ms if frame.state is TargetState.LOST else self.usual_ms).append(frame.milliseconds)


@dataclass(frozen=True)
class PlayedSequence:
    """A sequence whose images are generated one by one; ``returns`` as for `RedetectionCounts.add`."""

    name: str
    group: str
    images: Iterator[NDArray[np.uint8]]
    truths: Sequence[Box | None]
    returns: tuple[int, ...]


def synthetic_sequences(store: Path, number: int, first: int = 0) -> Iterator[PlayedSequence]:
    """Generate synthetic sequences, grouped by scenario."""
    from dimp_ros.synthetic.disappearance import DisappearanceGenerator

    maker = DisappearanceGenerator(store)
    for index in range(first, first + number):
        sequence = maker.make(index)
        images = (frame.image for frame in sequence.frames)
        yield PlayedSequence(
            sequence.name, sequence.scenario, images, [s.box for s in sequence.frames], sequence.returns
        )


def annotated_sequences(folder: Path, names: Sequence[str] | None) -> Iterator[PlayedSequence]:
    """Read annotated sequences; the target returns where it is annotated again after an absence."""
    for sequence in load_sequences(folder, names):
        truths = [None if np.isnan(box).any() else Box(*(float(value) for value in box)) for box in sequence.boxes]
        returns = tuple(n for n in range(1, len(truths)) if truths[n] and not truths[n - 1])
        group = "with absences" if returns else "always visible"
        yield PlayedSequence(sequence.name, group, (sequence.image(n) for n in range(len(truths))), truths, returns)


def run_trackers(trackers: dict[str, Any], sequence: PlayedSequence) -> dict[str, list[ScoredFrame]]:
    """Run every tracker over a sequence, image by image."""
    frames: dict[str, list[ScoredFrame]] = {name: [] for name in trackers}
    first = sequence.truths[0]
    assert first is not None, "a sequence begins with its target"
    for number, (image, truth) in enumerate(zip(sequence.images, sequence.truths, strict=True)):
        for name, tracker in trackers.items():
            if number == 0:
                tracker.drop()
            result = tracker.update(image) if number else tracker.init(image, first)
            frames[name].append(ScoredFrame(result.state, result.box, truth, sum(result.stage_ms.values())))
    return frames


def table(counts: dict[tuple[str, str], RedetectionCounts]) -> str:
    """Return the counts by (group, tracker) as a Markdown table."""
    lines = [
        "| sequences | tracker | returns | found | frames until found: median, 90 % | false per 1000 frames (finds) |"
        " on target | ms while lost / else |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for (group, name), count in counts.items():
        share = f"{len(count.delays) / count.returns:.0%}" if count.returns else "-"
        delays = "{:.0f}, {:.0f}".format(*np.percentile(count.delays, (50, 90))) if count.delays else "-"
        false = f"{1000 * count.false / max(count.frames, 1):.0f} ({count.false_finds})"
        on = f"{count.on / max(count.present, 1):.0%}"
        both = count.slow_ms and count.usual_ms
        ratio = f"{median(count.slow_ms) / max(median(count.usual_ms), 1e-9):.1f}" if both else "-"
        lines.append(f"| {group} | {name} | {count.returns} | {share} | {delays} | {false} | {on} | {ratio} |")
    return "\n".join(lines)


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(prog=PROGRAM, description=(__doc__ or "").split("\n")[0])
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--store", type=Path, help="held-out images of a training run: RUN/store/held_out")
    where.add_argument("--images", type=Path, help="folder with annotations.jsonl and images/")
    where.add_argument("--sequences", type=Path, metavar="DIR", help="folder of annotated sequences")
    parser.add_argument("--only", type=split_names, metavar="NAME,...", help="use these annotated sequences only")
    parser.add_argument("--number", type=whole(), default=40, help="number of synthetic sequences (default: 40)")
    parser.add_argument("--first", type=whole(0), default=0, help="number of the first synthetic sequence (default: 0)")
    parser.add_argument(
        "--trackers",
        type=split_names,
        default=split_names(DEFAULT_TRACKERS),
        metavar="NAME,...",
        help=f"our models as for dimp-eval, with settings after @; dimp:PATH is a file (default: {DEFAULT_TRACKERS})",
    )
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N (default: auto)")
    parser.add_argument("--threads", type=whole(), default=1, help="threads of a CPU (default: 1)")
    parser.add_argument("--sheet", type=Path, help="write a contact sheet of the sequences, and stop")
    parser.add_argument("--out", type=Path, help="write all figures as JSON")
    return parser


def _load(name: str, device: str) -> Any:
    """Load a model with its variant's settings."""
    spec = TrackerSpec(name)
    if spec.is_baseline:
        raise ValueError(f"{name} does not report LOST; give our models only")
    spec.check()
    return load_tracker(spec.model, device, spec.all_settings)


def _run(options: argparse.Namespace) -> None:
    import tempfile

    from dimp_ros.tracker.device import limit_threads

    outputs = [("--out", options.out), ("--sheet", options.sheet)]
    for _, path in outputs:
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
    weights = [("--trackers", TrackerSpec(name).weights) for name in options.trackers]
    sources = [("--sequences", options.sequences), ("--store", options.store), ("--images", options.images)]
    check_outputs(outputs, [*sources, *weights])
    limit_threads(options.threads)
    with tempfile.TemporaryDirectory() as folder:
        total = options.number
        if options.sequences:
            sequences = annotated_sequences(options.sequences, options.only)
            total = len(load_sequences(options.sequences, options.only))
        else:
            store = options.store or _store(options.images, Path(folder))
            sequences = synthetic_sequences(store, options.number, options.first)
        if options.sheet:
            write_sheet(options.sheet, sequences)
            return
        trackers = {name: _load(name, options.device) for name in options.trackers}
        counts: dict[tuple[str, str], RedetectionCounts] = {}
        for sequence in tqdm(sequences, total=total, desc="sequences", mininterval=5, disable=None):
            for name, frames in run_trackers(trackers, sequence).items():
                own = (sequence.name,) if options.sequences else ()
                for group in (*own, sequence.group, "all"):
                    counts.setdefault((group, name), RedetectionCounts()).add(frames, sequence.returns)
    groups = [*sorted({group for group, _ in counts} - {"all"}), "all"]
    try:
        if options.out:
            rows = [{"group": g, "tracker": name, **asdict(count)} for (g, name), count in counts.items()]
            write_text(options.out, json.dumps(rows, indent=1) + "\n")
    finally:  # also where it cannot be written
        print(table({(group, name): counts[group, name] for group in groups for name in trackers}))


def _store(images: Path, folder: Path) -> Path:
    """Build a store of held-out images."""
    from dimp_ros.synthetic.sequences import held_out_store

    return held_out_store(images, folder)


def write_sheet(path: Path, sequences: Iterable[PlayedSequence], columns: int = 8, width: int = 240) -> None:
    """Write a contact sheet: a row of frames per sequence, with the target's true box."""
    import cv2

    rows = []
    for sequence in sequences:
        chosen = set(np.linspace(0, len(sequence.truths) - 1, columns).astype(int).tolist())
        cells = []
        for number, (image, truth) in enumerate(zip(sequence.images, sequence.truths, strict=True)):
            if number not in chosen:
                continue
            if truth:
                corners = [round(value) for value in (truth.x, truth.y, truth.x + truth.w, truth.y + truth.h)]
                cv2.rectangle(image, corners[:2], corners[2:], (0, 255, 0), max(image.shape[1] // width, 1))
            cells.append(cv2.resize(image, (width, width * 2 // 3), interpolation=cv2.INTER_AREA))
        rows.append(np.hstack(cells))
    path.parent.mkdir(parents=True, exist_ok=True)
    write_image(path, np.vstack(rows))


@command(PROGRAM)
def main(arguments: list[str] | None = None) -> int:
    """Run the command; return 0, or 2 for a bad request."""
    options = build_parser().parse_args(arguments)
    try:
        _run(options)
    except (ValueError, OSError, ImportError, BaselineUnavailable) as error:
        print(f"{PROGRAM}: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
