# SPDX-License-Identifier: Apache-2.0
"""One run of the benchmark: interleaved timing at each image size, roofline before and after, consistency."""

from __future__ import annotations

import platform
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch

from benchmark.candidates import (
    PRECISION,
    Baseline,
    BenchmarkCandidate,
    DimpCandidate,
    ModelChoice,
    OpenCVCandidate,
    stages_by_cpu_time,
)
from benchmark.consistency import consistency
from benchmark.flops import StageWork, stage_work
from benchmark.roofline import Roofline, measure_roofline
from benchmark.sequences import BenchmarkVideo
from benchmark.timing import Plan, Timing, ratio, run


class Scope(NamedTuple):
    """What to measure.

    :param targets: numbers of targets, 1 among them. :param peers: names of OpenCV's trackers.
    :param peer_files: folder of NanoTrack's files, if it is among them. :param cpu_time: of stages, not what they took.
    """

    choices: Sequence[ModelChoice]
    targets: Sequence[int] = (1, 2, 4, 8)
    peers: Sequence[str] = ("csrt", "kcf")
    peer_files: Path | None = None
    plan: Plan = Plan()
    cpu_time: bool = False


def measure(
    scope: Scope, videos: Sequence[BenchmarkVideo], tell: Callable[[str], None] = lambda text: None
) -> dict[str, Any]:
    """Measure everything in scope on each video, by turns; the result consists of JSON types.

    :raises ValueError: if numbers of targets or of repeats cannot be used.
    """
    if 1 not in scope.targets:
        raise ValueError(f"targets are {list(scope.targets)}; 1 must be among them, it is what the ratios are of")
    kinds = sorted({(str(c.device), precision) for c in scope.choices for precision in (c.precision, PRECISION)})
    tell("roofline")
    roofline = {kind: _roofline(*kind) for kind in kinds}
    with stages_by_cpu_time() if scope.cpu_time else nullcontext():
        rows = _compare(scope, videos, tell)
    tell("roofline again")
    roofline = {kind: roofline[kind].best(_roofline(*kind)) for kind in kinds}
    for row in rows:
        _add_floors(row, roofline)
    unlike = [c for c in scope.choices if (c.device.type, c.precision, c.backend) != ("cpu", PRECISION, "torch")]
    return {
        "machine": machine(),
        "plan": scope.plan._asdict(),
        "cpu_time": scope.cpu_time,
        "roofline": [
            {"device": kind[0], "precision": kind[1]}
            | {k: None if v == float("inf") else v for k, v in c._asdict().items()}
            for kind, c in roofline.items()
        ],
        "rows": [{k: v for k, v in row.items() if k != "choice"} for row in rows],
        "consistency": [
            {"model": c.name, "device": str(c.device), **found._asdict(), "good": found.good}
            for c in unlike
            if (found := consistency(c, videos[0]))
        ],
    }


def machine() -> dict[str, Any]:
    """Describe what the figures are of."""
    text = Path("/proc/cpuinfo").read_text(encoding="utf-8") if Path("/proc/cpuinfo").is_file() else ""
    names = [line.partition(":")[2].strip() for line in text.splitlines() if line.startswith("model name")]
    return {
        "cpu": names[0] if names else platform.processor() or platform.machine(),
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "opencv": cv2.__version__,
    }


def _roofline(device: str, precision: str) -> Roofline:
    return measure_roofline(torch.device(device), getattr(torch, precision))


class _Entry(NamedTuple):
    """A candidate, and its model and number of targets where it is one of ours."""

    candidate: BenchmarkCandidate
    choice: ModelChoice | None
    count: int


def _compare(scope: Scope, videos: Sequence[BenchmarkVideo], tell: Callable[[str], None]) -> list[dict[str, Any]]:
    """Run all candidates in scope on all videos by turns; a row of figures for each."""
    entries = [_entries(scope) for _ in videos]
    shown = [video for video, own in zip(videos, entries, strict=True) for _ in own]
    timings = run([entry.candidate for own in entries for entry in own], shown, scope.plan, tell)
    count, rows = len(entries[0]), []
    for n, (video, own) in enumerate(zip(videos, entries, strict=True)):
        found = _rows(own, timings[n * count : (n + 1) * count])
        for row, timing, first in zip(found, timings[n * count :], timings, strict=False):
            row["size"] = video.name
            if n:
                row["times_first_size"] = ratio(timing, first)._asdict()
                row["times_first_size_cpu"] = ratio(timing, first, cpu=True)._asdict()
        rows += found
    return rows


