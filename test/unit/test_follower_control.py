# SPDX-License-Identifier: Apache-2.0
"""The follower's control law: direction, stops, and accuracy in a simulated world."""

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
from dimp_ros.apps.steering.follower_control import FollowConfig, FollowControl, camera_of_view, direction
from dimp_ros.apps.steering.safety import STOP_SECONDS, Command, TargetObservation, Twist
from dimp_ros.geometry.box import Box
from dimp_ros.tracker.result import TargetState

CAMERA = camera_of_view(640, 480, 60.0)
MIDDLE = Box(280.0, 200.0, 80.0, 80.0)
TRACKING = TargetState.TRACKING
BEFORE = vars(FollowConfig())
SMALL: dict[str, Any] = {"width": 160, "height": 120}
"""A world that is made quickly; nobody looks at its images."""


def seen(box: Box = MIDDLE, now: float = 0.0, **changes: Any) -> TargetObservation:
    """Return an observation of a moment ago."""
    observation = TargetObservation("cup", TRACKING, box, 0.9, stamp=nanoseconds(now), sent=now)
    return replace(observation, **changes)


def moved(box: Box, *, seconds: float = 0.5, before: Box | None = None, **config: Any) -> Command:
    """Return what is commanded after a target has stood somewhere for a while; ``before``: at the enabling."""
    control = FollowControl(FollowConfig(feed_forward=0.0, forward_feed_forward=0.0, **config), CAMERA)
    control.set_enabled(True)
    command = control.update(seen(before or box), 0.0)
    for tick in range(1, round(seconds / 0.02)):
        command = control.update(seen(box, tick * 0.02), tick * 0.02)
    assert command.reason == ""
    return command


def shifted(right: float, down: float) -> Box:
    """Return the box in the middle, moved by pixels."""
    return MIDDLE._replace(x=MIDDLE.x + right, y=MIDDLE.y + down)


def grown(factor: float) -> Box:
    """Return the box in the middle, with other sides."""
    return Box.from_center(*MIDDLE.center, MIDDLE.w * factor, MIDDLE.h * factor)


def test_a_target_at_its_set_point_moves_nothing():
    assert moved(MIDDLE, vertical="climb").twist == (0.0,) * 6


def test_target_on_the_left_is_turned_to_counter_clockwise():
    left, right = moved(shifted(-150, 0)).twist, moved(shifted(150, 0)).twist
    assert left.wz > 0.2 and right.wz == pytest.approx(-left.wz)
    assert left.vy == left.vz == left.wx == left.wy == 0.0


def test_lateral_mode_moves_sideways_left_positive():
    left = moved(shifted(-150, 0), horizontal="lateral").twist
    assert left.vy > 0.2 and left.wz == 0.0
    assert moved(shifted(-150, 0), horizontal="none").twist == (0.0,) * 6


def test_climb_mode_follows_up_and_down():
    assert moved(shifted(0, -100), vertical="climb").twist.vz > 0.1
    assert moved(shifted(0, 100), vertical="climb").twist.vz < -0.1
    assert moved(shifted(0, 100)).twist.vz == 0.0


def test_pitch_mode_turns_the_camera_up_and_down():
    """REP 103: a positive rate about y, which points left, turns the camera down."""
    assert moved(shifted(0, -100), vertical="pitch").twist.wy < -0.1
    assert moved(shifted(0, 100), vertical="pitch").twist.wy > 0.1
    assert moved(shifted(0, 100), vertical="pitch").twist.vz == 0.0


def test_camera_that_pitches_settles_on_a_target_above():
    control = FollowControl(FollowConfig(vertical="pitch", forward="none"), CAMERA)
    control.set_enabled(True)
    pitch, rate, target, lag, step = 0.0, 0.0, 0.25, 0.2, 0.02  # up, rad
    for tick in range(200):
        elevation = target - pitch
        box = Box.from_center(320.0, 240.0 - CAMERA.fy * math.tan(elevation), 60.0, 60.0)
        wanted = -control.update(seen(box, tick * step), tick * step).twist.wy
        rate += (wanted - rate) * (1.0 - math.exp(-step / lag))
        pitch += rate * step
    assert pitch == pytest.approx(target, abs=0.02) and abs(rate) < 0.01


def test_smaller_target_is_approached_and_larger_one_left():
    assert moved(grown(0.6), before=MIDDLE).twist.vx > 0.2
    assert moved(grown(1.6), before=MIDDLE).twist.vx < -0.2
    assert moved(grown(0.6), before=MIDDLE, forward="none").twist.vx == 0.0


