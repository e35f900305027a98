# SPDX-License-Identifier: Apache-2.0
"""Whether a robot may move by an observation of its target.

`MotionGate` decides whether the latest observation may move the robot; `CommandLimiter` makes each command of that.
``now`` is `steady_seconds`; ``clock`` is ROS time, which may jump, stand still, or be wrong.

Bound: the command is zero `SafetyConfig.timeout` + `STOP_SECONDS` after the first message on the newest image was sent,
by the steady clock, whatever ROS time does and whatever is repeated.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from dimp_ros.geometry.box import Box
from dimp_ros.geometry.camera import Camera
from dimp_ros.images.stamps import NANOSECONDS
from dimp_ros.ros_utils.config_dataclass import check_settings, setting
from dimp_ros.ros_utils.steady_clock import EARLY_SECONDS
from dimp_ros.tracker.result import TargetEstimate, TargetState

STOP_SECONDS = 0.25
"""The command is zero this long after the reason to move has gone: `stop_seconds` and one period of `rate` at most."""

PAUSE_SECONDS = 0.25
"""A control loop that paused for longer starts from zero, and waits for a message that was sent after the pause."""

LEAST_CLOCK_RATE = 0.05
"""ROS time that advances by less than this per second of the steady clock counts as standing."""

_MOST_PIXELS, _LEAST_SIDE = 1e6, 0.1
_LONGEST_TIMEOUT = 2.0


class Twist(NamedTuple):
    """A velocity: m/s along and rad/s about the axes x, y, z of the frame that the controller names."""

    vx: float = 0.0
    vy: float = 0.0
    vz: float = 0.0
    wx: float = 0.0
    wy: float = 0.0
    wz: float = 0.0


class Command(NamedTuple):
    """What is commanded, and why no more than that.

    :param reason: why the robot must not move now; empty while it follows. :param error: what remains between target
        and set point, as the controller defines.
    :param notes: what limits a robot that does follow.
    """

    twist: Twist
    reason: str = ""
    error: tuple[float, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class TargetObservation(TargetEstimate):
    """The tracker's estimate of the target in one image, with what a robot that moves by it must know besides.

    :param sent: when the message was sent, `steady_seconds`; NaN where that is not known.
    :param position: of the target in the optical frame (x right, y down, z forward), metres; None where not known.
    """

    sent: float = math.nan
    position: tuple[float, float, float] | None = None

    @property
    def taken(self) -> float:
        """When the image was taken, `steady_seconds`."""
        return self.sent - max(self.age, 0.0)


@dataclass(frozen=True)
class SafetyConfig:
    """When a robot may move at all. Validated at construction."""

    rate: float = setting(50.0, "Commands a second.", (20.0, 200.0), at_start=True)
    target_id: str = setting("", "Name of the target; empty for the only one: with several, nothing moves.")
    min_confidence: float = setting(0.5, "Nothing moves while the confidence is lower than this.", (0.0, 1.0))
    timeout: float = setting(
        0.5,
        "Nothing moves by an image older than this, or when no newer image was reported for this long, in seconds.",
        (0.05, _LONGEST_TIMEOUT),
    )
    stop_seconds: float = setting(
        0.1, "How long the command takes to ramp down to zero, in seconds; 0 stops at once.", (0.0, 0.2)
    )
    rectified: bool = setting(False, "Images are rectified: P of camera_info describes them, otherwise K and D.")

    def __post_init__(self) -> None:
        check_settings(self)


class _Tick(NamedTuple):
    """ROS time at a time, and its highest value until then."""

    time: float
    clock: float
    highest: float


class MotionGate:
    """Decides for each command whether the robot may move by the latest observation.

    Beyond the checks of `refusal`, which look at one observation, it keeps what is needed to recognise new images:

    - Image stamps must advance. An image counts from its first message on, however often it is reported again; an
      image older than the newest one is refused until `restart`. So a replay in a loop, or old messages repeated in
      turn, move nothing.
    - ROS time must advance beyond its highest value: within the last ``timeout``, by `LEAST_CLOCK_RATE` times that; and
      it must not be behind that value by more than `EARLY_SECONDS`. After `restart`, the highest value is that since
      ROS time last went back. So a clock that stands, crawls or swings to and fro moves nothing, not even where the
      highest values of the swing advance.
    - After a pause of the calls longer than `PAUSE_SECONDS` (a stopped process, a suspended machine), only messages
      that were sent after the pause count: what waited in a queue is ignored.
    - An image must have been taken, by ROS time, after the last change of the camera: older boxes are of another one.
    """

    def __init__(self) -> None:
        self._newest = -math.inf  # stamp of the newest image
        self._reported = math.nan  # when the first message on it was sent
        self._last = -math.inf, math.nan  # stamp of the image of the last observation, and when that was sent first
        self._called: float | None = None
        self._awake_since = -math.inf
        self._clock: float | None = None  # last value of ROS time
        self._ticks: deque[_Tick] = deque()
        self._camera: Camera | None = None  # the last one that was known
        self._camera_since = -math.inf  # ROS time at which it took the place of another

    def restart(self) -> None:
        """Accept images and ROS time older than the newest again: a person has enabled the motion anew.

        An image that was reported already, and a clock that stands, do not become new by that.
        """
        early = self._clock is not None and self._last[0] > self._clock + EARLY_SECONDS  # the clock was reset since
        self._newest, self._reported = (-math.inf, math.nan) if early else self._last
        since_back = deque[_Tick]()
        while self._ticks and not (since_back and self._ticks[-1].clock > since_back[0].clock):
            tick = self._ticks.pop()
            since_back.appendleft(tick._replace(highest=tick.clock))
        self._ticks = since_back
        if self._clock is not None:
            self._camera_since = min(self._camera_since, self._clock)

    def tick(self, now: float, clock: float | None) -> None:
        """Note the clocks; to be called before each command, also while nothing may move."""
        if self._called is not None and not 0.0 <= now - self._called <= PAUSE_SECONDS:
            self._awake_since = now
        self._called = now
        self._clock = clock
        if clock is None:
            self._ticks.clear()
            return
        self._ticks.append(_Tick(now, clock, max(clock, self._ticks[-1].highest) if self._ticks else clock))
        while len(self._ticks) > 2 and now - self._ticks[1].time > _LONGEST_TIMEOUT:
            self._ticks.popleft()

    def refusal(
        self, observation: TargetObservation | None, camera: Camera | None, config: SafetyConfig, now: float
    ) -> str:
        """Return why the robot must not move by ``observation``; empty if it may. `tick` comes before."""
        clock = self._clock
        self._note_camera(camera, now)
        if trouble := self._clock_trouble(config.timeout, now):
            return trouble
        if observation is None:
            return refusal(None, camera, config, now, clock)
        if observation.sent < self._awake_since:
            return "this process was paused: waiting for a message sent since then"
        stamp = observation.stamp / NANOSECONDS
        if clock is None or stamp <= clock + EARLY_SECONDS:  # a wrong stamp must not shut out the right ones
            first = min(observation.sent, self._last[1]) if stamp == self._last[0] else observation.sent
            self._last = stamp, first
            if stamp > self._newest:
                self._newest, self._reported = stamp, first
        if stamp == self._newest:
            observation = replace(observation, sent=min(observation.sent, self._reported))
        reason = refusal(observation, camera, config, now, clock)
        if not reason and stamp < self._newest:
            return (
                f"image stamps went back by {self._newest - stamp:.3g} s (a replay, a second publisher, or a clock "
                "that was reset): disable, and enable again, to follow the older images"
            )
        if not reason and stamp < self._camera_since:
            return "the image was taken before the camera changed"
        return reason

    def _note_camera(self, camera: Camera | None, now: float) -> None:
        """Note since when there is another camera than the last one that was known."""
        if camera is None or camera == self._camera:
            return
        if self._camera is not None:
            self._camera_since = now if self._clock is None else self._clock
        self._camera = camera

    def _clock_trouble(self, timeout: float, now: float) -> str:
        """Return what is wrong with ROS time; empty if it advances, or has not been watched for ``timeout`` yet."""
        if self._clock is None or not self._ticks:
            return ""
        highest = self._ticks[-1].highest
        back = (
            f"ROS time went back by {highest - self._clock:.3g} s: disable, and enable again, to follow by the new time"
        )
        if highest - self._clock > EARLY_SECONDS:
            return back
        before = next((tick.highest for tick in reversed(self._ticks) if not now - tick.time <= timeout), None)
        if before is None:
            return ""
        advanced = highest - before
        if advanced >= LEAST_CLOCK_RATE * timeout:
            return ""
        if self._clock < highest:
            return back
        return f"ROS time advanced by {advanced:.2g} s in the last {timeout:g} s: is /clock published?"


def refusal(
    observation: TargetObservation | None,
    camera: Camera | None,
    config: SafetyConfig,
    now: float,
    clock: float | None = None,
) -> str:
    """Return why a robot must not move by this one observation; empty if it may.

    The silence since the message is measured by the steady clock, and counted into the image's age.

    :param clock: ROS time in seconds; None where there is no other clock than the steady one.
    """
    if observation is None:
        return "no target is known"
    if config.target_id and observation.target_id != config.target_id:
        return f"the last message is not about target {config.target_id!r}"
    silence = now - observation.sent
    if not 0.0 <= silence <= config.timeout:  # a NaN is refused as well
        if math.isnan(silence):
            return "the time at which the message was sent is in the future: clocks disagree"
        return f"the last message on a new image was sent {silence:.2g} s ago: at most {config.timeout:g} s are allowed"
    if observation.state != TargetState.TRACKING:
        return f"the target is {observation.state.name}"
    if not config.min_confidence <= observation.confidence <= 1.0:
        return f"confidence is {observation.confidence:.2g}, below {config.min_confidence:g}"
    if trouble := _stamp_trouble(observation, silence, config.timeout, clock):
        return trouble
    return _box_trouble(observation.box, camera)


def _stamp_trouble(observation: TargetObservation, silence: float, timeout: float, clock: float | None) -> str:
    """Return what is wrong with the age of the image, as the message has it and by the clock here; empty if nothing."""
    ages = {"by the tracker": observation.age + silence}
    if clock is not None:
        ages["by the clock here"] = clock - observation.stamp / NANOSECONDS
    for whose, age in ages.items():
        if not -EARLY_SECONDS <= age <= timeout:
            remedy = "clocks disagree" if age < 0.0 or age > 10.0 else f"at most {timeout:g} s are allowed"
            return f"the image is {age:.3g} s old {whose}: {remedy}"
    return ""


def _box_trouble(box: Box | None, camera: Camera | None) -> str:
    """Return why a box gives no direction; empty if it does. Its centre must lie in or near the camera's image."""
    if camera is None:
        return "no usable camera_info"
    if box is None or not (all(abs(value) <= _MOST_PIXELS for value in box) and min(box.w, box.h) >= _LEAST_SIDE):
        return "the target has no box"
    x, y = box.center
    beyond = max(-x, x - camera.width) > box.w / 2 or max(-y, y - camera.height) > box.h / 2
    if beyond or box.w > 3 * camera.width or box.h > 3 * camera.height:
        return f"the box is not in the {camera.width} x {camera.height} image of camera_info: is it of this camera?"
    return ""


def fits_box(observation: TargetObservation, camera: Camera) -> bool:
    """Return whether there is a position and it lies in the box's direction: a pose does not name its target."""
    box, position = observation.box, observation.position
    if box is None or position is None or not all(0.0 <= abs(value) < 1e3 for value in position):
        return False
    distance = math.hypot(*position)
    ray = camera.bearing(*box.center)
    width = math.hypot(box.w / camera.fx, box.h / camera.fy)
    return distance > 0.05 and float(ray @ np.array(position)) > distance * math.cos(min(0.1 + width, 1.0))
