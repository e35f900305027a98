# SPDX-License-Identifier: Apache-2.0
"""Telling people how the node is: all of it on /diagnostics, in the log what begins and what ends."""

from __future__ import annotations

from typing import TYPE_CHECKING

from diagnostic_msgs.msg import DiagnosticArray

from dimp_ros.node.diagnostics.status import Snapshot, diagnostics
from dimp_ros.node.diagnostics.stream_checks import stream_conditions
from dimp_ros.ros_utils.image_topic_monitor import ConditionLog
from dimp_ros.ros_utils.qos import publisher_options, reliable_qos

if TYPE_CHECKING:
    from rclpy.node import Node

WARNING_PERIOD_SECONDS = 10.0


class Reporter:
    """Publishes on /diagnostics for a node, and logs in its name."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._watchdog = ConditionLog()
        self._publisher = node.create_publisher(
            DiagnosticArray, "/diagnostics", reliable_qos(10), **publisher_options()
        )

    def start_over(self) -> None:
        """Forget what was wrong: a new stream begins."""
        self._watchdog = ConditionLog()

    def report(self, snapshot: Snapshot) -> None:
        """Tell how the node is at this moment."""
        node = self._node
        name = node.get_fully_qualified_name().lstrip("/")
        self._publisher.publish(diagnostics(name, node.get_clock().now().to_msg(), snapshot))
        logger = node.get_logger()
        if snapshot.silence:
            text = f"no image for {snapshot.silent:.0f} s: {snapshot.silence}"
            logger.warning(text, throttle_duration_sec=WARNING_PERIOD_SECONDS)
        conditions = {
            **stream_conditions(snapshot.figures),
            "position": snapshot.position,
            "publishers": snapshot.publishers,
        }
        for notice in self._watchdog.check(conditions):
            if notice.lasted is None:
                logger.warning(notice.line)
            else:
                logger.info(notice.line)