def test_noise_of_the_size_hardly_moves_the_robot():
    """A tracker's sizes differ by some per cent from image to image; a target that stands still is hardly driven to."""
    rng = np.random.default_rng(3)
    sizes = np.exp(rng.normal(0, 0.03, 300))
    restless = {}
    for seconds in (FollowConfig().rate_time, FollowConfig().forward_rate_time):
        control = FollowControl(
            FollowConfig(desired_size=80.0 / math.sqrt(640 * 480), forward_rate_time=seconds), CAMERA
        )
        control.set_enabled(True)
        speeds = [control.update(seen(grown(f), n / 30), n / 30).twist.vx for n, f in enumerate(sizes)]
        restless[seconds] = float(np.std(speeds[30:]))
    short, long = restless
    assert short < long and restless[long] < 0.6 * restless[short]


def test_desired_size_overrides_the_size_at_enabling():
    size = 80.0 / math.sqrt(640 * 480)
    assert moved(MIDDLE, desired_size=size).twist.vx == 0.0
    assert moved(MIDDLE, desired_size=1.5 * size).twist.vx > 0.2


def test_new_target_keeps_its_own_size_and_a_found_one_the_old():
    control = FollowControl(FollowConfig(forward_feed_forward=0.0, forward_smoothing=0.0), CAMERA)
    control.set_enabled(True)
    speeds = []
    for name, start, box, state in (
        ("cup", 1, MIDDLE, TRACKING),
        ("cup", 1, grown(0.6), TargetState.LOST),
        ("cup", 1, grown(0.6), TRACKING),
        ("plate", 2, grown(0.6), TRACKING),
    ):
        for tick in range(20):
            now = len(speeds) * 0.4 + tick * 0.02
            command = control.update(seen(box, now, target_id=name, start=start, state=state), now)
        speeds.append(command.twist.vx)
    assert speeds[:2] == [0.0, 0.0] and speeds[2] > 0.2
    assert speeds[3] == pytest.approx(0.0, abs=1e-9)


@pytest.mark.parametrize("away", [0.0, 0.1, 0.3])
@pytest.mark.parametrize("box", [grown(0.2), grown(0.6), grown(2.0)._replace(x=160.0, y=40.0)], ids=str)
def test_redrawn_target_keeps_its_size_and_its_jump_is_no_motion(box, away):
    """Without gains a command comes from the target's own motion alone, but for the distance."""
    control = FollowControl(FollowConfig(vertical="climb", horizontal_gain=0.0, vertical_gain=0.0), CAMERA)
    control.set_enabled(True)
    for tick in range(100):
        now, redrawn = tick * 0.02, tick * 0.02 >= 1.0
        state = TargetState.LOST if redrawn and now < 1.0 + away else TRACKING
        observation = seen(box if redrawn else MIDDLE, now, start=1 + redrawn, state=state)
        assert control.update(observation, now).twist == pytest.approx((0.0,) * 6, abs=1e-9)


def test_the_distance_of_a_pose_comes_before_the_size():
    control = FollowControl(FollowConfig(distance=2.0, forward_feed_forward=0.0), CAMERA)
    control.set_enabled(True)
    for tick in range(30):
        observation = seen(now=tick * 0.02, position=(0.0, 0.0, 4.0))
        command = control.update(observation, tick * 0.02)
    assert command.twist.vx > 0.2 and command.error[2] == pytest.approx(math.log(2.0), abs=0.3)


def at_distance(metres: float, now: float, *, pose: bool, start: int = 1) -> TargetObservation:
    """Return the observation of a target of 0.4 m straight ahead."""
    side = 0.4 * CAMERA.fx / metres
    place = (0.0, 0.0, metres) if pose else None
    return seen(Box.from_center(320.0, 240.0, side, side), now, position=place, start=start)


@pytest.mark.parametrize("enabled_at", [1.0, 3.0, 6.0])
def test_where_poses_end_their_distance_is_kept_by_the_size(enabled_at):
    control = FollowControl(FollowConfig(distance=3.0, forward_feed_forward=0.0, desired_size=0.0), CAMERA)
    control.set_enabled(True)
    for tick in range(400):
        now, pose = tick * 0.02, tick < 100
        distance = enabled_at + (3.0 - enabled_at) * min(tick / 50.0, 1.0)
        command = control.update(at_distance(distance, now, pose=pose), now)
        assert tick < 250 or abs(command.twist.vx) < 0.01
    for tick in range(400, 500):
        command = control.update(at_distance(4.0, tick * 0.02, pose=False), tick * 0.02)
    assert command.twist.vx > 0.2 and command.error[2] == pytest.approx(math.log(4.0 / 3.0), abs=0.02)
    control.configure(replace(control.config, distance=4.0))
    for tick in range(500, 600):
        command = control.update(at_distance(4.0, tick * 0.02, pose=False), tick * 0.02)
    assert abs(command.twist.vx) < 0.01


