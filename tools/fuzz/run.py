# SPDX-License-Identifier: Apache-2.0
"""Feed unexpected inputs to every part that accepts inputs: seeded, supervised, with a table of results.

Each surface runs in a process of its own, so that a crash or a hang costs one input and is reported by its number. An
input is drawn from surface, seed and number alone: `tools/run_fuzz.py --surface NAME --seed S --only N` repeats it.
"""

from __future__ import annotations

import faulthandler
import importlib
import importlib.util
import multiprocessing
import os
import random
import resource
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import NamedTuple, TypeAlias

LIMIT_SECONDS = 1.0
"""Time limit of an input, less the time in which other programs had the cores; a slower one is repeated."""

HANG_SECONDS = 30.0
"""After this the process is ended, with the stacks of its threads in the log; counted like `LIMIT_SECONDS`."""

LOOK_SECONDS = 0.1
"""How often it is looked at what started processes had of the cores; what they lacked just before their end counts."""

MEMORY_BYTES = 512 * 2**20
"""Memory limit of an input: by how much the process, or a child of it, may grow meanwhile. All inputs are small."""

ADDRESS_SPACE_BYTES = 12 * 2**30
"""Limit of a surface's process, so that no input fills the machine's memory."""

clock = time.perf_counter
"""Time of an input in seconds; tests replace it."""

MOST_FAILURES = 20
"""Failures after which a surface stops."""

Attempt: TypeAlias = Callable[[random.Random], bool]
"""Draws one input and uses it; returns whether it was accepted, or refused as documented; anything else raises."""


class FuzzSurface(NamedTuple):
    """Where a surface's context manager is, which yields its `Attempt`, and its share of all inputs.

    :param share: of all inputs, 0 to 1. :param needs: a module without which it is skipped.
    :param limit: seconds that an input may take; more where a process is started for it, which other programs delay.
    """

    module: str
    function: str
    share: float
    needs: str
    limit: float = LIMIT_SECONDS

    def open(self) -> AbstractContextManager[Attempt]:
        """Return the surface's context manager."""
        opened: AbstractContextManager[Attempt] = getattr(importlib.import_module(self.module), self.function)()
        return opened


SURFACES = {
    "raw-images": FuzzSurface("fuzz.images", "raw_images", 0.15, "cv2"),
    "compressed-images": FuzzSurface("fuzz.images", "compressed_images", 0.13, "cv2"),
    "contradictions": FuzzSurface("fuzz.contradictions", "contradictions", 0.05, "rosbags", 3.0),
    "files": FuzzSurface("fuzz.files", "files", 0.02, "pycocotools", 3.0),
    "complexity": FuzzSurface("fuzz.complexity", "complexity", 0.005, "rosbags", 5.0),
    "outputs": FuzzSurface("fuzz.outputs", "outputs", 0.015, "rosbags"),
    "position": FuzzSurface("fuzz.position", "positions", 0.14, "numpy"),
    "requests": FuzzSurface("fuzz.targets", "requests", 0.11, "rclpy"),
    "detections": FuzzSurface("fuzz.targets", "detections", 0.08, "rclpy"),
    "sequences": FuzzSurface("fuzz.sequences", "sequences", 0.04, "rclpy"),
    "parameters": FuzzSurface("fuzz.parameters", "parameters", 0.09, "rclpy"),
    "tracker": FuzzSurface("fuzz.tracker", "trackers", 0.01, "torch"),
    "checkpoints": FuzzSurface("fuzz.checkpoints", "checkpoints", 0.07, "torch", 3.0),
    "mavlink": FuzzSurface("fuzz.mavlink", "messages", 0.05, "pymavlink"),
    "bags": FuzzSurface("fuzz.bags", "bags", 0.04, "rosbags"),
}


class FuzzOutcome(NamedTuple):
    """Result of one input; ``failure`` is empty if it was accepted or refused as documented."""

    number: int
    taken: bool
    seconds: float
    failure: str


