# SPDX-License-Identifier: Apache-2.0
"""Results of a soak: targets against requests, resources over time, durations, and violations."""

from __future__ import annotations

import math
import os
import statistics
import threading
import time
from collections import Counter
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from soak.node import DurationHistogram

MOST_KEPT = 50
"""Violations that are printed; all are counted."""
WINDOWS = 10
STARTED_ONCE = 1
"""Threads or descriptors that may be added after the warm-up: one that the first event of its kind needs."""
Part = TypeVar("Part")


class SoakReport:
    """Counts and durations by name, and violations. Used by all threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.counts: Counter[str] = Counter()
        self.durations: dict[str, DurationHistogram] = {}
        self.violations: list[str] = []
        self.kinds: Counter[str] = Counter()
        """How many violations there were of each kind."""
        self._begin = time.monotonic()

    def count(self, name: str) -> None:
        """Count an event."""
        with self._lock:
            self.counts[name] += 1

    def time(self, name: str, seconds: float) -> None:
        """Count a duration."""
        with self._lock:
            self.durations.setdefault(name, DurationHistogram()).add(seconds)

    def violation(self, kind: str, text: str) -> None:
        """Record what must not happen."""
        with self._lock:
            self.kinds[kind] += 1
            if len(self.violations) < MOST_KEPT:
                self.violations.append(f"{time.monotonic() - self._begin:.1f} s: {kind}: {text}")


class _TargetHistory:
    """Requests about one target; times in nanoseconds of the system's clock."""

    def __init__(self) -> None:
        self.init_began = self.init_ended = 0.0
        self.drop_began = self.drop_ended = 0.0
        self.exists_since: float | None = None


