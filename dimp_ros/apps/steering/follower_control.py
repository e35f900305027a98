# SPDX-License-Identifier: Apache-2.0
"""The follower's control law: from observations of a target to a velocity of the body. No ROS.

Body frame (REP 103, FLU): x forward, y left, z up. The camera looks forward, `camera_pitch` below the horizon. There
are three axes, alike in form: the azimuth of the target (positive to the left), its elevation (positive up), and the
logarithm of its distance. For each, with e the error where the target will be when the command has its effect,

    u = gain * e + feed_forward * rate of the target's own motion        [1/s]

and a yaw or pitch rate is u, a speed is u times the distance. An azimuth says little near the body's vertical, straight
below a drone: there left, right, forward and backward fade out.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from dimp_ros.apps.steering.controller import BaseController
from dimp_ros.apps.steering.delay_compensation import DelayCompensator, beyond
from dimp_ros.apps.steering.limiter import AxisLimits
from dimp_ros.apps.steering.safety import Command, SafetyConfig, TargetObservation, Twist, fits_box
from dimp_ros.geometry.box import Box
from dimp_ros.geometry.camera import Camera
from dimp_ros.ros_utils.config_dataclass import setting

_NEAREST, _FARTHEST = 0.2, 50.0
"""Range of the distances by which speeds are scaled, metres."""

_FASTEST_TARGET = 2.0
"""Own motion of a target that is believed, rad/s, or sizes a second."""

_NEAR_VERTICAL = math.sin(math.radians(10.0))
"""Horizontal part of a direction below which commands that depend on an azimuth fade out."""

_POSES = 10
"""Poses after which a target's width is known."""

_BORDER = 0.01
"""A box whose side is so near to the image's border, in image sides, may be cut off: it looks smaller than it is."""


@dataclass(frozen=True)
class FollowConfig(SafetyConfig):
    """Settings of `FollowControl`. Validated at construction."""

    frame_id: str = setting("base_link", "frame_id of the commands: the body's, x forward, y left, z up.")
    horizontal: str = setting(
        "yaw",
        "How the target is centred left and right: turning, flying or rolling sideways, or not at all.",
        choices=("yaw", "lateral", "none"),
    )
    vertical: str = setting(
        "none",
        "How it is centred up and down: climbing, a camera that pitches, or not at all. With `climb`, a target on the "
        "ground draws a drone with a level camera down.",
        choices=("climb", "pitch", "none"),
    )
    forward: str = setting(
        "auto",
        "What the distance is kept by: target_pose, the size in the image, or `auto`, target_pose while there is one.",
        choices=("auto", "pose", "size", "none"),
    )
    set_point_x: float = setting(0.5, "Where the target is kept in the image, from 0 left to 1 right.", (0.0, 1.0))
    set_point_y: float = setting(0.5, "Where the target is kept in the image, from 0 top to 1 bottom.", (0.0, 1.0))
    distance: float = setting(
        3.0,
        "Distance that is kept, in metres. Where only the size is known: the distance at which it has desired_size.",
        (0.3, 50.0),
    )
    desired_size: float = setting(
        0.0,
        "Size that is kept, sqrt(box area / image area); 0 for that at `distance` if there was a target_pose, "
        "else that at the enabling, or of a new target at first.",
        (0.0, 1.0),
    )
    camera_pitch: float = setting(0.0, "How far the camera looks below the body's x axis, in degrees.", (-80.0, 80.0))
    horizontal_gain: float = setting(3.0, "Gain of the centring left and right, 1/s.", (0.0, 10.0))
    vertical_gain: float = setting(1.0, "Gain of the centring up and down, 1/s.", (0.0, 10.0))
    forward_gain: float = setting(0.8, "Gain of the distance, 1/s.", (0.0, 10.0))
    feed_forward: float = setting(
        0.8, "Share of the target's own angular motion that is matched without waiting for an error.", (0.0, 1.0)
    )
    forward_feed_forward: float = setting(0.5, "The same for its distance.", (0.0, 1.0))
    angle_dead_band: float = setting(
        0.01, "Errors below this, in rad, and motions of the target below this a second move nothing.", (0.0, 0.5)
    )
    distance_dead_band: float = setting(0.05, "The same for the distance, as a share of it.", (0.0, 1.0))
    rate_time: float = setting(
        0.07,
        "Time constant of the filter of the target's direction and of its rate, in seconds.",
        (0.02, 5.0),
    )
    forward_rate_time: float = setting(
        0.6, "The same for its distance: the size of a box is noisier than its position.", (0.02, 5.0)
    )
    forward_smoothing: float = setting(
        0.25, "Time constant with which the forward speed approaches the wanted one, in seconds.", (0.0, 2.0)
    )
    response_time: float = setting(
        0.2,
        "Time constant of the lag with which the robot follows a command, in seconds; rather too long than too short.",
        (0.0, 2.0),
    )
    image_width: int = setting(0, "Without a calibration: width of the images, in pixels.", (0, 100000))
    image_height: int = setting(0, "Their height, in pixels.", (0, 100000))
    horizontal_fov: float = setting(
        0.0, "Their horizontal field of view, in degrees; 0 takes camera_info instead of these three.", (0.0, 170.0)
    )
    max_forward_speed: float = setting(1.0, "Largest speed forward, m/s.", (0.0, 30.0))
    max_backward_speed: float = setting(0.5, "Largest speed backward, m/s.", (0.0, 30.0))
    max_lateral_speed: float = setting(0.5, "Largest speed sideways, m/s.", (0.0, 30.0))
    max_vertical_speed: float = setting(0.5, "Largest speed up and down, m/s.", (0.0, 30.0))
    max_yaw_rate: float = setting(1.0, "Largest yaw rate, rad/s.", (0.0, 10.0))
    max_pitch_rate: float = setting(1.0, "Largest pitch rate of the camera, rad/s.", (0.0, 10.0))
    max_acceleration: float = setting(1.0, "Largest change of a speed, m/s².", (0.01, 100.0))
    max_yaw_acceleration: float = setting(6.0, "Largest change of the yaw and the pitch rate, rad/s².", (0.01, 100.0))


