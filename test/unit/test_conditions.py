# SPDX-License-Identifier: Apache-2.0
"""Problems of a stream are reported with the right remedy from its statistics, and none for a good stream."""

from __future__ import annotations

import numpy as np
import pytest

from dimp_ros.node.diagnostics.statistics import Statistics, StreamStatistics
from dimp_ros.node.diagnostics.stream_checks import (
    LARGE_BYTES,
    slowness,
    stall,
    stamp_trouble,
    stream_conditions,
    transport_loss,
)

WALL, SIMULATED = 1_790_000_000.0, 12.5


def seen(*, clock: float, stamp: float, **others: object) -> StreamStatistics:
    """Return statistics of images of about ``stamp`` that are reported on when the node's clock says ``clock``."""
    return StreamStatistics(
        received=50, processed=50, age_median=clock - stamp, last_stamp=round(stamp * 1e9), **others
    )


@pytest.mark.parametrize("now", [WALL, SIMULATED])
@pytest.mark.parametrize("age", [0.0, 0.05, 2.0, -0.02])
def test_good_stream_has_no_warnings(now, age):
    assert set(stream_conditions(seen(clock=now, stamp=now - age, since_processed=0.1)).values()) == {""}
    assert set(stream_conditions(StreamStatistics()).values()) == {""}


@pytest.mark.parametrize(
    ("clock", "stamp", "words"),
    [
        (WALL, SIMULATED, ["simulation", "use_sim_time to true"]),
        (WALL, WALL - 86400.0, ["8.64e+04 s older", "--clock"]),
        (WALL, WALL - 7.0, ["7 s older", "clocks alike"]),
        (0.0, WALL, ["stands at 0", "/clock", "use_sim_time to false"]),
        (0.0, 300.0, ["stands at 0", "/clock"]),
        (SIMULATED, WALL, ["wall clock", "simulated (12.5 s)"]),
        (WALL, WALL + 3.0, ["3 s ahead", "clocks alike"]),
        (100.0, 103.0, ["3 s ahead"]),
    ],
)
def test_stamps_of_another_clock_are_explained(clock, stamp, words):
    text = stamp_trouble(seen(clock=clock, stamp=stamp))
    assert all(word in text for word in words), text
    assert "\n" not in text


def test_missing_and_backward_stamps_are_reported():
    assert "50 of 50 images have stamp 0" in stamp_trouble(seen(clock=WALL, stamp=0.0, zero_stamps=50))
    text = stamp_trouble(seen(clock=WALL, stamp=WALL - 0.1, backward=2, backward_seconds=20.0))
    assert "back 2 times" in text and "last by 20 s" in text


def test_few_skipped_images_are_not_reported_but_many_are():
    assert slowness(StreamStatistics(received=150, dropped=10)) == ""
    text = slowness(StreamStatistics(received=150, dropped=100, input_rate=30.0, processed_rate=10.0))
    assert "10 of 30 images a second" in text and "smaller model" in text


def test_hanging_tracker_is_reported_only_while_images_come():
    assert stall(StreamStatistics(received=10, since_start=3.0)) == ""
    assert "for 9 s" in stall(StreamStatistics(received=10, since_start=9.0))
    assert "for 8 s" in stall(StreamStatistics(received=10, since_start=99.0, since_processed=8.0))
    assert stall(StreamStatistics(received=0, since_start=99.0, since_processed=80.0)) == ""


def test_statistics_of_a_real_stream_give_these_texts():
    now = 0.0
    statistics = Statistics(clock=lambda: now)
    for _ in range(100):
        now += 0.1
        statistics.on_received(round((SIMULATED + now) * 1e9))
        statistics.on_processed(WALL - SIMULATED, {})
    assert "use_sim_time to true" in stream_conditions(statistics.snapshot())["stamps"]


def lossy(kept: float, *, interval: float = 1 / 30, jitter: float = 0.0, size: int = 2 * LARGE_BYTES) -> str:
    """Return what is said of a camera of whose images a share is kept, after ten seconds."""
    rng, now = np.random.default_rng(1), 0.0
    statistics = Statistics(clock=lambda: now)
    for n in range(round(10 / interval)):
        now = n * interval
        if rng.random() < kept:
            statistics.on_received(round((WALL + now + rng.normal(0.0, jitter)) * 1e9), size)
    return transport_loss(statistics.snapshot())


@pytest.mark.parametrize("kept", [0.25, 0.4, 0.5])
@pytest.mark.parametrize("jitter", [0.0, 0.001])
def test_large_images_lost_on_the_way_are_reported(kept, jitter):
    text = lossy(kept, jitter=jitter)
    assert "about 3" in text and "are lost between the processes" in text
    assert "export" in text or "compressed" in text


@pytest.mark.parametrize("jitter", [0.0, 0.001, 0.003])
def test_nothing_is_reported_where_the_images_arrive(jitter):
    assert lossy(1.0, jitter=jitter) == "" and lossy(0.8, jitter=jitter) == ""


def test_small_images_are_not_reported_as_lost_by_the_middleware():
    assert lossy(0.3, size=LARGE_BYTES) == ""


def test_a_camera_that_takes_images_irregularly_is_not_reported():
    rng, now = np.random.default_rng(2), 0.0
    statistics = Statistics(clock=lambda: now)
    for step in rng.exponential(0.1, 200):
        now += step
        statistics.on_received(round((WALL + now) * 1e9), 2 * LARGE_BYTES)
        assert transport_loss(statistics.snapshot()) == ""


@pytest.mark.parametrize(("before", "after"), [(30.0, 10.0), (30.0, 15.0), (60.0, 5.0), (5.0, 60.0)])
def test_a_camera_that_changes_its_rate_is_not_reported(before, after):
    now = 0.0
    statistics = Statistics(clock=lambda: now)
    for rate in [before] * 200 + [after] * 200:
        now += 1 / rate
        statistics.on_received(round((WALL + now) * 1e9), 2 * LARGE_BYTES)
        assert transport_loss(statistics.snapshot()) == ""


def test_a_camera_that_pauses_is_not_reported():
    now = 0.0
    statistics = Statistics(clock=lambda: now)
    for n in range(400):
        now += 60.0 if n % 100 == 99 else 1 / 30
        statistics.on_received(round((WALL + now) * 1e9), 2 * LARGE_BYTES)
        assert transport_loss(statistics.snapshot()) == ""
