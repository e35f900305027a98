# SPDX-License-Identifier: Apache-2.0
"""The follower on topics: it says zero until it is enabled, and again whenever there is no reason to move."""

from __future__ import annotations

import math
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from builtin_interfaces.msg import Time
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from geometry_msgs.msg import PoseStamped, TwistStamped
from harness.ros_harness import (
    RELIABLE,
    WAIT,
    Node,
    Parameter,
    SetBool,
    TargetState,
    TargetStateArray,
    context,
    spinning,
    wait_until,
)
from rclpy.duration import Duration
from sensor_msgs.msg import CameraInfo
from std_srvs.srv import Trigger

from dimp_ros.apps.steering.follower import Follower
from dimp_ros.apps.steering.node import SteeringNode
from dimp_ros.apps.steering.servo import Servo

FOCAL = 554.0
SLOW = {"timeout": 2.0}
"""The machine may be so busy that half a second passes without a message."""


def camera_info() -> CameraInfo:
    """Return a calibration of a 640 x 480 camera."""
    info = CameraInfo(width=640, height=480, distortion_model="plumb_bob", d=[0.0] * 5)
    info.k = [FOCAL, 0.0, 319.5, 0.0, FOCAL, 239.5, 0.0, 0.0, 1.0]
    info.p = [FOCAL, 0.0, 319.5, 0.0, 0.0, FOCAL, 239.5, 0.0, 0.0, 0.0, 1.0, 0.0]
    return info


class Operator:
    """Plays the tracker and the camera at 20 Hz, hears the commands, and calls the services."""

    def __init__(self, steering: SteeringNode[Any], topic: str) -> None:
        self.steering = steering
        self.node = Node("operator")
        self.commands: list[TwistStamped] = []
        self.statuses: list[DiagnosticStatus] = []
        self.node.create_subscription(TwistStamped, topic, self.commands.append, RELIABLE)
        self.node.create_subscription(DiagnosticArray, "/diagnostics", self._on_diagnostics, RELIABLE)
        self._targets = self.node.create_publisher(TargetStateArray, "targets", RELIABLE)
        self._infos = self.node.create_publisher(CameraInfo, "camera_info", RELIABLE)
        self._poses = self.node.create_publisher(PoseStamped, "target_pose", RELIABLE)
        self._enable = self.node.create_client(SetBool, f"{steering.get_name()}/set_enabled")
        self._take = self.node.create_client(Trigger, f"{steering.get_name()}/take_set_point")
        self.centre, self.side, self.state, self.confidence = (500.0, 240.0), 80.0, TargetState.TRACKING, 0.9
        self.names = ["cup"]
        self.telling = True
        self.stamp: Time | None = None  # one that stands still
        self.clock = lambda: self.node.get_clock().now()
        self.info = camera_info()
        self.depth: float | None = None
        self.node.create_timer(0.05, self._tell)

    def _on_diagnostics(self, array: DiagnosticArray) -> None:
        self.statuses += [status for status in array.status if status.name.endswith("steering")]

    def _tell(self) -> None:
        if not self.telling:
            return
        stamp = self.stamp or self.clock().to_msg()
        array = TargetStateArray()
        array.header.stamp, array.header.frame_id = stamp, "camera_optical"
        for name in self.names:
            state = TargetState(header=array.header, id=name, state=self.state, confidence=self.confidence, age=0.01)
            state.bbox.center.position.x, state.bbox.center.position.y = self.centre
            state.bbox.size_x = state.bbox.size_y = self.side
            array.targets.append(state)
        self.info.header = array.header
        self._infos.publish(self.info)
        self._targets.publish(array)
        if self.depth is not None:
            pose = PoseStamped(header=array.header)
            pose.pose.position.x = (self.centre[0] - 320.0) / FOCAL * self.depth
            pose.pose.position.z = self.depth
            self._poses.publish(pose)

    def call(self, client: Any, request: Any) -> Any:
        """Return the answer of a service."""
        assert client.wait_for_service(timeout_sec=WAIT)
        future = client.call_async(request)
        wait_until(future.done, f"answer of {client.srv_name}")
        return future.result()

    def set_enabled(self, enabled: bool) -> Any:
        """Allow motion, or end it."""
        return self.call(self._enable, SetBool.Request(data=enabled))

    def take_set_point(self) -> Any:
        """Have the target kept where it is."""
        return self.call(self._take, Trigger.Request())

    def last(self) -> tuple[float, ...]:
        """Return the last command."""
        twist = self.commands[-1].twist
        return (twist.linear.x, twist.linear.y, twist.linear.z, twist.angular.x, twist.angular.y, twist.angular.z)

    def wait_for_motion(self) -> None:
        """Wait until the robot is to move."""
        wait_until(lambda: self.commands and any(self.last()), "a command to move")

    def wait_for_rest(self) -> None:
        """Wait until the command is zero, and has been for half a second.

        What is under way when a test changes something may still move it, and on a busy machine that takes a while.
        """
        count = len(self.commands)

        def rested() -> bool:
            last = self.commands[count:][-25:]
            return len(last) == 25 and not any(any(vars_of(command)) for command in last)

        wait_until(rested, "25 commands of zero in a row")


