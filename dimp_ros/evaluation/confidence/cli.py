# SPDX-License-Identifier: Apache-2.0
"""Measure trackers' confidence on sequences in which the target is absent at times.

    python -m dimp_ros.evaluation.confidence.cli --sequences DIR --baselines DIR --out results/confidence

Sequences with annotated absences are used as they are; in the others the target is hidden repeatedly. As with
`dimp-eval` the sequences are for measuring only. With `--resume` an interrupted run continues.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from tqdm import tqdm

from dimp_ros.evaluation.cli import collect, report_errors, usable_trackers
from dimp_ros.evaluation.confidence.near_look_alikes import near_look_alikes
from dimp_ros.evaluation.confidence.occlusion import HiddenSequence, hidden_sequences
from dimp_ros.evaluation.confidence.plot import write_reliability_plot, write_sheet
from dimp_ros.evaluation.confidence.report import summarize, table
from dimp_ros.evaluation.distributed import ALONE
from dimp_ros.evaluation.layouts.registry import load_sequences
from dimp_ros.evaluation.report import write_document
from dimp_ros.evaluation.runner import available_cores
from dimp_ros.evaluation.tracker_api import BaselineUnavailable
from dimp_ros.evaluation.trackers import TrackerSpec, split_names
from dimp_ros.files.arguments import whole
from dimp_ros.files.names import file_name
from dimp_ros.files.outputs import check_outputs
from dimp_ros.files.program import command, interrupted_by_signals

PROGRAM = "python -m dimp_ros.evaluation.confidence.cli"
DEFAULT_TRACKERS = "dimp_lite,nanotrack_v1,nanotrack_v2"


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(
        prog=PROGRAM, description="Measure trackers' confidence on sequences with absent or hidden targets."
    )
    parser.add_argument("--sequences", type=Path, required=True, metavar="DIR", help="folder of annotated sequences")
    parser.add_argument("--only", type=split_names, metavar="NAME,...", help="take these sequences only")
    parser.add_argument(
        "--trackers",
        type=split_names,
        default=split_names(DEFAULT_TRACKERS),
        metavar="NAME,...",
        help=f"as for dimp-eval; dimp:PATH is a weights file (default: {DEFAULT_TRACKERS})",
    )
    parser.add_argument("--baselines", type=Path, metavar="DIR", help="folder that holds NanoTrack's ONNX files")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="for tracks, confidence.json and plot")
    parser.add_argument("--resume", action="store_true", help="reuse finished tracks in --out of the same set-up")
    parser.add_argument("--device", default="auto", help="device of our models: auto, cpu, cuda (default: auto)")
    parser.add_argument(
        "--jobs", type=whole(), default=available_cores(), metavar="N", help="processes (default: cores)"
    )
    parser.add_argument(
        "--look-alikes",
        action="store_true",
        help="take only targets with another of their kind near, and play each forwards and backwards in turn",
    )
    parser.add_argument("--sheets", action="store_true", help="write contact sheets of hidden frames")
    return parser


def _run(arguments: argparse.Namespace) -> int:
    weights = [("the weights", TrackerSpec(name).weights) for name in arguments.trackers]
    inputs = [("--sequences", arguments.sequences), ("--baselines", arguments.baselines), *weights]
    check_outputs([], inputs, folders=[("--out", arguments.out)])
    names = dict.fromkeys(arguments.trackers)
    specs = usable_trackers([TrackerSpec(name, arguments.baselines, arguments.device) for name in names], PROGRAM)
    chosen = load_sequences(arguments.sequences, arguments.only)
    if arguments.look_alikes and not (chosen := near_look_alikes(chosen)):
        raise ValueError("--look-alikes: no target has another of its kind near")
    sequences, left_out = hidden_sequences(tqdm(chosen, desc="hiding targets", disable=None))
    if not sequences:
        raise ValueError("the target cannot be hidden in any sequence: they are too short, or targets too large")
    made = [sequence for sequence in sequences if isinstance(sequence, HiddenSequence)]
    print(
        f"{len(sequences) - len(made)} sequences with absences of their own, {len(made)} with a hidden target"
        + (f"; it cannot be hidden in {', '.join(left_out)}" if left_out else "")
    )
    for sequence in made if arguments.sheets else ():
        write_sheet(arguments.out / "hidden" / f"{file_name(sequence.name)}.png", sequence)

    results = collect(
        specs, sequences, jobs=arguments.jobs, threads=1, out=arguments.out, resume=arguments.resume, rank=ALONE
    )
    order = {spec.name: index for index, spec in enumerate(specs)}
    figures = summarize(sorted(results, key=lambda result: order[result.tracker]), sequences)
    settings = {
        "sequences": [sequence.name for sequence in sequences],
        "left_out": left_out,
        "device": arguments.device,
        "jobs": arguments.jobs,
        "look_alikes": arguments.look_alikes,
    }
    try:
        write_document(arguments.out / "confidence.json", figures, {"settings": settings})
        write_reliability_plot(arguments.out / "reliability.png", figures)
    finally:  # also where they cannot be written
        print(table(figures))
    print(f"\nwritten: {arguments.out / 'confidence.json'}, {arguments.out / 'reliability.png'}")
    return report_errors(results, PROGRAM)


@command(PROGRAM)
def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return 0, 1 if a tracker failed on a sequence, 2 for a bad request."""
    logging.basicConfig(level=logging.ERROR, format="%(message)s")
    arguments = build_parser().parse_args(argv)
    try:
        with interrupted_by_signals():
            return _run(arguments)
    except (ValueError, OSError, ImportError, BaselineUnavailable) as error:
        print(f"{PROGRAM}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"{PROGRAM}: interrupted; continue with --resume", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
