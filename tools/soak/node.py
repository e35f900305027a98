# SPDX-License-Identifier: Apache-2.0
"""The node under test: a tracker node around the real tracker or a scripted one, timed."""

from __future__ import annotations

import argparse
import ctypes
import json
import math
import os
import sys
import threading
import time
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any

from harness.tracker_double import TrackerDouble

from dimp_ros.images.picture import Picture
from dimp_ros.node.tracker_node import main
from dimp_ros.ros_utils.malloc import bound_allocator
from dimp_ros.tracker.result import TargetState, TrackResult

BINS_PER_OCTAVE = 8
HEAP_PERIOD = 2.0
"""Seconds between two samples of the allocators."""


class DurationHistogram:
    """Counts durations in logarithmic bins, in bounded memory."""

    def __init__(self) -> None:
        self.counts: dict[int, int] = {}
        self.longest = 0.0

    def add(self, seconds: float) -> None:
        """Count one."""
        at = math.ceil(BINS_PER_OCTAVE * math.log2(max(seconds, 1e-6)))
        self.counts[at] = self.counts.get(at, 0) + 1
        self.longest = max(self.longest, seconds)

    def summary(self) -> dict[str, float]:
        """Return the count, the median and 99th percentile (upper ends of their bins), and the longest."""
        total = sum(self.counts.values())
        return {"count": total, "p50": self.quantile(0.5), "p99": self.quantile(0.99), "max": round(self.longest, 4)}

    def quantile(self, share: float) -> float:
        """Return the quantile at ``share``, to within a bin (9 %)."""
        left = share * sum(self.counts.values())
        for at in sorted(self.counts):
            left -= self.counts[at]
            if left <= 0:
                return round(min(2 ** (at / BINS_PER_OCTAVE), self.longest), 4)
        return 0.0


class PacedTracker(TrackerDouble):
    """Answers after a fixed time, all states in turn.

    It keeps nothing but the targets, so that all growth is the node's own.
    """

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self._seconds = seconds
        self._updates = 0

    def init(self, image: Picture, box: Sequence[float], *, target_id: str = "0") -> TrackResult:
        """Start the target; every 40th time the tracker fails."""
        time.sleep(self._seconds)
        image.region(0, 0, image.width, image.height)
        if self._updates % 40 == 39:
            raise ValueError("there is nothing to follow in this box; draw it on the target")
        return super().init(image, box, target_id=target_id)

    def update_all(self, image: Picture, only: Collection[str] | None = None) -> dict[str, TrackResult]:
        """Read all of the image, as a search of the whole frame does."""
        time.sleep(self._seconds)
        image.region(0, 0, image.width, image.height)
        self._updates += 1
        return super().update_all(image, only)

    def find(self, image: Picture, name: str) -> TrackResult:
        """Return the target where it was, all states in turn."""
        states = (TargetState.TRACKING, TargetState.TRACKING, TargetState.UNCERTAIN, TargetState.LOST)
        return self.result(name, states[(self._updates // 20 + len(name)) % 4])


class _MallocInfo(ctypes.Structure):
    """``struct mallinfo2`` of glibc's malloc.h."""

    _fields_ = [
        (name, ctypes.c_size_t)
        for name in "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost".split()
    ]


def write_heap_samples(path: Path) -> None:
    """Write, each `HEAP_PERIOD`, what the allocators have handed out, for as long as the process lives.

    A line has the system's monotonic time in seconds, the bytes that the C library has handed out, the bytes that it
    keeps free in its arenas, and the blocks of Python's allocator. It needs glibc 2.33; without, nothing is written.
    """
    try:
        mallinfo = ctypes.CDLL(None).mallinfo2
    except AttributeError:
        return
    mallinfo.restype = _MallocInfo
    with path.open("w", encoding="ascii", buffering=1) as file:
        while True:
            info = mallinfo()
            used, blocks = info.uordblks + info.hblkhd, sys.getallocatedblocks()
            file.write(f"{time.monotonic():.2f} {used} {info.fordblks} {blocks}\n")
            time.sleep(HEAP_PERIOD)


def timed(act: Callable[..., Any], durations: DurationHistogram) -> Callable[..., Any]:
    """Return ``act`` with its durations counted."""

    def wrapper(*args: Any, **named: Any) -> Any:
        begin = time.monotonic()
        try:
            return act(*args, **named)
        finally:
            durations.add(time.monotonic() - begin)

    return wrapper


def serve(argv: Sequence[str]) -> int:
    """Run the node until SIGINT; then write the tracker's times as JSON."""
    parser = argparse.ArgumentParser(prog="soak_node")
    parser.add_argument("--tracker", choices=("scripted", "real"), required=True)
    parser.add_argument("--seconds", type=float, default=0.02, help="time of an update of the scripted tracker")
    parser.add_argument("--times", type=Path, required=True)
    parser.add_argument("--heap", type=Path, required=True, help="file for samples of the allocators")
    given, ros = parser.parse_known_args(argv)
    bound_allocator()  # the node does so too, but the thread comes first
    threading.Thread(target=write_heap_samples, args=(given.heap,), daemon=True).start()
    updates, inits = DurationHistogram(), DurationHistogram()

    def make(parameters: Any) -> Any:
        if given.tracker == "scripted":
            tracker: Any = PacedTracker(given.seconds)
        else:
            from dimp_ros.node.tracker_loader import load_tracker

            tracker = load_tracker(parameters)
        tracker.update_all, tracker.init = timed(tracker.update_all, updates), timed(tracker.init, inits)
        return tracker

    code = main(ros, tracker_factory=make)
    times = {"update": updates.summary(), "init": inits.summary()}
    partial = given.times.with_suffix(".part")
    partial.write_text(json.dumps(times), encoding="utf-8")
    os.replace(partial, given.times)
    return code


if __name__ == "__main__":
    sys.exit(serve(sys.argv[1:]))