def vars_of(command: TwistStamped) -> tuple[float, ...]:
    """Return the six numbers of a command."""
    linear, angular = command.twist.linear, command.twist.angular
    return linear.x, linear.y, linear.z, angular.x, angular.y, angular.z


@contextmanager
def steering(kind: type[SteeringNode[Any]] = Follower, topic: str = "cmd_vel", **parameters: Any) -> Iterator[Operator]:
    """Run a follower or a servo, and hand out its operator."""
    with context():
        overrides = [Parameter(name, value=value) for name, value in {**SLOW, **parameters}.items()]
        node = kind(parameter_overrides=overrides)
        operator = Operator(node, topic)
        with spinning(node, operator.node):
            wait_until(lambda: operator.commands, "the first command")
            try:
                yield operator
            finally:
                node.close()


def batch(**values: Any) -> list[Parameter]:
    """Return parameters to be set."""
    return [Parameter(name, value=value) for name, value in values.items()]


def test_it_says_zero_until_it_is_enabled_follows_then_and_says_zero_once_disabled():
    with steering() as operator:
        operator.wait_for_rest()
        assert operator.commands[-1].header.frame_id == "base_link"
        answer = operator.set_enabled(True)
        assert answer.success, answer.message
        operator.wait_for_motion()
        wait_until(lambda: operator.last()[5] < -0.1, "a turn to the right")
        assert operator.set_enabled(False).success
        operator.wait_for_rest()


def test_a_lost_or_doubtful_target_stops_it_and_a_found_one_is_followed_again():
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


def test_stamps_of_another_clock_stop_it_and_the_diagnostics_say_so():
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


def test_numbers_that_are_none_never_leave_it():
    with steering() as operator:
        operator.set_enabled(True)
        operator.wait_for_motion()
        operator.centre = (math.nan, 240.0)
        operator.wait_for_rest()
        operator.centre, operator.side = (500.0, 240.0), math.inf
        operator.wait_for_rest()
        assert all(math.isfinite(value) for command in operator.commands for value in vars_of(command))


def test_without_a_calibration_it_stands_until_a_field_of_view_is_given():
    with steering() as operator:
        operator.info.k = [0.0] * 9
        operator.set_enabled(True)
        operator.wait_for_rest()
        wait_until(lambda: operator.statuses and "calibrate" in operator.statuses[-1].message, "the remedy")
        view = batch(image_width=640, image_height=480, horizontal_fov=60.0)
        assert operator.steering.set_parameters_atomically(view).successful
        operator.wait_for_motion()


def test_the_set_point_is_where_the_target_is_when_that_is_asked_for():
    with steering() as operator:
        operator.set_enabled(True)
        operator.wait_for_motion()
        answer = operator.take_set_point()
        assert answer.success, answer.message
        operator.wait_for_rest()
        assert operator.steering.get_parameter("set_point_x").value == pytest.approx(500.0 / 640.0)
        operator.state = TargetState.LOST
        wait_until(lambda: not operator.take_set_point().success, "a refusal: there is no target")


def test_a_pose_of_the_same_image_is_what_the_distance_is_kept_by():
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


def test_a_wrong_value_at_the_start_is_told_and_nothing_moves_until_it_is_mended():
    with steering(max_yaw_rate=-3.0) as operator:
        answer = operator.set_enabled(True)
        assert not answer.success and "max_yaw_rate is -3.0" in answer.message
        operator.wait_for_rest()
        assert operator.steering.set_parameters_atomically(batch(max_yaw_rate=1.0)).successful
        assert operator.set_enabled(True).success
        operator.wait_for_motion()


def test_an_error_that_nobody_has_foreseen_stops_and_disables_it(monkeypatch, capfd):
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


def test_its_last_word_is_zero():
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
    array = TargetStateArray()
    array.header.stamp = node.get_clock().now().to_msg()
    state = TargetState(header=array.header, id="cup", state=TargetState.TRACKING, confidence=0.9)
    state.bbox.center.position.x, state.bbox.center.position.y = 500.0, 240.0
    state.bbox.size_x = state.bbox.size_y = 80.0
    array.targets.append(state)
    targets.publish(array)
timer = node.create_timer(0.03, tell)
rclpy.spin(node)
"""


def test_when_the_process_of_the_tracker_is_killed_the_command_is_zero_and_stays_zero():
    with steering(image_width=640, image_height=480, horizontal_fov=60.0, timeout=0.5) as operator:
        operator.telling = False
        tracker = subprocess.Popen([sys.executable, "-c", TRACKER], env=os.environ)
        try:
            operator.set_enabled(True)
            wait_until(lambda: any(operator.last()), "a command to move", 2 * WAIT)
        finally:
            tracker.kill()
            tracker.wait(10.0)
        operator.wait_for_rest()


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
