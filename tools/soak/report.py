# SPDX-License-Identifier: Apache-2.0
"""What a soak has seen: targets against requests, resources over time, durations, and everything that was wrong."""

from __future__ import annotations

import math
import os
import statistics
import threading
import time
from collections import Counter
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from soak.node import Durations

MOST_KEPT = 50
"""Violations that are written out; all are counted."""
WINDOWS = 10


class Report:
    """Counts and durations by name, and violations. Used by all threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.counts: Counter[str] = Counter()
        self.durations: dict[str, Durations] = {}
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
            self.durations.setdefault(name, Durations()).add(seconds)

    def violation(self, kind: str, text: str) -> None:
        """Note what must not happen."""
        with self._lock:
            self.kinds[kind] += 1
            if len(self.violations) < MOST_KEPT:
                self.violations.append(f"{time.monotonic() - self._begin:.1f} s: {kind}: {text}")


class _Target:
    """What was asked for a target; times in nanoseconds of the system's clock."""

    def __init__(self) -> None:
        self.init_began = self.init_ended = 0.0
        self.drop_began = self.drop_ended = 0.0
        self.there_since: float | None = None


class Ledger:
    """Says which targets must, and which cannot, be in a message that was published at some time.

    Requests overlap, and messages arrive late: where either answer is possible there is no contradiction. The requests
    about one name come from one client; all targets may be dropped by anybody.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._targets: dict[str, _Target] = {}
        self._everything = _Target()  # its drops are those of all targets

    def init_begins(self, name: str, now: float) -> None:
        """Note that a target is asked for."""
        with self._lock:
            target = self._targets.setdefault(name, _Target())
            target.init_began, target.init_ended = now, math.inf

    def init_ends(self, name: str, now: float, success: bool) -> None:
        """Note the answer; after a refusal, what was there stays."""
        with self._lock:
            target = self._targets[name]
            target.init_ended = now
            dropped_since = max(target.drop_ended, self._everything.drop_ended) >= target.init_began
            if success and not dropped_since:
                target.there_since = now

    def drop_begins(self, name: str | None, now: float) -> None:
        """Note that a target, or all, are asked to be dropped, or that the node is to be deactivated."""
        with self._lock:
            for target in self._chosen(name):
                target.drop_began, target.drop_ended, target.there_since = now, math.inf, None

    def drop_ends(self, name: str | None, now: float, success: bool) -> None:
        """Note the answer."""
        with self._lock:
            for target in self._chosen(name):
                target.drop_ended, target.there_since = now, None
                if not success:  # says nothing about who is there, but not that they are gone
                    target.drop_began = 0.0

    def contradictions(self, published: float, names: Collection[str]) -> list[str]:
        """Return what is wrong with a message about the targets ``names`` that was published at that time."""
        with self._lock:
            wrong = []
            for name, target in self._targets.items():
                if name in names:
                    wrong += [
                        f"{name} was dropped {(published - drop.drop_ended) / 1e6:.1f} ms before"
                        for drop in (target, self._everything)
                        if drop.drop_began and drop.drop_ended < published and target.init_ended < drop.drop_began
                    ]
                elif target.there_since is not None and target.there_since < published:
                    wrong.append(
                        f"{name} is missing {(published - target.there_since) / 1e6:.1f} ms after it was taken"
                    )
            return wrong

    def _chosen(self, name: str | None) -> list[_Target]:
        if name is None:
            for target in self._targets.values():
                target.there_since = None
            return [self._everything]
        return [self._targets.setdefault(name, _Target())]


class Sample(NamedTuple):
    """Resources of a process at one moment."""

    seconds: float
    rss: int
    threads: int
    descriptors: int


def sample(pid: int, seconds: float) -> Sample:
    """Return what a process takes; ``rss`` in bytes.

    :raises OSError: if it is gone.
    """
    lines = Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines()
    fields = dict(line.split(":", 1) for line in lines if ":" in line)
    rss = int(fields["VmRSS"].split()[0]) * 1024
    return Sample(seconds, rss, int(fields["Threads"]), len(os.listdir(f"/proc/{pid}/fd")))


def growth(times: Sequence[float], values: Sequence[float]) -> float:
    """Return the growth of ``values`` over all of ``times``, as a share of where they begin: a line through medians.

    Medians of windows, since memory goes up and down with what is done at the moment.
    """
    size = max(1, len(times) // WINDOWS)
    middles = [statistics.fmean(times[i : i + size]) for i in range(0, len(times) - size + 1, size)]
    medians = [statistics.median(values[i : i + size]) for i in range(0, len(times) - size + 1, size)]
    if len(middles) < 2:
        return 0.0
    slope, start = statistics.linear_regression(middles, medians)
    begin = start + slope * times[0]
    return slope * (times[-1] - times[0]) / max(begin, 1.0)


def judge_resources(samples: Sequence[Sample], warm_up: float, limit: float, report: Report) -> dict[str, Any]:
    """Report what grows, and return figures.

    :param warm_up: seconds that do not count. :param limit: share by which memory may grow afterwards.
    """
    kept = [one for one in samples if one.seconds >= warm_up]
    if len(kept) < WINDOWS:
        report.violation("resources", f"only {len(kept)} samples after {warm_up:g} s: the soak was too short, or ended")
        return {}
    share = growth([one.seconds for one in kept], [one.rss for one in kept])
    if share > limit:
        report.violation("memory", f"grew by {share:.1%} in {kept[-1].seconds - kept[0].seconds:.0f} s")
    third = len(kept) // 3
    figures: dict[str, Any] = {
        "rss_mib": [round(statistics.median(one.rss for one in part) / 2**20, 1) for part in _parts(kept)],
        "rss_growth": round(share, 4),
    }
    for name in ("threads", "descriptors"):
        values = [getattr(one, name) for one in kept]
        figures[name] = {"min": min(values), "max": max(values), "first": values[0], "last": values[-1]}
        if min(values[-third:]) > max(values[:third]):
            report.violation(name, f"grew from {max(values[:third])} to {min(values[-third:])}")
    return figures


def _parts(samples: Sequence[Sample]) -> list[Sequence[Sample]]:
    size = len(samples) // WINDOWS
    return [samples[i * size : (i + 1) * size] for i in range(WINDOWS)]