@pytest.mark.parametrize("anew", ["enabled", "redrawn", "desired_size", "size only"])
def test_the_distance_of_poses_is_that_of_their_target_while_enabled(anew):
    control = FollowControl(FollowConfig(distance=3.0, forward_feed_forward=0.0), CAMERA)
    control.set_enabled(True)
    for tick in range(50):
        control.update(at_distance(3.0, tick * 0.02, pose=True), tick * 0.02)
    if anew == "enabled":
        control.set_enabled(True)
    if anew in ("desired_size", "size only"):
        wanted = {"forward": "size"} if anew == "size only" else {}
        size = 0.4 * CAMERA.fx / 2.0 / math.sqrt(640 * 480)
        control.configure(replace(control.config, desired_size=size, **wanted))
    start = 2 if anew == "redrawn" else 1
    for tick in range(100, 300):
        command = control.update(at_distance(2.0, tick * 0.02, pose=False, start=start), tick * 0.02)
    assert abs(command.twist.vx) < 0.01


@pytest.mark.parametrize("wrong", [1.0, 9.0])
@pytest.mark.parametrize(("good", "most"), [(0, 0.0), (50, 0.1)], ids=["first", "later"])
def test_a_single_wrong_pose_is_not_the_distance_that_is_kept(wrong, good, most):
    control = FollowControl(FollowConfig(distance=3.0, forward_feed_forward=0.0), CAMERA)
    control.set_enabled(True)
    for tick in range(good + 200):
        observation = at_distance(3.0, tick * 0.02, pose=tick < good)
        if tick == good:
            observation = replace(observation, position=(0.0, 0.0, wrong))
        command = control.update(observation, tick * 0.02)
    assert abs(command.error[2]) <= most + 0.02


@pytest.mark.parametrize("pose_ends", [False, True])
@pytest.mark.parametrize("distance", [1.0, 6.0])
def test_poses_scale_the_way_sideways_where_the_distance_is_not_kept(distance, pose_ends):
    speeds = []
    for poses in (True, False):
        limits = {"max_lateral_speed": 9.0, "max_acceleration": 50.0, "feed_forward": 0.0}
        control = FollowControl(FollowConfig(horizontal="lateral", forward="none", distance=3.0, **limits), CAMERA)
        control.set_enabled(True)
        for tick in range(60):
            x = distance if poses and not (pose_ends and tick > 20) else None
            place = (0.1 * distance, 0.0, x) if x is not None else None
            box = Box.from_center(320.0 + 0.1 * CAMERA.fx, 240.0, 60.0, 60.0)
            command = control.update(seen(box, tick * 0.02, position=place), tick * 0.02)
        assert command.twist.vx == 0.0 and command.error[2] == 0.0
        speeds.append(command.twist.vy)
    assert speeds[0] / speeds[1] == pytest.approx(distance / 3.0, rel=0.3)


@pytest.mark.parametrize("zoom", [0.5, 2.0])
def test_another_focal_length_is_no_other_distance(zoom):
    control = FollowControl(FollowConfig(forward_feed_forward=0.0), CAMERA)
    control.set_enabled(True)
    for tick in range(200):
        factor = 1.0 if tick < 50 else zoom
        control.camera = replace(CAMERA, fx=CAMERA.fx * factor, fy=CAMERA.fy * factor)
        command = control.update(seen(grown(factor), tick * 0.02), tick * 0.02)
    assert command.reason == "" and abs(command.twist.vx) < 0.01


CHANGES: dict[str, Any] = {
    "camera_pitch": 60.0,
    "distance": 0.3,
    "desired_size": 0.5,
    "set_point_x": 0.8,
    "set_point_y": 0.1,
    "forward": "size",
    "response_time": 1.0,
    "rate_time": 1.0,
    "forward_rate_time": 0.02,
    "timeout": 0.2,
}


