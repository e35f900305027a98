# SPDX-License-Identifier: Apache-2.0
"""A short form of `make fuzz`, and tests that the fuzzer finds and reports failures."""

from __future__ import annotations

import itertools
import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from fuzz import run as fuzzing
from fuzz.draw import mutated, odd_text
from fuzz.run import SURFACES, Attempt, FuzzSurface, FuzzTally, inputs_of, missing, outcomes, supervise, table, watched

INPUTS = 2000
"""Number of inputs, all surfaces together."""


@pytest.mark.parametrize("name", SURFACES)
def test_unexpected_inputs_are_accepted_or_refused(name):
    surface = SURFACES[name]
    if missing(surface):
        pytest.skip(f"{surface.needs} is not installed")
    tally = FuzzTally()
    for outcome in outcomes(name, surface, 11, range(inputs_of(surface, INPUTS))):
        tally.add(outcome)
    again = f"tools/env python tools/run_fuzz.py --surface {name} --seed 11 --only"
    assert not tally.failures, "\n".join(f"{again} {number}\n{text}" for number, text in tally.failures.items())
    assert 0.05 < tally.taken / tally.inputs < 0.95, "both outcomes must occur"


def test_surfaces_share_all_inputs():
    assert sum(surface.share for surface in SURFACES.values()) == pytest.approx(1.0)
    assert sum(inputs_of(surface, 100_000) for surface in SURFACES.values()) >= 100_000


@contextmanager
def failing_surface() -> Iterator[Attempt]:
    """Fail by an input's number: 3 raises, 5 ends the process, 7 hangs, 8 is slow; odd ones are refused."""
    numbers = {random.Random(f"failing_surface/1/{number}").random(): number for number in range(10)}

    def attempt(draw: random.Random) -> bool:
        number = numbers[draw.random()]
        if number == 3:
            raise KeyError("the third")
        if number == 5:
            os.abort()
        if number == 7:
            time.sleep(60)
        if number == 8:
            time.sleep(0.3)
        return number % 2 == 0

    yield attempt


FAILING = FuzzSurface("test_fuzz", "failing_surface", 1.0, "os")


def test_failures_are_reported_by_number_and_the_rest_goes_on(tmp_path):
    tally = supervise("failing_surface", FAILING, 1, 10, tmp_path / "log", hang=1.5)
    assert list(tally.failures) == [3, 5, 7]
    assert "KeyError: 'the third'" in tally.failures[3]
    assert "signal 6" in tally.failures[5] and "in attempt" in tally.failures[5]
    assert "Timeout" in tally.failures[7] and "in attempt" in tally.failures[7]
    assert (tally.inputs, tally.taken, tally.refused) == (10, 5, 2)
    last = table({"failing_surface": tally}).splitlines()[-1]
    assert last.startswith("| all | 10 | 2 | 5 (50%) |") and last.endswith("| 3 |")


def test_slow_every_time_is_a_failure_and_slow_once_is_not(monkeypatch):
    now = [0.0]
    durations = itertools.repeat(1.5)
    monkeypatch.setattr(fuzzing, "clock", lambda: now[0])
    monkeypatch.setattr(fuzzing, "starved_seconds", dict)
    monkeypatch.setattr(time, "sleep", lambda _: now.__setitem__(0, now[0] + next(durations)))
    two, eight = outcomes("failing_surface", FAILING, 1, [2, 8])
    assert not two.failure and "it took 1.5" in eight.failure
    durations = iter([1.5, 0.1])
    (eight,) = outcomes("failing_surface", FAILING, 1, [8])
    assert not eight.failure and eight.seconds == pytest.approx(0.1)


@pytest.mark.skipif(not os.path.exists("/proc/thread-self/schedstat"), reason="reads Linux's schedstat")
def test_time_in_which_a_child_had_no_core_is_counted():
    core, spin = min(os.sched_getaffinity(0)), "import time\nwhile time.process_time() < 0.6: pass"
    with watched(None) as starved:
        rivals = [subprocess.Popen([sys.executable, "-S", "-c", spin]) for _ in range(2)]
        for rival in rivals:
            os.sched_setaffinity(rival.pid, {core})
        for rival in rivals:
            assert rival.wait(60) == 0
        assert starved() > 0.4, "one of two processes on a core always waits"


def test_time_without_a_core_postpones_the_end_of_a_hanging_input(monkeypatch):
    allowed: list[tuple[float, float]] = []
    begin = time.monotonic()
    note = lambda left, exit: allowed.append((time.monotonic() - begin, left))  # noqa: E731
    monkeypatch.setattr(fuzzing.faulthandler, "dump_traceback_later", note)
    monkeypatch.setattr(fuzzing, "starved_seconds", lambda: {1: (time.monotonic() - begin) / 2})
    with watched(10.0):
        time.sleep(0.6)
    assert allowed[0][1] == 10.0 and len(allowed) > 1
    for now, left in allowed[1:]:
        assert left == pytest.approx(10 - now / 2, abs=0.05)


def test_much_memory_is_a_failure(monkeypatch):
    monkeypatch.setattr(fuzzing, "MEMORY_BYTES", -1)
    two, four = outcomes("failing_surface", FAILING, 1, [2, 4])
    assert "memory grew by" in two.failure and "memory grew by" in four.failure


def test_input_depends_on_seed_and_number_only():
    for make in (odd_text, lambda draw: mutated(draw, bytes(range(99)))):
        one, same, other = (make(random.Random(key)) for key in ("a/1/7", "a/1/7", "a/2/7"))
        assert one == same and (make is odd_text or one != other)
