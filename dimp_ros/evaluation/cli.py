# SPDX-License-Identifier: Apache-2.0
"""The console script `dimp-eval`: measure trackers on a folder of annotated sequences.

Under torchrun every process runs its share, and the last one prints the tables. The sequences are for measuring only:
they are never used to train a network, tune a constant or choose a default.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from tqdm import tqdm

from dimp_ros.evaluation.distributed import Rank, share
from dimp_ros.evaluation.got10k import write_got10k
from dimp_ros.evaluation.layouts.registry import LAYOUTS, load_sequences
from dimp_ros.evaluation.look_alikes import look_alike_table
from dimp_ros.evaluation.merging import (
    RESULTS,
    check_complete,
    check_kept,
    earlier_run,
    read_results,
    take_stored,
)
from dimp_ros.evaluation.plots import write_plots
from dimp_ros.evaluation.report import (
    TrackerFigures,
    kind_table,
    sequence_table,
    summarize,
    summary_table,
    write_json,
)
from dimp_ros.evaluation.runner import SequenceResult, available_cores, pair_file, run_pairs
from dimp_ros.evaluation.sequences import VideoSequence
from dimp_ros.evaluation.tracker_api import BaselineUnavailable
from dimp_ros.evaluation.trackers import ABLATIONS, TrackerSpec, split_names
from dimp_ros.files.arguments import whole
from dimp_ros.files.outputs import check_outputs
from dimp_ros.files.program import command, interrupted_by_signals
from dimp_ros.files.shared_folder import sole_run

DEFAULT_TRACKERS = "dimp_lite,kcf,csrt,nanotrack_v1,nanotrack_v2"


def _names(text: str) -> list[str]:
    return [name for item in text.split(",") if (name := item.strip())]


def setting(text: str) -> tuple[str, str]:
    """Read ``KEY=VALUE``, for argparse."""
    key, separator, value = text.partition("=")
    if not separator or not key:
        raise argparse.ArgumentTypeError(f"expected KEY=VALUE, got {text!r}")
    return key, value


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(
        prog="dimp-eval",
        description="One-pass evaluation: each tracker is given the first box of each sequence only.",
    )
    parser.add_argument("--sequences", type=Path, required=True, metavar="DIR", help="folder of annotated sequences")
    parser.add_argument(
        "--layout", choices=list(LAYOUTS), help="the data set's layout on disk (default: the first that fits)"
    )
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
        help="measure variants of this model: the initialiser only, fewer optimiser steps, no online update, no hard "
        "negatives",
    )
    parser.add_argument("--baselines", type=Path, metavar="DIR", help="folder that holds NanoTrack's ONNX files")
    parser.add_argument("--out", type=Path, metavar="DIR", help="write results.json, plots and each pair's track here")
    parser.add_argument(
        "--resume",
        action="store_true",
        help="reuse finished pairs in --out of the same weights, settings and images (changed code is not detected)",
    )
    parser.add_argument(
        "--merge",
        type=Path,
        nargs="+",
        metavar="DIR",
        help="run nothing: print the figures of the results in these folders, each an --out, as of one run",
    )
    parser.add_argument("--device", default="auto", help="device of our models: auto, cpu, cuda (default: auto)")
    parser.add_argument("--jobs", type=whole(), metavar="N", help="processes (default: one per core)")
    parser.add_argument("--threads", type=whole(), metavar="N", help="threads per process (default: cores / jobs)")
    parser.add_argument(
        "--set",
        type=setting,
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="override a field of our trackers' configuration; may be repeated",
    )
    return parser


def tracker_names(arguments: argparse.Namespace) -> list[str]:
    """Return the requested trackers, each once; with --ablate alone, only its variants."""
    variants = [arguments.ablate + variant for variant in ABLATIONS] if arguments.ablate else []
    others = arguments.trackers or ([] if variants else split_names(DEFAULT_TRACKERS))
    return list(dict.fromkeys([*variants, *others]))


def usable_trackers(specs: Sequence[TrackerSpec], program: str = "dimp-eval") -> list[TrackerSpec]:
    """Return the trackers that can run here; print why each other one cannot.

    :raises ValueError: if none can.
    """
    usable = []
    for spec in specs:
        try:
            spec.check()
        except BaselineUnavailable as reason:
            print(f"{program}: {spec.name} left out: {reason}", file=sys.stderr)
        else:
            usable.append(spec)
    if not usable:
        raise ValueError("none of the trackers can run here")
    return usable


def _inputs(arguments: argparse.Namespace) -> list[tuple[str, Path | None]]:
    """Return the files and folders that are read, each with its option; `--out` may be one of `--merge`."""
    weights = [] if arguments.merge else [TrackerSpec(name).weights for name in tracker_names(arguments)]
    return [
        ("--sequences", arguments.sequences),
        ("--baselines", arguments.baselines),
        *(("the weights", path) for path in weights),
    ]


def _run(arguments: argparse.Namespace) -> int:
    rank = Rank.from_environment()
    if arguments.out is None and (arguments.resume or not rank.alone):
        raise ValueError(f"{'--resume' if arguments.resume else 'torchrun'} needs --out, the folder of the results")
    check_outputs([], _inputs(arguments), folders=[("--out", arguments.out)])
    with sole_run(arguments.out, "--out", shared=not rank.alone) if arguments.out is not None else nullcontext():
        return _run_in(arguments, rank)


def _run_in(arguments: argparse.Namespace, rank: Rank) -> int:
    """Run in the folder of the results, which is this run's."""
    if arguments.out is not None and not arguments.merge:
        check_kept(arguments.out, tracker_names(arguments), resume=arguments.resume)
    sequences = load_sequences(arguments.sequences, arguments.only, arguments.layout)
    if arguments.merge:
        return _merge(arguments, sequences)
    settings = dict(arguments.set)
    specs = usable_trackers(
        [TrackerSpec(name, arguments.baselines, arguments.device, settings) for name in tracker_names(arguments)]
    )
    jobs = min(arguments.jobs or rank.cores(available_cores()), len(specs) * len(sequences))
    threads = arguments.threads or max(1, rank.cores(available_cores()) // jobs)
    results = collect(
        specs, sequences, rank=rank, jobs=jobs, threads=threads, out=arguments.out, resume=arguments.resume
    )
    failed = report_errors(results)
    if not rank.alone:
        results, missing = take_stored(arguments.out, specs, sequences)
        if missing:
            print(
                f"dimp-eval: rank {rank.index} of {rank.count} is done; {len(missing)} results of others are not in "
                f"{arguments.out} yet. The last one prints the tables; without a shared disk use --merge",
                file=sys.stderr,
            )
            return failed
    order = {spec.name: index for index, spec in enumerate(specs)}
    run = {"device": arguments.device, "set": settings, "jobs": jobs, "threads": threads, "ranks": rank.count}
    _report(sorted(results, key=lambda result: order[result.tracker]), sequences, arguments, run)
    return failed


def report_errors(results: Sequence[SequenceResult], program: str = "dimp-eval") -> int:
    """Print which tracks ended early; return the exit status."""
    failed = [result for result in results if result.error]
    for result in failed:
        print(f"{program}: * {result.tracker} stopped on {result.sequence}, {result.error}", file=sys.stderr)
    return 1 if failed else 0


def _merge(arguments: argparse.Namespace, sequences: Sequence[VideoSequence]) -> int:
    """Report on stored results; with --out, copy them there."""
    names = {sequence.name for sequence in sequences}
    results = [result for result in read_results(arguments.merge) if result.sequence in names]
    if arguments.trackers or arguments.ablate:
        wanted = tracker_names(arguments)
        results = [result for result in results if result.tracker in wanted]
    if not results:
        raise ValueError("the folders to merge have no results of these trackers on these sequences")
    check_complete(results, sequences)
    run = {"merged": {str(folder): earlier_run(folder)["settings"] for folder in arguments.merge}}
    if arguments.out is not None:
        check_kept(arguments.out, [result.tracker for result in results], resume=arguments.resume)
    for result in results if arguments.out is not None else ():
        result.save(pair_file(arguments.out, result.tracker, result.sequence))
    failed = report_errors(results)
    _report(results, sequences, arguments, run)
    return failed


def _report(
    results: Sequence[SequenceResult],
    sequences: Sequence[VideoSequence],
    arguments: argparse.Namespace,
    run: dict[str, Any],
) -> None:
    """With --out, write complete results, plots, and GOT-10k's files; print the tables."""
    out: Path | None = arguments.out
    written: list[Path] = []
    if out is not None and any(sequence.meta.get("dataset") == "GOT-10k" for sequence in sequences):
        written += write_got10k(out / "GOT-10k", results, sequences)
    if any(sequence.withheld for sequence in sequences):
        print("The ground truth of these sequences is withheld: submit the results to the data set's server")
    else:
        figures = summarize(results, sequences)
        tables = [sequence_table(figures), summary_table(figures)]
        tables += [kind_table(figures, sequences), look_alike_table(results, sequences)]
        try:
            if out is not None:
                run = {"sequences": str(arguments.sequences), **run}
                write_json(out / RESULTS, figures, run)
                written += [out / RESULTS, *_plots(out, figures)]
        finally:  # also where they cannot be written
            print("\n\n".join(filter(None, tables)))
    if written:
        print("\nwritten: " + ", ".join(map(str, written)))


def _plots(out: Path, figures: Sequence[TrackerFigures]) -> list[Path]:
    """Draw the plots with the first of our trackers emphasised; print why there are none without matplotlib."""
    ours = [figure.tracker for figure in figures if not TrackerSpec(figure.tracker).is_baseline]
    try:
        return write_plots(out, figures, ours[:1])
    except ImportError as reason:
        print(f"dimp-eval: no plots: {reason}", file=sys.stderr)
        return []


def collect(
    specs: Sequence[TrackerSpec], sequences: Sequence[VideoSequence], *, rank: Rank, **options: Any
) -> list[SequenceResult]:
    """Run this process's share under a progress bar that counts frames; ``options`` are those of `run_pairs`."""
    results = []
    frames = sum(len(sequence) for _, sequence in share(specs, sequences, rank))
    label = "" if rank.alone else f"rank {rank.index}"
    with tqdm(total=frames, unit="frame", desc=label, position=rank.local_index, disable=None, file=sys.stderr) as bar:
        for result in run_pairs(specs, sequences, rank=rank, **options):
            bar.set_postfix_str(f"{result.tracker} on {result.sequence}", refresh=False)
            bar.update(len(result.boxes))
            results.append(result)
    return results


@command("dimp-eval")
def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return 0, 1 if a tracker failed on a sequence, 2 for a bad request."""
    logging.basicConfig(level=logging.ERROR, format="%(message)s")
    arguments = build_parser().parse_args(argv)
    try:
        with interrupted_by_signals():
            return _run(arguments)
    except (ValueError, OSError, ImportError, BaselineUnavailable) as error:
        print(f"dimp-eval: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        hint = "; continue with --resume" if arguments.out is not None else ""
        print(f"dimp-eval: interrupted{hint}", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