@pytest.mark.parametrize("name", CHANGES)
@pytest.mark.parametrize("place", [(0.0, 0.0, 3.0), None], ids=["pose", "size"])
def test_changed_parameter_is_not_taken_for_motion(name, place):
    """Without gains a command comes from the target's own motion alone, and the target stands still."""
    gains = dict.fromkeys(("horizontal_gain", "vertical_gain", "forward_gain"), 0.0)
    control = FollowControl(FollowConfig(vertical="climb", angle_dead_band=0.0, **gains), CAMERA)
    control.set_enabled(True)
    for tick in range(150):
        now = tick * 0.02
        if tick in (50, 100):
            control.configure(
                replace(control.config, **({name: CHANGES[name]} if tick == 50 else {name: BEFORE[name]}))
            )
        command = control.update(seen(now=now, position=place), now)
        assert command.reason == "" and command.twist == pytest.approx((0.0,) * 6, abs=1e-9)


def test_without_the_required_pose_the_distance_is_not_kept():
    command = moved(grown(0.6), before=MIDDLE, forward="pose")
    assert command.twist.vx == 0.0 and "no target_pose" in command.notes[0]


def test_box_cut_off_by_the_border_is_not_approached():
    at_border = Box(0.0, 200.0, 30.0, 80.0)
    before = at_border._replace(w=90.0)
    assert moved(at_border, before=before, seconds=1.0).twist.vx <= 0.0
    assert "border" in " ".join(moved(at_border, before=before, seconds=1.0).notes)
    large = Box(0.0, 100.0, 300.0, 300.0)
    assert moved(large, before=grown(1.0), seconds=1.0).twist.vx < 0.0


def test_with_the_target_far_off_the_middle_it_turns_first():
    quick = {"max_forward_speed": 10.0, "max_acceleration": 100.0, "distance": 2.0}
    aside, away = Box(560.0, 200.0, 48.0, 48.0), Box(560.0, 200.0, 80.0, 80.0)
    assert 0.0 < moved(aside, before=away, **quick).twist.vx < 0.6 * moved(grown(0.6), before=MIDDLE, **quick).twist.vx


def test_a_set_point_beside_the_middle_is_kept():
    assert moved(shifted(-160, 0), set_point_x=0.25).twist.wz == pytest.approx(0.0, abs=1e-9)
    assert moved(MIDDLE, set_point_x=0.25).twist.wz < -0.2


def test_directions_are_in_the_body_frame_for_any_tilt():
    assert direction(CAMERA, 320.0, 240.0, 0.0) == pytest.approx((0.0, 0.0))
    assert direction(CAMERA, 320.0, 240.0, 30.0) == pytest.approx((0.0, -math.radians(30.0)))
    assert direction(CAMERA, 0.0, 240.0, 0.0) == pytest.approx((math.radians(30.0), 0.0))
    # A camera that looks down sees the horizon at its upper edge where the field of view reaches it.
    azimuth, elevation = direction(CAMERA, 320.0, 240.0 - CAMERA.fy * math.tan(math.radians(20.0)), 20.0)
    assert (azimuth, elevation) == pytest.approx((0.0, 0.0), abs=1e-9)


WIDE = camera_of_view(640, 480, 90.0)
"""Tilted 60 degrees down, it sees 97 degrees below the body's x axis."""


def below(right: float, *, set_point_y: float, **config: Any) -> Command:
    """Return what is commanded for a target ``right`` pixels beside the set point of a camera that is tilted."""
    settings = {"feed_forward": 0.0, "forward_feed_forward": 0.0, "camera_pitch": 60.0, "set_point_y": set_point_y}
    control = FollowControl(FollowConfig(**{**settings, **config}), WIDE)
    control.set_enabled(True)
    for tick in range(25):
        box = Box.from_center(320.0 + right, 480.0 * set_point_y, 12.0, 12.0)
        command = control.update(seen(box, tick * 0.02), tick * 0.02)
    assert command.reason == ""
    return command


@pytest.mark.parametrize(
    "set_point_y", [0.3, 0.75, 0.95, 0.98], ids=["ahead", "84 degrees", "94 degrees", "95 degrees"]
)
def test_a_target_beside_a_set_point_is_turned_to_the_shorter_way(set_point_y):
    left, right = (below(side, set_point_y=set_point_y) for side in (-4.0, 4.0))
    assert left.error[0] == pytest.approx(-right.error[0]) and abs(left.error[0]) < 0.3
    assert left.twist.wz == pytest.approx(-right.twist.wz) and abs(left.twist.wz) < 0.5
    # Behind the vertical, the left of the image is where a turn to the right brings the middle.
    assert math.copysign(1.0, left.twist.wz) == (1.0 if set_point_y < 0.8 else -1.0)


