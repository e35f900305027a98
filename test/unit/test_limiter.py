# SPDX-License-Identifier: Apache-2.0
"""The limiter of commands: limits, slew rates, and the way to zero."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dimp_ros.apps.steering.limiter import CommandLimiter

LIMIT = np.array([1.0, 0.5, 0.5, 0.3, 0.3, 2.0])
SLEW = np.array([2.0, 2.0, 1.0, 4.0, 4.0, 8.0])
NUMBERS = st.floats(allow_nan=True, allow_infinity=True)
STEPS = st.lists(
    st.tuples(
        st.booleans(),
        st.lists(NUMBERS, min_size=6, max_size=6),
        st.one_of(st.floats(0.001, 0.3), st.sampled_from([0.0, -1.0, 60.0, math.nan, math.inf])),
    ),
    max_size=40,
)


@pytest.mark.parametrize("uniform", [False, True])
@settings(deadline=None)
@given(steps=STEPS, stop_seconds=st.floats(0.0, 0.2))
def test_limits_and_slew_rates_hold_whatever_the_clock_does(uniform, steps, stop_seconds):
    limiter, now, before = CommandLimiter(uniform=uniform), 10.0, np.zeros(6)
    for drive, wanted, step in steps:
        now, stopping = now + step if math.isfinite(now) else 10.0, limiter.stopping
        if drive:
            command = limiter.drive(np.array(wanted), -LIMIT, LIMIT, SLEW, now)
            if stopping:
                assert (np.abs(command) <= np.abs(before) + 1e-12).all()
            elif command.any():
                assert (np.abs(command - before) <= SLEW * min(max(step, 0.0), 0.25) + 1e-9).all()
        else:
            command = limiter.stop(now, stop_seconds)
            assert (np.abs(command) <= np.abs(before) + 1e-12).all()
        assert np.isfinite(command).all() and (np.abs(command) <= LIMIT).all()
        before = command


@settings(deadline=None)
@given(step=st.floats(1 / 200, 1 / 20), stop_seconds=st.floats(0.0, 0.2))
def test_a_stop_takes_its_seconds_and_a_tick_at_most_and_stays(step, stop_seconds):
    limiter, now = CommandLimiter(), 0.0
    for _ in range(50):
        now += step
        limiter.drive(np.ones(6), -LIMIT, LIMIT, SLEW, now)
    last_motion = now
    assert limiter.command.any()
    while limiter.command.any():
        now += step
        limiter.stop(now, stop_seconds)
    assert now - last_motion <= stop_seconds + step + 1e-6
    for _ in range(5):
        now += step
        assert not limiter.stop(now, stop_seconds).any()


def test_command_begins_at_zero_after_a_pause_of_the_loop():
    limiter = CommandLimiter()
    for tick in range(20):
        limiter.drive(np.ones(6), -LIMIT, LIMIT, SLEW, tick * 0.02)
    assert not limiter.drive(np.ones(6), -LIMIT, LIMIT, SLEW, 60.0).any()
    assert limiter.drive(np.ones(6), -LIMIT, LIMIT, SLEW, 60.02)[0] == pytest.approx(SLEW[0] * 0.02)


def test_uniform_slew_keeps_the_direction_of_the_change():
    limiter = CommandLimiter(uniform=True)
    wanted = np.array([0.8, -0.4, 0.2, 0.0, 0.0, 0.0])
    limiter.drive(wanted, -LIMIT, LIMIT, SLEW, 0.0)
    command = limiter.drive(wanted, -LIMIT, LIMIT, SLEW, 0.02)
    assert command.any() and command / command[0] == pytest.approx(wanted / wanted[0])


@settings(deadline=None)
@given(
    step=st.floats(1 / 200, 1 / 20),
    stop_seconds=st.floats(0.0, 0.2),
    reasons=st.lists(st.booleans(), min_size=1, max_size=60),
)
def test_a_stop_that_has_begun_reaches_zero_before_anything_moves(step, stop_seconds, reasons):
    limiter, now = CommandLimiter(), 0.0
    for _ in range(50):
        now += step
        limiter.drive(np.ones(6), -LIMIT, LIMIT, SLEW, now)
    begun, before = now, limiter.command
    for reason in (True, *reasons):
        now += step
        if reason:
            command = limiter.stop(now, stop_seconds)
        else:
            command = limiter.drive(np.ones(6), -LIMIT, LIMIT, SLEW, now)
        assert (command <= before + 1e-12).all()
        if not command.any():
            break
        assert now - begun < stop_seconds
        before = command
