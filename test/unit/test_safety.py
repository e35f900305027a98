# SPDX-License-Identifier: Apache-2.0
"""Safety of steering: the conditions for motion."""

from __future__ import annotations

import importlib.util
import math
from dataclasses import replace
from pathlib import Path

import pytest
from helpers.simulated_loop import nanoseconds
from hypothesis import given, settings
from hypothesis import strategies as st

from dimp_ros.apps.steering.follower_control import FollowConfig, camera_of_view
from dimp_ros.apps.steering.safety import (
    PAUSE_SECONDS,
    STOP_SECONDS,
    MotionGate,
    SafetyConfig,
    TargetObservation,
    fits_box,
    refusal,
)
from dimp_ros.apps.steering.servo_control import ServoConfig
from dimp_ros.geometry.box import Box
from dimp_ros.ros_utils.config_dataclass import parameter_rows
from dimp_ros.ros_utils.steady_clock import steady_seconds
from dimp_ros.tracker.result import TargetState

ROOT = Path(__file__).resolve().parents[2]
CAMERA = camera_of_view(640, 480, 60.0)
CONFIG = SafetyConfig(timeout=0.5, min_confidence=0.5)
GOOD = TargetObservation(
    "cup", TargetState.TRACKING, Box(300.0, 220.0, 40.0, 40.0), 0.9, stamp=nanoseconds(99.9), age=0.1, sent=100.0
)
NUMBERS = st.floats(allow_nan=True, allow_infinity=True)


@pytest.mark.parametrize("config", [FollowConfig, ServoConfig])
def test_every_parameter_is_described_and_its_default_is_allowed(config):
    rows = parameter_rows(config)
    assert len({row.name for row in rows}) == len(rows)
    for row in rows:
        assert len(row.text) > 10 and "|" not in row.text and "\n" not in row.text
        assert row.checked(row.default) == row.default
        assert row.range or row.choices or row.kind in (str, bool)


@pytest.mark.parametrize("name", ["follower.md", "servo.md"])
def test_documented_parameter_table_matches_the_code(name):
    spec = importlib.util.spec_from_file_location("update_docs", ROOT / "tools" / "update_docs.py")
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    path = ROOT / "docs" / name
    text = path.read_text(encoding="utf-8")
    assert tool.updated(text, tool.tables()[path]) == text, "run: tools/env python tools/update_docs.py"


def test_configuration_out_of_range_is_refused_with_range():
    with pytest.raises(ValueError, match=r"stop_seconds is 1.0.*0 \.\. 0\.2"):
        SafetyConfig(stop_seconds=1.0)
    with pytest.raises(ValueError, match=r"horizontal is .sideways..*yaw, lateral, none"):
        FollowConfig(horizontal="sideways")


def test_slowest_rate_and_longest_ramp_stop_within_250_ms():
    rows = {row.name: row for row in parameter_rows(SafetyConfig)}
    assert rows["stop_seconds"].range[1] + 1.0 / rows["rate"].range[0] <= STOP_SECONDS + 1e-9


def test_confident_fresh_observation_passes():
    assert refusal(GOOD, CAMERA, CONFIG, 100.2, 100.1) == ""
    assert refusal(GOOD, CAMERA, CONFIG, 100.2) == ""


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"state": TargetState.UNINITIALIZED}, "UNINITIALIZED"),
        ({"state": TargetState.UNCERTAIN}, "UNCERTAIN"),
        ({"state": TargetState.LOST}, "LOST"),
        ({"confidence": 0.49}, "confidence"),
        ({"confidence": math.nan}, "confidence"),
        ({"confidence": 1.5}, "confidence"),
        ({"sent": 99.4}, "was sent 0.7 s ago"),
        ({"sent": 101.0}, "was sent -0.9 s ago"),
        ({"sent": math.nan}, "clocks disagree"),
        ({"age": 0.45}, "old by the tracker"),
        ({"age": -0.5}, "clocks disagree"),
        ({"age": math.nan}, "old by the tracker"),
        ({"stamp": 0}, "clocks disagree"),
        ({"stamp": nanoseconds(99.0)}, "old by the clock here"),
        ({"stamp": nanoseconds(100.5)}, "clocks disagree"),
        ({"box": None}, "no box"),
        ({"box": Box(0.0, 0.0, 0.0, 0.0)}, "no box"),
        ({"box": Box(math.nan, 0.0, 10.0, 10.0)}, "no box"),
        ({"box": Box(0.0, 0.0, math.inf, 10.0)}, "no box"),
        ({"box": Box(1000.0, 200.0, 40.0, 40.0)}, "not in the 640 x 480 image"),
        ({"box": Box(-500.0, 200.0, 40.0, 40.0)}, "not in the 640 x 480 image"),
    ],
)
def test_other_observations_are_refused(change, words):
    assert words in refusal(replace(GOOD, **change), CAMERA, CONFIG, 100.1, 100.1)