class TargetLedger:
    """Knows which targets must, and which cannot, be in a message that was published at some time.

    Requests overlap, and messages arrive late: where both are possible there is no contradiction. The requests about
    one name come from one client; every client may drop all targets.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._targets: dict[str, _TargetHistory] = {}
        self._everything = _TargetHistory()  # its drops are those of all targets

    def init_begins(self, name: str, now: float) -> None:
        """Record a request for a target."""
        with self._lock:
            target = self._targets.setdefault(name, _TargetHistory())
            target.init_began, target.init_ended = now, math.inf

    def init_ends(self, name: str, now: float, success: bool) -> None:
        """Record the answer; after a refusal the previous target stays."""
        with self._lock:
            target = self._targets[name]
            target.init_ended = now
            dropped_since = max(target.drop_ended, self._everything.drop_ended) >= target.init_began
            if success and not dropped_since:
                target.exists_since = now

    def drop_begins(self, name: str | None, now: float) -> None:
        """Record a request to drop a target or all, or to deactivate the node."""
        with self._lock:
            for target in self._chosen(name):
                target.drop_began, target.drop_ended, target.exists_since = now, math.inf, None

    def drop_ends(self, name: str | None, now: float, success: bool) -> None:
        """Record the answer."""
        with self._lock:
            for target in self._chosen(name):
                target.drop_ended, target.exists_since = now, None
                if not success:  # does not say which targets exist, nor that they are gone
                    target.drop_began = 0.0

    def contradictions(self, published: float, names: Collection[str]) -> list[str]:
        """Return what is wrong with a message about the targets ``names`` that was published at this time."""
        with self._lock:
            wrong = []
            for name, target in self._targets.items():
                if name in names:
                    wrong += [
                        f"{name} was dropped {(published - drop.drop_ended) / 1e6:.1f} ms before"
                        for drop in (target, self._everything)
                        if drop.drop_began and drop.drop_ended < published and target.init_ended < drop.drop_began
                    ]
                elif target.exists_since is not None and target.exists_since < published:
                    wrong.append(
                        f"{name} is missing {(published - target.exists_since) / 1e6:.1f} ms after it was accepted"
                    )
            return wrong

    def _chosen(self, name: str | None) -> list[_TargetHistory]:
        if name is None:
            for target in self._targets.values():
                target.exists_since = None
            return [self._everything]
        return [self._targets.setdefault(name, _TargetHistory())]


class ResourceSample(NamedTuple):
    """Resources of a process at one moment.

    :param rss: resident memory, bytes. :param heap: bytes that the C library has handed out; 0 where it cannot say.
    """

    seconds: float
    rss: int
    threads: int
    descriptors: int
    heap: int = 0


def sample(pid: int, seconds: float, heap: Path) -> ResourceSample:
    """Return the resources of a process.

    :param heap: samples of its allocators, see `soak.node.write_heap_samples`.
    :raises OSError: if it has ended.
    """
    lines = Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines()
    fields = dict(line.split(":", 1) for line in lines if ":" in line)
    rss = int(fields["VmRSS"].split()[0]) * 1024
    return ResourceSample(
        seconds, rss, int(fields["Threads"]), len(os.listdir(f"/proc/{pid}/fd")), last_heap_sample(heap)
    )


def last_heap_sample(path: Path) -> int:
    """Return the bytes that were handed out by the last complete line of a file; 0 where there is none."""
    if not path.is_file():
        return 0
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - 200))
        lines = file.read().split(b"\n")[:-1]
    return int(lines[-1].split()[1]) if lines and len(lines[-1].split()) == 4 else 0


def floor_slope(times: Sequence[float], values: Sequence[float]) -> tuple[float, float]:
    """Return the slope per second of a line through the lowest values of `WINDOWS` windows, and its standard error.

    Memory goes up and down with the targets. The lowest of a window is that without any, which a leak raises.

    :param values: at least `WINDOWS`.
    """
    middles = [statistics.fmean(part) for part in _parts(times)]
    floors = [min(part) for part in _parts(values)]
    slope, start = statistics.linear_regression(middles, floors)
    rest = sum((floor - start - slope * at) ** 2 for at, floor in zip(middles, floors, strict=True))
    spread = statistics.variance(middles) * (WINDOWS - 1)
    return slope, math.sqrt(rest / (WINDOWS - 2) / spread)


def judge_resources(
    samples: Sequence[ResourceSample], warm_up: float, limit: float, report: SoakReport
) -> dict[str, Any]:
    """Report what grows, and return figures.

    :param warm_up: seconds that do not count. :param limit: growth of memory allowed afterwards, MiB per hour, which
        the slope must exceed by twice its standard error.
    """
    kept = [one for one in samples if one.seconds >= warm_up]
    if len(kept) < WINDOWS:
        report.violation("resources", f"only {len(kept)} samples after {warm_up:g} s: the soak was too short, or ended")
        return {}
    hourly = floor_slope([one.seconds for one in kept], [3600 * one.rss / 2**20 for one in kept])
    if hourly[0] - 2 * hourly[1] > limit:
        report.violation("memory", f"grows by {hourly[0]:.1f} MiB an hour, standard error {hourly[1]:.1f}")
    third = len(kept) // 3
    figures: dict[str, Any] = {
        "rss_mib": [[round(of(one.rss for one in part) / 2**20) for part in _parts(samples)] for of in (min, max)],
        "rss_mib_per_hour": [round(one, 1) for one in hourly],
    }
    if all(one.heap for one in kept):
        used = floor_slope([one.seconds for one in kept], [3600 * one.heap / 2**20 for one in kept])
        figures["heap_mib"] = [round(min(one.heap for one in part) / 2**20) for part in _parts(samples)]
        figures["heap_mib_per_hour"] = [round(one, 1) for one in used]
    for name in ("threads", "descriptors"):
        values = [getattr(one, name) for one in kept]
        figures[name] = {"min": min(values), "max": max(values), "first": values[0], "last": values[-1]}
        if min(values[-third:]) > max(values[:third]) + STARTED_ONCE:
            report.violation(name, f"grew from {max(values[:third])} to {min(values[-third:])}")
    return figures


def _parts(values: Sequence[Part]) -> list[Sequence[Part]]:
    size = len(values) // WINDOWS
    return [values[i * size : (i + 1) * size] for i in range(WINDOWS)]
