# SPDX-License-Identifier: Apache-2.0
"""Test double around a follower or servo: plays tracker, camera and clock, and records the commands."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

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
from sensor_msgs.msg import CameraInfo
from std_srvs.srv import Trigger

from dimp_ros.apps.steering.follower import Follower
from dimp_ros.apps.steering.node import SteeringNode
from dimp_ros.ros_utils.steady_clock import steady_seconds

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
    """Plays the tracker and the camera at 20 Hz, keeps the commands, and calls the services.

    :param steering: the node under test. :param name: its name. :param topic: of its commands.
    """

    def __init__(self, steering: SteeringNode[Any] | None, name: str, topic: str) -> None:
        self._steering = steering
        self.node = Node("operator")
        self.commands: list[TwistStamped] = []
        self.arrivals: list[tuple[float, tuple[float, ...]]] = []  # steady seconds, six numbers
        self.statuses: list[DiagnosticStatus] = []
        self.node.create_subscription(TwistStamped, topic, self._on_command, RELIABLE)
        self.node.create_subscription(DiagnosticArray, "/diagnostics", self._on_diagnostics, RELIABLE)
        self._targets = self.node.create_publisher(TargetStateArray, "targets", RELIABLE)
        self._infos = self.node.create_publisher(CameraInfo, "camera_info", RELIABLE)
        self._poses = self.node.create_publisher(PoseStamped, "target_pose", RELIABLE)
        self._enable = self.node.create_client(SetBool, f"{name}/set_enabled")
        self._take = self.node.create_client(Trigger, f"{name}/take_set_point")
        self.centre, self.side, self.state, self.confidence = (500.0, 240.0), 80.0, TargetState.TRACKING, 0.9
        self.names = ["cup"]
        self.frame = "camera_optical"
        self.telling = True
        self.stamp: Time | None = None  # one that stands still
        self.clock = lambda: self.node.get_clock().now()
        self.info = camera_info()
        self.depth: float | None = None
        self.node.create_timer(0.05, self._tell)

    @property
    def steering(self) -> SteeringNode[Any]:
        """The node under test, where it runs in this process."""
        assert self._steering is not None
        return self._steering

    def _on_command(self, command: TwistStamped) -> None:
        self.arrivals.append((steady_seconds(), vars_of(command)))
        self.commands.append(command)

    def _on_diagnostics(self, array: DiagnosticArray) -> None:
        self.statuses += [status for status in array.status if status.name.endswith("steering")]

    def _tell(self) -> None:
        if self.telling:
            self.tell(self.stamp or self.clock().to_msg())

    def tell(self, stamp: Time) -> None:
        """Publish the target's state, camera_info, and the pose where there is one, of an image with a stamp."""
        array = TargetStateArray(image_width=640, image_height=480)
        array.header.stamp, array.header.frame_id = stamp, self.frame
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

    def leave_targets(self) -> None:
        """Publish no targets any more: another node does."""
        self.telling = False
        self.node.destroy_publisher(self._targets)

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
        operator = Operator(node, node.get_name(), topic)
        with spinning(node, operator.node):
            wait_until(lambda: operator.commands, "the first command")
            try:
                yield operator
            finally:
                node.close()


def batch(**values: Any) -> list[Parameter]:
    """Return parameters to be set."""
    return [Parameter(name, value=value) for name, value in values.items()]
