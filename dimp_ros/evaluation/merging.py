# SPDX-License-Identifier: Apache-2.0
"""Results of several runs, or of several machines' parts of one run, put together again."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path

from dimp_ros.evaluation.runner import SequenceResult, Spec, stored_result
from dimp_ros.evaluation.sequences import VideoSequence


def read_results(folders: Iterable[Path]) -> list[SequenceResult]:
    """Read every result stored under `folders`, each an --out of `dimp-eval`, in order of tracker and sequence.

    A pair that is in several folders is taken once, from the last of them. Raise ValueError if there is nothing, if a
    file is damaged, or if a tracker's results are of different set-ups (other weights, settings or versions), because
    their mean would be of no tracker at all.
    """
    results: dict[tuple[str, str], SequenceResult] = {}
    setups: dict[str, tuple[str, Path]] = {}
    for folder in folders:
        files = sorted((folder / "pairs").glob("*/*.json"))
        if not files:
            raise ValueError(f"no results in {folder}; give a folder that was --out of a run, it has a folder pairs/")
        for file in files:
            try:
                result = SequenceResult.load(file)
            except (ValueError, TypeError, KeyError) as error:
                raise ValueError(f"{file} is not a result of dimp-eval ({error}); delete it and run again") from error
            setup = json.dumps(result.fingerprint, sort_keys=True)
            known, where = setups.setdefault(result.tracker, (setup, file))
            if known != setup:
                raise ValueError(f"{result.tracker} was run differently in {where} ({known}) and in {file} ({setup})")
            results[result.tracker, result.sequence] = result
    return [results[key] for key in sorted(results)]


def take_stored(
    out: Path, specs: Sequence[Spec], sequences: Sequence[VideoSequence]
) -> tuple[list[SequenceResult], list[tuple[str, str]]]:
    """Return the results of these trackers on these sequences that are in `out`, and the pairs that are not."""
    found, missing = [], []
    for spec in specs:
        fingerprint = spec.fingerprint()
        for sequence in sequences:
            result = stored_result(out, spec.name, sequence, fingerprint)
            if result is None:
                missing.append((spec.name, sequence.name))
            else:
                found.append(result)
    return found, missing


def check_complete(results: Iterable[SequenceResult], sequences: Sequence[VideoSequence]) -> None:
    """Raise ValueError, naming the pairs, unless every tracker has a whole track on every one of the sequences."""
    lengths = {sequence.name: len(sequence) for sequence in sequences}
    by_tracker: dict[str, set[str]] = {}
    for result in results:
        if lengths.get(result.sequence, len(result.boxes)) != len(result.boxes):
            raise ValueError(
                f"{result.tracker} has {len(result.boxes)} boxes on {result.sequence}, which has "
                f"{lengths[result.sequence]} frames; give the sequences that were run"
            )
        by_tracker.setdefault(result.tracker, set()).add(result.sequence)
    missing = [f"{tracker} on {name}" for tracker, own in by_tracker.items() for name in lengths if name not in own]
    if missing:
        shown = ", ".join(missing[:5]) + (" ..." if len(missing) > 5 else "")
        raise ValueError(f"{len(missing)} results are missing: {shown}; run them with --resume or narrow with --only")
