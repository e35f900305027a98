# SPDX-License-Identifier: Apache-2.0
"""The operator console as a node: it subscribes to the camera and the tracker while a browser is connected."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
from diagnostic_msgs.msg import DiagnosticArray
from numpy.typing import NDArray
from rcl_interfaces.msg import ParameterDescriptor
from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from rclpy.clock import Clock, ClockType
from rclpy.node import Node

from dimp_ros.apps.console.server import ConsoleServer
from dimp_ros.apps.console.settings import ConsoleSettings, console_parameters
from dimp_ros.apps.console.state import ConsoleState, TrackerStatus
from dimp_ros.apps.console.tracker_client import TrackerServices
from dimp_ros.images.compressed_image import compressed_picture
from dimp_ros.images.contrast import Contrast
from dimp_ros.images.conversion import to_bgr
from dimp_ros.images.stamps import stamp_ns
from dimp_ros.msg import TargetStateArray
from dimp_ros.ros_utils.callbacks import are_answered, guard_services, logged
from dimp_ros.ros_utils.image_topic_monitor import explain_silence, publisher_trouble
from dimp_ros.ros_utils.messages import target_estimates
from dimp_ros.ros_utils.override_checks import forget_override
from dimp_ros.ros_utils.parameters import ParameterHandler
from dimp_ros.ros_utils.qos import image_qos, reliable_qos, sensor_qos, subscription_options
from dimp_ros.ros_utils.spin import Finish, run
from dimp_ros.ros_utils.subscriptions import IMAGE_TYPES, image_topic

WATCH_SECONDS = 0.2
LINGER_WATCHES = 25
"""Watches for which images are still received after the last browser has gone: it may be reloading the page."""

CLOSE_SECONDS = 1.2


class ConsoleNode(Node):
    """Serves the operator console. Images are subscribed only while a browser is connected.

    :param finish: not used: the console ends on a signal.
    """

    def __init__(self, finish: Finish = lambda code: None, **node_options: Any) -> None:
        self._server: ConsoleServer | None = None
        super().__init__("console", **node_options)
        settings = self._configure()
        self._transport = settings.image_transport
        self._max_megapixels = settings.max_megapixels
        self._stale_after = settings.stale_after
        self._contrast = Contrast()
        self._image_qos = image_qos()
        self._images: Any = None
        self._watchers = self._linger = 0
        self._trouble: dict[str, str] = {}
        self.state = ConsoleState(settings.pair_seconds, settings.stale_after)
        self._tracker = TrackerServices(self, settings.tracker, settings.request_timeout)
        self._subscribe(TargetStateArray, "targets", self._on_targets, reliable_qos(1, latched=True))
        self._subscribe(DiagnosticArray, "/diagnostics", self._on_diagnostics, sensor_qos(10))
        self.create_timer(
            WATCH_SECONDS,
            logged(self._on_watch, self.get_logger()),
            clock=Clock(clock_type=ClockType.STEADY_TIME),
            callback_group=MutuallyExclusiveCallbackGroup(),
        )
        guard_services(self)
        server = ConsoleServer(
            settings, self.state, self._tracker, watchers=self._set_watchers, log=self.get_logger().info
        )
        server.start()
        self._server = server
        how = "with the token" if settings.token else "from this machine only"
        self.get_logger().info(f"the console is at {server.url} ({how})")

    @property
    def server(self) -> ConsoleServer:
        """The web server."""
        assert self._server is not None
        return self._server

    def _configure(self) -> ConsoleSettings:
        """Declare the parameters and return their values; the token is undeclared, so that the graph cannot read it.

        :raises ValueError: for invalid values.
        """
        rows = [row for row in console_parameters() if row.name != "token"]
        handler = ParameterHandler(self, rows)
        handler.require_valid()
        token = self.declare_parameter("token", "", ParameterDescriptor(dynamic_typing=True)).value
        self.undeclare_parameter("token")
        forget_override(self, "token")
        if not isinstance(token, str):
            raise ValueError(f"parameter token is of type {type(token).__name__}, but must be a text: put it in quotes")
        return ConsoleSettings(token=token, **{row.name: handler[row.name] for row in rows})

    def _subscribe(self, kind: type, topic: str, callback: Callable[[Any], None], qos: Any) -> Any:
        return self.create_subscription(
            kind,
            topic,
            logged(callback, self.get_logger()),
            qos,
            callback_group=MutuallyExclusiveCallbackGroup(),
            **subscription_options(),
        )

    def _set_watchers(self, count: int) -> None:
        self._watchers = count

    # From the graph

    def _on_image(self, image: Any) -> None:
        self.state.on_image(stamp_ns(image.header.stamp), len(image.data), partial(self._open, image))

    def _open(self, image: Any) -> NDArray[np.uint8]:
        """Return the image of a raw or compressed message, HxWx3 uint8 BGR."""
        if self._transport == "raw":
            return to_bgr(image)
        return to_bgr(compressed_picture(image, self._contrast, self._max_megapixels))

    def _on_targets(self, message: TargetStateArray) -> None:
        self._tracker.drop_number = message.drop_number
        self.state.on_targets(stamp_ns(message.header.stamp), target_estimates(message))

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        """Take from the tracker's diagnostics whether it is enabled, and its warnings and errors."""
        for status in message.status:
            node, _, part = status.name.rpartition(": ")
            if node != self._tracker.name or part not in ("input", "tracking", "node"):
                continue
            level = status.level[0] if isinstance(status.level, bytes) else int(status.level)
            lost = status.message.startswith("lost: ")  # is reported with the targets
            self._trouble[part] = status.message if level and not lost else ""
            for pair in status.values:
                if part == "node" and pair.key == "enabled":
                    self._tracker.report(pair.value == "true")

    def _on_watch(self) -> None:
        """Subscribe images while a browser is connected; check the publisher of images and the tracker."""
        topic, kind = image_topic(self, self._transport), IMAGE_TYPES[self._transport]
        self._linger = LINGER_WATCHES if self._watchers else max(0, self._linger - 1)
        if self._linger and self._images is None:
            self._images = self._subscribe(kind, topic, self._on_image, self._image_qos)
        elif not self._linger and self._images is not None:
            self.destroy_subscription(self._images)
            self._images = None
            self.state.forget_images()
        if not self._watchers:
            return
        silent = self.state.seconds_without_image
        quiet = silent is None or silent >= self._stale_after
        explain = explain_silence if quiet else publisher_trouble
        self.state.set_silence(explain(self, topic, self._image_qos, kind))
        available = self._tracker.are_there
        if not available:
            self._tracker.report(None)
            self._trouble.clear()
        trouble = next((text for text in map(self._trouble.get, ("node", "tracking", "input")) if text), "")
        tracker = self._tracker
        self.state.set_tracker(
            TrackerStatus(available, tracker.enabled, trouble, tracker.drop_number, tracker.pause_number)
        )

    # End

    def close(self) -> bool:
        """Take back starts that wait, close all connections; return whether the server's thread has ended."""
        if self._server is None:
            return True
        begin, drops = time.monotonic(), self._tracker.close()
        ended = self._server.stop(CLOSE_SECONDS)
        if not are_answered(drops.values(), begin):
            names = ", ".join(map(repr, drops))[:500]
            self.get_logger().error(f"the tracker does not answer: it may still start target {names}; drop it there")
        return ended

    def destroy_node(self) -> None:
        """Stop the server, then destroy the node."""
        self.close()
        super().destroy_node()


def main(args: Sequence[str] | None = None) -> int:
    """Serve the console until SIGINT or SIGTERM."""
    return run(ConsoleNode, args)


if __name__ == "__main__":
    sys.exit(main())
