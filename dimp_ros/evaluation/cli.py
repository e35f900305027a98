# SPDX-License-Identifier: Apache-2.0
"""The console script `dimp-eval`: measure trackers on a folder of annotated sequences and print who is how good.

The sequences are for measuring only: nothing of them is ever used to train a network, to tune a constant or to choose a
default.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence as List
from pathlib import Path

from tqdm import tqdm

from dimp_ros.evaluation.report import sequence_table, summarize, summary_table, write_json
from dimp_ros.evaluation.runner import SequenceResult, available_cores, run_pairs
from dimp_ros.evaluation.sequences import Sequence, load_sequences
from dimp_ros.evaluation.trackers import ABLATIONS, PeerUnavailable, TrackerSpec, split_names

DEFAULT_TRACKERS = "dimp_lite,kcf,csrt,nanotrack_v1,nanotrack_v2"


def _names(text: str) -> list[str]:
    return [name for item in text.split(",") if (name := item.strip())]


def _setting(text: str) -> tuple[str, str]:
    key, separator, value = text.partition("=")
    if not separator or not key:
        raise argparse.ArgumentTypeError(f"expected KEY=VALUE, got {text!r}")
    return key, value


def _positive(text: str) -> int:
    try:
        value = int(text)
    except ValueError:
        value = 0
    if value < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number of at least 1, got {text!r}")
    return value


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(
        prog="dimp-eval",
        description="One-pass evaluation: each tracker gets the first box of each sequence and no help after it.",
    )
    parser.add_argument("--sequences", type=Path, required=True, metavar="DIR", help="folder of annotated sequences")
    parser.add_argument("--only", type=_names, metavar="NAME,...", help="measure on these sequences only")
    parser.add_argument(
        "--trackers",
        type=split_names,
        metavar="NAME,...",
        help="our models by name, dimp:PATH for a weights file, kcf, csrt, mil, nanotrack_v1, nanotrack_v2; a variant "
        f"of a model as NAME@KEY=VALUE@KEY=VALUE, KEY being a field of its configuration (default: {DEFAULT_TRACKERS})",
    )
    parser.add_argument(
        "--ablate",
        metavar="MODEL",
        help="measure the variants of this model that show what each part gives: the initialiser only, fewer optimiser "
        "steps, no online update, no hard negatives",
    )
    parser.add_argument("--peers", type=Path, metavar="DIR", help="folder that holds NanoTrack's ONNX files")
    parser.add_argument("--out", type=Path, metavar="DIR", help="write results.json and each pair's track here")
    parser.add_argument(
        "--resume",
        action="store_true",
        help="take finished pairs from --out where weights and settings are the same (changed code is not noticed)",
    )
    parser.add_argument("--device", default="auto", help="device of our models: auto, cpu, cuda (default: auto)")
    parser.add_argument("--jobs", type=_positive, metavar="N", help="processes (default: one per core)")
    parser.add_argument("--threads", type=_positive, metavar="N", help="threads per process (default: cores / jobs)")
    parser.add_argument(
        "--set",
        type=_setting,
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="override a field of our trackers' configuration; may be repeated",
    )
    return parser


def _tracker_names(arguments: argparse.Namespace) -> list[str]:
    """Return the trackers asked for, each once; those of an ablation alone where nothing else is asked for."""
    variants = [arguments.ablate + variant for variant in ABLATIONS] if arguments.ablate else []
    others = arguments.trackers or ([] if variants else split_names(DEFAULT_TRACKERS))
    return list(dict.fromkeys([*variants, *others]))


def _usable(specs: List[TrackerSpec]) -> list[TrackerSpec]:
    """Return the trackers that can run here, and say of each other one why not."""
    usable = []
    for spec in specs:
        try:
            spec.check()
        except PeerUnavailable as reason:
            print(f"dimp-eval: {spec.name} left out: {reason}", file=sys.stderr)
        else:
            usable.append(spec)
    if not usable:
        raise ValueError("none of the trackers can run here")
    return usable


def _run(arguments: argparse.Namespace) -> int:
    if arguments.resume and arguments.out is None:
        raise ValueError("--resume needs --out, the folder of the run to go on with")
    sequences = load_sequences(arguments.sequences, arguments.only)
    settings = dict(arguments.set)
    specs = _usable(
        [TrackerSpec(name, arguments.peers, arguments.device, settings) for name in _tracker_names(arguments)]
    )
    jobs = min(arguments.jobs or available_cores(), len(specs) * len(sequences))
    threads = arguments.threads or max(1, available_cores() // jobs)
    results = _collect(specs, sequences, jobs, threads, arguments)
    order = {spec.name: index for index, spec in enumerate(specs)}
    figures = summarize(sorted(results, key=lambda result: order[result.tracker]), sequences)
    print(sequence_table(figures))
    print()
    print(summary_table(figures))
    failed = [result for result in results if result.error]
    for result in failed:
        print(f"dimp-eval: * {result.tracker} stopped on {result.sequence}, {result.error}", file=sys.stderr)
    if arguments.out is not None:
        run = {"sequences": str(arguments.sequences), "device": arguments.device, "set": settings}
        write_json(arguments.out / "results.json", figures, {**run, "jobs": jobs, "threads": threads})
        print(f"\nwritten: {arguments.out / 'results.json'}")
    return 1 if failed else 0


def _collect(
    specs: List[TrackerSpec], sequences: List[Sequence], jobs: int, threads: int, arguments: argparse.Namespace
) -> list[SequenceResult]:
    """Run everything under a progress bar that counts frames."""
    results = []
    frames = sum(map(len, sequences)) * len(specs)
    with tqdm(total=frames, unit="frame", disable=None, file=sys.stderr) as bar:
        for result in run_pairs(
            specs, sequences, jobs=jobs, threads=threads, out=arguments.out, resume=arguments.resume
        ):
            bar.set_postfix_str(f"{result.tracker} on {result.sequence}", refresh=False)
            bar.update(len(result.boxes))
            results.append(result)
    return results


def main(argv: List[str] | None = None) -> int:
    """Run the command; return 0, 1 if a tracker stopped with an error on some sequence, 2 for a bad request."""
    logging.basicConfig(level=logging.ERROR, format="%(message)s")
    arguments = build_parser().parse_args(argv)
    try:
        return _run(arguments)
    except (ValueError, OSError, ImportError, PeerUnavailable) as error:
        print(f"dimp-eval: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        hint = "; go on with --resume" if arguments.out is not None else ""
        print(f"dimp-eval: interrupted{hint}", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
