# SPDX-License-Identifier: Apache-2.0
"""One run of the benchmark: contests at each size of frames, ceilings before and after, agreement; plain figures."""

from __future__ import annotations

import platform
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch

from benchmark.candidates import PRECISION, Contestant, ModelChoice, Naive, Ours, Peer, stages_by_cpu_time
from benchmark.consistency import agreement
from benchmark.flops import StageWork, stage_work
from benchmark.roofline import Ceilings, measure_ceilings
from benchmark.sequences import Footage
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
    scope: Scope, footages: Sequence[Footage], tell: Callable[[str], None] = lambda text: None
) -> dict[str, Any]:
    """Measure everything in scope on each footage; the result is made of what JSON has.

    :raises ValueError: if numbers of targets or of repeats cannot be used.
    """
    if 1 not in scope.targets:
        raise ValueError(f"targets are {list(scope.targets)}; 1 must be among them, it is what the ratios are of")
    kinds = sorted({(str(c.device), precision) for c in scope.choices for precision in (c.precision, PRECISION)})
    tell("ceilings")
    ceilings = {kind: _ceilings(*kind) for kind in kinds}
    with stages_by_cpu_time() if scope.cpu_time else nullcontext():
        contests = [_contest(scope, footage, tell) for footage in footages]
    tell("ceilings again")
    ceilings = {kind: ceilings[kind].best(_ceilings(*kind)) for kind in kinds}
    for contest in contests:
        for row in contest:
            _add_floors(row, ceilings)
    unlike = [c for c in scope.choices if (c.device.type, c.precision) != ("cpu", PRECISION)]
    return {
        "machine": machine(),
        "plan": scope.plan._asdict(),
        "cpu_time": scope.cpu_time,
        "ceilings": [
            {"device": kind[0], "precision": kind[1]}
            | {k: None if v == float("inf") else v for k, v in c._asdict().items()}
            for kind, c in ceilings.items()
        ],
        "rows": [{k: v for k, v in row.items() if k != "choice"} for contest in contests for row in contest],
        "agreement": [
            {"model": c.name, "device": str(c.device), **found._asdict(), "good": found.good}
            for c in unlike
            if (found := agreement(c, footages[0]))
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


def _ceilings(device: str, precision: str) -> Ceilings:
    return measure_ceilings(torch.device(device), getattr(torch, precision))


def _contest(scope: Scope, footage: Footage, tell: Callable[[str], None]) -> list[dict[str, Any]]:
    """Run all contestants in scope on one footage; a row of figures for each."""
    entries: list[tuple[Contestant, ModelChoice | None, int]] = []
    naive: dict[tuple[str, str], int] = {}
    for model in scope.choices:
        entries += [(Ours(model, count), model, count) for count in scope.targets]
        if (model.model, str(model.device)) not in naive:
            naive[model.model, str(model.device)] = len(entries)
            entries.append((Naive(model), None, 1))
    entries += [(Peer(name, scope.peer_files), None, 1) for name in scope.peers]
    size = f"{footage.size[0]}x{footage.size[1]}"
    timings = run([one for one, _, _ in entries], footage, scope.plan, lambda text: tell(f"{size}: {text}"))
    csrt = next((t for t, (one, _, _) in zip(timings, entries, strict=True) if one.name == "csrt"), None)
    rows = []
    for (one, choice, count), timing in zip(entries, timings, strict=True):
        row = {"size": size, "targets": count, "choice": choice, **_figures(timing)}
        if csrt is not None and count == 1:
            row["times_csrt"] = ratio(timing, csrt)._asdict()
            row["times_csrt_cpu"] = ratio(timing, csrt, cpu=True)._asdict()
        if choice is not None:
            assert isinstance(one, Ours)
            row |= {"model": Path(choice.model).stem, "device": str(choice.device), "precision": choice.precision}
            row |= {"random": choice.weights == "random", "stages": _stages(one, choice, count, timing)}
            single = timings[next(n for n, e in enumerate(entries) if e[1] is choice and e[2] == 1)]
            yardstick = timings[naive[choice.model, str(choice.device)]]
            if count == 1:
                row["naive_over_it"] = ratio(yardstick, timing)._asdict()
                row["naive_over_it_cpu"] = ratio(yardstick, timing, cpu=True)._asdict()
                row["naive_init_over_it"] = float(np.median(yardstick.inits) / np.median(timing.inits))
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


def _stages(one: Ours, choice: ModelChoice, count: int, timing: Timing) -> dict[str, Any]:
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


def _add_floors(row: dict[str, Any], ceilings: dict[tuple[str, str], Ceilings]) -> None:
    """Put the least time of each stage whose work is known beside what it took."""
    for stage, figures in row.get("stages", {}).items():
        if "work" not in figures:
            continue
        precision = PRECISION if stage == "optimize" else row["precision"]
        floor = figures.pop("work").floor(ceilings[row["device"], precision]) * 1e3
        if floor > 0:
            figures |= {"floor_ms": floor, "times_floor": figures["median_ms"] / floor}