def test_nothing_moves_without_camera_or_the_named_target():
    assert refusal(None, CAMERA, CONFIG, 100.1) != ""
    assert "camera_info" in refusal(GOOD, None, CONFIG, 100.1)
    assert "'plate'" in refusal(GOOD, CAMERA, SafetyConfig(target_id="plate"), 100.1)
    assert refusal(GOOD, CAMERA, SafetyConfig(target_id="cup"), 100.1) == ""


@settings(deadline=None)
@given(now=NUMBERS, clock=st.none() | NUMBERS)
def test_no_clock_jump_makes_an_old_observation_new(now, clock):
    silence = now - GOOD.sent
    if refusal(GOOD, CAMERA, CONFIG, now, clock) == "":
        assert 0.0 <= silence <= CONFIG.timeout and silence + GOOD.age <= CONFIG.timeout


def gate_says(gate: MotionGate, observation: TargetObservation | None, now: float, clock: float | None = None) -> str:
    """Return the gate's refusal at a tick."""
    gate.tick(now, clock)
    return gate.refusal(observation, CAMERA, CONFIG, now)


def ticks(start: float, seconds: float) -> list[float]:
    """Return the times of ticks."""
    return [start + index * 0.02 for index in range(round(seconds / 0.02))]


def state(stamp: float, sent: float) -> TargetObservation:
    """Return a good observation of an image, and of when it was sent."""
    return replace(GOOD, stamp=nanoseconds(stamp), sent=sent, age=0.0)


def test_image_reported_again_does_not_become_newer():
    gate = MotionGate()
    allowed = [now for now in ticks(10.0, 3.0) if not gate_says(gate, state(10.0, now), now)]
    assert allowed[0] == 10.0 and allowed[-1] <= 10.0 + CONFIG.timeout


@pytest.mark.parametrize("stamps", [(9.9, 10.0), (10.0, 9.9), (9.8, 9.9, 10.0), (10.0, 9.0, 9.5)])
def test_old_images_repeated_in_turn_move_nothing(stamps):
    gate = MotionGate()
    allowed = [
        now
        for index, now in enumerate(ticks(10.0, 3.0))
        if not gate_says(gate, state(stamps[index % len(stamps)], now), now)
    ]
    assert not allowed or allowed[-1] <= 10.0 + len(stamps) * 0.02 + CONFIG.timeout


def test_stamps_that_went_back_are_followed_after_enabling_again():
    gate = MotionGate()
    assert gate_says(gate, state(50.0, 10.0), 10.0) == ""
    assert "went back by 49 s" in gate_says(gate, state(1.0, 10.02), 10.02)
    assert "disable, and enable again" in gate_says(gate, state(1.1, 10.04), 10.04)
    gate.restart()
    assert gate_says(gate, state(1.2, 10.06), 10.06) == ""


@pytest.mark.parametrize("before", [0.0, 3.0], ids=["new", "old"])
@pytest.mark.parametrize("rate", [None, 0.0, 0.04, 1.0], ids=["no clock", "standing", "crawling", "advancing"])
def test_enabling_makes_no_image_new(rate, before):
    gate, allowed = MotionGate(), []
    for index, now in enumerate(ticks(10.0, 4.0)):
        if now - 10.0 >= before and index % 20 == 0:
            gate.restart()
        clock = None if rate is None else 50.0 + rate * (now - 10.0)
        if gate_says(gate, state(50.0, now), now, clock) == "":
            allowed.append(now)
    assert all(now <= 10.0 + CONFIG.timeout for now in allowed)
    assert rate == 0.04 or allowed, "it is new at first"


def test_enabling_makes_no_standing_clock_run():
    gate, allowed = MotionGate(), []
    for index, now in enumerate(ticks(10.0, 4.0)):
        clock = min(now, 11.0)
        if now > 11.0 and index % 20 == 0:
            gate.restart()
        if gate_says(gate, state(11.0 + 1e-3 * index, now), now, clock) == "":
            allowed.append(now)
    assert allowed and allowed[-1] <= 11.0 + CONFIG.timeout


def test_a_clock_that_was_reset_is_followed_from_the_first_image_after_enabling():
    gate = MotionGate()
    for now in ticks(10.0, 1.0):
        assert gate_says(gate, state(now, now), now, now) == ""
    gate.tick(11.0, 0.5)
    gate.restart()
    assert gate_says(gate, state(0.52, 11.02), 11.02, 0.52) == ""


def test_stamp_in_the_future_does_not_shut_out_later_images():
    gate = MotionGate()
    assert "clocks disagree" in gate_says(gate, state(1e9, 10.0), 10.0, 10.0)
    assert gate_says(gate, state(10.02, 10.02), 10.02, 10.02) == ""


def test_standing_ros_time_stops_whatever_is_sent():
    gate = MotionGate()
    allowed = [
        now
        for index, now in enumerate(ticks(10.0, 3.0))
        if not gate_says(gate, state(5.0 + index * 1e-9, now), now, 5.0)
    ]
    assert allowed and allowed[-1] <= 10.0 + CONFIG.timeout
    gate.tick(13.0, 5.0)
    assert "ROS time advanced by 0 s in the last 0.5 s" in gate.refusal(state(5.1, 13.0), CAMERA, CONFIG, 13.0)
    assert gate_says(gate, state(5.1, 13.02), 13.02, 5.1) == ""


