# SPDX-License-Identifier: Apache-2.0
"""Merge results of several runs, or of several machines' shares of one run."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from dimp_ros.evaluation.runner import SequenceResult, Spec, began_on, stored_result
from dimp_ros.evaluation.sequences import VideoSequence
from dimp_ros.files.json_file import named_errors, read_object

RESULTS = "results.json"


def earlier_run(out: Path) -> dict[str, Any]:
    """Return what `RESULTS` in a folder holds, ``trackers`` and ``settings``; nothing if there is no such file.

    :raises ValueError: if it is of another program.
    """
    path = out / RESULTS
    if not path.exists():
        return {"trackers": {}, "settings": {}}
    with named_errors(f"{path} is not a result of dimp-eval", "move it, or give --out another name"):
        found = read_object(path)
        return {"trackers": dict(found["trackers"]), "settings": dict(found["settings"])}


def check_kept(out: Path, trackers: Iterable[str], *, resume: bool = False) -> None:
    """Raise ValueError if figures of other trackers in `out` would be lost. :param resume: that is asked for."""
    lost = sorted(set(earlier_run(out)["trackers"]) - set(trackers))
    if lost and not resume:
        shown = ", ".join(lost[:5]) + (" ..." if len(lost) > 5 else "")
        raise ValueError(
            f"{out / RESULTS} has the figures of {shown}, which this run does not measure: give --out another name, "
            "or --resume to replace them (the tracks in pairs/ stay)"
        )


def read_results(folders: Iterable[Path]) -> list[SequenceResult]:
    """Read every result stored under `folders`, each an --out of `dimp-eval`, in order of tracker and sequence.

    A pair in several folders is taken from the last. Raise ValueError if there is no result, a file is damaged, or a
    tracker's results differ in weights, settings or versions.
    """
    results: dict[tuple[str, str], SequenceResult] = {}
    setups: dict[str, tuple[str, Path]] = {}
    for folder in folders:
        files = sorted((folder / "pairs").glob("*/*.json"))
        if not files:
            raise ValueError(f"no results in {folder}; give the --out of a run, which has a folder pairs/")
        for file in files:
            result = SequenceResult.load(file)
            setup = json.dumps(result.fingerprint, sort_keys=True)
            known, where = setups.setdefault(result.tracker, (setup, file))
            if known != setup:
                raise ValueError(f"{result.tracker} was run differently in {where} ({known}) and in {file} ({setup})")
            results[result.tracker, result.sequence] = result
    return [results[key] for key in sorted(results)]


def take_stored(
    out: Path, specs: Sequence[Spec], sequences: Sequence[VideoSequence]
) -> tuple[list[SequenceResult], list[tuple[str, str]]]:
    """Return the results of these trackers on these sequences in `out`, and the missing pairs."""
    found, missing = [], []
    images = {sequence.name: sequence.digest() for sequence in sequences}
    for spec in specs:
        fingerprint = spec.fingerprint()
        for sequence in sequences:
            result = stored_result(out, spec.name, sequence, fingerprint, images[sequence.name])
            if result is None:
                missing.append((spec.name, sequence.name))
            else:
                found.append(result)
    return found, missing


def check_complete(results: Iterable[SequenceResult], sequences: Sequence[VideoSequence]) -> None:
    """Raise ValueError, naming the pairs, unless every tracker has a complete track on the images of every sequence,
    from its first box on.
    """
    images = {sequence.name: sequence.digest() for sequence in sequences}
    lengths = {sequence.name: len(sequence) for sequence in sequences}
    named = {sequence.name: sequence for sequence in sequences}
    by_tracker: dict[str, set[str]] = {}
    for result in results:
        if lengths.get(result.sequence, len(result.boxes)) != len(result.boxes):
            raise ValueError(
                f"{result.tracker} has {len(result.boxes)} boxes on {result.sequence}, which has "
                f"{lengths[result.sequence]} frames; give the sequences of that run"
            )
        if images.get(result.sequence, result.images) != result.images:
            raise ValueError(
                f"{result.tracker}'s result on {result.sequence} is of other images (files of other names, sizes or "
                "content); give the sequences of that run, or run it again"
            )
        if result.sequence in named and not began_on(result, named[result.sequence]):
            raise ValueError(
                f"{result.tracker}'s result on {result.sequence} began on the box {tuple(result.boxes[0])}, and the "
                f"first box is {tuple(named[result.sequence].init_box)}; give the annotations of that run, or run it "
                "again"
            )
        by_tracker.setdefault(result.tracker, set()).add(result.sequence)
    missing = [f"{tracker} on {name}" for tracker, own in by_tracker.items() for name in lengths if name not in own]
    if missing:
        shown = ", ".join(missing[:5]) + (" ..." if len(missing) > 5 else "")
        raise ValueError(f"{len(missing)} results are missing: {shown}; run them with --resume or narrow with --only")
