# SPDX-License-Identifier: Apache-2.0
"""The limiter of commands: limits, slew rates, and the way to zero."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dimp_ros.apps.steering.limiter import AxisLimits, CommandLimiter, CommandLimits, VectorLimits

LIMIT = np.array([1.0, 0.5, 0.5, 0.3, 0.3, 2.0])
SLEW = np.array([2.0, 2.0, 1.0, 4.0, 4.0, 8.0])
AXES = AxisLimits(-LIMIT, LIMIT, SLEW)
VECTORS = VectorLimits(1.0, 2.0, 2.0, 8.0)
NUMBERS = st.floats(allow_nan=True, allow_infinity=True)
STEPS = st.lists(
    st.tuples(
        st.booleans(),
        st.lists(NUMBERS, min_size=6, max_size=6),
        st.one_of(st.floats(0.001, 0.3), st.sampled_from([0.0, -1.0, 60.0, math.nan, math.inf])),
    ),
    max_size=40,
)


def assert_within(command: np.ndarray, limits: CommandLimits) -> None:
    """Assert that each axis, or the length of each vector, is within its limit."""
    assert np.isfinite(command).all()
    if isinstance(limits, VectorLimits):
        assert np.linalg.norm(command[:3]) <= limits.speed + 1e-9 and np.linalg.norm(command[3:]) <= limits.turn + 1e-9
    elif isinstance(limits, AxisLimits):
        assert (limits.low <= command).all() and (command <= limits.high).all()


@pytest.mark.parametrize("limits", [AXES, VECTORS], ids=["axes", "vectors"])
@settings(deadline=None, max_examples=40)
@given(steps=STEPS, stop_seconds=st.floats(0.0, 0.2))
def test_limits_and_slew_rates_hold_whatever_the_clock_does(limits, steps, stop_seconds):
    limiter, now, before = CommandLimiter(limits), 10.0, np.zeros(6)
    for drive, wanted, step in steps:
        now, stopping = now + step if math.isfinite(now) else 10.0, limiter.stopping
        if drive:
            command = limiter.drive(np.array(wanted), now)
            if stopping:
                assert (np.abs(command) <= np.abs(before) + 1e-12).all()
            elif command.any():
                change, seconds = command - before, min(max(step, 0.0), 0.25)
                if limits is AXES:
                    assert (np.abs(change) <= SLEW * seconds + 1e-9).all()
                else:
                    assert np.linalg.norm(change[:3]) <= VECTORS.acceleration * seconds + 1e-9
                    assert np.linalg.norm(change[3:]) <= VECTORS.turn_acceleration * seconds + 1e-9
        else:
            command = limiter.stop(now, stop_seconds)
            assert (np.abs(command) <= np.abs(before) + 1e-12).all()
        assert_within(command, limits)
        before = command


POSITIVE = st.floats(0.0, 3.0)
LIMITS = st.one_of(
    st.builds(VectorLimits, POSITIVE, POSITIVE, POSITIVE, POSITIVE),
    st.tuples(*[st.lists(POSITIVE, min_size=6, max_size=6)] * 3).map(
        lambda three: AxisLimits(-np.array(three[0]), np.array(three[1]), np.array(three[2]))
    ),
)
MOTION = st.lists(st.floats(-5.0, 5.0), min_size=6, max_size=6).map(np.array)


@settings(deadline=None, max_examples=50)
@given(
    first=st.sampled_from([AxisLimits(-LIMIT, LIMIT, np.full(6, 1e3)), VectorLimits(2.0, 3.0, 1e3, 1e3)]),
    fast=MOTION,
    changes=st.lists(st.tuples(LIMITS, MOTION, st.none() | st.floats(0.0, 0.2)), min_size=1, max_size=8),
)
def test_lowered_limits_hold_from_the_next_command_on(first, fast, changes):
    limiter, now = CommandLimiter(first), 0.0
    for now in (0.0, 0.02):
        limiter.drive(fast, now)
    for limits, wanted, stop_seconds in changes:
        limiter.limits, now, before, stopping = limits, now + 0.02, limiter.command, limiter.stopping
        command = limiter.drive(wanted, now) if stop_seconds is None else limiter.stop(now, stop_seconds)
        assert_within(command, limits)
        if stopping or stop_seconds is not None:
            assert (np.abs(command) <= np.abs(before) + 1e-12).all()


@settings(deadline=None)
@given(step=st.floats(1 / 200, 1 / 20), stop_seconds=st.floats(0.0, 0.2))
def test_a_stop_takes_its_seconds_and_a_tick_at_most_and_stays(step, stop_seconds):
    limiter, now = CommandLimiter(AXES), 0.0
    for _ in range(50):
        now += step
        limiter.drive(np.ones(6), now)
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
    limiter = CommandLimiter(AXES)
    for tick in range(20):
        limiter.drive(np.ones(6), tick * 0.02)
    assert not limiter.drive(np.ones(6), 60.0).any()
    assert limiter.drive(np.ones(6), 60.02)[0] == pytest.approx(SLEW[0] * 0.02)


def test_limits_of_vectors_keep_the_direction_of_command_and_change():
    limiter, wanted = CommandLimiter(VECTORS), np.array([0.8, -0.4, 0.2, 0.0, 0.0, 0.1])
    limiter.drive(wanted, 0.0)
    command = limiter.drive(wanted, 0.02)
    assert command.any() and command / command[0] == pytest.approx(wanted / wanted[0])
    limiter.limits = VectorLimits(0.01, 2.0, 1e-3, 1e-3)
    command = limiter.drive(wanted, 0.04)
    assert np.linalg.norm(command[:3]) == pytest.approx(0.01)
    assert command / command[0] == pytest.approx(wanted / wanted[0], abs=1e-6)


@settings(deadline=None)
@given(
    step=st.floats(1 / 200, 1 / 20),
    stop_seconds=st.floats(0.0, 0.2),
    reasons=st.lists(st.booleans(), min_size=1, max_size=60),
)
def test_a_stop_that_has_begun_reaches_zero_before_anything_moves(step, stop_seconds, reasons):
    limiter, now = CommandLimiter(AXES), 0.0
    for _ in range(50):
        now += step
        limiter.drive(np.ones(6), now)
    begun, before = now, limiter.command
    for reason in (True, *reasons):
        now += step
        if reason:
            command = limiter.stop(now, stop_seconds)
        else:
            command = limiter.drive(np.ones(6), now)
        assert (command <= before + 1e-12).all()
        if not command.any():
            break
        assert now - begun < stop_seconds
        before = command
