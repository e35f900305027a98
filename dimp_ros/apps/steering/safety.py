# SPDX-License-Identifier: Apache-2.0
"""What keeps a robot that follows a target from running away: who may move, and how it stops.

`refusal` says whether the latest observation is good enough to move by. `CommandLimiter` is the only way a command gets
out: within limits and slew rates while moving, and down to zero within a bounded time otherwise. Times called ``now``
are seconds of a monotonic clock, which nobody can set; ``clock`` is ROS time, which may jump, stand still, or lie.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from dimp_ros.geometry.box import Box
from dimp_ros.geometry.camera import Camera
from dimp_ros.ros_utils.config_dataclass import check_settings, setting
from dimp_ros.tracker.result import TargetState

STOP_SECONDS = 0.25
"""Within so much time of the loss of its reason to move, the command is zero: stop_seconds and a period of the rate."""

EARLY_SECONDS = 0.1
"""How far an image may seem to come from the future before clocks are said to disagree."""

_GAP_SECONDS = 0.25
"""After so long a pause of the control loop itself, whoever obeys it has stopped by his own timeout: begin at zero."""

_MOST_PIXELS, _LEAST_SIDE = 1e6, 0.1


class Twist(NamedTuple):
    """A velocity: m/s along and rad/s about the axes x, y, z of the frame that its maker names."""

    vx: float = 0.0
    vy: float = 0.0
    vz: float = 0.0
    wx: float = 0.0
    wy: float = 0.0
    wz: float = 0.0


class Command(NamedTuple):
    """What is commanded, and why no more than that.

    :param reason: why the robot must not move now; empty while it follows. :param error: what remains between target
        and set point, as the controller that made it defines.
    :param notes: what limits a robot that does follow.
    """

    twist: Twist
    reason: str = ""
    error: tuple[float, ...] = ()
    notes: tuple[str, ...] = ()


class Observation(NamedTuple):
    """What the tracker said about one target in one image.

    :param state: a constant of ``msg/TargetState``. :param confidence: 0..1.
    :param box: (x, y, w, h) in pixels of that image. :param stamp: of the image, seconds of ROS time.
    :param age: seconds from the stamp to the publication of the message, as the message says.
    :param heard: when this stamp was heard of first, seconds of the monotonic clock.
    :param position: of the target in the optical frame (x right, y down, z forward), metres; None where not known.
    """

    target_id: str
    state: int
    confidence: float
    box: Box
    stamp: float
    age: float
    heard: float
    position: tuple[float, float, float] | None = None

    @property
    def taken(self) -> float:
        """When the image was taken, seconds of the monotonic clock."""
        return self.heard - max(self.age, 0.0)


@dataclass(frozen=True)
class SafetyConfig:
    """When a robot may move at all. Checked when made."""

    rate: float = setting(50.0, "Commands a second.", (20.0, 200.0), at_start=True)
    target_id: str = setting("", "Name of the target; empty for the only one: with several, nothing moves.")
    min_confidence: float = setting(0.5, "Nothing moves while the confidence is lower than this.", (0.0, 1.0))
    timeout: float = setting(
        0.5,
        "Nothing moves by an image older than this, or when nothing new was heard for so long, in seconds.",
        (0.05, 2.0),
    )
    stop_seconds: float = setting(
        0.1, "How long the command takes to ramp down to zero, in seconds; 0 stops at once.", (0.0, 0.2)
    )
    rectified: bool = setting(False, "Images are rectified: P of camera_info describes them, otherwise K and D.")

    def __post_init__(self) -> None:
        check_settings(self)


def refusal(
    observation: Observation | None,
    camera: Camera | None,
    config: SafetyConfig,
    now: float,
    clock: float | None = None,
) -> str:
    """Return why a robot must not move by ``observation``; empty if it may.

    A frozen or jumping clock does not defeat it: the silence is measured by the monotonic clock, and counted into the
    image's age.

    :param clock: ROS time in seconds; None where there is no other clock than the monotonic one.
    """
    if observation is None:
        return "no target has been heard of"
    if config.target_id and observation.target_id != config.target_id:
        return f"the last message is not about target {config.target_id!r}"
    silence = now - observation.heard
    if not 0.0 <= silence <= config.timeout:  # a NaN is refused as well
        return f"nothing new was heard of the target for {silence:.2g} s"
    if observation.state != TargetState.TRACKING:
        return f"the target is {_state_name(observation.state)}"
    if not config.min_confidence <= observation.confidence <= 1.0:
        return f"confidence is {observation.confidence:.2g}, below {config.min_confidence:g}"
    if trouble := _stamp_trouble(observation, silence, config.timeout, clock):
        return trouble
    return _box_trouble(observation.box, camera)


def _state_name(state: int) -> str:
    try:
        return TargetState(state).name
    except ValueError:
        return f"in state {state}, which does not exist"


def _stamp_trouble(observation: Observation, silence: float, timeout: float, clock: float | None) -> str:
    """Say what is wrong with the age of the image, by the message's word and by our own clock."""
    ages = {"by the tracker": observation.age + silence}
    if clock is not None:
        ages["by the clock here"] = clock - observation.stamp
    for whose, age in ages.items():
        if not -EARLY_SECONDS <= age <= timeout:
            remedy = "clocks disagree" if age < 0.0 or age > 10.0 else f"at most {timeout:g} s are allowed"
            return f"the image is {age:.3g} s old {whose}: {remedy}"
    return ""


