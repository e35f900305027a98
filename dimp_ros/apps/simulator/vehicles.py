# SPDX-License-Identifier: Apache-2.0
"""Vehicle models: what carries the camera, a vehicle or an arm's hand, velocity-controlled with a first-order lag.

The world's frame is x forward, y left, z up. A camera's rotation matrix [3, 3] has the axes of its optical frame (x
right, y down, z forward) as columns.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from dimp_ros.apps.simulator.config import WorldConfig
from dimp_ros.apps.simulator.delay import DelayLine

Floats = NDArray[np.float64]

STEP = 0.005
"""Longest step of the integration, seconds."""

FORWARD_LOOKING = np.array([[0.0, 0.0, 1.0], [-1.0, 0.0, 0.0], [0.0, -1.0, 0.0]])
"""The optical frame of a camera that looks along a vehicle's x axis, in the vehicle's frame."""

DOWN_LOOKING = np.array([[0.0, -1.0, 0.0], [-1.0, 0.0, 0.0], [0.0, 0.0, -1.0]])
"""The optical frame of a camera that looks down, its upper edge ahead, in the world's frame."""


class Vehicle:
    """Integrates velocity commands to the pose and the velocity of the camera.

    A command is six numbers, linear x, y, z in metres a second and angular x, y, z in radians a second: a vehicle's in
    its body frame (x forward, y left, z up), of whose angular part z counts alone; an arm's in the camera's optical
    frame. It is held until the next one, ``command_timeout`` at most.
    """

    def __init__(self, config: WorldConfig) -> None:
        self._config = config
        self._arm = config.mode == "arm"
        self._most = np.repeat([config.max_speed, config.max_turn], 3)
        self._line: DelayLine[tuple[float, Floats]] = DelayLine(config.command_latency)
        self._wanted: Floats = np.zeros(6)
        self._until = -math.inf
        self.velocity: Floats = np.zeros(6)
        """Linear and angular velocity now, in the frame of the commands."""
        self._yaw = 0.0
        self._mount = FORWARD_LOOKING @ _turn(np.array([-math.radians(config.camera_pitch), 0.0, 0.0]))
        self.position: Floats = np.array([0.0, 0.0, config.target_distance if self._arm else config.camera_height])
        """Of the camera in the world, metres."""
        self.rotation: Floats = DOWN_LOOKING.copy() if self._arm else self._mount.copy()
        """Axes of the optical frame in the world, as columns."""

    def command(self, time: float, twist: Sequence[float]) -> None:
        """Take a command at ``time``, in seconds.

        :raises ValueError: for one that is not six finite numbers; the last one stays.
        """
        wanted: Floats = np.asarray(twist, np.float64)
        if wanted.shape != (6,) or not np.isfinite(wanted).all():
            raise ValueError(
                f"command {list(twist)!r} must be six finite numbers: linear x, y, z in m/s, angular x, y, z in rad/s"
            )
        wanted = np.asarray(np.clip(wanted, -self._most, self._most))
        if not self._arm:
            wanted[3:5] = 0.0
        self._line.push(time, (time, wanted))

    def advance(self, start: float, seconds: float) -> None:
        """Move on from ``start`` by ``seconds``."""
        count = max(1, math.ceil(seconds / STEP - 1e-9))
        step = seconds / count
        lag = self._config.lag
        keep = math.exp(-step / lag) if lag > 0.0 else 0.0
        mean = (1.0 - keep) * lag / step  # of what is kept, over the step
        for index in range(count):
            now = start + index * step
            if (taken := self._line.pop(now)) is not None:
                given, self._wanted = taken
                self._until = given + self._config.command_latency + self._config.command_timeout
            wanted = self._wanted if now < self._until else np.zeros(6)
            before = self.velocity
            self.velocity = wanted + (before - wanted) * keep
            self._integrate(wanted + (before - wanted) * mean, step)

    def _integrate(self, velocity: Floats, step: float) -> None:
        """Move with a constant velocity for a step; a turn is halved before and after the way, to second order."""
        if self._arm:
            half = _turn(velocity[3:] * (step / 2))
            middle = self.rotation @ half
            self.position = self.position + middle @ velocity[:3] * step
            self.rotation = _orthonormal(middle @ half)
            return
        middle_yaw = self._yaw + velocity[5] * step / 2
        self.position = self.position + _about_z(middle_yaw) @ velocity[:3] * step
        self._yaw += velocity[5] * step
        self.rotation = _about_z(self._yaw) @ self._mount


def _about_z(angle: float) -> Floats:
    c, s = math.cos(angle), math.sin(angle)
    return np.array([[c, -s, 0.0], [s, c, 0.0], [0.0, 0.0, 1.0]])


def _turn(vector: Floats) -> Floats:
    """Return the rotation matrix [3, 3] of a rotation vector [3], by Rodrigues' formula."""
    angle = float(np.linalg.norm(vector))
    if angle < 1e-12:
        return np.eye(3)
    x, y, z = vector / angle
    cross = np.array([[0.0, -z, y], [z, 0.0, -x], [-y, x, 0.0]])
    return np.eye(3) + math.sin(angle) * cross + (1.0 - math.cos(angle)) * (cross @ cross)


def _orthonormal(matrix: Floats) -> Floats:
    """Return the rotation nearest to ``matrix``, whose rounding errors would add up."""
    u, _, v = np.linalg.svd(matrix)
    return np.asarray(u @ v)
