# SPDX-License-Identifier: Apache-2.0
"""One-pass evaluation: each tracker is initialised with the first box of each sequence only."""

from __future__ import annotations

import json
import logging
import math
import os
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import cv2

from dimp_ros.evaluation.distributed import ALONE, Rank, share
from dimp_ros.evaluation.sequences import VideoSequence
from dimp_ros.evaluation.tracker_api import BenchmarkTracker, Prediction
from dimp_ros.files.json_file import named_errors, parse_object
from dimp_ros.files.names import file_name
from dimp_ros.files.outputs import write_text
from dimp_ros.files.worker_processes import worker_pool
from dimp_ros.geometry.box import Box

_log = logging.getLogger(__name__)


class Spec(Protocol):
    """Names and builds a tracker, also in another process, so it must pickle; see `TrackerSpec`."""

    @property
    def name(self) -> str:
        """The name in tables and files."""
        ...

    def make(self, threads: int = 1) -> BenchmarkTracker:
        """Build the tracker."""
        ...

    def fingerprint(self) -> dict[str, Any]:
        """Return everything that a result depends on, as JSON values."""
        ...


@dataclass(frozen=True)
class SequenceResult:
    """The result of a tracker on a sequence of N frames.

    `boxes`: N boxes ``x, y, w, h``, the first as given. `found`: N, whether the tracker reports the target as found.
    `confidence`: N numbers, None where the tracker gives none (always in the first frame). `milliseconds`: time of
    `init`, then of each `update` that ran, without reading the image. `error`: why the tracker stopped early, if it
    did; its last box is repeated. `image_size`: width and height of the first image. `images`: `VideoSequence.digest`,
    where it was stored.
    """

    tracker: str
    sequence: str
    boxes: list[Box]
    found: list[bool]
    confidence: list[float | None]
    milliseconds: list[float]
    error: str | None = None
    fingerprint: dict[str, Any] = field(default_factory=dict)
    image_size: tuple[int, int] | None = None
    images: str = ""

    def save(self, path: Path) -> None:
        """Write as JSON."""
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, json.dumps(asdict(self)))

    @staticmethod
    def load(path: Path) -> SequenceResult:
        """Read a file that `save` wrote.

        :raises ValueError: if it is another, naming it.
        """
        with named_errors(f"{path} is not a result of dimp-eval", "delete it and run again"):
            values = parse_object(path.read_bytes())
            values["boxes"] = [_finite_box(Box(*box)) for box in values["boxes"]]
            values["image_size"] = tuple(values.get("image_size") or ()) or None
            return SequenceResult(**values)


def run_sequence(tracker: BenchmarkTracker, sequence: VideoSequence, name: str = "tracker") -> SequenceResult:
    """Run `tracker` once over `sequence`; an exception of the tracker, and an image that cannot be read, end its
    track and are recorded, not raised.
    """
    predictions = [Prediction(sequence.init_box)]
    milliseconds: list[float] = []
    error = size = None
    for index in range(len(sequence)):
        try:
            image = sequence.image(index)
            size = size or (image.shape[1], image.shape[0])
            start = time.perf_counter()
            if index == 0:
                tracker.init(image, sequence.init_box)
            else:
                prediction = tracker.update(image)
                _finite_box(prediction.box)
                predictions.append(prediction)
        except Exception as exception:  # the other trackers and sequences still run
            error = f"frame {index}: {type(exception).__name__}: {exception}"
            _log.warning("%s stopped on %s, %s", name, sequence.name, error)
            break
        milliseconds.append(round((time.perf_counter() - start) * 1e3, 3))
    if sequence.film is not None:
        sequence.film.close()
    lost = Prediction(predictions[-1].box, found=False)
    predictions.extend([lost] * (len(sequence) - len(predictions)))
    return SequenceResult(
        tracker=name,
        sequence=sequence.name,
        boxes=[_plain_box(prediction.box) for prediction in predictions],
        found=[bool(prediction.found) for prediction in predictions],
        confidence=[_plain(prediction.confidence) for prediction in predictions],
        milliseconds=milliseconds,
        error=error,
        image_size=size,
    )