def _box_trouble(box: Box, camera: Camera | None) -> str:
    """Say why no direction can be told from a box; its centre must lie in or near the picture of the camera."""
    if camera is None:
        return "no usable camera_info"
    if not (all(abs(value) <= _MOST_PIXELS for value in box) and min(box.w, box.h) >= _LEAST_SIDE):
        return "the target has no box"
    x, y = box.center
    beyond = max(-x, x - camera.width) > box.w / 2 or max(-y, y - camera.height) > box.h / 2
    if beyond or box.w > 3 * camera.width or box.h > 3 * camera.height:
        return f"the box is not in the {camera.width} x {camera.height} image of camera_info: is it of this camera?"
    return ""


def fits_box(observation: Observation, camera: Camera) -> bool:
    """Say whether there is a position, and it lies where the box is: a pose does not tell which target it is of."""
    if observation.position is None or not all(0.0 <= abs(value) < 1e3 for value in observation.position):
        return False
    box, distance = observation.box, math.hypot(*observation.position)
    ray = camera.bearing(*box.center)
    width = math.hypot(box.w / camera.fx, box.h / camera.fy)
    return distance > 0.05 and float(ray @ np.array(observation.position)) > distance * math.cos(min(0.1 + width, 1.0))


class CommandLimiter:
    """The last command, and the next one that may follow it.

    :param uniform: scale all components alike where one is too quick, so that the direction of the change is kept.
    """

    def __init__(self, *, uniform: bool = False) -> None:
        self._uniform = uniform
        self._time: float | None = None
        self._stopping: tuple[float, NDArray[np.float64]] | None = None
        self.command: NDArray[np.float64] = np.zeros(6)

    def drive(
        self,
        wanted: NDArray[np.float64],
        low: NDArray[np.float64],
        high: NDArray[np.float64],
        slew: NDArray[np.float64],
        now: float,
    ) -> NDArray[np.float64]:
        """Return the command [6] nearest to ``wanted`` within ``low`` .. ``high`` that ``slew`` a second can reach.

        What is not a number is no command: all is zero then, at once.
        """
        step = self._step(now)
        if not (math.isfinite(step) and np.isfinite(wanted).all()):
            return self._halt()
        self._stopping = None
        change = np.clip(wanted, low, high) - self.command
        most = slew * step
        if self._uniform:
            share = np.divide(most, np.abs(change), out=np.ones(6), where=np.abs(change) > most)
            change = change * share.min()
        else:
            change = np.clip(change, -most, most)
        self.command = np.clip(self.command + change, low, high)
        return self.command

    def stop(self, now: float, seconds: float) -> NDArray[np.float64]:
        """Return the command [6] on the straight way to zero, which is reached ``seconds`` after the last motion."""
        before = self._time
        step = self._step(now)
        if not math.isfinite(step) or not self.command.any():
            return self._halt()
        if self._stopping is None:  # from the last tick of motion: its reason may have gone right after that
            self._stopping = (now if before is None else before), self.command
        begin, command = self._stopping
        left = 1.0 - (now - begin) / seconds if seconds > 0.0 else 0.0
        if not left > 1e-9:
            return self._halt()
        self.command = command * min(left, 1.0)
        return self.command

    def _halt(self) -> NDArray[np.float64]:
        self._stopping = None
        self.command = np.zeros(6)
        return self.command

    def _step(self, now: float) -> float:
        """Return seconds since the last tick, and begin at zero after a pause; NaN for a clock that is none."""
        before, self._time = self._time, now if math.isfinite(now) else None
        if self._time is None or (before is not None and now < before):
            return math.nan
        if before is None or now - before > _GAP_SECONDS:
            self._halt()
            return 0.0
        return now - before
