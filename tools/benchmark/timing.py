# SPDX-License-Identifier: Apache-2.0
"""Interleaved timing: candidates run in short alternating blocks, so that other load affects all of them alike."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from benchmark.candidates import BenchmarkCandidate
from benchmark.sequences import BenchmarkVideo


class Plan(NamedTuple):
    """How much to run.

    :param repeats: each gives a ratio. :param frames: of a repeat, a multiple of ``block``.
    :param block: frames of a candidate before the next one's turn.
    :param warm: frames before the first that counts: the memory of samples fills. :param inits: how often is learned.
    """

    repeats: int = 5
    frames: int = 24
    block: int = 8
    warm: int = 40
    inits: int = 5

    def check(self) -> None:
        """Raise ValueError for numbers that nothing can be run with."""
        if min(self) < 1 or self.frames % self.block:
            raise ValueError(
                f"{self} cannot be run: all must be at least 1, and frames ({self.frames}) a multiple of "
                f"block ({self.block})"
            )


@dataclass
class Timing:
    """A candidate's times in milliseconds.

    :param frames: by repeat, of whole frames. :param cpu: the same by the time that this process was given, all its
        threads together: with one thread that holds still on a machine that is busy with other things.
    :param stages: of all repeats, by stage. :param inits: of learning the targets.
    :param followed: share of frames in which all targets were in sight.
    """

    name: str
    frames: list[list[float]] = field(default_factory=list)
    cpu: list[list[float]] = field(default_factory=list)
    stages: dict[str, list[float]] = field(default_factory=dict)
    inits: list[float] = field(default_factory=list)
    followed: float = 0.0

    @property
    def median(self) -> float:
        """Median time of a frame, over all repeats."""
        return float(np.median(np.concatenate(self.frames)))

    def quantile(self, share: float) -> float:
        """Return the time of a frame that a ``share`` of them does not exceed."""
        return float(np.quantile(np.concatenate(self.frames), share))


class Ratio(NamedTuple):
    """How many times as long one takes as another: the middle one of the repeats, the least and the most."""

    value: float
    least: float
    most: float


def ratio(slow: Timing, fast: Timing, *, cpu: bool = False) -> Ratio:
    """Return the ratio of the medians of ``slow`` and ``fast`` in each repeat; ``cpu``: by CPU time.

    Not of all repeats together: a machine that gets busy between two repeats would be in it.
    """
    pair = (slow.cpu, fast.cpu) if cpu else (slow.frames, fast.frames)
    each = [float(np.median(a) / np.median(b)) for a, b in zip(*pair, strict=True)]
    return Ratio(float(np.median(each)), min(each), max(each))


def run(
    candidates: Sequence[BenchmarkCandidate],
    videos: BenchmarkVideo | Sequence[BenchmarkVideo],
    plan: Plan | None = None,
    tell: Callable[[str], None] = lambda text: None,
) -> list[Timing]:
    """Have candidates follow the same targets through the same frames.

    :param videos: one for all, or one for each. :param tell: told now and then how far it is.
    :raises ValueError: if the plan cannot be run.
    """
    plan = plan or Plan()
    plan.check()
    timings = [Timing(one.name) for one in candidates]
    shown = list(videos) if isinstance(videos, Sequence) else [videos] * len(candidates)
    for turn in range(plan.inits):
        for one, video, timing in zip(candidates, shown, timings, strict=True):
            if turn and one.targets > 1:  # it learns one after the other: that says nothing new
                continue
            begin = time.perf_counter()
            one.start(video, 0)
            timing.inits.append((time.perf_counter() - begin) * 1e3)
    number = 1
    tell("warming up")
    for one, video in zip(candidates, shown, strict=True):
        for n in range(plan.warm):
            one.step(video.frame(number + n))
    number += plan.warm
    for repeat in range(plan.repeats):
        tell(f"repeat {repeat + 1} of {plan.repeats}")
        for timing in timings:
            timing.frames.append([])
            timing.cpu.append([])
        for block in range(plan.frames // plan.block):
            frames = {id(video): [video.frame(number + n) for n in range(plan.block)] for video in shown}
            first = (repeat + block) % len(candidates)  # none always comes after the same one's caches
            for n in range(len(candidates)):
                at = (first + n) % len(candidates)
                _follow(candidates[at], frames[id(shown[at])], timings[at])
            number += plan.block
    for timing in timings:
        timing.followed /= plan.repeats * plan.frames
    return timings


def _follow(one: BenchmarkCandidate, images: Sequence[np.ndarray], timing: Timing) -> None:
    """Time a block."""
    for image in images:
        begin, given = time.perf_counter(), time.process_time()
        step = one.step(image)
        timing.frames[-1].append((time.perf_counter() - begin) * 1e3)
        timing.cpu[-1].append((time.process_time() - given) * 1e3)
        timing.followed += step.followed
        for stage, milliseconds in step.stage_ms.items():
            timing.stages.setdefault(stage, []).append(milliseconds)
