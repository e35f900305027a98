# SPDX-License-Identifier: Apache-2.0
"""The base of the follower and servo nodes: target states in, velocity commands out."""

from __future__ import annotations

import dataclasses
import math
import threading
import traceback
from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, Generic, TypeVar

from diagnostic_msgs.msg import DiagnosticArray
from geometry_msgs.msg import PoseStamped, TwistStamped
from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from rclpy.duration import Duration
from rclpy.node import Node
from rclpy.parameter import Parameter as RosParameter
from sensor_msgs.msg import CameraInfo
from std_srvs.srv import SetBool, Trigger

from dimp_ros.apps.steering.controller import BaseController, set_point_of
from dimp_ros.apps.steering.inputs import SteeringInputs
from dimp_ros.apps.steering.safety import PAUSE_SECONDS, Command, SafetyConfig, TargetObservation, Twist
from dimp_ros.apps.steering.status import steering_status
from dimp_ros.geometry.camera import Camera
from dimp_ros.images.stamps import NANOSECONDS
from dimp_ros.msg import TargetStateArray
from dimp_ros.ros_utils.callbacks import call_every, listen_to_newest, with_info
from dimp_ros.ros_utils.config_dataclass import parameter_rows
from dimp_ros.ros_utils.parameters import ParameterHandler, Settings
from dimp_ros.ros_utils.qos import publisher_options, reliable_qos
from dimp_ros.ros_utils.steady_clock import sent_at, steady_seconds
from dimp_ros.ros_utils.text import shortened

Config = TypeVar("Config", bound=SafetyConfig)

DIAGNOSTICS_SECONDS = 1.0


