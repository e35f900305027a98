# SPDX-License-Identifier: Apache-2.0
"""The visual servo: interaction matrix, inverse near singularities, convergence."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from helpers.simulated_loop import Loop, SimulatedTracker, close_loop, nanoseconds
from hypothesis import given, settings
from hypothesis import strategies as st

from dimp_ros.apps.simulator.config import WorldConfig
from dimp_ros.apps.simulator.metrics import LoopFigures
from dimp_ros.apps.simulator.world import World
from dimp_ros.apps.steering.controller import set_point_of
from dimp_ros.apps.steering.follower_control import camera_of_view
from dimp_ros.apps.steering.safety import STOP_SECONDS, Command, TargetObservation, Twist
from dimp_ros.apps.steering.servo_control import ServoConfig, ServoControl, damped_inverse, features, interaction_matrix
from dimp_ros.geometry.box import Box
from dimp_ros.tracker.result import TargetState

CAMERA = camera_of_view(640, 480, 60.0)
TRACKING = TargetState.TRACKING
SMALL: dict[str, Any] = {"width": 160, "height": 120}
SIDE = math.sqrt(640 * 480)


def seen(box: Box, now: float = 0.0, **changes: Any) -> TargetObservation:
    """Return an observation of a moment ago."""
    observation = TargetObservation("bolt", TRACKING, box, 0.9, stamp=nanoseconds(now), sent=now)
    return replace(observation, **changes)


def moved(box: Box, *, camera: Any = CAMERA, seconds: float = 1.0, **config: Any) -> Command:
    """Return what is commanded after a target has stood somewhere for a while, whatever is commanded."""
    control = ServoControl(ServoConfig(feed_forward=0.0, response_time=0.0, **config), camera)
    control.set_enabled(True)
    command = Command(Twist())
    for tick in range(round(seconds / 0.02)):
        command = control.update(seen(box, tick * 0.02), tick * 0.02)
    return command


def image_of_square(centre: np.ndarray, twist: np.ndarray, seconds: float) -> np.ndarray:
    """Return (x, y, log of size) of a small square parallel to the image, after the camera has moved by a twist."""
    corners = centre + 1e-3 * centre[2] * np.array([[-1, -1, 0], [1, -1, 0], [1, 1, 0], [-1, 1, 0]])
    points = np.vstack([corners, centre])
    points = points + seconds * (-twist[:3] - np.cross(twist[3:], points))
    x, y = (points[:, :2] / points[:, 2:]).T
    area = 0.5 * abs((x[:4] * np.roll(y[:4], -1) - y[:4] * np.roll(x[:4], -1)).sum())
    return np.array([x[4], y[4], 0.5 * math.log(area)])


@settings(deadline=None)
@given(x=st.floats(-0.7, 0.7), y=st.floats(-0.5, 0.5), depth=st.floats(0.2, 5.0), axis=st.integers(0, 5))
def test_interaction_matrix_is_the_derivative_of_the_features(x, y, depth, axis):
    centre, twist, step = np.array([x, y, 1.0]) * depth, np.zeros(6), 1e-5
    twist[axis] = 1.0
    derivative = (image_of_square(centre, twist, step) - image_of_square(centre, twist, -step)) / (2 * step)
    assert derivative == pytest.approx(interaction_matrix(x, y, depth)[:, axis], abs=1e-4)


@pytest.mark.parametrize(
    ("box", "axis", "sign"),
    [
        (Box(400.0, 220.0, 40.0, 40.0), "vx", 1),
        (Box(200.0, 220.0, 40.0, 40.0), "vx", -1),
        (Box(300.0, 320.0, 40.0, 40.0), "vy", 1),
        (Box(300.0, 120.0, 40.0, 40.0), "vy", -1),
    ],
)
def test_the_camera_goes_where_the_target_is_x_right_and_y_down(box, axis, sign):
    twist = moved(box, max_speed=1.0).twist
    assert sign * getattr(twist, axis) > 0.01
    assert sum(map(abs, twist)) == pytest.approx(abs(getattr(twist, axis)))


def test_turning_instead_it_turns_towards_the_target():
    right, below = Box(400.0, 220.0, 40.0, 40.0), Box(300.0, 320.0, 40.0, 40.0)
    assert moved(right, axes="rotation").twist.wy > 0.1 and moved(below, axes="rotation").twist.wx < -0.1
    twist = moved(right, axes="all").twist
    assert twist.vx > 0.0 and twist.wy > 0.0


def test_set_point_size_moves_the_camera_along_its_axis():
    box = Box(300.0, 220.0, 40.0, 40.0)
    assert moved(box).twist == Twist()
    nearer = moved(box, set_point_size=60.0 / SIDE).twist
    assert nearer.vz > 0.01 and nearer.vx == pytest.approx(0.0, abs=1e-9)
    assert moved(box, set_point_size=30.0 / SIDE).twist.vz < -0.01


def test_the_depth_of_a_pose_scales_the_motion():
    box = Box(340.0, 220.0, 40.0, 40.0)
    control = ServoControl(ServoConfig(response_time=0.0, max_speed=5.0, max_acceleration=100.0), CAMERA)
    control.set_enabled(True)
    speeds = []
    for depth in (0.4, 0.8):
        ray = CAMERA.bearing(*box.center)
        position = tuple((ray / ray[2] * depth).tolist())
        for tick in range(10):
            now = len(speeds) + 0.02 * tick
            command = control.update(seen(box, now, position=position), now)
        speeds.append(command.twist.vx)
    assert speeds[1] == pytest.approx(2 * speeds[0], rel=0.01)


def test_limited_speed_keeps_its_direction_and_is_reported():
    command = moved(Box(500.0, 340.0, 40.0, 40.0), max_speed=0.05, seconds=3.0)
    assert math.hypot(*command.twist[:3]) == pytest.approx(0.05)
    wanted = moved(Box(500.0, 340.0, 40.0, 40.0), max_speed=5.0, max_acceleration=100.0, seconds=3.0)
    assert command.twist.vx / command.twist.vy == pytest.approx(wanted.twist.vx / wanted.twist.vy, rel=1e-6)
    assert "saturated" in command.notes[0] and wanted.notes == ()


@pytest.mark.parametrize(
    "lowered",
    [{"max_speed": 0.1}, {"max_turn": 0.02}, {"max_speed": 0.0}, {"max_speed": 0.3, "max_turn": 0.03}],
    ids=str,
)
def test_lowered_limit_of_the_whole_speed_holds_at_once(lowered):
    """However slowly the speed may change; the direction is kept."""
    config = ServoConfig(axes="all", max_speed=5.0, max_turn=5.0, set_point_size=0.3, max_acceleration=100.0)
    control, now, box = ServoControl(config, CAMERA), 0.0, Box(560.0, 40.0, 20.0, 20.0)
    control.set_enabled(True)
    for _ in range(40):
        now += 0.02
        before = np.array(control.update(seen(box, now), now).twist)
    assert np.linalg.norm(before[:3]) > 0.3 and np.linalg.norm(before[3:]) > 0.04
    config = replace(config, max_acceleration=0.01, max_turn_acceleration=0.01, **lowered)
    control.configure(config)
    for index in range(5):
        now += 0.02
        twist = np.array(control.update(seen(box, now), now).twist)
        assert np.linalg.norm(twist[:3]) <= config.max_speed + 1e-9
        assert np.linalg.norm(twist[3:]) <= config.max_turn + 1e-9
        if index == 0 and twist.any():
            assert twist @ before == pytest.approx(np.linalg.norm(twist) * np.linalg.norm(before), rel=1e-4)


def test_motion_near_a_singularity_is_damped_and_reported():
    wide = camera_of_view(640, 480, 120.0)
    x = y = 1.0  # 54.7 degrees off the axis: x² + y² = 2 makes the matrix singular
    far_off = Box.from_center(wide.cx + x * wide.fx, wide.cy + y * wide.fy, 60.0, 60.0)
    command = moved(far_off, camera=wide, axes="rotation", set_point_size=0.1, max_turn=10.0, seconds=3.0)
    assert command.reason == "" and any("singular" in note for note in command.notes)
    assert all(abs(value) <= 10.0 for value in command.twist)
    near = Box.from_center(wide.cx + 0.3 * wide.fx, wide.cy, 60.0, 60.0)
    assert not any("singular" in n for n in moved(near, camera=wide, axes="rotation", set_point_size=0.1).notes)


@settings(deadline=None)
@given(st.lists(st.floats(-3.0, 3.0), min_size=9, max_size=9), st.floats(0.01, 1.0))
def test_damped_inverse_is_bounded_and_exact_elsewhere(entries, threshold):
    matrix = np.array(entries).reshape(3, 3)
    inverse, smallest = damped_inverse(matrix, threshold)
    assert smallest == pytest.approx(np.linalg.svd(matrix, compute_uv=False).min())
    assert np.linalg.norm(inverse, 2) <= 1.0 / threshold + 1e-6
    if smallest >= threshold:
        assert inverse @ matrix == pytest.approx(np.eye(3), abs=1e-6)


def test_a_direction_beside_or_behind_the_camera_has_no_features():
    wide = camera_of_view(640, 480, 170.0)
    assert features(wide, 1.0, 240.0, 40.0) is None
    command = moved(Box(0.0, 220.0, 40.0, 40.0), camera=wide)
    assert command.twist == Twist() and "too far off the optical axis" in command.reason


def test_the_set_point_taken_from_now_is_reached_already():
    box = Box(420.0, 100.0, 60.0, 30.0)
    point = set_point_of(box, CAMERA)
    command = moved(box, set_point_x=point.x, set_point_y=point.y, set_point_size=point.size)
    assert command.twist == Twist() and command.error == pytest.approx((0.0, 0.0, 0.0), abs=1e-9)


WILD = st.floats(allow_nan=True, allow_infinity=True)
NEAR = st.tuples(st.floats(-50, 650), st.floats(-50, 490), st.floats(1, 700), st.floats(1, 500))
OBSERVATIONS = st.builds(
    TargetObservation,
    target_id=st.sampled_from(["bolt", "nut"]),
    state=st.sampled_from([*[TRACKING] * 3, *TargetState]),
    confidence=st.one_of(st.just(0.9), st.just(0.9), WILD),
    box=st.builds(Box._make, st.one_of(NEAR, NEAR, st.tuples(WILD, WILD, WILD, WILD))),
    stamp=st.just(0),
    age=st.one_of(st.just(0.05), st.floats(0.0, 0.4), WILD),
    sent=st.just(0.0),
    position=st.none()
    | st.tuples(st.floats(-1, 1), st.floats(-1, 1), st.floats(0.01, 3))
    | st.tuples(WILD, WILD, WILD),
)
TICKS = st.lists(
    st.tuples(st.none() | OBSERVATIONS, st.sampled_from([0.02, 0.02, 0.02, 0.05, 0.0, 1.0, -1.0, math.nan])),
    max_size=30,
)


@settings(deadline=None)
@given(
    ticks=TICKS,
    axes=st.sampled_from(["translation", "rotation", "all"]),
    size=st.sampled_from([0.0, 0.1]),
    view=st.sampled_from([30.0, 60.0, 120.0, 170.0]),
    gain=st.floats(0.0, 10.0),
)
def test_command_stays_within_limits_whatever_is_observed(ticks, axes, size, view, gain):
    config = ServoConfig(axes=axes, set_point_size=size, gain=gain)
    control = ServoControl(config, camera_of_view(640, 480, view))
    control.set_enabled(True)
    now, before, refused_since = 1000.0, np.zeros(6), None
    for observation, step in ticks:
        now = now + step if math.isfinite(now) else 1000.0
        if observation is not None:
            observation = replace(observation, sent=now, stamp=nanoseconds(now - observation.age))
        command = control.update(observation, now, now)
        twist = np.array(command.twist)
        assert np.isfinite(twist).all()
        assert (
            np.linalg.norm(twist[:3]) <= config.max_speed + 1e-9 and np.linalg.norm(twist[3:]) <= config.max_turn + 1e-9
        )
        if command.reason:
            refused_since = now if refused_since is None or not refused_since <= now else refused_since
            assert (np.abs(twist) <= np.abs(before)).all()
            if now - refused_since >= STOP_SECONDS:
                assert not twist.any()
        else:
            refused_since = None
            if twist.any():
                slew = np.repeat([config.max_acceleration, config.max_turn_acceleration], 3)
                assert (np.abs(twist - before) <= slew * max(step, 0.0) + 1e-9).all()
        before = twist


def served(
    control: ServoControl, config: WorldConfig, tracker: SimulatedTracker, seconds: float, **delays: float
) -> tuple[Loop, LoopFigures]:
    """Close a loop with a tracker that speaks 15 times a second, 0.1 s late."""
    loop = close_loop(World(config), control, tracker.look, seconds, image_period=1 / 15, delay=0.1, **delays)
    return loop, LoopFigures.of(loop.recording)


@pytest.mark.parametrize("axes", ["translation", "rotation", "all"])
def test_target_at_rest_is_brought_within_2_px_and_to_size(axes):
    control = ServoControl(ServoConfig(axes=axes, set_point_size=0.2))
    world = WorldConfig.arm(target_offset=(0.25, 0.2), width=640, height=480)
    loop, figures = served(control, world, SimulatedTracker(0.0), 7.0)
    last = loop.moments[-1]
    assert figures.settling_seconds is not None and figures.settling_seconds < 3.0
    assert figures.final_error_px is not None and figures.final_error_px < 2.0
    assert abs(last.command.error[2]) < 0.05 and last.speed < 0.005


def test_offset_of_the_box_remains_as_offset_of_the_target():
    world = WorldConfig.arm(target_offset=(0.25, 0.2), width=640, height=480)
    off = 0.04
    _, figures = served(ServoControl(), world, SimulatedTracker(0.0, off=(off, 0.0)), 7.0)
    width = 0.08 / 0.5 * CAMERA.fx
    assert figures.final_box_error_px == pytest.approx(off * width, abs=0.1)
    assert figures.final_seen_error_px is not None and figures.final_seen_error_px < 1.0
    assert figures.final_error_px == pytest.approx(off * width, abs=1.0)


@pytest.mark.parametrize("untold", [0.0, 0.1])
def test_fast_target_stays_near_its_set_point(untold):
    control = ServoControl(ServoConfig(max_speed=0.4, max_acceleration=2.0))
    world = WorldConfig.arm(path="sine", target_offset=(0.2, 0.1), **SMALL)
    _, figures = served(control, world, SimulatedTracker(0.007), 12.0, untold=untold)
    assert figures.settling_seconds is not None and figures.settling_seconds < 3.0
    assert figures.within_share is not None and figures.within_share >= 0.95


def test_a_hidden_target_and_a_killed_tracker_stop_it():
    control = ServoControl(ServoConfig(max_speed=0.4, max_acceleration=2.0, timeout=0.3))
    world = WorldConfig.arm(path="sine", hide_from=3.0, hide_until=4.0, hide_by="vanish", **SMALL)
    loop, figures = served(control, world, SimulatedTracker(0.005), 9.0, kill_at=7.0)
    moments = loop.moments
    lost = next(moment.time for moment in moments if moment.time > 1.0 and moment.state == TargetState.LOST)
    found = next(moment.time for moment in moments if moment.time > lost and moment.state == TRACKING)
    assert any(any(moment.command.twist) for moment in moments if lost - 0.5 < moment.time < lost)
    assert not any(any(m.command.twist) for m in moments if lost + STOP_SECONDS < m.time < found)
    assert any(any(m.command.twist) for m in moments if found + 0.5 < m.time < 7.0)
    assert figures.kill_stop_seconds is not None and figures.kill_stop_seconds <= 0.3 + STOP_SECONDS
