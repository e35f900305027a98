# SPDX-License-Identifier: Apache-2.0
"""Follower and servo in closed loop in the simulated world, on its clock."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest
from helpers.simulated_loop import NO_BOX, SimulatedTracker, Word, close_loop

from dimp_ros.apps.simulator.config import WorldConfig
from dimp_ros.apps.simulator.metrics import LoopFigures
from dimp_ros.apps.simulator.world import World
from dimp_ros.apps.steering.follower_control import FollowConfig, FollowControl
from dimp_ros.apps.steering.servo_control import ServoConfig, ServoControl
from dimp_ros.tracker.result import TargetState

if TYPE_CHECKING:
    from dimp_ros.tracker import DimpTracker

SMALL = {"width": 320, "height": 240}
FAST = 0.25
"""Image widths a second."""
SECONDS = 15.0


def follower() -> FollowControl:
    return FollowControl(FollowConfig(vertical="climb"))


def servo() -> ServoControl:
    return ServoControl(ServoConfig(max_speed=0.4))


def vehicle_world(path: str, **changes: object) -> World:
    return World(WorldConfig(**SMALL, path=path, speed=FAST, target_offset=(0.3, -0.1)).with_changes(**changes), seed=1)


def arm_world(path: str, **changes: object) -> World:
    return World(WorldConfig.arm(**SMALL, path=path, speed=FAST, target_offset=(0.3, -0.2), **changes), seed=1)


def assert_on_target(figures: LoopFigures) -> None:
    assert figures.settling_seconds is not None and figures.settling_seconds < 3.0
    assert figures.within_share is not None and figures.within_share >= 0.95


@pytest.mark.parametrize(("path", "more_delay"), [("random", 0.0), ("sine", 0.1), ("circle", 0.1), ("random", 0.1)])
def test_follower_keeps_a_fast_target_also_100_ms_later(path, more_delay):
    loop = close_loop(vehicle_world(path), follower(), SimulatedTracker().look, SECONDS, delay=0.08 + more_delay)
    assert_on_target(LoopFigures.of(loop.recording))


@pytest.mark.parametrize(("path", "period"), [("static", 0.03), ("static", 0.12), ("circle", 0.06)])
def test_forward_command_is_smooth_at_a_constant_distance(path, period):
    loop = close_loop(vehicle_world(path), follower(), SimulatedTracker(0.03).look, SECONDS, image_period=period)
    figures = LoopFigures.of(loop.recording)
    assert figures.forward_acceleration is not None and figures.forward_acceleration < 0.3
    assert any(moment.command.twist.vx for moment in loop.moments)


@pytest.mark.parametrize(("path", "more_delay"), [("random", 0.0), ("sine", 0.1), ("random", 0.1)])
def test_servo_keeps_a_fast_target_also_100_ms_later(path, more_delay):
    loop = close_loop(arm_world(path), servo(), SimulatedTracker().look, SECONDS, delay=0.08 + more_delay)
    assert_on_target(LoopFigures.of(loop.recording))


def test_without_a_controller_the_target_leaves_its_set_point():
    control = follower()
    control.set_enabled = lambda enabled: None  # type: ignore[method-assign]
    figures = LoopFigures.of(close_loop(vehicle_world("static"), control, SimulatedTracker().look, 5.0).recording)
    assert figures.settling_seconds is None


def test_servo_ends_within_2_px_on_a_still_part():
    world = World(WorldConfig.arm(target_offset=(0.3, -0.2)))
    figures = LoopFigures.of(close_loop(world, servo(), SimulatedTracker().look, 8.0, delay=0.1).recording)
    assert_on_target(figures)
    assert figures.final_error_px is not None and figures.final_error_px < 2.0


def test_a_servo_works_through_a_lens_that_distorts():
    world = arm_world("static", distortion=(-0.25, 0.06, 0.0, 0.0, 0.0))
    figures = LoopFigures.of(close_loop(world, servo(), SimulatedTracker().look, 8.0).recording)
    assert figures.final_error_px is not None and figures.final_error_px < 2.0


@pytest.mark.parametrize("hide_by", ["board", "vanish"])
def test_hidden_target_stops_the_follower_until_its_return(hide_by):
    # Round a turning point of its path: it comes back where it went, and is in the image when it does.
    world = vehicle_world("sine", hide_from=5.0, hide_until=7.0, hide_by=hide_by)
    figures = LoopFigures.of(close_loop(world, follower(), SimulatedTracker().look, SECONDS).recording)
    assert figures.losses == 1
    assert figures.stop_seconds is not None and figures.stop_seconds <= 0.25
    assert figures.resume_seconds is not None and figures.resume_seconds <= 0.25
    assert figures.resettling_seconds is not None and figures.resettling_seconds < 3.0
    assert_on_target(figures)


def test_a_hidden_part_stops_a_servo_in_time():
    world = arm_world("sine", hide_from=5.0, hide_until=7.0)
    figures = LoopFigures.of(close_loop(world, servo(), SimulatedTracker().look, 10.0).recording)
    assert figures.losses == 1 and figures.stop_seconds is not None and figures.stop_seconds <= 0.25
    assert figures.resume_seconds is not None and figures.resume_seconds <= 0.25


@pytest.mark.parametrize("make", ["vehicle", "arm"])
def test_nothing_moves_once_the_tracker_is_dead(make):
    world, control = (vehicle_world("circle"), follower()) if make == "vehicle" else (arm_world("sine"), servo())
    figures = LoopFigures.of(close_loop(world, control, SimulatedTracker().look, 6.0, kill_at=4.0).recording)
    timeout = control.config.timeout
    assert figures.kill_stop_seconds is not None and 0.0 < figures.kill_stop_seconds <= timeout + 0.25
    assert abs(world.truth().velocity).max() < 1e-2


@pytest.fixture
def real_tracker() -> DimpTracker:
    pytest.importorskip("torch", reason="PyTorch is not installed: the tracker needs it")
    from dimp_ros.tracker import DimpTracker

    return DimpTracker(model="dimp_lite", device="cpu")


def looking(tracker: DimpTracker) -> Callable[[World], Word]:
    """Return what asks a real tracker."""

    def look(world: World) -> Word:
        result = tracker.update(world.render())
        return Word(TargetState(result.state), result.confidence, result.box or NO_BOX)

    return look


@pytest.mark.slow
def test_the_real_tracker_closes_the_loop(real_tracker):
    world = vehicle_world("sine", period=6.0)
    first = world.truth().box
    assert first is not None
    real_tracker.init(world.render(), first)
    loop = close_loop(world, follower(), looking(real_tracker), 4.0, image_period=0.1, delay=0.1)
    assert_on_target(LoopFigures.of(loop.recording))


@pytest.mark.slow
def test_part_returns_to_the_taken_set_point_within_2_px(real_tracker):
    world = World(WorldConfig.arm(width=480, height=360))
    first = world.truth().box
    assert first is not None
    real_tracker.init(world.render(), first)
    look = looking(real_tracker)
    taken = [look(world) for _ in range(10)][-1].box.center
    for _ in range(10):
        world.command((0.1, 0.06, 0.0, 0.0, 0.0, 0.0))
        world.step(0.1)
        look(world)
    control = ServoControl(ServoConfig(max_speed=0.4, set_point_x=taken[0] / 480, set_point_y=taken[1] / 360))
    close_loop(world, control, look, 5.0, image_period=0.1, delay=0.1)
    last = world.truth().box
    assert last is not None
    assert math.dist(last.center, first.center) < 2.0