class _Axis(NamedTuple):
    """One of the three axes: its value, what it is to be, and how it is controlled."""

    value: DelayCompensator
    gain: float
    feed_forward: float
    dead_band: float


class _KeptSize(NamedTuple):
    """What size says about a target's distance.

    :param target: its name and start. :param angle: under which it was seen at first, rad; the square root of its area.
    :param log_width: logarithm of its width in metres, the mean of the last `_POSES` poses or so.
    :param poses: how many there were, at most `_POSES`.
    """

    target: tuple[str, int]
    angle: float
    log_width: float = 0.0
    poses: int = 0

    @property
    def width(self) -> float | None:
        """Width in metres, as its poses tell; None before there are enough: a single one may be wrong."""
        return math.exp(self.log_width) if self.poses >= _POSES else None

    def measured(self, width: float) -> _KeptSize:
        """Return it after another pose."""
        count = min(self.poses + 1, _POSES)
        return self._replace(log_width=self.log_width + (math.log(width) - self.log_width) / count, poses=count)


class FollowControl(BaseController[FollowConfig]):
    """Follows a target with a body that flies, drives or turns; see `BaseController`.

    The error of a command is (azimuth, elevation, log of the distance over the desired one), in rad, rad and 1.
    """

    def __init__(self, config: FollowConfig | None = None, camera: Camera | None = None) -> None:
        super().__init__(config or FollowConfig(), camera)
        self._azimuth = DelayCompensator(2.0 * math.pi)
        self._elevation, self._log_distance = DelayCompensator(), DelayCompensator()
        self._last_pose: float | None = None  # when the last image with a position was taken
        self._by_pose = False
        self._size: _KeptSize | None = None

    def set_enabled(self, enabled: bool) -> None:
        """Allow motion, or end it; with desired_size 0 and no pose, the size that the target has then is kept."""
        self._size = None
        super().set_enabled(enabled)

    def configure(self, config: FollowConfig) -> None:
        """Go on with another configuration; values that it defines anew are forgotten: their step is no motion."""
        before = self.config
        if any(getattr(before, name) != getattr(config, name) for name in ("forward", "desired_size", "distance")):
            self._log_distance.forget()
        if before.camera_pitch != config.camera_pitch:
            self._azimuth.forget()
            self._elevation.forget()
        super().configure(config)

    @staticmethod
    def limits(config: FollowConfig) -> AxisLimits:
        """Return the limits of the commands."""
        speeds = config.max_forward_speed, config.max_lateral_speed, config.max_vertical_speed
        high = np.array([*speeds, 0.0, config.max_pitch_rate, config.max_yaw_rate])
        low = -high
        low[0] = -config.max_backward_speed
        return AxisLimits(low, high, np.repeat([config.max_acceleration, config.max_yaw_acceleration], 3))

    @property
    def _values(self) -> Sequence[DelayCompensator]:
        return self._azimuth, self._elevation, self._log_distance

    def _forget(self) -> None:
        super()._forget()
        self._last_pose = None

    def _advance(self, now: float, twist: Sequence[float]) -> None:
        vx, vy, vz, _, wy, wz = twist
        lag, distance = self.config.response_time, self._distance(now)
        self._azimuth.advance(now, -wz - vy / distance, lag)
        self._elevation.advance(now, wy - vz / distance, lag)
        self._log_distance.advance(now, -vx / distance, lag)

    def _distance(self, now: float) -> float:
        """Return how far the target is thought to be, metres."""
        error = self._log_distance.predict(now) if self._log_distance.known else 0.0
        return min(max(self.config.distance * math.exp(min(max(error, -5.0), 5.0)), _NEAREST), _FARTHEST)

    def _look(self, observation: TargetObservation, box: Box, camera: Camera) -> tuple[str, ...]:
        """Measure the three values in an observation; return what limits its use."""
        config, keeps = self.config, self.config.forward != "none"
        notes: tuple[str, ...] = ()
        azimuth, elevation = direction(camera, *box.center, config.camera_pitch)
        gap = max(config.timeout, 0.1)
        timing = (config.rate_time, gap, _FASTEST_TARGET)
        along = (config.forward_rate_time, gap, _FASTEST_TARGET)
        self._azimuth.measure(azimuth, observation.taken, *timing)
        self._elevation.measure(elevation, observation.taken, *timing)
        pixels = math.sqrt(camera.fx * camera.fy)
        angle = math.sqrt(box.area) / pixels
        target = observation.target_id, observation.start
        if self._size is None or self._size.target != target:
            self._size = _KeptSize(target, angle)
        if config.forward != "size" and fits_box(observation, camera):  # for `none` it scales the other speeds
            assert observation.position is not None
            self._last_pose = observation.taken
            self._choose(by_pose=True)
            distance = math.hypot(*observation.position)
            self._size = self._size.measured(angle * distance)
            self._log_distance.measure(math.log(distance / config.distance), observation.taken, *along)
        elif self._last_pose is not None and observation.taken - self._last_pose <= config.timeout:
            pass  # between two poses: the last one is still good
        elif config.forward in ("auto", "size") or (not keeps and self._size.width is not None):
            self._choose(by_pose=False)
            wanted = self._size.angle
            if config.forward != "size" and self._size.width is not None:
                wanted = self._size.width / config.distance
            if config.desired_size and keeps:
                wanted = config.desired_size * math.sqrt(camera.width * camera.height) / pixels
            self._log_distance.measure(math.log(wanted / angle), observation.taken, *along)
        else:
            self._log_distance.forget()
            notes = ("no target_pose: the distance is not kept",) if config.forward == "pose" else ()
        return notes

    def _choose(self, *, by_pose: bool) -> None:
        """Begin anew where the distance comes from another source: it is another number."""
        if by_pose != self._by_pose:
            self._by_pose = by_pose
            self._log_distance.forget()

    def _steer(self, observation: TargetObservation, box: Box, camera: Camera, now: float) -> Command:
        config, notes = self.config, self._look(observation, box, camera)
        at = now + config.response_time
        set_azimuth, set_elevation = direction(
            camera, config.set_point_x * camera.width, config.set_point_y * camera.height, config.camera_pitch
        )
        horizontal = _Axis(self._azimuth, config.horizontal_gain, config.feed_forward, config.angle_dead_band)
        vertical = _Axis(self._elevation, config.vertical_gain, config.feed_forward, config.angle_dead_band)
        along = _Axis(self._log_distance, config.forward_gain, config.forward_feed_forward, config.distance_dead_band)
        azimuth_error, u_horizontal = _law(horizontal, set_azimuth, at)
        elevation_error, u_vertical = _law(vertical, set_elevation, at)
        keeps = self._log_distance.known and config.forward != "none"
        distance_error, u_along = _law(along, 0.0, at) if keeps else (0.0, 0.0)
        distance = self._distance(now)
        flat = min(math.cos(set_elevation), abs(math.cos(self._elevation.predict(at)))) / _NEAR_VERTICAL
        if flat < 1.0:
            notes = (*notes, "target or set point near the vertical: left, right and distance fade out")
        flat = min(flat, 1.0)
        # Where target or set point is behind, ways in the image are not those in space: only turning helps.
        ahead = min(max(math.cos(set_elevation) * math.cos(set_azimuth) / _NEAR_VERTICAL, 0.0), 1.0)
        if abs(azimuth_error) > math.pi / 2:
            ahead = 0.0
        forward = _faded(u_along * distance, config.max_forward_speed, ahead * flat)
        if forward > 0.0:
            # First turn, then go: what is far off the middle is not where one is heading.
            forward *= max(0.0, 1.0 - abs(azimuth_error) / (math.pi / 4))
            if not self._by_pose and _cut_off(box, camera):
                forward, notes = 0.0, (*notes, "the box is at the image's border: not going nearer by its size")
        lateral = config.horizontal == "lateral"
        wanted = Twist(
            vx=forward,
            vy=_faded(u_horizontal * distance, config.max_lateral_speed, ahead * flat) if lateral else 0.0,
            vz=u_vertical * distance if config.vertical == "climb" else 0.0,
            wy=-u_vertical * ahead if config.vertical == "pitch" else 0.0,
            wz=_faded(u_horizontal, config.max_yaw_rate, flat) if config.horizontal == "yaw" else 0.0,
        )
        return self._limited(wanted, now, (azimuth_error, elevation_error, distance_error), notes)

    def _limited(self, wanted: Twist, now: float, error: tuple[float, ...], notes: tuple[str, ...]) -> Command:
        limits = self.limits(self.config)
        if any(
            value < least or value > most for value, least, most in zip(wanted, limits.low, limits.high, strict=True)
        ):
            notes = (*notes, "at a speed limit")
        if not all(map(math.isfinite, wanted)):
            notes = (*notes, "a result is not finite: stopped")
        smoothing = np.array([self.config.forward_smoothing, 0.0, 0.0, 0.0, 0.0, 0.0])
        twist = self._limiter.drive(np.array(wanted), now, smoothing)
        return Command(Twist(*twist.tolist()), "", error, notes)