@pytest.mark.parametrize("wobble", [2.0, 10.0])
def test_noise_straight_below_turns_nothing(wobble):
    y = (0.5 + math.tan(math.radians(30.0)) * WIDE.fy / 480.0) + 1e-4
    for side in (-wobble, wobble):
        command = below(side, set_point_y=y)
        assert abs(command.twist.wz) < 0.1 and "near the vertical" in command.notes[0]
        assert abs(below(side, set_point_y=y, horizontal="lateral").twist.vy) < 0.1


@pytest.mark.parametrize("size", [0.005, 0.5], ids=["too large", "too small"])
def test_over_a_target_straight_below_nothing_goes_forward(size):
    control = FollowControl(FollowConfig(camera_pitch=60.0, forward="size", desired_size=size), WIDE)
    control.set_enabled(True)
    y = 240.0 + math.tan(math.radians(29.9)) * WIDE.fy
    for tick in range(50):
        command = control.update(seen(Box.from_center(320.0, y, 12.0, 12.0), tick * 0.02), tick * 0.02)
    assert command.reason == "" and abs(command.twist.vx) < 0.02


def test_with_a_set_point_behind_the_distance_and_the_way_sideways_are_not_kept():
    for side in (-30.0, 30.0):
        twist = below(side, set_point_y=0.98, horizontal="lateral", desired_size=0.5).twist
        assert twist.vx == twist.vy == 0.0
    assert below(0.0, set_point_y=0.3, desired_size=0.5).twist.vx > 0.1


def test_nothing_moves_unless_enabled_and_disabling_stops():
    control = FollowControl(FollowConfig(), CAMERA)
    aside = shifted(200, 0)
    assert control.update(seen(aside), 0.0) == Command(Twist(), "not enabled")
    control.set_enabled(True)
    for tick in range(50):
        command = control.update(seen(aside, tick * 0.02), tick * 0.02)
    assert command.twist.wz < -0.3
    control.set_enabled(False)
    for tick in range(50, 70):
        command = control.update(seen(aside, tick * 0.02), tick * 0.02)
        if (tick - 49) * 0.02 >= STOP_SECONDS:
            assert command == Command(Twist(), "not enabled")


WILD = st.floats(allow_nan=True, allow_infinity=True)
SANE_BOX = st.tuples(st.floats(-50, 650), st.floats(-50, 490), st.floats(1, 700), st.floats(1, 500))
OBSERVATIONS = st.builds(
    TargetObservation,
    target_id=st.sampled_from(["cup", "plate"]),
    state=st.sampled_from([*[TRACKING] * 3, *TargetState]),
    confidence=st.one_of(st.just(0.9), WILD),
    box=st.builds(Box._make, st.one_of(SANE_BOX, SANE_BOX, st.tuples(WILD, WILD, WILD, WILD))),
    stamp=st.just(0),
    age=st.one_of(st.just(0.05), st.floats(0.0, 0.4), WILD),
    sent=st.just(0.0),
    position=st.none()
    | st.tuples(st.floats(-5, 5), st.floats(-5, 5), st.floats(0.1, 20))
    | st.tuples(WILD, WILD, WILD),
)
TICKS = st.lists(
    st.tuples(st.none() | OBSERVATIONS, st.sampled_from([0.02, 0.02, 0.02, 0.05, 0.0, 1.0, -1.0, math.nan])),
    max_size=30,
)


@settings(deadline=None)
@given(
    ticks=TICKS,
    horizontal=st.sampled_from(["yaw", "lateral"]),
    vertical=st.sampled_from(["climb", "pitch", "none"]),
    gain=st.floats(0.0, 10.0),
    lag=st.floats(0.0, 2.0),
)
def test_command_stays_within_limits_whatever_is_observed(ticks, horizontal, vertical, gain, lag):
    config = FollowConfig(
        horizontal=horizontal, vertical=vertical, horizontal_gain=gain, forward_gain=gain, response_time=lag
    )
    high = np.array([config.max_forward_speed, config.max_lateral_speed, config.max_vertical_speed, 0.0, 1.0, 1.0])
    low = np.array([-config.max_backward_speed, *(-high[1:])])
    slew = np.array([config.max_acceleration] * 3 + [config.max_yaw_acceleration] * 3)
    control = FollowControl(config, CAMERA)
    control.set_enabled(True)
    now, before, refused_since = 1000.0, np.zeros(6), None
    for observation, step in ticks:
        now = now + step if math.isfinite(now) else 1000.0
        if observation is not None:
            observation = replace(observation, sent=now, stamp=nanoseconds(now - observation.age))
        command = control.update(observation, now, now)
        twist = np.array(command.twist)
        assert np.isfinite(twist).all() and (low <= twist).all() and (twist <= high).all()
        if command.reason:
            refused_since = now if refused_since is None or not refused_since <= now else refused_since
            assert (np.abs(twist) <= np.abs(before)).all()
            if now - refused_since >= STOP_SECONDS:
                assert not twist.any()
        else:
            refused_since = None
            if twist.any():
                assert (np.abs(twist - before) <= slew * max(step, 0.0) + 1e-9).all()
        before = twist


