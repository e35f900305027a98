# SPDX-License-Identifier: Apache-2.0
"""Twenty seconds of a soak (`make soak` runs longer), and tests that a soak finds violations."""

from __future__ import annotations

import math

import pytest

pytest.importorskip("rclpy", reason="rclpy is not installed: ROS tests need a ROS home")

from soak.node import DurationHistogram
from soak.report import ResourceSample, SoakReport, TargetLedger, floor_slope, judge_resources, last_heap_sample
from soak.run import SoakPlan, soak, text

SECOND = 1_000_000_000


def test_short_soak_has_no_violations(tmp_path):
    result = soak(SoakPlan(20.0, 8.0, memory_growth=9000.0), tmp_path)  # 30 MiB in 12 s
    assert not result["violations"], text(result)
    assert result["counts"]["init accepted"] > 3 and result["counts"]["message on targets"] > 75, text(result)
    assert result["seconds"]["age"]["count"] > 75 and result["tracker_seconds"]["update"]["count"] > 75


def accepted(ledger: TargetLedger, name: str, at: float) -> None:
    ledger.init_begins(name, at - 0.1 * SECOND)
    ledger.init_ends(name, at, True)


def dropped(ledger: TargetLedger, name: str | None, at: float) -> None:
    ledger.drop_begins(name, at - 0.1 * SECOND)
    ledger.drop_ends(name, at, True)


def test_dropped_target_in_a_later_message_is_a_contradiction():
    ledger = TargetLedger()
    accepted(ledger, "cup", 10 * SECOND)
    dropped(ledger, "cup", 20 * SECOND)
    assert ledger.contradictions(19.95 * SECOND, ["cup"]) == []
    assert ledger.contradictions(20.5 * SECOND, ["cup"]) == ["cup was dropped 500.0 ms before"]
    assert ledger.contradictions(20.5 * SECOND, []) == []


def test_accepted_target_must_be_in_later_messages():
    ledger = TargetLedger()
    accepted(ledger, "cup", 10 * SECOND)
    assert ledger.contradictions(9.95 * SECOND, []) == []
    assert ledger.contradictions(10.5 * SECOND, []) == ["cup is missing 500.0 ms after it was accepted"]
    ledger.init_begins("cup", 11 * SECOND)
    ledger.init_ends("cup", 12 * SECOND, False)
    assert ledger.contradictions(12.5 * SECOND, []), "a refused request must leave the target there"
    ledger.drop_begins("cup", 13 * SECOND)
    assert ledger.contradictions(13.1 * SECOND, []) == [] == ledger.contradictions(13.1 * SECOND, ["cup"])


def test_dropping_all_spares_targets_requested_meanwhile():
    ledger = TargetLedger()
    accepted(ledger, "cup", 10 * SECOND)
    ledger.init_begins("ball", 10 * SECOND)
    dropped(ledger, None, 12 * SECOND)
    ledger.init_ends("ball", 13 * SECOND, True)
    assert ledger.contradictions(14 * SECOND, ["cup", "ball"]) == ["cup was dropped 2000.0 ms before"]
    assert ledger.contradictions(14 * SECOND, []) == [], "who was first is not known"
    accepted(ledger, "ball", 20 * SECOND)
    assert ledger.contradictions(21 * SECOND, []) == ["ball is missing 1000.0 ms after it was accepted"]


def samples(rss=lambda t: 100e6, threads=lambda t: 20, descriptors=lambda t: 15):
    return [ResourceSample(float(t), int(rss(t)), threads(t), descriptors(t)) for t in range(600)]


@pytest.mark.parametrize(
    ("what", "kinds"),
    [
        ({}, set()),
        ({"rss": lambda t: 100e6 + 8e6 * math.sin(t / 5)}, set()),
        ({"rss": lambda t: 60e6 if t < 60 else 100e6}, set()),
        ({"rss": lambda t: 130e6 - 30e6 * math.exp(-t / 60) + 8e6 * math.sin(t / 5)}, set()),
        ({"rss": lambda t: 100e6 + 1e4 * t + 8e6 * math.sin(t / 5)}, {"memory"}),
        ({"rss": lambda t: 100e6 + 3e6 * (t // 60) + 13e6 * (t // 7 % 5)}, {"memory"}),
        ({"threads": lambda t: 20 + (t % 50 == 0)}, set()),
        ({"threads": lambda t: 20 + (t > 450)}, set()),
        ({"threads": lambda t: 20 + t // 100}, {"threads"}),
        ({"descriptors": lambda t: 15 + t // 100}, {"descriptors"}),
    ],
    ids=[
        "steady",
        "up and down",
        "warm-up",
        "plateau",
        "leak",
        "leak below targets",
        "a short-lived thread",
        "a thread started late",
        "threads",
        "descriptors",
    ],
)
def test_growth_after_warm_up_is_found_and_fluctuation_is_not(what, kinds):
    report = SoakReport()
    judge_resources(samples(**what), 300.0, 20.0, report)
    assert set(report.kinds) == kinds


def test_soak_that_ended_early_is_a_violation():
    report = SoakReport()
    judge_resources(samples()[:105], 100.0, 20.0, report)
    assert report.kinds["resources"] == 1


def test_floor_slope_is_that_of_the_lowest_values():
    times = [float(t) for t in range(100)]
    assert floor_slope(times, [100 + t for t in times]) == pytest.approx((1.0, 0.0))
    assert floor_slope(times, [50.0 if t % 5 == 0 else 60 + 3 * t for t in times]) == pytest.approx((0.0, 0.0))
    slope, error = floor_slope(times, [50.0 + t // 10 % 2 for t in times])
    assert abs(slope) < 2 * error


def test_quantiles_are_right_to_within_a_bin():
    durations = DurationHistogram()
    for milliseconds in range(1, 1001):
        durations.add(milliseconds / 1000)
    summary = durations.summary()
    assert summary["count"] == 1000 and summary["max"] == 1.0
    assert 0.5 <= summary["p50"] <= 0.5 * 1.1 and 0.99 <= summary["p99"] <= 1.0


def test_heap_that_grows_is_told_from_gaps_in_it(tmp_path):
    heap = tmp_path / "heap.txt"
    assert last_heap_sample(heap) == 0
    heap.write_text("1.00 104857600 7 8\n3.00 209715200 7 8\n5.00 3145")
    assert last_heap_sample(heap) == 200 * 2**20, "a line that is being written does not count"
    growing = [one._replace(heap=int(100 * 2**20 + 2**20 * one.seconds / 60)) for one in samples()]
    figures = judge_resources(growing, 300.0, 20.0, SoakReport())
    assert figures["heap_mib"] == list(range(100, 110))
    assert figures["heap_mib_per_hour"] == pytest.approx([60.0, 0.0], abs=0.2)
    assert "heap_mib" not in judge_resources(samples(), 300.0, 20.0, SoakReport())
