# SPDX-License-Identifier: Apache-2.0
"""A closed loop without ROS and without waiting: a simulated world, a tracker that is right but late, a control law."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from dimp_ros.apps.gated_control import GatedControl
from dimp_ros.apps.safety import Command, Observation
from dimp_ros.apps.simulator.config import WorldConfig
from dimp_ros.apps.simulator.world import World
from dimp_ros.geometry import Box
from dimp_ros.tracker.result import TargetState

TICK = 0.02


class Moment(NamedTuple):
    """What was the case at one tick.

    ``x``, ``y``: the target relative to the set point, in image widths and heights; NaN where it has vanished.
    ``distance``: to the target, metres. ``state``: what the controller had last been told. ``speed``: of the camera.
    """

    time: float
    x: float
    y: float
    distance: float
    state: int
    command: Command
    speed: float


@dataclass
class Tracker:
    """Sees the true box, with noise, at some rate, and tells of it late.

    :param period: seconds between images. :param latency: of which its messages tell, seconds. :param untold: further
        latency, of which they do not. :param noise: standard deviation of centre and sides, pixels.
    :param poses: tell the target's position, too. :param killed: when it says its last word, seconds.
    """

    period: float = 1 / 15
    latency: float = 0.1
    untold: float = 0.0
    noise: float = 0.5
    poses: bool = False
    killed: float = 1e9
    _rng: np.random.Generator = field(default_factory=lambda: np.random.default_rng(0))
    _next: float = 0.0
    _late: deque[tuple[float, Observation]] = field(default_factory=deque)
    _said: Observation | None = None

    def watch(self, world: World) -> Observation | None:
        """Look at the world, and return what has arrived by now."""
        now = world.time
        if self._next <= now < self.killed:
            self._next += self.period
            heard = now + self.latency + self.untold
            self._late.append((heard, self._observe(world, heard)))
        while self._late and self._late[0][0] <= now:
            self._said = self._late.popleft()[1]
        return self._said

    def _observe(self, world: World, heard: float) -> Observation:
        truth = world.truth()
        seen = truth.box is not None and truth.visible >= 0.5
        box = Box(0.0, 0.0, 0.0, 0.0)
        if seen and truth.box is not None:
            x, y, w, h = self._rng.normal(0.0, self.noise, 4)
            centre = truth.box.center
            box = Box.from_center(centre[0] + x, centre[1] + y, max(truth.box.w + w, 2.0), max(truth.box.h + h, 2.0))
        position = tuple(truth.position.tolist()) if self.poses and seen else None
        state = TargetState.TRACKING if seen else TargetState.LOST
        return Observation("cup", int(state), 0.9 * seen, box, world.time, self.latency, heard, position)


def close_loop(
    control: GatedControl[Any], config: WorldConfig, tracker: Tracker | None = None, *, seconds: float = 15.0
) -> list[Moment]:
    """Let ``control`` steer the camera of a world for a while, enabled from the start; return what happened."""
    world, tracker = World(config, seed=0), tracker or Tracker()
    control.camera = world.camera
    control.set_enabled(True)
    moments = []
    while world.time < seconds:
        observation = tracker.watch(world)
        command = control.update(observation, world.time, world.time)
        world.command(command.twist)
        truth = world.truth()
        x, y = truth.box.center if truth.box is not None else (np.nan, np.nan)
        moments.append(
            Moment(
                time=world.time,
                x=x / config.width - control.config.set_point_x,
                y=y / config.height - control.config.set_point_y,
                distance=float(np.linalg.norm(truth.position)),
                state=observation.state if observation is not None else 0,
                command=command,
                speed=float(np.linalg.norm(truth.velocity)),
            )
        )
        world.step(TICK)
    return moments


def settled_after(moments: list[Moment], band: float = 0.1) -> float:
    """Return when the target came to within ``band`` of the set point to stay there for a second, seconds."""
    since = None
    for moment in moments:
        if not (abs(moment.x) <= band and abs(moment.y) <= band):
            since = None
        elif since is None:
            since = moment.time
        elif moment.time - since >= 1.0:
            return since
    return float("inf")


def share_within(moments: list[Moment], after: float, band: float = 0.1) -> float:
    """Return the share of the time after ``after`` in which the target was within ``band`` of the set point."""
    inside = [abs(moment.x) <= band and abs(moment.y) <= band for moment in moments if moment.time >= after]
    return float(np.mean(inside))