def followed(
    control: FollowControl, config: WorldConfig, tracker: SimulatedTracker, seconds: float, **delays: float
) -> tuple[Loop, LoopFigures]:
    """Close a loop with a tracker that speaks 15 times a second, 0.1 s late."""
    loop = close_loop(World(config), control, tracker.look, seconds, image_period=1 / 15, delay=0.1, **delays)
    return loop, LoopFigures.of(loop.recording)


@pytest.mark.parametrize(
    ("path", "untold"), [("sine", 0.0), ("sine", 0.1), ("random", 0.1)], ids=["sine", "sine-late", "random-late"]
)
def test_fast_target_stays_near_its_set_point(path, untold):
    control = FollowControl(FollowConfig(vertical="climb", distance=6.0))
    world = WorldConfig(path=path, target_offset=(0.3, -0.2), **SMALL)
    loop, figures = followed(control, world, SimulatedTracker(0.007), 12.0, untold=untold)
    assert figures.settling_seconds is not None and figures.settling_seconds < 3.0
    assert figures.within_share is not None and figures.within_share >= 0.95
    distances = [moment.distance for moment in loop.moments]
    assert 4.0 < min(distances) and max(distances) < 8.0


def test_slow_robot_with_unknown_latency_does_not_oscillate():
    control = FollowControl(FollowConfig(vertical="climb"))
    world = WorldConfig(path="static", target_offset=(0.3, 0.2), lag=0.5, **SMALL)
    loop, figures = followed(control, world, SimulatedTracker(0.0), 10.0, untold=0.1)
    assert figures.settling_seconds is not None and figures.settling_seconds < 3.0
    assert max(moment.speed for moment in loop.moments if moment.time > 8.0) < 0.03


def test_hidden_target_stops_it_within_250_ms():
    control = FollowControl(FollowConfig())
    world = WorldConfig(path="sine", hide_from=5.0, hide_until=6.5, hide_by="vanish", **SMALL)
    loop, figures = followed(control, world, SimulatedTracker(0.005), 10.0)
    moments = loop.moments
    lost = next(moment.time for moment in moments if moment.time > 1.0 and moment.state == TargetState.LOST)
    found = next(moment.time for moment in moments if moment.time > lost and moment.state == TRACKING)
    assert any(moment.command.twist.wz for moment in moments if lost - 0.5 < moment.time < lost)
    assert figures.losses == 1 and figures.stop_seconds is not None and figures.stop_seconds <= STOP_SECONDS
    assert not any(any(m.command.twist) for m in moments if lost + STOP_SECONDS < m.time < found)
    assert figures.resettling_seconds is not None and figures.resettling_seconds < 3.0


def test_killed_tracker_stops_it_after_timeout_and_250_ms():
    control = FollowControl(FollowConfig(timeout=0.3))
    world = WorldConfig(path="sine", **SMALL)
    loop, figures = followed(control, world, SimulatedTracker(0.005), 7.0, kill_at=4.0)
    assert any(moment.command.twist.wz for moment in loop.moments if 3.5 < moment.time < 4.0)
    assert figures.kill_stop_seconds is not None and 0.0 < figures.kill_stop_seconds <= 0.3 + STOP_SECONDS
    reason = loop.moments[-1].command.reason
    assert "was sent" in reason or "old" in reason


def test_the_distance_is_kept_by_poses():
    control = FollowControl(FollowConfig(distance=4.0))
    world = WorldConfig(path="static", **SMALL)
    loop, _ = followed(control, world, SimulatedTracker(0.005, poses=True), 10.0)
    assert loop.moments[-1].distance == pytest.approx(4.0, rel=0.08)
