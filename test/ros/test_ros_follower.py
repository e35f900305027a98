# SPDX-License-Identifier: Apache-2.0
"""The follower over topics: it publishes zero until it is enabled and whenever it must not move."""

from __future__ import annotations

import math
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from diagnostic_msgs.msg import DiagnosticStatus
from harness.ros_harness import (
    WAIT,
    TargetState,
    context,
    wait_until,
)
from helpers.steering_operator import SLOW, batch, steering, vars_of
from rclpy.duration import Duration
from std_srvs.srv import SetBool

from dimp_ros.apps.steering.follower import Follower
from dimp_ros.apps.steering.servo import Servo
from dimp_ros.ros_utils.parameters import ParameterHandler


def test_commands_are_zero_unless_enabled():
    with steering() as operator:
        operator.wait_for_rest()
        assert operator.commands[-1].header.frame_id == "base_link"
        answer = operator.set_enabled(True)
        assert answer.success, answer.message
        operator.wait_for_motion()
        wait_until(lambda: operator.last()[5] < -0.1, "a turn to the right")
        assert operator.set_enabled(False).success
        operator.wait_for_rest()


def test_lost_or_uncertain_target_stops_it():
    with steering() as operator:
        operator.set_enabled(True)
        for state, confidence in ((TargetState.LOST, 0.0), (TargetState.UNCERTAIN, 0.9), (TargetState.TRACKING, 0.3)):
            operator.state, operator.confidence = TargetState.TRACKING, 0.9
            operator.wait_for_motion()
            operator.state, operator.confidence = state, confidence
            operator.wait_for_rest()


def test_silence_and_a_stamp_that_stands_still_stop_it():
    with steering(timeout=0.5) as operator:
        operator.set_enabled(True)
        operator.wait_for_motion()
        operator.stamp = operator.node.get_clock().now().to_msg()
        operator.wait_for_rest()
        operator.stamp = None
        operator.wait_for_motion()
        operator.telling = False
        operator.wait_for_rest()


def test_stamps_of_another_clock_stop_it():
    with steering() as operator:
        operator.set_enabled(True)
        operator.wait_for_motion()
        operator.clock = lambda: operator.node.get_clock().now() - Duration(seconds=1e9)
        operator.wait_for_rest()
        wait_until(lambda: operator.statuses and "clocks disagree" in operator.statuses[-1].message, "diagnostics")
        assert operator.statuses[-1].level == DiagnosticStatus.WARN


def test_of_several_targets_only_one_that_is_named_is_followed():
    with steering() as operator:
        operator.names = ["cup", "plate"]
        operator.set_enabled(True)
        operator.wait_for_rest()
        wait_until(
            lambda: "set target_id" in operator.statuses[-1].message if operator.statuses else False, "the remedy"
        )
        assert operator.steering.set_parameters_atomically(batch(target_id="plate")).successful
        operator.wait_for_motion()
        assert operator.steering.set_parameters_atomically(batch(target_id="spoon")).successful
        operator.wait_for_rest()


def test_non_finite_numbers_are_never_published():
    with steering() as operator:
        operator.set_enabled(True)
        operator.wait_for_motion()
        operator.centre = (math.nan, 240.0)
        operator.wait_for_rest()
        operator.centre, operator.side = (500.0, 240.0), math.inf
        operator.wait_for_rest()
        assert all(math.isfinite(value) for command in operator.commands for value in vars_of(command))


def test_uncalibrated_camera_stops_it_until_a_view_is_given():
    with steering() as operator:
        operator.info.k = [0.0] * 9
        operator.set_enabled(True)
        operator.wait_for_rest()
        wait_until(lambda: operator.statuses and "calibrate" in operator.statuses[-1].message, "the remedy")
        view = batch(image_width=640, image_height=480, horizontal_fov=60.0)
        assert operator.steering.set_parameters_atomically(view).successful
        operator.wait_for_motion()