@dataclass
class FuzzTally:
    """Results of a surface's inputs so far; `failures` by the input's number."""

    inputs: int = 0
    taken: int = 0
    slowest: float = 0.0
    failures: dict[int, str] = field(default_factory=dict)

    @property
    def refused(self) -> int:
        """Inputs that were refused as documented."""
        return self.inputs - self.taken - len(self.failures)

    def add(self, outcome: FuzzOutcome) -> None:
        """Count an input."""
        self.inputs += 1
        self.slowest = max(self.slowest, outcome.seconds)
        if outcome.failure:
            self.failures[outcome.number] = outcome.failure
        else:
            self.taken += outcome.taken


def outcomes(
    name: str, surface: FuzzSurface, seed: int, numbers: Iterable[int], hang: float | None = None
) -> Iterator[FuzzOutcome]:
    """Use the inputs of these numbers in this process and yield the result of each.

    :param hang: seconds after which the process is ended; None for never.
    """
    with surface.open() as attempt:
        for number in numbers:
            with watched(hang) as starved:
                outcome = _outcome(attempt, f"{name}/{seed}/{number}", number, surface.limit, starved)
            yield outcome


@contextmanager
def watched(hang: float | None) -> Iterator[Callable[[], float]]:
    """Give a function for the `starved_seconds` of this process and of those that it starts, ended ones as well.

    :param hang: seconds, less these, after which the process is ended with the stacks of its threads; seconds by the
        clock while a library holds the interpreter's lock; None for never.
    """
    seen: dict[int, float] = {}
    lock, done, begin = threading.Lock(), threading.Event(), time.monotonic()

    def total() -> float:
        with lock:
            seen.update(starved_seconds())
            seen.pop(thread.native_id or 0, None)  # it waits for a core beside the others
            return sum(seen.values())

    def look() -> None:
        while not done.wait(LOOK_SECONDS):
            lost = total() - at_first
            if hang is not None and (left := begin + hang + lost - time.monotonic()) > 0:
                faulthandler.dump_traceback_later(left, exit=True)

    thread = threading.Thread(target=look, daemon=True)
    at_first = total()
    if hang is not None:
        faulthandler.dump_traceback_later(hang, exit=True)
    thread.start()
    try:
        yield total
    finally:
        done.set()
        thread.join()
        faulthandler.cancel_dump_traceback_later()


def _outcome(attempt: Attempt, key: str, number: int, limit: float, starved: Callable[[], float]) -> FuzzOutcome:
    before = _reset_peak()
    taken, seconds, failure = False, float("inf"), ""
    for _ in range(3):
        begin, had_lost = clock(), starved()
        try:
            taken = attempt(random.Random(key))
        except Exception:
            failure = traceback.format_exc()
        took, lost = clock() - begin, starved() - had_lost
        seconds = min(seconds, max(0.0, took - max(0.0, lost)))
        if failure or seconds <= limit:
            break
    else:
        failure = f"it took {seconds:.2f} s, the shortest of three attempts"
    growth = _peak_bytes() - before
    if not failure and number and growth > MEMORY_BYTES:  # the first one may load what all of them need
        failure = f"memory grew by {growth / 2**20:.0f} MiB"
    return FuzzOutcome(number, taken, seconds, failure)


def _reset_peak() -> int:
    """Start a new measurement of this process's peak memory; return the present memory in bytes."""
    with suppress(OSError):  # not on every system; then the peak is that since the start
        Path("/proc/self/clear_refs").write_text("5")
    return _peak_bytes()


def _peak_bytes() -> int:
    """Return the peak resident memory of this process, and of its largest child that has ended."""
    return 1024 * sum(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))


def starved_seconds() -> dict[int, float]:
    """Return for how long each thread of this process, and of those that it started, was ready and had no core.

    Time that other programs take is not the input's fault; waiting and computing are.

    :return: seconds by the thread's number; nothing where that is not counted.
    """
    seconds, processes = {}, ["self"]
    while processes:
        for thread in Path(f"/proc/{processes.pop()}/task").glob("*"):
            with suppress(OSError):  # it has just ended
                seconds[int(thread.name)] = int((thread / "schedstat").read_text().split()[1]) / 1e9
                processes += (thread / "children").read_text().split()
    return seconds


