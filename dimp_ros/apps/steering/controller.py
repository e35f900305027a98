# SPDX-License-Identifier: Apache-2.0
"""What the follower and the visual servo have in common: only a good observation moves anything."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Generic, NamedTuple, TypeVar

from dimp_ros.apps.steering.delay_compensation import DelayCompensator
from dimp_ros.apps.steering.safety import Command, CommandLimiter, Observation, SafetyConfig, Twist, refusal
from dimp_ros.geometry.camera import Camera

Config = TypeVar("Config", bound=SafetyConfig)


class SetPoint(NamedTuple):
    """Where a target is to be in the image, in the terms of the parameters: fractions of its width, height and size."""

    x: float
    y: float
    size: float


class BaseController(ABC, Generic[Config]):
    """Turns observations of a target into velocities: one `update` for each command, whether or not there is news.

    Nothing moves before `set_enabled` was called. All times are seconds; ``now`` is of a monotonic clock.

    :param camera: what the observations were made with; None until it is known. May be replaced at any time.
    :param uniform: see `CommandLimiter`.
    """

    def __init__(self, config: Config, camera: Camera | None, *, uniform: bool) -> None:
        self.config = config
        self.camera = camera
        self._enabled = False
        self._limiter = CommandLimiter(uniform=uniform)
        self._followed: tuple[str, Camera] | None = None  # target and camera that the values are of

    @property
    def enabled(self) -> bool:
        """Whether the robot may move at all."""
        return self._enabled

    def set_enabled(self, enabled: bool) -> None:
        """Allow motion, or end it; what was learned of the target is forgotten."""
        self._enabled = enabled
        self._forget()

    def configure(self, config: Config) -> None:
        """Go on with another configuration."""
        self.config = config

    def update(self, observation: Observation | None, now: float, clock: float | None = None) -> Command:
        """Return the command for this moment; to be called `rate` times a second.

        :param observation: the latest one. :param clock: ROS time in seconds, None if there is no other clock than
            the monotonic one.
        """
        self._advance(now, self._limiter.command.tolist())
        reason = "" if self._enabled else "not enabled"
        reason = reason or refusal(observation, self.camera, self.config, now, clock)
        if reason or observation is None or self.camera is None:
            self._forget()
            return Command(Twist(*self._limiter.stop(now, self.config.stop_seconds).tolist()), reason)
        followed = (observation.target_id, self.camera)
        if followed != self._followed:
            self._forget()
            self._followed = followed
        return self._steer(observation, self.camera, now)

    def _forget(self) -> None:
        """Forget what was measured: the target may have gone anywhere since."""
        self._followed = None
        for value in self._values:
            value.forget()

    @property
    @abstractmethod
    def _values(self) -> Sequence[DelayCompensator]:
        """What is measured of the target."""

    @abstractmethod
    def _advance(self, now: float, twist: Sequence[float]) -> None:
        """Tell the values what the last command does to them until now."""

    @abstractmethod
    def _steer(self, observation: Observation, camera: Camera, now: float) -> Command:
        """Return the command by an observation that may be moved by."""


def set_point_of(observation: Observation, camera: Camera) -> SetPoint:
    """Return the set point at which a target is now."""
    x, y = observation.box.center
    size = math.sqrt(observation.box.area / (camera.width * camera.height))
    values = x / camera.width, y / camera.height, size
    return SetPoint(*(min(max(value, 0.0), 1.0) for value in values))
