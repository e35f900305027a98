# SPDX-License-Identifier: Apache-2.0
"""A loop closed in the simulated world, on the world's clock: camera, tracker, controller, and the camera's motion."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from dimp_ros.apps.safety import Observation
from dimp_ros.apps.simulator.delay import DelayLine
from dimp_ros.apps.simulator.figures import Commanded, Error, Recording, Said
from dimp_ros.apps.simulator.world import World
from dimp_ros.geometry import Box
from dimp_ros.tracker.result import TargetState

TICK = 0.02
"""Between two commands, seconds."""


class Word(NamedTuple):
    """What a tracker says of an image."""

    state: TargetState
    confidence: float
    box: Box


NO_BOX = Box(0.0, 0.0, 0.0, 0.0)


class ScriptedTracker:
    """Says the truth with noise; LOST while less than half of the target is in sight.

    :param noise: standard deviation of position and size, as a share of the size.
    """

    def __init__(self, noise: float = 0.02, seed: int = 0) -> None:
        self._noise, self._rng = noise, np.random.default_rng(seed)

    def look(self, world: World) -> Word:
        """Say where the target is now."""
        truth = world.truth()
        if truth.box is None or truth.visible < 0.5:
            return Word(TargetState.LOST, 0.0, NO_BOX)
        x, y, w, h = self._rng.normal(0.0, self._noise, 4)
        box, (cx, cy) = truth.box, truth.box.center
        return Word(
            TargetState.TRACKING,
            0.9,
            Box.from_center(cx + x * box.w, cy + y * box.h, box.w * math.exp(w), box.h * math.exp(h)),
        )


def close_loop(
    world: World,
    control: Any,
    look: Callable[[World], Word],
    seconds: float,
    *,
    image_period: float = 0.06,
    delay: float = 0.08,
    set_point: tuple[float, float] = (0.5, 0.5),
    kill_at: float = math.inf,
) -> Recording:
    """Run a loop for some seconds of the world's time, and return what happened.

    :param control: a `GatedControl`; it is enabled at the start. :param image_period: a multiple of `TICK`.
    :param delay: from an image to the arrival of the word on it: latency of camera and tracker together.
    :param kill_at: when the tracker falls silent.
    """
    width, height = world.config.width, world.config.height
    recording = Recording((width, height), enabled=world.time, killed=kill_at if kill_at < math.inf else None)
    words: DelayLine[tuple[float, Word]] = DelayLine(delay)
    observation, every = None, round(image_period / TICK)
    control.camera = world.camera
    control.set_enabled(True)
    for tick in range(round(seconds / TICK)):
        now = world.time
        if tick % every == 0:
            recording.errors.append(true_error(world, set_point))
            if now < kill_at:
                words.push(now, (now, look(world)))
        if now < kill_at and (arrived := words.pop(now)) is not None:
            stamp, word = arrived
            observation = Observation("0", word.state, word.confidence, word.box, stamp, now - stamp, now)
            recording.said.append(Said(now, word.state.name, word.confidence, now - stamp))
        twist = control.update(observation, now, now).twist
        recording.commands.append(Commanded(now, tuple(twist)))
        world.command(twist)
        world.step(TICK)
    return recording


def true_error(world: World, set_point: tuple[float, float]) -> Error:
    """Return where the target is from its set point."""
    truth = world.truth()
    if truth.box is None:
        return Error(world.time, math.nan, math.nan, 0.0)
    x, y = truth.box.center
    return Error(
        world.time, x / world.config.width - set_point[0], y / world.config.height - set_point[1], truth.visible
    )