CLOCKS = {
    "stands": lambda index: 5.0,
    "crawls": lambda index: 5.0 + index * 1e-6,
    "advances at 0.5 %": lambda index: 5.0 + index * 0.0001,
    "advances at 4 %": lambda index: 5.0 + index * 0.0008,
    "advances at 4 % in steps": lambda index: 5.0 + index // 10 * 0.008,
    "swings": lambda index: 5.0 + 0.05 * (index % 2),
    "swings slowly": lambda index: 5.0 + 0.1 * math.sin(index / 20),
    "swings far": lambda index: 5.0 + 100.0 * (index % 3),
    "goes back": lambda index: 5.0 - index * 0.02,
}


@pytest.mark.parametrize("kind", CLOCKS)
def test_ros_time_that_does_not_advance_stops_new_images_too(kind):
    gate = MotionGate()
    allowed, newest = [], -math.inf
    for index, now in enumerate(ticks(10.0, 5.0)):
        clock = CLOCKS[kind](index)
        newest = max(newest + 1e-6, clock - 0.1)
        if not gate_says(gate, state(newest, now), now, clock):
            allowed.append(now)
    assert allowed and allowed[-1] <= 10.0 + 0.7 + CONFIG.timeout  # the slow swing rises for 0.63 s


@pytest.mark.parametrize("swing", [2.5, 1000.0])
@pytest.mark.parametrize("every", [2, 10, 20, 1000])
def test_ros_time_behind_its_highest_value_stops_though_both_advance(swing, every):
    """As of two publishers of /clock; the images fit the time of the one that is behind."""
    gate = MotionGate()
    for index, now in enumerate(ticks(10.0, 2.0)):
        clock = now + swing * (index % every == 1)
        said = gate_says(gate, state(now - 0.03, now), now, clock)
        if index == 0:
            assert said == ""
        elif clock < 10.0 + swing:
            assert "ROS time went back" in said


@pytest.mark.parametrize("rate", [0.1, 1.0, 5.0])
def test_slow_and_quick_simulated_time_moves(rate):
    gate = MotionGate()
    for now in ticks(10.0, 5.0):
        clock = 5.0 + math.floor((now - 10.0) * 10.0) / 10.0 * rate  # /clock comes ten times a second
        assert gate_says(gate, state(clock, now - now % 0.1), now, clock) == ""


def test_backward_ros_time_is_followed_after_re_enabling():
    gate = MotionGate()
    assert gate_says(gate, state(50.0, 10.0), 10.0, 50.0) == ""
    for now in ticks(10.02, 0.6):
        gate.tick(now, now - 10.0)
    assert "ROS time went back by 49" in gate_says(gate, state(0.62, 10.62), 10.62, 0.62)
    gate.restart()
    assert gate_says(gate, state(0.64, 10.64), 10.64, 0.64) == ""


@pytest.mark.parametrize("pause", [PAUSE_SECONDS + 0.01, 60.0, 86400.0])
def test_messages_sent_before_a_pause_of_the_process_are_ignored(pause):
    gate = MotionGate()
    for now in ticks(10.0, 0.5):
        assert gate_says(gate, state(now, now), now) == ""
    woken = 10.48 + pause
    assert "paused" in gate_says(gate, state(10.6, woken - 0.01), woken)
    assert gate_says(gate, state(10.7, woken + 0.01), woken + 0.02) == ""


@settings(deadline=None)
@given(
    steps=st.lists(
        st.tuples(
            st.sampled_from([0.02, 0.02, 0.02, 0.05, 0.3, 5.0]),
            st.sampled_from([0.0, 0.02, -0.02, -1.0, 1e-9]),  # of ROS time
            st.sampled_from([0.0, 0.01, 0.03, 0.4, 3.0]),  # how old the image is by ROS time
            st.sampled_from([0.0, 0.05, 0.4, 60.0]),  # how long ago the message was sent
        ),
        max_size=60,
    )
)
def test_gate_is_open_only_for_a_timeout_after_a_new_image(steps):
    gate, now, clock, newest, newest_at = MotionGate(), 10.0, 100.0, -math.inf, -math.inf
    for step, clock_step, age, late in steps:
        now, clock = now + step, clock + clock_step
        stamp = clock - age
        if stamp > newest:
            newest, newest_at = stamp, now
        if gate_says(gate, state(stamp, now - late), now, clock) == "":
            assert now - newest_at <= CONFIG.timeout and stamp == newest and late <= CONFIG.timeout


def test_steady_clock_counts_suspended_time():
    import time

    clock = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
    before = time.clock_gettime(clock)
    assert before <= steady_seconds() <= time.clock_gettime(clock)


def test_a_position_counts_only_where_it_lies_behind_the_box():
    assert fits_box(replace(GOOD, position=(0.0, 0.0, 3.0)), CAMERA)
    for position in (None, (2.0, 0.0, 3.0), (0.0, 0.0, -3.0), (0.0, 0.0, 0.0), (0.0, math.nan, 3.0), (0, 0, math.inf)):
        assert not fits_box(replace(GOOD, position=position), CAMERA)