def _plain(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else float(value)


def _finite_box(box: Box) -> Box:
    """Return the box; raise ValueError unless it is four finite numbers: one NaN would spoil every mean."""
    if not all(math.isfinite(value) for value in box):
        raise ValueError(f"the box {tuple(box)} is not finite")
    return box


def _plain_box(box: Box) -> Box:
    return Box(*(round(float(value), 4) for value in box))


def available_cores() -> int:
    """Return the number of cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


class _Worker:
    """Runs pairs in one process and keeps the trackers that it has built."""

    def __init__(self, threads: int) -> None:
        cv2.setNumThreads(threads)
        self._threads = threads
        self._trackers: dict[str, BenchmarkTracker] = {}

    def run(self, spec: Spec, sequence: VideoSequence) -> SequenceResult:
        if spec.name not in self._trackers:
            self._trackers[spec.name] = spec.make(self._threads)
        return run_sequence(self._trackers[spec.name], sequence, spec.name)


_worker: _Worker | None = None


def _start_worker(threads: int) -> None:
    global _worker
    _worker = _Worker(threads)


def _work(spec: Spec, sequence: VideoSequence) -> SequenceResult:
    assert _worker is not None, "started by the pool's initializer"
    return _worker.run(spec, sequence)


def _run_here(pairs: Sequence[tuple[Spec, VideoSequence]], threads: int) -> Iterator[SequenceResult]:
    before = cv2.getNumThreads()
    worker = _Worker(threads)
    try:
        for spec, sequence in pairs:
            yield worker.run(spec, sequence)
    finally:
        cv2.setNumThreads(before)


def _run_in_processes(pairs: Sequence[tuple[Spec, VideoSequence]], jobs: int, threads: int) -> Iterator[SequenceResult]:
    try:
        with worker_pool(jobs, _start_worker, threads) as pool:
            for future in as_completed([pool.submit(_work, spec, sequence) for spec, sequence in pairs]):
                yield future.result()
    except BrokenProcessPool as error:
        raise ChildProcessError(
            "a process that tracks has died: its error is above, or else the system killed it, as where memory is "
            "short; give fewer --jobs, and repeat the command with --out and --resume"
        ) from error


def pair_file(out: Path, tracker: str, sequence: str) -> Path:
    """Return the file for the result of a pair under `out`."""
    return out / "pairs" / file_name(tracker) / f"{file_name(sequence)}.json"


def stored_result(
    out: Path, tracker: str, sequence: VideoSequence, fingerprint: dict[str, Any], images: str
) -> SequenceResult | None:
    """Return the stored result of a pair, or None if there is none with this sequence and fingerprint.

    :param images: digest of the sequence.
    """
    path = pair_file(out, tracker, sequence.name)
    if not path.is_file():
        return None
    result = SequenceResult.load(path)
    same = began_on(result, sequence) and len(result.boxes) == len(sequence)
    return result if same and (result.fingerprint, result.images) == (fingerprint, images) else None


def began_on(result: SequenceResult, sequence: VideoSequence) -> bool:
    """Return whether a result began on the sequence's first box, as it is now."""
    return result.boxes[:1] == [_plain_box(sequence.init_box)]


def run_pairs(
    specs: Sequence[Spec],
    sequences: Sequence[VideoSequence],
    *,
    jobs: int = 1,
    threads: int = 1,
    out: Path | None = None,
    resume: bool = False,
    rank: Rank = ALONE,
) -> Iterator[SequenceResult]:
    """Run every tracker on every sequence in `jobs` processes of `threads` threads; yield results as they come.

    With `out` each result is stored; with `resume` stored results of the same fingerprint and images are yielded
    instead of run again, unless they ended in an error. Each `rank` runs its share. Errors of building a tracker are
    raised.
    """
    pairs: list[tuple[Spec, VideoSequence]] = []
    fingerprints = {spec.name: spec.fingerprint() for spec in specs}
    if len(fingerprints) != len(specs):
        raise ValueError(f"each tracker must be given once, got {', '.join(spec.name for spec in specs)}")
    images = {sequence.name: sequence.digest() if out else "" for sequence in sequences}
    for spec, sequence in share(specs, sequences, rank):
        known = fingerprints[spec.name], images[sequence.name]
        result = stored_result(out, spec.name, sequence, *known) if out and resume else None
        if result is not None and result.error is None:
            yield result
        else:
            pairs.append((spec, sequence))
    results = _run_here(pairs, threads) if jobs <= 1 else _run_in_processes(pairs, min(jobs, len(pairs)), threads)
    for result in results if pairs else ():
        result = replace(result, fingerprint=fingerprints[result.tracker], images=images[result.sequence])
        if out is not None:
            result.save(pair_file(out, result.tracker, result.sequence))
        yield result