class SteeringNode(Node, Generic[Config]):
    """Publishes a command ``rate`` times a second: zero unless it is enabled and `MotionGate` lets the robot move.

    The timer runs on the steady clock, whatever ROS time does. Each tick makes a new command from the latest
    observation.

    :param config_type: the frozen dataclass of the parameters. :param topic: of the commands.
    """

    size_parameter: str
    """Name of the parameter for the size at the set point."""

    def __init__(self, name: str, config_type: type[Config], topic: str, **node_options: Any) -> None:
        super().__init__(name, **node_options)
        self._config_type = config_type
        self._lock = threading.Lock()  # of inputs and control
        self.parameters = ParameterHandler(self, parameter_rows(config_type), self._settings)
        config, _ = self._settings(self.parameters)
        self._control = self.make_control(config)
        self._inputs = SteeringInputs(config.target_id)
        self._command = Command(Twist(), "not enabled")
        self._closed = False
        self._commands = self.create_publisher(TwistStamped, topic, reliable_qos(1), **publisher_options())
        self._diagnostics = self.create_publisher(
            DiagnosticArray, "/diagnostics", reliable_qos(10), **publisher_options()
        )
        targets = listen_to_newest(self, TargetStateArray, "targets", with_info(self._on_targets))
        camera_info = listen_to_newest(self, CameraInfo, "camera_info", self._on_camera_info)
        self._watched = targets.topic_name, camera_info.topic_name
        listen_to_newest(self, PoseStamped, "target_pose", self._on_pose)
        requests = MutuallyExclusiveCallbackGroup()
        self.create_service(SetBool, "~/set_enabled", self._on_set_enabled, callback_group=requests)
        self.create_service(Trigger, "~/take_set_point", self._on_take_set_point, callback_group=requests)
        self.parameters.on_change(lambda _change: self._on_parameters())
        self._configure()
        call_every(self, 1.0 / config.rate, self._on_tick)
        call_every(self, DIAGNOSTICS_SECONDS, self._report)
        self.get_logger().info(f"commands on {self._commands.topic_name}, zero until ~/set_enabled is called")

    @abstractmethod
    def make_control(self, config: Config) -> BaseController[Config]:
        """Return the control law."""

    def camera_without_info(self, config: Config) -> Camera | None:
        """Return the camera that the parameters describe; None where camera_info is to be used."""
        return None

    def distance_of(self, observation: TargetObservation, camera: Camera) -> dict[str, float]:
        """Return the parameters by which the distance that an observation's pose tells is kept."""
        return {}

    def _settings(self, values: Settings) -> tuple[Config, Camera | None]:
        """Return the configuration and the camera that values of parameters amount to.

        :raises ValueError: for values that do not fit each other.
        """
        names = [field.name for field in dataclasses.fields(self._config_type)]
        config = self._config_type(**{name: values[name] for name in names})
        return config, self.camera_without_info(config)

    def _on_parameters(self) -> None:
        """Follow a change that was accepted, or move no more: the settings that are shown are not those in use."""
        try:
            self._configure()
        except Exception:
            with self._lock:
                self._control.set_enabled(False)
            self.get_logger().error(f"disabled: a change of parameters cannot be followed:\n{traceback.format_exc()}")

    def _configure(self) -> None:
        with self._lock:  # the values, too: of two changes at once the later one is to hold
            config, given = self._settings(self.parameters)
            self._inputs.configure(config.target_id, config.rectified, given)
            self._control.configure(config)
            self._control.camera = self._inputs.camera

    def _on_targets(self, targets: TargetStateArray, info: Mapping[str, Any] | None) -> None:
        with self._lock:
            self._inputs.on_targets(targets, sent_at(info))

    def _on_pose(self, pose: PoseStamped) -> None:
        with self._lock:
            self._inputs.on_pose(pose)

    def _on_camera_info(self, info: CameraInfo) -> None:
        with self._lock:
            self._inputs.on_camera_info(info)
            self._control.camera = self._inputs.camera

    def _on_tick(self) -> None:
        """Publish the command of this moment; after any error, zero."""
        now, frame = steady_seconds(), ""
        try:
            with self._lock:
                now, frame = steady_seconds(), self._frame
                self._inputs.on_publishers(*map(self.count_publishers, self._watched))
                self._control.camera = self._inputs.camera
                observation = self._inputs.observation
                command = self._control.update(observation, now, self._now(), (frame, self._inputs.frame))
                if command.reason and self._control.enabled and observation is None:
                    command = command._replace(reason=self._inputs.absence)
        except Exception:
            self.get_logger().error(f"disabled: no command could be computed:\n{traceback.format_exc()}")
            with self._lock:
                self._control = self.make_control(self._control.config)
                self._control.camera = self._inputs.camera
            command = Command(Twist(), "disabled by an error, see the log")
        before, self._command = self._command, command
        with self._lock:  # nothing is published after `close`
            if not self._closed:
                self._publish(command.twist, frame, now)
        self._log_change(before, command)

    def _publish(self, twist: Twist, frame: str, decided: float) -> None:
        """Publish what was decided at a time; zero if this process was stopped since then."""
        message = TwistStamped()
        message.header.stamp = self.get_clock().now().to_msg()
        message.header.frame_id = frame
        if all(map(math.isfinite, twist)) and steady_seconds() - decided < PAUSE_SECONDS:
            linear, angular = message.twist.linear, message.twist.angular
            linear.x, linear.y, linear.z, angular.x, angular.y, angular.z = twist
        self._commands.publish(message)

    def _log_change(self, before: Command, command: Command) -> None:
        if bool(before.reason) == bool(command.reason):
            return
        if not command.reason:
            self.get_logger().info("moving by the target", throttle_duration_sec=1.0)
        elif self._control.enabled:
            self.get_logger().warning(f"stopped: {command.reason}", throttle_duration_sec=1.0)

    def _report(self) -> None:
        with self._lock:
            status = steering_status(
                self.get_fully_qualified_name().lstrip("/"),
                self._command,
                enabled=self._control.enabled,
                problems="; ".join(self.parameters.problems.values()),
                camera_trouble=self._inputs.camera_trouble,
            )
        array = DiagnosticArray(status=[status])
        array.header.stamp = self.get_clock().now().to_msg()
        self._diagnostics.publish(array)

    def _on_set_enabled(self, request: SetBool.Request, response: SetBool.Response) -> SetBool.Response:
        try:
            if request.data:
                self.parameters.require_valid()
                self._configure()  # raises again where a change could not be followed
        except Exception as error:
            response.success, response.message = False, shortened(str(error))
            return response
        with self._lock:
            if request.data or self._control.enabled:
                self._control.set_enabled(request.data)
            trouble = self._trouble() if request.data else ""
        waiting = f", but nothing moves yet: {trouble}" if trouble else ""
        response.success, response.message = True, f"enabled{waiting}" if request.data else "disabled"
        self.get_logger().info(response.message)
        return response

    def _on_take_set_point(self, _request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        with self._lock:
            trouble, observation, camera = self._trouble(), self._inputs.observation, self._inputs.camera
        if trouble or observation is None or observation.box is None or camera is None:
            response.success, response.message = False, f"there is no set point to take: {trouble}"
            return response
        point = set_point_of(observation.box, camera)
        values = {"set_point_x": point.x, "set_point_y": point.y, self.size_parameter: point.size}
        values.update(self.distance_of(observation, camera))
        result = self.set_parameters_atomically([RosParameter(name, value=value) for name, value in values.items()])
        text = ", ".join(f"{name} {value:.4g}" for name, value in values.items())
        response.success, response.message = result.successful, text if result.successful else result.reason
        return response

    def _trouble(self) -> str:
        """Return why the robot could not move by the target at this moment; empty if it could."""
        observation = self._inputs.observation
        if observation is None:
            return self._inputs.absence
        return self._control.refusal(observation, steady_seconds(), self._now())

    @property
    def _frame(self) -> str:
        """frame_id of the commands."""
        return str(self.parameters["frame_id"] or self._inputs.frame or "")

    def _now(self) -> float:
        """Return ROS time in seconds."""
        return float(self.get_clock().now().nanoseconds / NANOSECONDS)

    def close(self) -> bool:
        """Publish a last zero; nothing runs outside of the executor."""
        with self._lock:
            self._closed = True
            self._publish(Twist(), self._frame, steady_seconds())
        self._commands.wait_for_all_acked(Duration(seconds=0.2))
        return True
