# SPDX-License-Identifier: Apache-2.0
"""A loop closed without ROS and without waiting: camera, tracker, control law, and motion, on the world's own clock.

Run as a program, it prints the table of docs/simulator.md: tools/env python test/helpers/simulated_loop.py
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

from dimp_ros.apps.simulator.config import WorldConfig
from dimp_ros.apps.simulator.delay import DelayLine
from dimp_ros.apps.simulator.metrics import CommandRecord, ErrorRecord, LoopFigures, LoopRecording, StateRecord
from dimp_ros.apps.simulator.world import World
from dimp_ros.apps.steering.controller import BaseController
from dimp_ros.apps.steering.follower_control import FollowConfig, FollowControl
from dimp_ros.apps.steering.safety import Command, TargetObservation
from dimp_ros.apps.steering.servo_control import ServoConfig, ServoControl
from dimp_ros.geometry.box import Box
from dimp_ros.tracker.result import TargetState

TICK = 0.02
"""Between two commands, seconds."""

PATHS_OF_A_VEHICLE = ("static", "sine", "circle", "random", "triangle")
PATHS_OF_AN_ARM = ("static", "sine", "random", "triangle")


class Word(NamedTuple):
    """What a tracker says of an image; ``position`` as in `TargetObservation`."""

    state: TargetState
    confidence: float
    box: Box
    position: tuple[float, float, float] | None = None


NO_BOX = Box(0.0, 0.0, 0.0, 0.0)


class SimulatedTracker:
    """Says the truth with noise; LOST while less than half of the target is in sight.

    :param noise: standard deviation of position and size, as a share of the size. :param off: by how much its boxes are
        beside the target, right and down, likewise. :param poses: tell the target's position, too.
    """

    def __init__(
        self, noise: float = 0.02, seed: int = 0, *, off: tuple[float, float] = (0.0, 0.0), poses: bool = False
    ) -> None:
        self._noise, self._rng = noise, np.random.default_rng(seed)
        self._off, self._poses = off, poses

    def look(self, world: World) -> Word:
        """Say where the target is now."""
        truth = world.truth()
        if truth.box is None or truth.visible < 0.5:
            return Word(TargetState.LOST, 0.0, NO_BOX)
        x, y, w, h = self._rng.normal(0.0, self._noise, 4)
        box, (cx, cy) = truth.box, truth.box.center
        centre = cx + (x + self._off[0]) * box.w, cy + (y + self._off[1]) * box.h
        right, down, ahead = truth.position.tolist()
        return Word(
            TargetState.TRACKING,
            0.9,
            Box.from_center(*centre, box.w * math.exp(w), box.h * math.exp(h)),
            (right, down, ahead) if self._poses else None,
        )


def nanoseconds(seconds: float) -> int:
    """Return a stamp; 0 for what no stamp can hold."""
    return round(seconds * 1e9) if abs(seconds) < 2.0**31 else 0


class Moment(NamedTuple):
    """What was the case at one tick, beside what a `LoopRecording` tells.

    :param distance: of the target, metres. :param state: what the controller had last been told. :param speed: of the
        camera, m/s and rad/s together.
    """

    time: float
    distance: float
    state: int
    command: Command
    speed: float


class Loop(NamedTuple):
    """What happened in a loop."""

    recording: LoopRecording
    moments: list[Moment]


def close_loop(
    world: World,
    control: BaseController[Any],
    look: Callable[[World], Word],
    seconds: float,
    *,
    image_period: float = 0.06,
    delay: float = 0.08,
    untold: float = 0.0,
    kill_at: float = math.inf,
) -> Loop:
    """Run a loop for some seconds of the world's time.

    :param control: is enabled at the start. :param delay: from an image to the arrival of the word on it, of which the
        word tells: latency of camera and tracker together. :param untold: further latency, of which it does not tell.
    :param kill_at: when the tracker falls silent.
    """
    config = control.config
    recording = LoopRecording(
        (world.config.width, world.config.height),
        enabled=world.time,
        killed=kill_at if kill_at < math.inf else None,
    )
    moments: list[Moment] = []
    words: DelayLine[tuple[float, Word]] = DelayLine(delay + untold)
    observation, next_image = None, world.time
    control.camera = world.camera
    control.set_enabled(True)
    for _ in range(round(seconds / TICK)):
        now = world.time
        if next_image <= now + 1e-9:
            next_image += image_period
            recording.errors.append(true_error(world, config.set_point_x, config.set_point_y))
            if now < kill_at:
                words.push(now, (now, look(world)))
        if now < kill_at and (arrived := words.pop(now)) is not None:
            stamp, word = arrived
            age = now - stamp - untold
            observation = TargetObservation(
                "0",
                word.state,
                word.box,
                word.confidence,
                stamp=nanoseconds(stamp),
                age=age,
                sent=now,
                position=word.position,
            )
            x, y = word.box.center if word.box.w > 0 else (math.nan, math.nan)
            x, y = x / world.config.width - config.set_point_x, y / world.config.height - config.set_point_y
            recording.states.append(StateRecord(now, word.state.name, word.confidence, now - stamp, x, y))
        command = control.update(observation, now, now)
        recording.commands.append(CommandRecord(now, tuple(command.twist)))
        truth = world.truth()
        moments.append(
            Moment(
                now,
                float(np.linalg.norm(truth.position)),
                observation.state if observation is not None else 0,
                command,
                float(np.linalg.norm(truth.velocity)),
            )
        )
        world.command(command.twist)
        world.step(TICK)
    return Loop(recording, moments)


def true_error(world: World, x: float, y: float) -> ErrorRecord:
    """Return where the target is from its set point, which is at ``x``, ``y`` in image widths and heights."""
    truth = world.truth()
    if truth.box is None:
        return ErrorRecord(world.time, math.nan, math.nan, 0.0)
    centre_x, centre_y = truth.box.center
    across, down = centre_x / world.config.width - x, centre_y / world.config.height - y
    return ErrorRecord(world.time, across, down, truth.visible)


def table(seconds: float = 15.0) -> Iterator[str]:
    """Return the lines of the table in docs/simulator.md."""
    small, fast = {"width": 320, "height": 240}, 0.25
    for name, paths in (("follower", PATHS_OF_A_VEHICLE), ("servo", PATHS_OF_AN_ARM)):
        for path in paths:
            for delay in (0.08, 0.18):
                if name == "follower":
                    world = World(WorldConfig(**small, path=path, speed=fast, target_offset=(0.3, -0.1)), seed=1)
                    control: BaseController[Any] = FollowControl(FollowConfig(vertical="climb"))
                else:
                    world = World(WorldConfig.arm(**small, path=path, speed=fast, target_offset=(0.3, -0.2)), seed=1)
                    control = ServoControl(ServoConfig(max_speed=0.4))
                loop = close_loop(world, control, SimulatedTracker().look, seconds, delay=delay)
                figures = LoopFigures.of(loop.recording)
                yield (
                    f"| {name} | {path} | {delay * 1e3:.0f} ms | {figures.settling_seconds:.2f} s | "
                    f"{figures.within_share:.1%} | {figures.median_error:.1%} | {figures.error_95:.1%} | "
                    f"{figures.forward_acceleration:.2f} |"
                )


if __name__ == "__main__":
    for line in table():
        print(line, flush=True)
