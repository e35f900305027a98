# SPDX-License-Identifier: Apache-2.0
"""The visual servo's control law: from observations of a target to a velocity of the camera. No ROS.

Image-based visual servoing (Chaumette and Hutchinson, Visual Servo Control I, 2006) for a camera in an arm's hand. All
is in the optical frame: x right, y down, z forward. The features are the normalised image coordinates of the middle of
the target and the logarithm of its size, s = (x, y, log sqrt(area)), with the interaction matrix L, ds/dt = L twist.
With e = s - s* where the target will be when the command has its effect, and r the target's own part in ds/dt,

    twist = -L⁺ (gain e + feed_forward r)

where L⁺ is a damped pseudo-inverse, so that near a singularity the twist stays bounded.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dimp_ros.apps.steering.controller import BaseController
from dimp_ros.apps.steering.delay_compensation import DelayCompensator, beyond
from dimp_ros.apps.steering.limiter import VectorLimits
from dimp_ros.apps.steering.safety import Command, SafetyConfig, TargetObservation, Twist, fits_box
from dimp_ros.geometry.box import Box
from dimp_ros.geometry.camera import Camera
from dimp_ros.ros_utils.config_dataclass import setting

_AXES = {"translation": (0, 1, 2), "rotation": (2, 3, 4), "all": (0, 1, 2, 3, 4, 5)}
_ALONG = 2
_NEAREST, _FARTHEST = 0.02, 50.0
_FASTEST_TARGET = 3.0
"""Own motion of a target in the features that is believed, 1/s."""

_WIDEST = 5.0
"""Normalised coordinates beyond are too near to 90 degrees off the axis for this law."""

Array = NDArray[np.float64]


@dataclass(frozen=True)
class ServoConfig(SafetyConfig):
    """Settings of `ServoControl`. Validated at construction."""

    frame_id: str = setting("", "frame_id of the commands; empty for the images' own, an optical frame.")
    axes: str = setting(
        "translation",
        "How the camera moves: x, y, z; turning about x and y, and along z; or all six, least motion first.",
        choices=("translation", "rotation", "all"),
    )
    set_point_x: float = setting(0.5, "Where the target is to be in the image, from 0 left to 1 right.", (0.0, 1.0))
    set_point_y: float = setting(0.5, "Where the target is to be in the image, from 0 top to 1 bottom.", (0.0, 1.0))
    set_point_size: float = setting(
        0.0,
        "Size that it is to have, sqrt(box area / image area); 0 leaves it, and the distance, as it is.",
        (0.0, 1.0),
    )
    set_point_depth: float = setting(
        0.5, "Depth of the target at the set point, in metres, used where there is no target_pose.", (0.02, 50.0)
    )
    gain: float = setting(1.5, "Gain, 1/s: how quickly an error decays.", (0.0, 10.0))
    feed_forward: float = setting(
        0.8, "Share of the target's own motion that is matched without waiting for an error.", (0.0, 1.0)
    )
    dead_band: float = setting(
        0.5,
        "Errors below this, in pixels, move nothing, nor do motions of the target below four times this a second.",
        (0.0, 100.0),
    )
    size_dead_band: float = setting(0.01, "Errors of the size below this share of it move nothing.", (0.0, 1.0))
    singular_value: float = setting(
        0.2, "Smallest singular value of the interaction matrix below which the motion is damped.", (0.001, 1.0)
    )
    rate_time: float = setting(
        0.1, "Time constant of the filter of the features and of their rates, in seconds.", (0.02, 5.0)
    )
    response_time: float = setting(
        0.1,
        "Time constant of the lag with which the arm follows a command, in seconds; rather too long than too short.",
        (0.0, 2.0),
    )
    max_speed: float = setting(0.1, "Largest speed of the camera, m/s.", (0.0, 5.0))
    max_turn: float = setting(0.5, "Largest rate at which the camera turns, rad/s.", (0.0, 10.0))
    max_acceleration: float = setting(0.5, "Largest change of the speed, m/s².", (0.01, 100.0))
    max_turn_acceleration: float = setting(2.5, "Largest change of the turn, rad/s².", (0.01, 100.0))


class ServoControl(BaseController[ServoConfig]):
    """Brings a target to its set point in the image with a camera that is moved; see `BaseController`.

    The error of a command is (x, y, log of size) in pixels, pixels and 1.
    """

    def __init__(self, config: ServoConfig | None = None, camera: Camera | None = None) -> None:
        super().__init__(config or ServoConfig(), camera)
        self._features = tuple(DelayCompensator() for _ in range(3))
        self._depth: tuple[float, float] | None = None  # from a position: metres, and when the image was taken
        self._matrix = interaction_matrix(0.0, 0.0, self.config.set_point_depth)

    @staticmethod
    def limits(config: ServoConfig) -> VectorLimits:
        """Return the limits of the commands."""
        return VectorLimits(config.max_speed, config.max_turn, config.max_acceleration, config.max_turn_acceleration)

    @property
    def _values(self) -> Sequence[DelayCompensator]:
        return self._features

    def _forget(self) -> None:
        super()._forget()
        self._depth = None

    def _advance(self, now: float, twist: Sequence[float]) -> None:
        for value, rate in zip(self._features, (self._matrix @ np.array(twist)).tolist(), strict=True):
            value.advance(now, rate, self.config.response_time)

    def _steer(self, observation: TargetObservation, box: Box, camera: Camera, now: float) -> Command:
        config = self.config
        seen = features(camera, *box.center, math.sqrt(box.area))
        fraction = config.set_point_size
        side = (fraction or 0.1) * math.sqrt(camera.width * camera.height)
        wanted = features(camera, config.set_point_x * camera.width, config.set_point_y * camera.height, side)
        if seen is None or wanted is None:
            where = "target" if seen is None else "set point"
            reason = f"the {where} is too far off the optical axis: nearer to its middle, or a camera of less view"
            self._forget()
            return Command(Twist(*self._limiter.stop(now, config.stop_seconds).tolist()), reason)
        for value, number in zip(self._features, seen, strict=True):
            value.measure(number, observation.taken, config.rate_time, max(config.timeout, 0.1), _FASTEST_TARGET)
        at = now + config.response_time
        predicted = [value.predict(at) for value in self._features]
        x, y = (min(max(value, -_WIDEST), _WIDEST) for value in predicted[:2])
        error = np.array(predicted) - wanted
        if fraction == 0.0:
            error[2] = 0.0
        depth = self._depth_of(observation, camera, float(error[2]))
        self._matrix = interaction_matrix(x, y, depth)
        twist, smallest = self._twist(error, camera, depth)
        in_pixels = (float(error[0]) * camera.fx, float(error[1]) * camera.fy, float(error[2]))
        return self._limited(twist, smallest, now, in_pixels)

    def _depth_of(self, observation: TargetObservation, camera: Camera, size_error: float) -> float:
        """Return the depth of the target, metres: as measured, or from its size."""
        if fits_box(observation, camera):
            assert observation.position is not None
            self._depth = observation.position[2], observation.taken
        if self._depth is not None and observation.taken - self._depth[1] <= self.config.timeout:
            depth = self._depth[0]
        else:
            depth = self.config.set_point_depth * math.exp(min(max(-size_error, -3.0), 3.0))
        return min(max(depth, _NEAREST), _FARTHEST)

    def _twist(self, error: Array, camera: Camera, depth: float) -> tuple[Array, float]:
        """Return the twist [6] that makes the error [3] decay, and the smallest singular value that it comes from."""
        config = self.config
        bands = (config.dead_band / camera.fx, config.dead_band / camera.fy, config.size_dead_band)
        answer = np.array(
            [
                config.gain * beyond(one, band) + config.feed_forward * beyond(value.rate, 4.0 * band)
                for one, value, band in zip(error.tolist(), self._features, bands, strict=True)
            ]
        )
        axes, rows = list(_AXES[config.axes]), [0, 1, 2]
        if config.set_point_size == 0.0:  # then neither is the size a feature, nor is it changed
            axes.remove(_ALONG)
            rows.remove(2)
        # In units of the depth, metres and radians are alike, and so are near and far targets.
        scale = np.array([depth if axis < 3 else 1.0 for axis in axes])
        matrix = self._matrix[np.ix_(rows, axes)] * scale
        inverse, smallest = damped_inverse(matrix, config.singular_value)
        twist = np.zeros(6)
        twist[axes] = -(inverse @ answer[rows]) * scale
        return twist, smallest

    def _limited(self, twist: Array, smallest: float, now: float, error: tuple[float, ...]) -> Command:
        config = self.config
        notes: tuple[str, ...] = ()
        if smallest < config.singular_value:
            notes = (f"near a singularity, damped: smallest singular value {smallest:.2g}",)
        if not np.isfinite(twist).all():
            notes = (*notes, "a result is not finite: stopped")
        share = self.limits(config).share(twist)
        if share < 1.0:
            notes = (*notes, f"saturated: {share:.0%} of the speed that is wanted")
        return Command(Twist(*self._limiter.drive(twist, now).tolist()), "", error, notes)


def features(camera: Camera, x: float, y: float, side: float) -> tuple[float, float, float] | None:
    """Return (x, y, log of size) of a target at a pixel with sqrt(area) ``side`` in pixels, without distortion.

    :return: None where the pixel's direction is too far off the optical axis.
    """
    right, down, forward = camera.bearing(x, y).tolist()
    if forward <= 0.0 or max(abs(right), abs(down)) > _WIDEST * forward:
        return None
    return right / forward, down / forward, math.log(side / math.sqrt(camera.fx * camera.fy))


def interaction_matrix(x: float, y: float, depth: float) -> Array:
    """Return L [3, 6] of the features (x, y, log of size) of a target at a depth in metres.

    The columns are those of a twist of the camera in its optical frame. The last row is that of a small flat target
    parallel to the image: half the row of the logarithm of its area, 2 vz / Z + 3 (y wx - x wy).
    """
    return np.array(
        [
            [-1.0 / depth, 0.0, x / depth, x * y, -(1.0 + x * x), y],
            [0.0, -1.0 / depth, y / depth, 1.0 + y * y, -x * y, -x],
            [0.0, 0.0, 1.0 / depth, 1.5 * y, -1.5 * x, 0.0],
        ]
    )


def damped_inverse(matrix: Array, singular_value: float) -> tuple[Array, float]:
    """Return the pseudo-inverse [n, m] of a matrix [m, n], damped near singularities, and the smallest singular value.

    Damped least squares after Nakamura and Hanafusa (1986): inverse = J' (J J' + d² I)⁻¹, where d² grows from 0 at
    ``singular_value`` to its square where the smallest singular value is 0. No gain exceeds 1 / singular_value.
    """
    left, values, right = np.linalg.svd(matrix, full_matrices=False)
    smallest = float(values.min())
    damping = max(0.0, 1.0 - (smallest / singular_value) ** 2) * singular_value**2
    return right.T @ np.diag(values / (values**2 + damping)) @ left.T, smallest