def camera_of_view(width: int, height: int, horizontal_fov: float) -> Camera:
    """Return the camera of a perfect lens with a horizontal field of view, in degrees."""
    focal = width / 2 / math.tan(math.radians(horizontal_fov) / 2)
    camera = Camera.from_matrix(width, height, (focal, 0, 0, 0, focal, 0, 0, 0, 1))
    return replace(camera, cx=width / 2, cy=height / 2)


def direction(camera: Camera, x: float, y: float, pitch: float) -> tuple[float, float]:
    """Return azimuth, positive to the left, and elevation, positive up, of a pixel in the body frame, in rad.

    :param pitch: how far the camera looks below the body's x axis, degrees.
    """
    right, down, ahead = camera.bearing(x, y).tolist()
    cosine, sine = math.cos(math.radians(pitch)), math.sin(math.radians(pitch))
    forward, left, up = ahead * cosine - down * sine, -right, -down * cosine - ahead * sine
    return math.atan2(left, forward), math.atan2(up, math.hypot(forward, left))


def _faded(value: float, most: float, share: float) -> float:
    """Return a share of a speed, and of no more than its limit; the whole of it is limited later."""
    return value if share >= 1.0 else min(max(value, -most), most) * share


def _cut_off(box: Box, camera: Camera) -> bool:
    """Return whether a part of the target may be out of the image."""
    margin_x, margin_y = _BORDER * camera.width, _BORDER * camera.height
    return (
        box.x < margin_x
        or box.y < margin_y
        or box.x + box.w > camera.width - margin_x
        or box.y + box.h > camera.height - margin_y
    )


def _law(axis: _Axis, set_point: float, at: float) -> tuple[float, float]:
    """Return the error of an axis at a time, and its answer to it, 1/s."""
    error = axis.value.error(at, set_point)
    rate = axis.value.rate
    return error, axis.gain * beyond(error, axis.dead_band) + axis.feed_forward * beyond(rate, axis.dead_band)
