# SPDX-License-Identifier: Apache-2.0
"""Diagnostics from a snapshot of the node: levels, messages with a remedy, and values."""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("diagnostic_msgs", reason="diagnostic_msgs is not installed: ROS tests need a ROS home")
pytest.importorskip("dimp_ros.msg", reason="the interfaces are not built: ROS tests need `make setup` or colcon")
from builtin_interfaces.msg import Time
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from rclpy.serialization import deserialize_message, serialize_message

from dimp_ros.node.diagnostics.statistics import StreamStatistics
from dimp_ros.node.diagnostics.status import Snapshot, diagnostics
from dimp_ros.tracker.result import TargetEstimate, TargetState

OK, WARN, ERROR, STALE = DiagnosticStatus.OK, DiagnosticStatus.WARN, DiagnosticStatus.ERROR, DiagnosticStatus.STALE


def figures(**others: Any) -> StreamStatistics:
    """Return the statistics of a good stream, changed by what is given."""
    good = {
        "window": 5.0,
        "input_rate": 30.0,
        "processed_rate": 30.0,
        "received": 150,
        "processed": 150,
        "jitter": 0.001,
        "age_median": 0.04,
        "age_p95": 0.05,
        "age_max": 0.06,
        "stage_ms": {"backbone": 12.5},
        "since_start": 60.0,
        "since_received": 0.01,
        "since_processed": 0.02,
        "last_stamp": 1_790_000_000 * 10**9,
        "total": {"received": 1800, "processed": 1800},
    }
    return StreamStatistics(**{**good, **others})


def snapshot(**others: Any) -> Snapshot:
    """Return an active node that is well, changed by what is given."""
    good = {
        "active": True,
        "status_error": "",
        "notes": [],
        "model": "dimp_lite",
        "device": "cuda:0",
        "device_bytes": 300 * 2**20,
        "topic": "/camera/image",
        "figures": figures(),
        "silent": 0.01,
        "silence": "",
        "held": (60, 60 * 2**20),
        "estimates": [TargetEstimate("ball", TargetState.TRACKING, confidence=0.9)],
    }
    return Snapshot(**{**good, **others})


def statuses(what: Snapshot) -> dict[str, DiagnosticStatus]:
    """Return the statuses by kind, as they come out of a message that was sent."""
    message = diagnostics("robot/tracker", Time(sec=7), what)
    received = deserialize_message(serialize_message(message), DiagnosticArray)
    assert received.header.stamp == Time(sec=7)
    names = [status.name for status in received.status]
    assert names == ["robot/tracker: input", "robot/tracker: tracking", "robot/tracker: node"]
    assert all(status.message and "\n" not in status.message for status in received.status)
    return {status.name.rpartition(": ")[2]: status for status in received.status}


def values(status: DiagnosticStatus) -> dict[str, str]:
    assert len({value.key for value in status.values}) == len(status.values)
    return {value.key: value.value for value in status.values}


def test_a_node_that_is_well_says_so_with_its_figures():
    said = statuses(snapshot())
    assert [status.level for status in said.values()] == [OK, OK, OK]
    assert {status.hardware_id for status in said.values()} == {"cuda:0"}
    assert values(said["input"])["rate (Hz)"] == "30" and values(said["input"])["images held (MiB)"] == "60"
    tracking = values(said["tracking"])
    assert tracking["age median (ms)"] == "40" and tracking["stage backbone (ms)"] == "12.5"
    assert tracking["target ball"] == "TRACKING 0.90"
    assert values(said["node"])["device memory (MiB)"] == "300" and values(said["node"])["last error"] == "none"


@pytest.mark.parametrize(
    ("kind", "level", "words", "change"),
    [
        ("input", STALE, "not active", {"active": False}),
        ("tracking", STALE, "not active", {"active": False}),
        ("node", STALE, "configure and activate", {"active": False}),
        ("node", ERROR, "weights are missing", {"active": False, "status_error": "weights are missing: copy them"}),
        ("node", WARN, "the CPU is used", {"notes": ["the CPU is used"]}),
        ("node", WARN, "uncalibrated", {"position": "the camera is uncalibrated"}),
        ("input", ERROR, "no image for 9 s: nobody", {"silent": 9.0, "silence": "nobody publishes"}),
        (
            "input",
            WARN,
            "nobody publishes",
            {"silent": 9.0, "silence": "nobody publishes", "figures": figures(since_received=None)},
        ),
        ("input", WARN, "waiting for the first image on /camera/image", {"figures": StreamStatistics()}),
        ("input", WARN, "use_sim_time", {"figures": figures(age_median=1e6)}),
        ("input", WARN, "2 publishers", {"publishers": "2 publishers on /image"}),
        (
            "input",
            WARN,
            "3 of 150 images could not be used: odd step",
            {"figures": figures(bad=3, last_bad="odd step")},
        ),
        ("input", ERROR, "150 of 150", {"figures": figures(bad=150, last_bad="odd step")}),
        ("tracking", ERROR, "hangs", {"figures": figures(since_processed=12.0)}),
        ("tracking", ERROR, "failed in 2 of 150", {"figures": figures(failed=2, last_failure="KeyError: 3", bad=1)}),
        ("tracking", OK, "set_enabled", {"enabled": False}),
        ("tracking", OK, "10 of 30 images", {"figures": figures(dropped=100, processed_rate=10.0), "estimates": []}),
        ("tracking", WARN, "3 of 30 images", {"figures": figures(dropped=135, processed_rate=3.0)}),
        ("tracking", WARN, "10 of 30 images", {"figures": figures(dropped=100, processed_rate=10.0, age_p95=0.8)}),
        ("tracking", WARN, "lost: cup", {"estimates": [TargetEstimate("cup", TargetState.LOST)]}),
        ("tracking", OK, "no target", {"estimates": []}),
        ("tracking", OK, "1 target", {}),
    ],
)
def test_problem_sets_the_level_and_names_its_remedy(kind, level, words, change):
    status = statuses(snapshot(**change))[kind]
    assert (status.level, words in status.message) == (level, True), (status.level, status.message)


def test_an_error_of_long_ago_is_remembered_and_raises_no_alarm():
    said = statuses(snapshot(figures=figures(last_error="KeyError: 3", last_failure="KeyError: 3", since_error=99.0)))
    assert [status.level for status in said.values()] == [OK, OK, OK]
    assert values(said["node"])["last error"] == "KeyError: 3"
    assert values(said["node"])["last error (s ago)"] == "99"


def test_unknown_values_are_sent_as_unknown():
    said = statuses(snapshot(figures=StreamStatistics(), device_bytes=None, estimates=[]))
    assert values(said["tracking"])["age median (ms)"] == "unknown"
    assert values(said["node"])["device memory (MiB)"] == "unknown"
    assert values(said["input"])["jitter 95 % (ms)"] == "unknown"


def test_a_target_that_catches_up_is_marked():
    said = statuses(snapshot(estimates=[TargetEstimate("ball", TargetState.LOST)], late=["ball"]))
    assert values(said["tracking"])["target ball"] == "LOST 0.00, catching up"