def supervise(
    name: str, surface: FuzzSurface, seed: int, count: int, log: Path, hang: float = HANG_SECONDS
) -> FuzzTally:
    """Use inputs 0 to ``count`` in a process of its own, and in a new one after an input that ended it.

    :param log: receives the output of that process: warnings of libraries, and stacks after a hang or a crash.
    :param hang: seconds after which an input counts as hanging.
    """
    tally, first = FuzzTally(), 0
    context = multiprocessing.get_context("spawn")
    log.write_bytes(b"")
    while first < count and len(tally.failures) < MOST_FAILURES:
        receiver, sender = context.Pipe(duplex=False)
        process = context.Process(target=_child, args=(sender, name, surface, seed, range(first, count), log, hang))
        process.start()
        sender.close()
        with suppress(EOFError):
            while len(tally.failures) < MOST_FAILURES:
                outcome: FuzzOutcome = receiver.recv()
                tally.add(outcome)
                first = outcome.number + 1
        if len(tally.failures) >= MOST_FAILURES:
            process.kill()
        process.join()
        if first < count and len(tally.failures) < MOST_FAILURES:
            end = f"signal {-process.exitcode}" if (process.exitcode or 0) < 0 else f"exit code {process.exitcode}"
            tally.add(FuzzOutcome(first, False, 0.0, f"it hung, or ended the process with {end}:\n{_tail(log)}"))
            first += 1
    return tally


def _child(
    sender: Connection, name: str, surface: FuzzSurface, seed: int, numbers: range, log: Path, hang: float
) -> None:
    """Use inputs and send the result of each."""
    with log.open("ab") as file:
        for stream in (1, 2):
            os.dup2(file.fileno(), stream)
    faulthandler.enable()
    resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE_BYTES, ADDRESS_SPACE_BYTES))
    for outcome in outcomes(name, surface, seed, numbers, hang):
        sender.send(outcome)
    sys.stdout.flush()
    os._exit(0)  # threads of libraries must not delay it


def _tail(log: Path) -> str:
    return log.read_text(encoding="utf-8", errors="replace")[-4000:]


def inputs_of(surface: FuzzSurface, total: int) -> int:
    """Return how many of ``total`` inputs a surface gets, rounded up."""
    return -int(-total * surface.share // 1)


def table(tallies: dict[str, FuzzTally]) -> str:
    """Return the tallies as a Markdown table, with a line for all."""
    rows = ["| surface | inputs | refused | taken | slowest | failures |", "|---|---:|---:|---:|---:|---:|"]
    whole = FuzzTally()
    for name, tally in tallies.items():
        rows.append(_row(name, tally, len(tally.failures)))
        whole.inputs += tally.inputs
        whole.taken += tally.taken
        whole.slowest = max(whole.slowest, tally.slowest)
    failures = sum(len(tally.failures) for tally in tallies.values())
    refused = sum(tally.refused for tally in tallies.values())
    rows.append(f"| all | {whole.inputs:,} | {refused:,} | {_share(whole)} | {_ms(whole)} | {failures} |")
    return "\n".join(rows)


def _row(name: str, tally: FuzzTally, failures: int) -> str:
    return f"| {name} | {tally.inputs:,} | {tally.refused:,} | {_share(tally)} | {_ms(tally)} | {failures} |"


def _share(tally: FuzzTally) -> str:
    return f"{tally.taken:,} ({tally.taken / max(1, tally.inputs):.0%})"


def _ms(tally: FuzzTally) -> str:
    return f"{1000 * tally.slowest:.0f} ms"


def missing(surface: FuzzSurface) -> bool:
    """Return whether a module that a surface needs is missing."""
    return importlib.util.find_spec(surface.needs) is None
