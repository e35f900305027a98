# SPDX-License-Identifier: Apache-2.0
"""From the tracker's messages to the command, at 50 commands a second: what stops the motion, and how it resumes."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, NamedTuple

import pytest

pytest.importorskip("dimp_ros.msg", reason="the interfaces are not built: `make setup`, or colcon")

import itertools

from builtin_interfaces.msg import Time
from helpers.simulated_loop import TICK
from sensor_msgs.msg import CameraInfo

from dimp_ros.apps.steering.controller import BaseController
from dimp_ros.apps.steering.follower_control import FollowConfig, FollowControl
from dimp_ros.apps.steering.inputs import SteeringInputs
from dimp_ros.apps.steering.servo_control import ServoConfig, ServoControl
from dimp_ros.msg import TargetState, TargetStateArray

CONTROLS = pytest.mark.parametrize("make", [FollowControl, ServoControl], ids=["follower", "servo"])
IMAGE = 1 / 30
START = 100.0
MOVING = START + 1.0
"""Until then nothing is wrong."""


class Moment(NamedTuple):
    """A command."""

    time: float
    frame: str
    twist: tuple[float, ...]
    reason: str

    @property
    def size(self) -> float:
        """How much it moves."""
        return math.hypot(*self.twist)


def stamp(seconds: float) -> Time:
    """Return seconds as a stamp."""
    whole, part = divmod(round(seconds * 1e9), 10**9)
    return Time(sec=whole, nanosec=part)


def info(seconds: float, focal: float = 500.0) -> CameraInfo:
    """Return a calibration of a focal length."""
    message = CameraInfo(width=640, height=480)
    message.header.stamp = stamp(seconds)
    message.k = [focal, 0.0, 319.5, 0.0, focal, 239.5, 0.0, 0.0, 1.0]
    return message


def targets(
    taken: float, age: float, *, frame: str = "a", names: str = "0", x: float = 450.0, y: float = 300.0, **changes: Any
) -> TargetStateArray:
    """Return what the tracker says of targets beside the middle of an image."""
    array = TargetStateArray(image_width=640, image_height=480)
    array.header.stamp, array.header.frame_id = stamp(taken), frame
    for name in names:
        values = {"state": TargetState.TRACKING, "confidence": 0.9} | changes
        state = TargetState(header=array.header, id=name, age=age, **values)
        state.bbox.center.position.x, state.bbox.center.position.y = x, y
        state.bbox.size_x = state.bbox.size_y = 80.0
        array.targets.append(state)
    return array


def every(period: float, seconds: float) -> Iterator[float]:
    """Yield the times of messages."""
    for number in range(math.ceil(seconds / period)):
        yield START + number * period


Play = Callable[[SteeringInputs, float], None]
"""Hands a message to the inputs at a time."""


def tell(latency: float = 0.03, **changes: Any) -> Play:
    """Return the telling of an image."""
    return lambda inputs, now: inputs.on_targets(targets(now - latency, latency, **changes), now)


def run(make: type[BaseController[Any]], messages: list[tuple[float, Play]], seconds: float = 3.0) -> list[Moment]:
    """Return the commands while messages come at their times."""
    inputs, control = SteeringInputs(), make()
    control.set_enabled(True)
    inputs.on_camera_info(info(START))
    messages, moments = sorted(messages, key=lambda message: message[0]), []
    for tick in range(round(seconds / TICK)):
        now = START + tick * TICK
        while messages and messages[0][0] <= now:
            at, play = messages.pop(0)
            play(inputs, at)
        control.camera = inputs.camera
        command = control.update(inputs.observation, now, now, (inputs.frame, inputs.frame))
        moments.append(Moment(now, inputs.frame or "", tuple(command.twist), command.reason))
    assert max(moment.size for moment in moments if moment.time < MOVING) > 0.05
    return moments


def assert_stops_are_carried_through(moments: list[Moment]) -> None:
    """Assert that whatever has begun to stop reaches zero before it rises."""
    falling = False
    for before, after in itertools.pairwise(moments):
        falling = bool(after.size) and (falling or bool(after.reason))
        assert not falling or after.size < before.size, (before, after)


def assert_other_frames_begin_at_zero(moments: list[Moment]) -> None:
    """Assert that no velocity is continued under another frame_id."""
    for before, after in itertools.pairwise(moments):
        assert before.frame == after.frame or not after.size, (before, after)


FRAMES = {
    "one change": "a" * 5 + "b" * 40,
    "there and back": "aaabaaa",
    "every image": "ab" * 20,
    "every second image": "aabb" * 10,
    "every third image": "aaabbb" * 7,
    "empty": "aaa__aaa__bbb__a_",
}


@CONTROLS
@pytest.mark.parametrize("kind", FRAMES)
@pytest.mark.parametrize("burst", [1, 2, 3])
def test_velocity_is_not_continued_in_another_frame(make, kind, burst):
    frames = [frame.strip("_") for frame in FRAMES[kind]]
    messages = []
    for number, time in enumerate(every(IMAGE, 3.0)):
        late = (number // burst + 1) * burst * IMAGE - 0.003 * (burst - number % burst)  # some come together
        index = number - 30
        frame = frames[min(index, len(frames) - 1)] if index >= 0 else "a"
        messages.append((START + late, tell(frame=frame, latency=START + late - time + 0.005)))
    moments = run(make, messages)
    assert_other_frames_begin_at_zero(moments)
    assert_stops_are_carried_through(moments)
    assert moments[-1].size > 0.05, "it goes on in the last frame"
    if kind == "every image":
        assert not any(moment.size for moment in moments if MOVING + 0.3 < moment.time < MOVING + 40 * IMAGE)


@CONTROLS
def test_change_of_frame_between_two_commands_stops(make):
    def both(inputs: SteeringInputs, now: float) -> None:
        tell(0.020, frame="b", names="")(inputs, now)  # an image without the target
        tell(0.015, frame="b")(inputs, now)

    messages = [(time, tell(frame="a" if time < MOVING else "b")) for time in every(IMAGE, 2.0)]
    messages = [(time, both if MOVING <= time < MOVING + IMAGE else play) for time, play in messages]
    moments = run(make, messages, 2.0)
    assert_other_frames_begin_at_zero(moments)
    assert moments[-1].size > 0.05


BAD: dict[str, dict[str, Any]] = {
    "LOST": {"state": TargetState.LOST},
    "confidence": {"confidence": 0.1},
    "no target": {"names": ""},
    "two targets": {"names": "01"},
    "box outside": {"x": 5000.0},
}


@CONTROLS
@pytest.mark.parametrize("kind", BAD)
@pytest.mark.parametrize("pattern", ["BG", "BBG", "BGG", "BGGGGG"])
def test_flicker_lets_the_command_reach_zero(make, kind, pattern):
    letters = ["G"] * 30 + list(pattern) * 30
    messages = [
        (time, tell(**(BAD[kind] if letter == "B" else {})))
        for time, letter in zip(every(IMAGE, 3.0), letters, strict=False)
    ]
    moments = run(make, messages)
    assert_stops_are_carried_through(moments)
    assert sum(not moment.size for moment in moments if moment.time > MOVING + 0.2) >= 5


@CONTROLS
@pytest.mark.parametrize("kind", BAD)
def test_one_bad_image_stops_for_the_ramp_and_no_longer(make, kind):
    messages = [
        (time, tell(**(BAD[kind] if MOVING < time < MOVING + IMAGE * 1.01 else {}))) for time in every(IMAGE, 2.0)
    ]
    moments = run(make, messages, 2.0)
    assert_stops_are_carried_through(moments)
    zeros = [moment.time for moment in moments if moment.time > MOVING and not moment.size]
    assert 1 <= len(zeros) <= 2 and zeros[0] - MOVING <= IMAGE + 0.1 + 2 * TICK
    assert moments[-1].size > 0.05


CHANGED = MOVING + 0.01
STAMPS: dict[str, Callable[[float], float]] = {
    "stamped": lambda now: now,
    "not stamped": lambda now: 0.0,
    "stamped late": lambda now: now - 0.2,
    "stamped once": lambda now: CHANGED,
    "stamped ahead": lambda now: now + 3600.0,
    "stamped ahead, once": lambda now: CHANGED + 3600.0,
}


@CONTROLS
@pytest.mark.parametrize("kind", STAMPS)
def test_boxes_of_images_from_before_another_camera_move_nothing(make, kind):
    latency = 0.12
    messages: list[tuple[float, Play]] = [(time, tell(latency)) for time in every(IMAGE, 2.0)]
    for time in every(IMAGE, 2.0):
        at = time + 0.01
        focal, told = (500.0, at) if at < CHANGED - 1e-6 else (60.0, STAMPS[kind](at))
        message = info(told, focal)
        messages.append((at, lambda inputs, now, message=message: inputs.on_camera_info(message)))
    moments = run(make, messages, 2.0)
    assert_stops_are_carried_through(moments)
    rests = [moment for moment in moments if CHANGED + 0.1 + TICK < moment.time < CHANGED + latency]
    assert not any(moment.size for moment in rests)
    begins = [b.time for a, b in itertools.pairwise(moments) if b.time > CHANGED and b.size and not a.size]
    assert CHANGED + latency <= begins[0] <= CHANGED + latency + IMAGE + 3 * TICK


def test_frame_of_the_commands_is_a_frame_too():
    inputs, control = SteeringInputs(), ServoControl(ServoConfig(frame_id="wrist"))
    inputs.on_camera_info(info(START))
    control.camera = inputs.camera
    control.set_enabled(True)
    sizes = []
    for tick in range(100):
        now = START + tick * TICK
        tell()(inputs, now)
        frame = "wrist" if tick < 50 else "tool"
        command = control.update(inputs.observation, now, now, (frame, inputs.frame))
        sizes.append(math.hypot(*command.twist))
    assert sizes[49] > 0.05 and sizes[50] == 0.0 and 0.0 < sizes[51] < 0.03 and sizes[-1] > 0.05


def test_stop_under_way_is_told_as_the_reason():
    control, inputs = FollowControl(FollowConfig()), SteeringInputs()
    inputs.on_camera_info(info(START))
    control.camera = inputs.camera
    control.set_enabled(True)
    reasons = []
    for tick in range(60):
        now = START + tick * TICK
        tell(confidence=0.1 if tick == 40 else 0.9)(inputs, now)
        reasons.append(control.update(inputs.observation, now, now).reason)
    assert "confidence" in reasons[40] and "coming to rest" in reasons[41] and reasons[39] == reasons[-1] == ""


@pytest.mark.parametrize(
    ("make", "config"),
    [
        (FollowControl, FollowConfig(vertical="pitch", max_acceleration=0.01, max_yaw_acceleration=0.01)),
        (FollowControl, FollowConfig(horizontal="lateral", vertical="climb", max_acceleration=0.01)),
        (ServoControl, ServoConfig(axes="all", set_point_size=0.9, max_acceleration=0.01, max_turn_acceleration=0.01)),
        (ServoControl, ServoConfig(set_point_size=0.02, max_speed=5.0, max_acceleration=0.01)),
    ],
)
@pytest.mark.parametrize("good", [True, False], ids=["moving", "stopping"])
def test_limit_lowered_in_motion_holds_at_once_at_least_acceleration(make, config, good):
    accelerations = {name: 100.0 for name in vars(config) if name.endswith("acceleration")}
    inputs, control, tick = SteeringInputs(), make(replace(config, **accelerations)), itertools.count()

    def command(good: bool = True) -> list[float]:
        now = START + next(tick) * TICK
        tell(y=50.0 if good else 5000.0)(inputs, now)
        return list(control.update(inputs.observation, now, now, ("a", "a")).twist)

    control.set_enabled(True)
    inputs.on_camera_info(info(START))
    control.camera = inputs.camera
    for _ in range(20):
        moving = command()
    if not good:
        moving = command(good)
    limits = [name for name in vars(config) if name.startswith("max_") and not name.endswith("acceleration")]
    halves = {"speed": max(map(abs, moving[:3])), "turn": max(map(abs, moving[3:]))}
    lowest = {name: halves["speed" if name.endswith("speed") else "turn"] / 20 for name in limits}
    control.configure(replace(config, **lowest))
    twist = command(good)
    assert any(twist)
    for half, values in (("speed", twist[:3]), ("turn", twist[3:])):
        size = math.hypot(*values) if make is ServoControl else max(map(abs, values))
        assert size <= halves[half] / 20 + 1e-9
