# SPDX-License-Identifier: Apache-2.0
"""The MAVLink camera as a node: ground stations point at a target, and an autopilot gets the follower's velocities."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from builtin_interfaces.msg import Time
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from geometry_msgs.msg import TwistStamped
from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.node import Node

from dimp_ros.apps.mavlink.autopilot import AutopilotControl, frame_trouble
from dimp_ros.apps.mavlink.camera import Identity, TrackingCamera
from dimp_ros.apps.mavlink.display import DisplayedImage
from dimp_ros.apps.mavlink.link import MavlinkLink
from dimp_ros.apps.mavlink.settings import MavlinkSettings, mavlink_parameters
from dimp_ros.apps.mavlink.tracking_commands import CommandAnswer, Done, Request
from dimp_ros.geometry.box import Box
from dimp_ros.images.stamps import NANOSECONDS, stamp_ns
from dimp_ros.msg import TargetStateArray
from dimp_ros.ros_utils.callbacks import are_answered, call_every, listen_to_newest, with_info
from dimp_ros.ros_utils.messages import bounding_box, target_estimates
from dimp_ros.ros_utils.parameters import ParameterHandler
from dimp_ros.ros_utils.qos import reliable_qos
from dimp_ros.ros_utils.spin import Finish, run
from dimp_ros.ros_utils.steady_clock import sent_at
from dimp_ros.srv import DropTarget, InitTarget

WATCH_SECONDS = 0.2
WAITED_SECONDS = 0.1
"""A start that is passed on later than this after its command is for the image that was the newest then."""

REPORT_SECONDS = 1.0


@dataclass(eq=False)
class _Call:
    """A service call in progress. :param drop_number: of a drop, once it is answered."""

    client: Any
    future: Any
    done: Done
    deadline: float
    drop_number: int = 0


class MavlinkNode(Node):
    """A MAVLink camera component that commands a tracker node.

    :param finish: not called: the node ends with a signal.
    """

    def __init__(self, finish: Finish = lambda code: None, **node_options: Any) -> None:
        super().__init__("mavlink_camera", **node_options)
        self.parameters = ParameterHandler(self, mavlink_parameters())
        self.parameters.require_valid()
        values = {row.name: self.parameters[row.name] for row in mavlink_parameters()}
        self._settings = settings = MavlinkSettings(**values)
        self._lock = threading.Lock()
        self._displayed = DisplayedImage()
        self._calls: set[_Call] = set()
        self._drop_number = 0  # of the last drop that is known, see TargetStateArray
        self._own_drop = 0  # of the last one that was ours
        self._doubtful = False  # a start that was rejected for lack of an answer may have taken effect
        group = ReentrantCallbackGroup()  # an answer must not wait for another one
        self._init_client = self.create_client(InitTarget, f"{settings.tracker}/init_target", callback_group=group)
        self._drop_client = self.create_client(DropTarget, f"{settings.tracker}/drop_target", callback_group=group)
        listen_to_newest(self, TargetStateArray, "targets", self._on_targets)
        self._diagnostics = self.create_publisher(DiagnosticArray, "/diagnostics", reliable_qos(10))
        self.link = MavlinkLink(
            settings.connection,
            settings.baud,
            settings.system_id,
            settings.component_id,
            receive=self._receive,
            tick=self._tick,
            log=self.get_logger().info,
            key=settings.signing_key(),
        )
        identity = Identity(settings.vendor, settings.model, settings.stream_uri)
        address = (settings.system_id, settings.component_id)
        self._camera = TrackingCamera(*address, identity, self, self.link.send, status_rate=settings.status_rate)
        self._autopilot = AutopilotControl(
            *address,
            self.link.send,
            gimbal=settings.steer == "gimbal",
            gimbal_manager=settings.gimbal_manager,
            any_mode=settings.gimbal_in_any_mode,
            command_timeout=settings.command_timeout,
        )
        self._refusal = ""
        self._commands = ""
        if settings.steer != "none":
            self._commands = listen_to_newest(self, TwistStamped, "cmd_vel", with_info(self._on_command)).topic_name
            call_every(self, 1.0 / settings.setpoint_rate, self._steer)
        call_every(self, WATCH_SECONDS, self._on_watch)
        call_every(self, REPORT_SECONDS, self._report)
        self.link.start()

    def _receive(self, message: Any) -> None:
        try:
            self._camera.on_message(message)
            self._autopilot.on_message(message)
        except Exception as error:  # a message that nobody thought of must not end the link
            self.get_logger().error(f"MAVLink message {message.get_type()}: {type(error).__name__}: {error}"[:1000])

    def _tick(self) -> None:
        self._camera.tick()

    def rectangle(self, left: float, top: float, right: float, bottom: float) -> Request:
        """Return the request for what is inside a rectangle of the image displayed now, in fractions of it."""
        return self._start(Box(left, top, right - left, bottom - top))

    def point(self, x: float, y: float) -> Request:
        """Return the request for the object around a point of the image displayed now, in fractions of it."""
        return self._start(Box(x, y, 0.0, 0.0))

    def stop(self, done: Done) -> None:
        """Stop tracking; it is no error if nothing was tracked."""
        request = DropTarget.Request(id=self._settings.target_id)
        self._call(self._drop_client, request, lambda answer: done(answer if answer.later else CommandAnswer(True)))

    def _start(self, box: Box) -> Request:
        """Return the request to start the target in the image that is on display now."""
        arrived = time.monotonic()
        with self._lock:
            stamp = self._displayed.stamp(self.parameters["video_delay"], arrived)
            newest = self._displayed.newest
            asked = max(self._drop_number, self._own_drop)
            before = [call for call in self._calls if call.client is self._drop_client]

        def request(done: Done) -> None:
            waited = time.monotonic() - arrived > WAITED_SECONDS  # then the tracker's newest image is another one
            at = stamp or (newest if waited else 0)
            request = InitTarget.Request(
                stamp=Time(sec=at // NANOSECONDS, nanosec=at % NANOSECONDS),
                bbox=bounding_box(box),
                normalized=True,
                id=self._settings.target_id,
            )
            with self._lock:  # a stop before it, which is not answered yet, has no number: then none is checked
                unknown = any(call in self._calls for call in before)
                request.drop_number = 0 if unknown else max([asked, *(call.drop_number for call in before)])
            self._call(self._init_client, request, done)

        return request

    def _call(self, client: Any, request: Any, done: Done) -> None:
        if not client.service_is_ready():
            done(CommandAnswer(False, f"no tracker: nobody serves {client.service_name}", later=True))
            return
        future = client.call_async(request)
        call = _Call(client, future, done, time.monotonic() + self._settings.request_timeout)
        with self._lock:
            self._calls.add(call)
        future.add_done_callback(lambda _: self._answered(call))

    def _answered(self, call: _Call) -> None:
        """Pass an answer on, once. A start that was rejected for lack of an answer is taken back."""
        response = call.future.result()
        with self._lock:
            if call.client is self._drop_client:
                call.drop_number = response.drop_number
                self._own_drop = max(self._own_drop, response.drop_number)
            in_time = call in self._calls
            self._calls.discard(call)
            late_start = not in_time and call.client is self._init_client
            starting = any(one.client is self._init_client for one in self._calls)
        if in_time:
            self._pass_on(call, CommandAnswer(bool(response.success), str(response.message)))
        elif late_start and response.success and not starting:
            self.stop(lambda answer: None)

    def _pass_on(self, call: _Call, answer: CommandAnswer) -> None:
        """Pass an answer on; first stop what a start that was rejected for lack of an answer may have started."""
        if call.client is self._init_client:
            if answer.accepted:
                self._doubtful = False  # it has been replaced
            elif answer.later or self._doubtful:
                self._doubtful = True
                self.stop(lambda _: call.done(answer))
                return
        call.done(answer)

    # From the graph

    def _on_targets(self, message: TargetStateArray) -> None:
        """Note the stamp of an image that the tracker has, and what it says of our target."""
        now, steady = self.get_clock().now().nanoseconds, time.monotonic()
        with self._lock:
            if message.drop_number < self._drop_number:  # another tracker, with an earlier clock
                self._own_drop = 0
            self._drop_number = message.drop_number
            self._displayed.on_image(stamp_ns(message.header.stamp), now, steady)
        ours = [one for one in target_estimates(message) if one.target_id == self._settings.target_id]
        self._camera.on_estimate(ours[0] if ours else None, (message.image_width, message.image_height))

    def _on_command(self, message: TwistStamped, info: Mapping[str, Any] | None) -> None:
        """Take the follower's velocity."""
        linear, angular = message.twist.linear, message.twist.angular
        twist = (linear.x, linear.y, linear.z, angular.x, angular.y, angular.z)
        frame = message.header.frame_id
        age = (self.get_clock().now().nanoseconds - stamp_ns(message.header.stamp)) / NANOSECONDS
        self._autopilot.on_command(twist, sent_at(info), frame, age)
        if trouble := frame_trouble(frame):
            self.get_logger().warning(f"not steering: {trouble}", once=True)

    def _steer(self) -> None:
        """Send what the autopilot or the gimbal is to get now, and log when that changes between motion and none."""
        before, self._refusal = self._refusal, self._autopilot.tick(self.count_publishers(self._commands))
        if before and not self._refusal:
            self.get_logger().info(f"steering the {self._settings.steer}", throttle_duration_sec=1.0)
        elif self._refusal and not before:
            self.get_logger().info(f"not steering: {self._refusal}", throttle_duration_sec=1.0)

    def _on_watch(self) -> None:
        """Reject commands that the tracker has not answered in time."""
        now = time.monotonic()
        with self._lock:
            late = [call for call in self._calls if call.deadline <= now]
            self._calls.difference_update(late)
        for call in late:
            if call.client is not self._init_client:  # the late answer to a start is acted on
                call.client.remove_pending_request(call.future)
            text = f"the tracker has not answered for {self._settings.request_timeout:g} s"
            self._pass_on(call, CommandAnswer(False, text, later=True))

    def _report(self) -> None:
        problem, name = self.link.problem, self.get_fully_qualified_name().lstrip("/")
        status = DiagnosticStatus(
            level=DiagnosticStatus.WARN if problem else DiagnosticStatus.OK,
            name=f"{name}: link",
            message=problem[:500] or "connected",
            hardware_id=self._settings.connection,
            values=[KeyValue(key="messages dropped", value=str(self.link.dropped))],
        )
        array = DiagnosticArray(status=[status])
        if self._commands:
            text = f"not steering: {self._refusal}" if self._refusal else f"the {self._settings.steer} gets cmd_vel"
            array.status.append(DiagnosticStatus(level=DiagnosticStatus.OK, name=f"{name}: autopilot", message=text))
        array.header.stamp = self.get_clock().now().to_msg()
        self._diagnostics.publish(array)

    def close(self) -> bool:
        """Take back a start that waits, send the autopilot last zeros, close the link; return if its thread ended."""
        if not hasattr(self, "_autopilot"):  # a parameter was wrong: rclpy destroys that node, too
            return True
        with self._lock:
            starting = any(call.client is self._init_client for call in self._calls)
            self._calls.clear()
        begin, drops = time.monotonic(), []
        if starting and self._drop_client.service_is_ready():  # nobody would hear how it ends
            drops = [self._drop_client.call_async(DropTarget.Request(id=self._settings.target_id))]
        if self._commands:
            if trouble := self._autopilot.close():
                self.get_logger().error(trouble)
        ended = self.link.close(deliver=self._autopilot.at_rest)
        if not are_answered(drops, begin):
            name = self._settings.target_id
            self.get_logger().error(f"the tracker does not answer: it may still start target {name!r}; drop it there")
        return ended

    def destroy_node(self) -> None:
        """Close the link, then destroy the node."""
        self.close()
        super().destroy_node()


def main(args: Sequence[str] | None = None) -> int:
    """Serve ground stations until SIGINT or SIGTERM."""
    return run(MavlinkNode, args)


if __name__ == "__main__":
    sys.exit(main())