UNUSABLE = {
    "a field of view of nothing": {"image_width": 640, "image_height": 480, "horizontal_fov": 0.05},
    "a mistyped side": {"image_width": 640, "image_height": 100000, "horizontal_fov": 60.0},
    "an image of one pixel": {"image_width": 1, "image_height": 1, "horizontal_fov": 1e-9},
}


@pytest.mark.parametrize("values", UNUSABLE.values(), ids=UNUSABLE)
def test_parameters_that_do_not_fit_each_other_are_refused_and_later_ones_obeyed(values):
    with context():
        follower = Follower()
        before = {name: follower.get_parameter(name).value for name in values}
        result = follower.set_parameters_atomically(batch(**values))
        assert not result.successful and "focal length" in result.reason
        assert before == {name: follower.get_parameter(name).value for name in values}
        for name, value in values.items():  # one by one, the last one does not fit
            successful = follower.set_parameters_atomically(batch(**{name: value})).successful
        assert not successful and follower._control.camera is None
        assert follower.set_parameters_atomically(batch(max_yaw_rate=0.05)).successful
        assert follower._control.config.max_yaw_rate == 0.05
        follower.destroy_node()


@pytest.mark.parametrize("node", [Follower, Servo])
def test_a_change_that_cannot_be_followed_disables(node, monkeypatch):
    with context():
        steering_node = node()
        answer = steering_node._on_set_enabled(SetBool.Request(data=True), SetBool.Response())
        assert answer.success and steering_node._control.enabled
        monkeypatch.setattr(steering_node._control, "configure", lambda config: 1 / 0)
        assert steering_node.set_parameters_atomically(batch(min_confidence=0.99)).successful
        assert not steering_node._control.enabled
        answer = steering_node._on_set_enabled(SetBool.Request(data=True), SetBool.Response())
        assert not answer.success and not steering_node._control.enabled
        steering_node.destroy_node()


def test_follower_takes_the_set_point():
    with steering() as operator:
        operator.set_enabled(True)
        operator.wait_for_motion()
        answer = operator.take_set_point()
        assert answer.success, answer.message
        operator.wait_for_rest()
        assert operator.steering.get_parameter("set_point_x").value == pytest.approx(500.0 / 640.0)
        operator.state = TargetState.LOST
        wait_until(lambda: not operator.take_set_point().success, "a refusal: there is no target")


def test_the_set_point_is_taken_with_the_distance_of_a_pose():
    with steering(distance=3.0) as operator:
        operator.centre, operator.depth = (320.0, 240.0), 1.5
        wait_until(lambda: operator.take_set_point().success, "a set point")
        wait_until(lambda: "distance" in operator.take_set_point().message, "the distance of a pose")
        assert operator.steering.get_parameter("distance").value == pytest.approx(1.5, rel=0.01)


def test_distance_is_kept_by_the_pose_of_the_same_image():
    with steering(distance=2.0) as operator:
        operator.centre, operator.depth = (320.0, 240.0), 4.0
        operator.set_enabled(True)
        wait_until(lambda: operator.last()[0] > 0.2, "going nearer")
        operator.depth = 1.0
        wait_until(lambda: operator.last()[0] < -0.2, "backing off")


def test_parameters_change_at_any_time_as_a_batch_or_not_at_all():
    with steering() as operator:
        operator.set_enabled(True)
        operator.wait_for_motion()
        node = operator.steering
        refused = node.set_parameters_atomically(batch(horizontal_gain=1.0, max_yaw_rate=-1.0))
        assert not refused.successful and "max_yaw_rate" in refused.reason
        assert node.get_parameter("horizontal_gain").value == 3.0
        assert not node.set_parameters_atomically(batch(rate=100.0)).successful
        assert node.set_parameters_atomically(batch(max_yaw_rate=0.05, forward="none")).successful
        wait_until(lambda: operator.last()[5] == pytest.approx(-0.05) and operator.last()[0] == 0.0, "the new limit")


