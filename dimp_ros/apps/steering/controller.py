# SPDX-License-Identifier: Apache-2.0
"""The base of the follower's and the visual servo's control laws: only a good, new observation moves the robot."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Generic, NamedTuple, TypeVar

from dimp_ros.apps.steering.delay_compensation import DelayCompensator
from dimp_ros.apps.steering.limiter import CommandLimiter, CommandLimits
from dimp_ros.apps.steering.safety import Command, MotionGate, SafetyConfig, TargetObservation, Twist
from dimp_ros.geometry.box import Box
from dimp_ros.geometry.camera import Camera

Config = TypeVar("Config", bound=SafetyConfig)


class SetPoint(NamedTuple):
    """Where a target is to be in the image, in the terms of the parameters: fractions of its width, height and size."""

    x: float
    y: float
    size: float


class BaseController(ABC, Generic[Config]):
    """Turns observations of a target into velocities: one `update` for each command, with or without a new observation.

    Nothing moves before `set_enabled` was called. All times are seconds; ``now`` is of the steady clock.

    :param camera: camera of the observations; None until it is known. May be replaced at any time.
    """

    def __init__(self, config: Config, camera: Camera | None) -> None:
        self.config = config
        self.camera = camera
        self._enabled = False
        self._limiter = CommandLimiter(self.limits(config))
        self._gate = MotionGate()
        self._followed: tuple[str, int, Camera] | None = None  # target, its start, and camera of the values
        self._frames: tuple[str | None, ...] = ()

    @property
    def enabled(self) -> bool:
        """Whether the robot may move at all."""
        return self._enabled

    def set_enabled(self, enabled: bool) -> None:
        """Allow motion, or end it; where that changes, forget what was measured; see `MotionGate.restart`."""
        if enabled and self._enabled:
            return
        self._enabled = enabled
        self._gate.restart()
        self._forget()

    def configure(self, config: Config) -> None:
        """Continue with another configuration; lowered limits hold from the next command on, without a slew rate."""
        self.config = config
        self._limiter.limits = self.limits(config)

    def refusal(self, observation: TargetObservation | None, now: float, clock: float | None = None) -> str:
        """Return why the robot must not move by ``observation`` now; empty if it may, once enabled."""
        self._gate.tick(now, clock)
        return self._gate.refusal(observation, self.camera, self.config, now)

    def update(
        self,
        observation: TargetObservation | None,
        now: float,
        clock: float | None = None,
        frames: tuple[str | None, ...] = (),
    ) -> Command:
        """Return the command for this moment; to be called `rate` times a second.

        :param observation: the latest one. :param clock: ROS time in seconds, None if there is no other clock than
            the steady one. :param frames: frame_ids of the command and of the images. Where one changes, the command
            is zero at once: the last velocity would be another motion in another frame.
        """
        self._advance(now, self._limiter.command.tolist())
        reason = self.refusal(observation, now, clock)
        reason = reason if self._enabled else "not enabled"
        if frames != self._frames:
            self._frames = frames
            self._limiter.halt()
            reason = reason or "the frame_id of the images or of the commands has changed"
        box = observation.box if observation is not None else None
        if reason or observation is None or box is None or self.camera is None:
            self._forget()
            return Command(Twist(*self._limiter.stop(now, self.config.stop_seconds).tolist()), reason)
        followed = (observation.target_id, observation.start, self.camera)
        if followed != self._followed:
            self._forget()
            self._followed = followed
        command = self._steer(observation, box, self.camera, now)
        if self._limiter.stopping and not command.reason:
            return command._replace(reason="coming to rest after a stop")
        return command

    def _forget(self) -> None:
        """Forget what was measured: the target may be anywhere since."""
        self._followed = None
        for value in self._values:
            value.forget()

    @staticmethod
    @abstractmethod
    def limits(config: Config) -> CommandLimits:
        """Return the limits of the commands."""

    @property
    @abstractmethod
    def _values(self) -> Sequence[DelayCompensator]:
        """The measured values of the target."""

    @abstractmethod
    def _advance(self, now: float, twist: Sequence[float]) -> None:
        """Integrate the last command's effect on the values until now."""

    @abstractmethod
    def _steer(self, observation: TargetObservation, box: Box, camera: Camera, now: float) -> Command:
        """Return the command for an observation that passed the gate."""


def set_point_of(box: Box, camera: Camera) -> SetPoint:
    """Return the set point at which a target is now."""
    x, y = box.center
    size = math.sqrt(box.area / (camera.width * camera.height))
    values = x / camera.width, y / camera.height, size
    return SetPoint(*(min(max(value, 0.0), 1.0) for value in values))
