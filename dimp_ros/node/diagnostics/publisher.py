# SPDX-License-Identifier: Apache-2.0
"""Publishes the state of the node on /diagnostics, and logs each problem when it begins and when it ends."""

from __future__ import annotations

from typing import TYPE_CHECKING

from diagnostic_msgs.msg import DiagnosticArray

from dimp_ros.node.diagnostics.status import Snapshot, diagnostics
from dimp_ros.node.diagnostics.stream_checks import harmful, stream_conditions
from dimp_ros.ros_utils.image_topic_monitor import ConditionLog
from dimp_ros.ros_utils.qos import publisher_options, reliable_qos
from dimp_ros.ros_utils.text import shortened

if TYPE_CHECKING:
    from rclpy.node import Node

WARNING_PERIOD_SECONDS = 10.0


class Reporter:
    """Publishes on /diagnostics for a node, and logs in its name."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._conditions, self._remarks = ConditionLog(), ConditionLog()
        self._publisher = node.create_publisher(
            DiagnosticArray, "/diagnostics", reliable_qos(10), **publisher_options()
        )

    def start_over(self) -> None:
        """Forget the conditions so far: a new stream begins."""
        self._conditions, self._remarks = ConditionLog(), ConditionLog()

    def report(self, snapshot: Snapshot) -> None:
        """Publish and log the state of this moment."""
        node = self._node
        name = node.get_fully_qualified_name().lstrip("/")
        self._publisher.publish(diagnostics(name, node.get_clock().now().to_msg(), snapshot))
        logger = node.get_logger()
        if snapshot.silence:
            text = f"no image for {snapshot.silent:.0f} s: {snapshot.silence}"
            logger.warning(shortened(text), throttle_duration_sec=WARNING_PERIOD_SECONDS)
        conditions = {
            **stream_conditions(snapshot.figures),
            "position": snapshot.position,
            "inputs": snapshot.inputs,
            "publishers": snapshot.publishers,
            "namesakes": snapshot.namesakes,
        }
        remarks = {}
        if not harmful(snapshot.figures):
            remarks["slowness"] = conditions.pop("slowness")
        for notice in self._remarks.check(remarks):
            logger.info(shortened(notice.line))
        for notice in self._conditions.check(conditions):
            if notice.lasted is None:
                logger.warning(shortened(notice.line))
            else:
                logger.info(shortened(notice.line))