def test_invalid_parameter_blocks_enabling_until_corrected():
    with steering(max_yaw_rate=-3.0) as operator:
        answer = operator.set_enabled(True)
        assert not answer.success and "max_yaw_rate is -3.0" in answer.message
        operator.wait_for_rest()
        assert operator.steering.set_parameters_atomically(batch(max_yaw_rate=1.0)).successful
        assert operator.set_enabled(True).success
        operator.wait_for_motion()


def test_unexpected_error_stops_and_disables_it(monkeypatch, capfd):
    with steering() as operator:
        operator.set_enabled(True)
        operator.wait_for_motion()

        def fail(*_arguments: Any) -> None:
            raise RuntimeError("no brains")

        monkeypatch.setattr(operator.steering._control, "_steer", fail)
        operator.wait_for_rest()
        assert "no brains" in capfd.readouterr().err and not operator.steering._control.enabled


def test_a_simulated_clock_that_never_comes_moves_nothing():
    with steering(use_sim_time=True) as operator:
        operator.set_enabled(True)
        operator.wait_for_rest()


def test_last_command_is_zero():
    with steering() as operator:
        operator.set_enabled(True)
        operator.wait_for_motion()
        operator.steering.close()
        wait_until(lambda: not any(operator.last()), "zero")
        count = len(operator.commands)
        time.sleep(0.2)
        assert len(operator.commands) == count


TRACKER = """
import rclpy
from sensor_msgs.msg import CameraInfo
from dimp_ros.msg import TargetState, TargetStateArray
rclpy.init()
node = rclpy.create_node("tracker")
targets = node.create_publisher(TargetStateArray, "targets", 10)
def tell():
    array = TargetStateArray(image_width=640, image_height=480)
    array.header.stamp = node.get_clock().now().to_msg()
    state = TargetState(header=array.header, id="cup", state=TargetState.TRACKING, confidence=0.9)
    state.bbox.center.position.x, state.bbox.center.position.y = 500.0, 240.0
    state.bbox.size_x = state.bbox.size_y = 80.0
    array.targets.append(state)
    targets.publish(array)
timer = node.create_timer(0.03, tell)
rclpy.spin(node)
"""


def test_killed_tracker_process_leaves_zero_commands():
    with steering(image_width=640, image_height=480, horizontal_fov=60.0, timeout=0.5) as operator:
        operator.leave_targets()
        tracker = subprocess.Popen([sys.executable, "-c", TRACKER], env=os.environ)
        try:
            operator.set_enabled(True)
            wait_until(lambda: any(operator.last()), "a command to move", 2 * WAIT)
        finally:
            tracker.kill()
            tracker.wait(10.0)
        operator.wait_for_rest()


def test_command_decided_before_a_pause_is_zero_after_it(monkeypatch):
    with steering(**SLOW) as operator:
        operator.set_enabled(True)
        operator.wait_for_motion()
        get, before = ParameterHandler.__getitem__, []

        def slow(handler, name):
            if name == "frame_id" and not before:  # read where the message is made
                time.sleep(0.3)
                before.append(len(operator.commands))
            return get(handler, name)

        monkeypatch.setattr(ParameterHandler, "__getitem__", slow)
        wait_until(lambda: before and len(operator.commands) > before[0], "the next command")
        assert not any(vars_of(operator.commands[before[0]]))


@pytest.mark.parametrize("kind", [Follower, Servo])
def test_every_parameter_of_its_file_is_one_that_it_has(kind):
    import yaml

    name = {Follower: "follower", Servo: "servo"}[kind]
    text = (Path(__file__).resolve().parents[2] / "config" / f"{name}.yaml").read_text()
    values = yaml.safe_load(text)[f"/**/{name}"]["ros__parameters"]
    with context():
        node = kind(parameter_overrides=batch(**values))
        assert node.parameters.problems == {}
        assert {value: node.parameters[value] for value in values} == values
        node.destroy_node()