def _entries(scope: Scope) -> list[_Entry]:
    """Make all candidates in scope: each model's, then its baseline, then OpenCV's trackers."""
    entries: list[_Entry] = []
    baselines = set()
    for model in scope.choices:
        entries += [_Entry(DimpCandidate(model, count), model, count) for count in scope.targets]
        if (model.model, str(model.device)) not in baselines:
            baselines.add((model.model, str(model.device)))
            entries.append(_Entry(Baseline(model), None, 1))
    return entries + [_Entry(OpenCVCandidate(name, scope.peer_files), None, 1) for name in scope.peers]


def _rows(entries: Sequence[_Entry], timings: Sequence[Timing]) -> list[dict[str, Any]]:
    """Return a row of figures for each candidate on one video."""
    baselines = {}
    for n, entry in enumerate(entries):
        if isinstance(entry.candidate, Baseline):
            choice = entries[n - 1].choice
            assert choice is not None
            baselines[choice.model, str(choice.device)] = timings[n]
    csrt = next((t for t, (one, _, _) in zip(timings, entries, strict=True) if one.name == "csrt"), None)
    rows = []
    for (one, choice, count), timing in zip(entries, timings, strict=True):
        row = {"targets": count, "choice": choice, **_figures(timing)}
        if csrt is not None and count == 1:
            row["times_csrt"] = ratio(timing, csrt)._asdict()
            row["times_csrt_cpu"] = ratio(timing, csrt, cpu=True)._asdict()
        if choice is not None:
            assert isinstance(one, DimpCandidate)
            row |= {"model": Path(choice.model).stem, "device": str(choice.device), "precision": choice.precision}
            row |= {"random": choice.weights == "random", "stages": _stages(one, choice, count, timing)}
            single = timings[next(n for n, e in enumerate(entries) if e[1] is choice and e[2] == 1)]
            baseline = baselines[choice.model, str(choice.device)]
            if count == 1:
                row["baseline_ratio"] = ratio(baseline, timing)._asdict()
                row["baseline_ratio_cpu"] = ratio(baseline, timing, cpu=True)._asdict()
                row["baseline_init_ratio"] = float(np.median(baseline.inits) / np.median(timing.inits))
            else:
                row["further_target"] = (ratio(timing, single).value - 1) / (count - 1)
                row["further_target_cpu"] = (ratio(timing, single, cpu=True).value - 1) / (count - 1)
        rows.append(row)
    return rows


def _figures(timing: Timing) -> dict[str, Any]:
    return {
        "name": timing.name,
        "median_ms": timing.median,
        "cpu_ms": float(np.median(np.concatenate(timing.cpu))),
        "p99_ms": timing.quantile(0.99),
        "least_ms": timing.quantile(0.0),
        "repeats_ms": [float(np.median(each)) for each in timing.frames],
        "init_ms": float(np.median(timing.inits)),
        "followed": timing.followed,
    }


def _stages(one: DimpCandidate, choice: ModelChoice, count: int, timing: Timing) -> dict[str, Any]:
    """Return times and work of each stage that the tracker tells of."""
    itemsize = torch.empty(0, dtype=getattr(torch, choice.precision)).element_size()
    work = stage_work(one.tracker.info.architecture, one.tracker.config, count, itemsize, one.window)
    if "backbone" not in timing.stages:  # a GPU's recorded graph goes through both at once
        work["classify"] = StageWork(work["backbone"].operations + work["classify"].operations)
    stages = {}
    for stage, times in timing.stages.items():
        figures: dict[str, Any] = {"median_ms": float(np.median(times)), "p99_ms": float(np.quantile(times, 0.99))}
        if stage in work:
            figures |= {"gflop": work[stage].flops / 1e9, "mbyte": work[stage].bytes / 1e6, "work": work[stage]}
        stages[stage] = figures
    return stages


def _add_floors(row: dict[str, Any], roofline: dict[tuple[str, str], Roofline]) -> None:
    """Put the least time of each stage whose work is known beside what it took."""
    for stage, figures in row.get("stages", {}).items():
        if "work" not in figures:
            continue
        precision = PRECISION if stage == "optimize" else row["precision"]
        floor = figures.pop("work").floor(roofline[row["device"], precision]) * 1e3
        if floor > 0:
            figures |= {"floor_ms": floor, "times_floor": figures["median_ms"] / floor}
