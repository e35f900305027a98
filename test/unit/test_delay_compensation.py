# SPDX-License-Identifier: Apache-2.0
"""Delay compensation: own motion is removed from late measurements and added for the requested time."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dimp_ros.apps.steering.delay_compensation import DelayCompensator, beyond

TICK = 0.01


def followed(
    own_rate: float, target_rate: float, delay: float, lag: float, *, seconds: float = 4.0
) -> tuple[DelayCompensator, float, float]:
    """Let a value change by both, measure it late at 10 Hz; return the estimator, the time, and the true value."""
    value, now, truth, velocity = DelayCompensator(), 0.0, 0.3, 0.0
    history = []
    for tick in range(round(seconds / TICK)):
        value.advance(now, own_rate, lag)
        history.append((now, truth))
        if tick % 10 == 0 and now > delay:
            taken, seen = min(history, key=lambda entry: abs(entry[0] - (now - delay)))
            value.measure(seen, taken, rate_time=0.2, gap=0.5, limit=5.0)
        last = now, truth
        for _ in range(10):  # the true motion, integrated finely
            velocity += (own_rate - velocity) * (1.0 - math.exp(-TICK / 10 / lag)) if lag else own_rate - velocity
            truth += (velocity + target_rate) * TICK / 10
        now += TICK
    return value, *last


@settings(deadline=None)
@given(
    own_rate=st.floats(-1.0, 1.0),
    target_rate=st.floats(-1.0, 1.0),
    delay=st.sampled_from([0.0, 0.05, 0.2]),
    lag=st.sampled_from([0.0, 0.1, 0.3]),
)
def test_present_value_and_rate_follow_from_late_measurements(own_rate, target_rate, delay, lag):
    value, now, truth = followed(own_rate, target_rate, delay, lag)
    assert value.predict(now) == pytest.approx(truth, abs=0.01)
    assert value.rate == pytest.approx(target_rate, abs=0.02)
    assert value.predict(now + 0.1) == pytest.approx(truth + 0.1 * (own_rate + target_rate), abs=0.015)


def test_repeated_and_older_images_change_nothing():
    value = DelayCompensator()
    value.advance(1.0, 0.0, 0.1)
    value.measure(0.5, 0.9, 0.2, 0.5, 5.0)
    value.measure(0.9, 0.9, 0.2, 0.5, 5.0)
    value.measure(0.9, 0.8, 0.2, 0.5, 5.0)
    assert value.predict(1.0) == 0.5 and value.rate == 0.0


def test_after_a_gap_in_the_measurements_the_rate_is_not_known():
    value = DelayCompensator()
    for tick in range(20):
        value.advance(tick * 0.1, 0.0, 0.1)
        value.measure(tick * 0.1, tick * 0.1, 0.2, 0.5, 5.0)
    assert value.rate == pytest.approx(1.0, abs=0.01)
    for tick in range(20, 40):
        value.advance(tick * 0.1, 0.0, 0.1)
    value.measure(9.0, 3.9, 0.2, 0.5, 5.0)
    assert value.rate == 0.0 and value.predict(3.9) == 9.0


def test_rate_after_a_jump_is_limited():
    value = DelayCompensator()
    value.advance(1.0, 0.0, 0.1)
    value.measure(0.0, 0.9, 0.2, 0.5, 2.0)
    value.measure(100.0, 1.0, 0.2, 0.5, 2.0)
    assert 0.0 < value.rate <= 2.0


def test_state_is_unknown_after_a_pause_of_the_loop():
    value = DelayCompensator()
    value.advance(1.0, 1.0, 0.0)
    value.measure(0.5, 1.0, 0.2, 0.5, 2.0)
    assert value.known
    value.advance(60.0, 1.0, 0.0)
    assert not value.known
    with pytest.raises(ValueError, match="measure"):
        value.predict(60.0)


@settings(deadline=None)
@given(st.lists(st.tuples(*[st.floats(allow_nan=True, allow_infinity=True, width=32)] * 2), max_size=20))
def test_times_and_rates_that_are_none_leave_finite_numbers(calls):
    value = DelayCompensator()
    for now, rate in calls:
        value.advance(now, rate, 0.1)
    value.advance(3e38, 0.0, 0.1)
    value.measure(0.5, 3e38, 0.2, 0.5, 2.0)
    assert math.isfinite(value.rate)


@settings(deadline=None)
@given(st.floats(-10.0, 10.0), st.floats(0.0, 1.0))
def test_a_dead_band_takes_its_width_off_and_is_continuous(value, band):
    assert abs(beyond(value, band)) == pytest.approx(max(abs(value) - band, 0.0))
    assert beyond(value, band) * value >= 0.0


@pytest.mark.parametrize("speed", [0.5, -0.5])
@pytest.mark.parametrize("start", [math.pi - 0.2, 0.2 - math.pi, 0.0])
def test_an_angle_goes_round_without_a_jump(start, speed):
    value = DelayCompensator(2.0 * math.pi)
    for tick in range(200):
        now = tick * 0.02
        value.advance(now, 0.0, 0.2)
        angle = start + speed * now
        value.measure(math.atan2(math.sin(angle), math.cos(angle)), now, 0.1, 0.5, 2.0)
        assert tick < 50 or value.rate == pytest.approx(speed, abs=0.01)
        error = value.error(now, math.pi)
        assert error == pytest.approx(math.remainder(angle - math.pi, 2.0 * math.pi), abs=0.02) or abs(error) > 3.1
