# SPDX-License-Identifier: Apache-2.0
"""Statistics of the stream over the last seconds: rates, ages, stages, stamps and errors; thread-safe."""

from __future__ import annotations

import statistics as reference
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dimp_ros.node.diagnostics.statistics import MAX_EVENTS, Statistics, percentile


class FakeClock:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        """Return the time that it was set to."""
        return self.now


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


def stream(statistics: Statistics, clock: FakeClock, *, seconds: float, hz: float, every: int = 1) -> None:
    """Receive images at a rate, every n-th of which is processed and the others replaced."""
    for number in range(round(seconds * hz)):
        clock.now += 1 / hz
        statistics.on_received(round(clock.now * 1e9))
        if number % every:
            statistics.on_replaced()
        else:
            statistics.on_processed(0.04, {"backbone": 30.0})


def test_nothing_is_known_before_the_first_image(clock):
    figures = Statistics(clock=clock).snapshot()
    assert figures.input_rate == figures.processed_rate == figures.received == 0
    assert figures.age_median is figures.jitter is figures.since_received is figures.last_stamp is None
    assert figures.last_error == "" and figures.since_error is None and not figures.stage_ms


@pytest.mark.parametrize("seconds", [2.0, 60.0])
def test_rates_are_those_of_the_last_seconds_from_the_start_on(clock, seconds):
    statistics = Statistics(clock=clock)
    stream(statistics, clock, seconds=seconds, hz=30.0, every=3)
    figures = statistics.snapshot()
    assert figures.input_rate == pytest.approx(30.0, rel=0.02)
    assert figures.processed_rate == pytest.approx(10.0, rel=0.05)
    assert figures.dropped == pytest.approx(2 / 3 * figures.received, abs=2)
    assert figures.total["received"] == round(30 * seconds) and figures.window == pytest.approx(min(seconds, 5.0))


def test_what_is_past_the_window_is_forgotten_but_counted(clock):
    statistics = Statistics(clock=clock)
    stream(statistics, clock, seconds=10.0, hz=10.0, every=2)
    statistics.on_error("bad", bad_image=True)
    statistics.on_error("worse")
    clock.now += 7.0
    figures = statistics.snapshot()
    assert (figures.received, figures.processed, figures.dropped, figures.bad, figures.failed) == (0, 0, 0, 0, 0)
    assert figures.input_rate == 0.0 and figures.age_max is None and figures.jitter is None
    assert dict(figures.total) == {"received": 100, "processed": 50, "dropped": 50, "bad": 1, "failed": 1}
    assert figures.since_received == pytest.approx(7.0) and figures.last_error == "worse"


def test_rates_are_right_in_bounded_memory(clock):
    statistics = Statistics(clock=clock)
    stream(statistics, clock, seconds=5.0, hz=2000.0)
    figures = statistics.snapshot()
    assert figures.received == MAX_EVENTS and figures.input_rate == pytest.approx(2000.0, rel=0.01)


def test_ages_and_stages_are_medians_and_percentiles(clock):
    statistics = Statistics(clock=clock)
    for number in range(1, 101):
        clock.now += 0.01
        stages = {"crop": float(number)} | ({"learn": 7.0} if number % 10 == 0 else {})
        statistics.on_processed(number / 1000, stages)
    figures = statistics.snapshot()
    assert figures.age_median == pytest.approx(0.0505) and figures.age_p95 == 0.095 and figures.age_max == 0.1
    assert figures.stage_ms == {"crop": 50.5, "learn": 7.0}


def test_jitter_is_zero_for_a_steady_camera_only(clock):
    steady, shaky = Statistics(clock=clock), Statistics(clock=clock)
    for number in range(100):
        clock.now += 0.02 + (0.01 if number % 5 == 0 else 0.0)
        shaky.on_received(number)
    assert shaky.snapshot().jitter == pytest.approx(0.01)
    stream(steady, clock, seconds=4.0, hz=25.0)
    assert steady.snapshot().jitter == pytest.approx(0.0, abs=1e-9)


def test_stamps_that_are_missing_or_go_back_are_counted(clock):
    statistics = Statistics(clock=clock)
    for stamp in (10, 20, 0, 30, 25):
        clock.now += 0.1
        statistics.on_received(stamp * 10**9)
    figures = statistics.snapshot()
    assert figures.zero_stamps == 1 and figures.last_stamp == 25 * 10**9
    assert figures.backward == 2 and figures.backward_seconds == 5.0


def test_the_last_errors_are_kept_apart_with_the_time_since(clock):
    statistics = Statistics(clock=clock)
    statistics.on_error("step is too small", bad_image=True)
    clock.now += 1.0
    statistics.on_error("ZeroDivisionError: x")
    clock.now += 2.0
    figures = statistics.snapshot()
    assert (figures.bad, figures.failed) == (1, 1) and figures.since_error == pytest.approx(2.0)
    assert figures.last_bad == "step is too small" and figures.last_failure == figures.last_error
    assert figures.last_failure == "ZeroDivisionError: x"


def test_threads_lose_no_count():
    statistics = Statistics()

    def work() -> None:
        for number in range(2000):
            statistics.on_received(number)
            statistics.on_processed(0.1, {"crop": 1.0})
            if number % 100 == 0:
                statistics.snapshot()

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    total = statistics.snapshot().total
    assert total["received"] == total["processed"] == 8000


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=60), st.floats(0.0, 1.0))
def test_percentile_is_the_least_value_not_exceeded(values, share):
    ordered = sorted(values)
    found = percentile(ordered, share)
    assert found in ordered
    assert sum(value <= found for value in ordered) >= share * len(ordered) - 1e-6
    if found > ordered[0]:
        assert sum(value < found for value in ordered) < share * len(ordered) + 1e-6
    assert percentile(ordered, 0.0) == ordered[0] and percentile(ordered, 1.0) == ordered[-1]
    assert percentile(ordered, 0.5) <= reference.median(ordered)
