# SPDX-License-Identifier: Apache-2.0
"""How the target moves and when it is hidden: functions of the scenario's time alone."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from dimp_ros.apps.simulator.config import WorldConfig

Floats = NDArray[np.float64]

SLIDE_SECONDS = 0.4
"""How long the board takes to be pushed before the target, and away again."""
_HARMONICS = 3


class Path:
    """Where the target is, in the optical frame that the camera had at the start (x right, y down, z forward).

    ``speed`` is in image widths a second, as the camera at the start sees it: a sine and a random path reach it at
    their fastest, a triangle and a circle go at it all the time.
    """

    def __init__(self, config: WorldConfig, rng: np.random.Generator) -> None:
        self._kind, self._period, self._distance = config.path, config.period, config.target_distance
        spread = 2.0 * math.tan(math.radians(config.field_of_view) / 2)  # metres that the image is wide at 1 m
        right, down = config.target_offset
        aspect = config.height / config.width
        self.start: Floats = np.array([right * spread, down * spread * aspect, 1.0]) * self._distance
        self._turn = config.speed * spread
        self._speed = self._turn * self._distance
        # Across, down and, on a vehicle's path, along the optical axis: what lies on a table stays on it.
        self._shares = np.array([1.0, 0.5, 0.0 if config.mode == "arm" else 0.4])
        self._rates = 2.0 * math.pi / config.period * rng.uniform(0.5, 1.5, (_HARMONICS, 3))
        self._phases = rng.uniform(0.0, 2.0 * math.pi, (_HARMONICS, 3))
        self._scale = 0.0
        if self._kind == "random" and self._speed > 0.0:
            self._scale = self._speed / self._fastest_wander()

    def at(self, time: float) -> Floats:
        """Return the place [3] in metres at ``time``, in seconds from the start of the scenario."""
        if self._kind == "static" or time <= 0.0:
            return self.start.copy()
        if self._kind == "circle":
            return _turned(self.start, self._turn * time)
        if self._kind == "random":
            return self.start + self._scale * (self._wander(time) - self._wander(0.0))
        phase = time / self._period
        if self._kind == "sine":
            across = self._speed * self._period / (2.0 * math.pi) * math.sin(2.0 * math.pi * phase)
        else:
            across = self._speed * self._period * _triangle(phase)
        return self.start + np.array([across, 0.0, 0.0])

    def _wander(self, time: float) -> Floats:
        return self._shares * (np.sin(self._rates * time + self._phases) / self._rates).sum(0)

    def _fastest_wander(self) -> float:
        """Return the greatest speed across the view of the path as it is, over a long time."""
        times = np.arange(0.0, 40.0 * self._period, self._period / 40.0)
        velocities = self._shares * np.cos(self._rates * times[:, None, None] + self._phases).sum(1)
        return float(np.hypot(velocities[:, 0], velocities[:, 1]).max())


class Hiding:
    """When the target is hidden, and how."""

    def __init__(self, config: WorldConfig) -> None:
        self._start, self._end = config.hide_from, config.hide_until
        self._by = config.hide_by

    def vanished(self, time: float) -> bool:
        """Say whether the target is not there at ``time``."""
        return self._by == "vanish" and self._start <= time < self._end

    def board_offset(self, time: float) -> float | None:
        """Return how far the board is from the line of sight, 0 (before the target) to 1 (beside it); None if away.

        It starts to move so as to be in place from ``hide_from`` to ``hide_until``.
        """
        if self._by != "board" or self._end <= self._start:
            return None
        away = max(self._start - time, time - self._end, 0.0) / SLIDE_SECONDS
        return away if away < 1.0 else None


def _turned(point: Floats, angle: float) -> Floats:
    """Return ``point`` after a turn to the right about the optical frame's y axis."""
    c, s = math.cos(angle), math.sin(angle)
    return np.array([c * point[0] + s * point[2], point[1], c * point[2] - s * point[0]])


def _triangle(phase: float) -> float:
    """Return a wave of slope 1 and -1 that begins at 0 upwards and has the period 1."""
    part = (phase + 0.25) % 1.0
    return part - 0.25 if part < 0.5 else 0.75 - part
