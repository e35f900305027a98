# SPDX-License-Identifier: Apache-2.0
"""A short form of `make fuzz`, and that the fuzzer finds and tells what it is there to find."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from fuzz import run as fuzzing
from fuzz.draw import mutated, odd_text
from fuzz.run import SURFACES, Surface, Tally, Throw, inputs_of, missing, outcomes, supervise, table

INPUTS = 2000
"""Of all surfaces together."""


@pytest.mark.parametrize("name", SURFACES)
def test_odd_inputs_are_taken_or_refused_quickly_and_cost_no_target(name):
    surface = SURFACES[name]
    if missing(surface):
        pytest.skip(f"{surface.needs} is not installed")
    tally = Tally()
    for outcome in outcomes(name, surface, 11, range(inputs_of(surface, INPUTS))):
        tally.add(outcome)
    again = f"tools/env python tools/run_fuzz.py --surface {name} --seed 11 --only"
    assert not tally.failures, "\n".join(f"{again} {number}\n{text}" for number, text in tally.failures.items())
    assert 0.05 < tally.taken / tally.inputs < 0.95, "both ways must be tried"


def test_the_surfaces_share_all_inputs():
    assert sum(surface.share for surface in SURFACES.values()) == pytest.approx(1.0)
    assert sum(inputs_of(surface, 100_000) for surface in SURFACES.values()) >= 100_000


@contextmanager
def trouble() -> Iterator[Throw]:
    """Make trouble by an input's number: 3 raises, 5 ends the process, 7 hangs, 8 is slow; odd ones are refused."""
    numbers = {random.Random(f"trouble/1/{number}").random(): number for number in range(10)}

    def throw(draw: random.Random) -> bool:
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

    yield throw


TROUBLE = Surface("test_fuzz", "trouble", 1.0, "os")


def test_what_raises_ends_the_process_or_hangs_is_told_by_its_number_and_the_others_go_on(tmp_path):
    tally = supervise("trouble", TROUBLE, 1, 10, tmp_path / "log", hang=1.5)
    assert list(tally.failures) == [3, 5, 7]
    assert "KeyError: 'the third'" in tally.failures[3]
    assert "signal 6" in tally.failures[5] and "in throw" in tally.failures[5]
    assert "Timeout" in tally.failures[7] and "in throw" in tally.failures[7]
    assert (tally.inputs, tally.taken, tally.refused) == (10, 5, 2)
    last = table({"trouble": tally}).splitlines()[-1]
    assert last.startswith("| all | 10 | 2 | 5 (50%) |") and last.endswith("| 3 |")


def test_what_takes_long_every_time_is_a_failure_and_what_took_long_once_is_none(monkeypatch):
    monkeypatch.setattr(fuzzing, "LIMIT_SECONDS", 0.15)
    two, eight = outcomes("trouble", TROUBLE, 1, [2, 8])
    assert not two.failure and "it took 0.3" in eight.failure
    slow_once = iter([0.3, 0.0])
    monkeypatch.setattr(time, "sleep", lambda _, really=time.sleep: really(next(slow_once)))
    (eight,) = outcomes("trouble", TROUBLE, 1, [8])
    assert not eight.failure and eight.seconds < 0.15


def test_what_takes_much_memory_is_a_failure(monkeypatch):
    monkeypatch.setattr(fuzzing, "MEMORY_BYTES", -1)
    two, four = outcomes("trouble", TROUBLE, 1, [2, 4])
    assert "memory grew by" in two.failure and "memory grew by" in four.failure


def test_an_input_depends_on_its_seed_and_number_alone():
    for make in (odd_text, lambda draw: mutated(draw, bytes(range(99)))):
        one, same, other = (make(random.Random(key)) for key in ("a/1/7", "a/1/7", "a/2/7"))
        assert one == same and (make is odd_text or one != other)
