# SPDX-License-Identifier: Apache-2.0
"""The simulated world as a node: images, depth and ground truth out, velocity commands in."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from geometry_msgs.msg import PoseStamped, TwistStamped
from numpy.typing import NDArray
from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from rclpy.clock import Clock, ClockType
from rclpy.node import Node
from rclpy.time import Time
from sensor_msgs.msg import CameraInfo, Image
from std_msgs.msg import Header
from std_srvs.srv import SetBool

from dimp_ros.apps.simulator.autopilot import AutopilotLinks
from dimp_ros.apps.simulator.delay import DelayLine
from dimp_ros.apps.simulator.messages import camera_info_message, camera_pose, depth_message, target_pose, true_state
from dimp_ros.apps.simulator.settings import ShowConfig, configs, simulator_parameters
from dimp_ros.apps.simulator.world import Truth, World
from dimp_ros.images.video import BgrImage
from dimp_ros.msg import TargetState, TargetStateArray
from dimp_ros.ros_utils.callbacks import logged
from dimp_ros.ros_utils.messages import from_bgr
from dimp_ros.ros_utils.parameters import ParameterHandler
from dimp_ros.ros_utils.qos import publisher_options, reliable_qos, sensor_qos, subscription_options
from dimp_ros.ros_utils.spin import Finish, run

COMMAND_TOPICS = {"vehicle": "cmd_vel", "arm": "delta_twist_cmds"}
"""Those of the follower and of the servo."""

LONGEST_STEP = 1.0
"""What the world moves on by at most after the process has stood still, seconds."""
DELIVERY_SECONDS = 0.005


class _View(NamedTuple):
    """What is to be told of one moment; ``depth`` is None where nobody wants it."""

    header: Header
    picture: BgrImage
    depth: NDArray[np.float32] | None
    truth: Truth


class Simulator(Node):
    """Publishes a `World` that runs in real time, and moves its camera by the commands.

    Its timers run on the steady clock; stamps are of the node's clock, of the moment that an image shows.

    :param finish: not called: a simulator has no end of its own.
    :raises ValueError: for parameters that make no world.
    """

    def __init__(self, finish: Finish, **node_options: Any) -> None:
        super().__init__("simulator_node", **node_options)
        parameters = ParameterHandler(self, simulator_parameters())
        parameters.require_valid()
        config, self._show = configs({row.name: parameters[row.name] for row in simulator_parameters()})
        self._lock = threading.Lock()  # guards the world
        self.world = World(config, self._show.seed)
        self.world.playing = not self._show.paused
        self._views: DelayLine[_View] = DelayLine(self._show.image_latency)
        self._last_seen_ns: int | None = None
        self._images = self._publisher(Image, "image", 10)
        self._infos = self._publisher(CameraInfo, "camera_info", 10)
        self._depths = self._publisher(Image, "depth", 5)
        self._truths = self._publisher(TargetStateArray, "ground_truth", 10)
        self._target_poses = self._publisher(PoseStamped, "ground_truth_pose", 10)
        self._camera_poses = self._publisher(PoseStamped, "camera_pose", 10)
        commands, steady = MutuallyExclusiveCallbackGroup(), Clock(clock_type=ClockType.STEADY_TIME)
        self._autopilot: AutopilotLinks | None = None
        if self._show.autopilot:
            obeyed = "its autopilot"
            self._obeyed = self._publisher(TwistStamped, "obeyed", 10)
        else:
            subscription = self.create_subscription(
                TwistStamped,
                COMMAND_TOPICS[config.mode],
                logged(self._on_command, self.get_logger()),
                sensor_qos(1),
                callback_group=commands,
                **subscription_options(),
            )
            obeyed = subscription.topic_name
        self.create_service(SetBool, "~/set_playing", self._on_set_playing, callback_group=commands)
        self._at = time.monotonic()
        self.create_timer(1.0 / self._show.rate, logged(self._on_timer, self.get_logger()), clock=steady)
        if self._show.image_latency > 0.0:
            self.create_timer(DELIVERY_SECONDS, logged(self._deliver, self.get_logger()), clock=steady)
        if self._show.autopilot:
            self._autopilot = self._start_autopilot(self._show)
        self.get_logger().info(
            f"{config.width} x {config.height} pixels, {self._show.rate:g} times a second on "
            f"{self._images.topic_name}; the {config.mode} obeys {obeyed}"
        )

    def _start_autopilot(self, show: ShowConfig) -> AutopilotLinks:
        try:
            return AutopilotLinks(
                show.autopilot, show.ground_connection, show.companion_connection, self._obey, self.get_logger().info
            )
        except ImportError as error:
            raise ValueError(f"autopilot is {show.autopilot!r}: {error}") from error

    def _publisher(self, kind: type, name: str, depth: int) -> Any:
        return self.create_publisher(kind, name, reliable_qos(depth), **publisher_options())

    def _advance(self) -> float:
        """Let the world catch up with the clock, and return its time; to be called with the lock held."""
        now = time.monotonic()
        self.world.step(min(now - self._at, LONGEST_STEP))
        self._at = now
        return now

    def _on_command(self, message: TwistStamped) -> None:
        """Apply a command; an invalid one stops the camera."""
        linear, angular = message.twist.linear, message.twist.angular
        twist = (linear.x, linear.y, linear.z, angular.x, angular.y, angular.z)
        with self._lock:
            self._advance()
            try:
                self.world.command(twist)
            except ValueError as error:
                self.world.command((0.0,) * 6)
                self.get_logger().error(f"{error}; the camera stops", throttle_duration_sec=1.0)

    def _obey(self, twist: tuple[float, ...]) -> None:
        """Apply what the autopilot makes of setpoints, and publish it."""
        with self._lock:
            self._advance()
            self.world.command(twist)
        message = TwistStamped()
        message.header.stamp = self.get_clock().now().to_msg()
        message.header.frame_id = "base_link"
        linear, angular = message.twist.linear, message.twist.angular
        linear.x, linear.y, linear.z, angular.x, angular.y, angular.z = twist
        self._obeyed.publish(message)

    def _on_set_playing(self, request: SetBool.Request, response: SetBool.Response) -> SetBool.Response:
        with self._lock:
            self._advance()
            self.world.playing = request.data
        response.success, response.message = True, "the target moves" if request.data else "the target stands still"
        return response

    def _on_timer(self) -> None:
        """Render the world, and publish what is due."""
        with self._lock:
            now = self._advance()
            stamp = self.get_clock().now().to_msg()
            # Drawn before the next command can move the camera: image, depth and truth are of one moment.
            depth = self.world.depth() if self._depths.get_subscription_count() else None
            view = _View(
                Header(stamp=stamp, frame_id=self._show.frame_id), self.world.render(), depth, self.world.truth()
            )
        if self._autopilot is not None:
            self._autopilot.on_truth(view.truth)
        self._views.push(now, view)
        self._deliver()

    def _deliver(self) -> None:
        for view in self._views.pop_all(time.monotonic()):
            self._publish(view)

    def _publish(self, view: _View) -> None:
        """Tell of a moment: what describes the image before it, so that it is there when the image is worked on."""
        self._infos.publish(camera_info_message(view.header, self.world.camera_info()))
        if view.depth is not None:
            self._depths.publish(depth_message(view.header, view.depth))
        self._images.publish(from_bgr(view.header, view.picture))
        stamp = Time.from_msg(view.header.stamp, clock_type=self.get_clock().clock_type)
        state = true_state(view.header, view.truth, self.world.camera)
        state.age = (self.get_clock().now() - stamp).nanoseconds / 1e9
        if state.state == TargetState.TRACKING:
            self._last_seen_ns = stamp.nanoseconds
        elif self._last_seen_ns is not None:
            state.seconds_since_seen = (stamp.nanoseconds - self._last_seen_ns) / 1e9
        height, width = view.picture.shape[:2]
        self._truths.publish(
            TargetStateArray(header=view.header, image_width=width, image_height=height, targets=[state])
        )
        self._target_poses.publish(target_pose(view.header, view.truth))
        self._camera_poses.publish(camera_pose(view.header, view.truth))

    def close(self) -> bool:
        """End the autopilot's threads; return whether they have ended."""
        autopilot = getattr(self, "_autopilot", None)  # not there where a parameter was wrong
        return autopilot is None or autopilot.close()


def main(args: Sequence[str] | None = None) -> int:
    """Run the simulator until SIGINT or SIGTERM."""
    return run(Simulator, args)


if __name__ == "__main__":
    sys.exit(main())
