# SPDX-License-Identifier: Apache-2.0
"""The node's output topics: detections, state, and a picture for people while somebody looks at it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from sensor_msgs.msg import Image
from vision_msgs.msg import Detection2DArray

from dimp_ros.apps.overlay import draw_target
from dimp_ros.msg import TargetState
from dimp_ros.node import messages
from dimp_ros.node.history import NANOSECONDS, stamp_ns
from dimp_ros.node.image_conversion import from_bgr
from dimp_ros.node.qos import publisher_options, reliable_qos

if TYPE_CHECKING:
    from rclpy.node import Node
    from std_msgs.msg import Header

    from dimp_ros.node.target import Reading


class Outputs:
    """Publishers of one node, from its configuration to its cleanup."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._detections = node.create_publisher(
            Detection2DArray, "detections", reliable_qos(10), **publisher_options()
        )
        self._target = node.create_publisher(
            TargetState, "target", reliable_qos(1, latched=True), **publisher_options()
        )
        self._debug_image = node.create_publisher(Image, "debug_image", reliable_qos(1), **publisher_options())

    def publish(self, header: Header, reading: Reading) -> None:
        """Publish ``reading`` as detections and as state, both under the image's own ``header``."""
        self._detections.publish(messages.detections(header, reading))
        self.publish_state(header, reading)

    def publish_state(self, header: Header, reading: Reading) -> None:
        """Publish ``reading`` as state; the age is from the image's stamp to now, by the node's clock."""
        age = (self._node.get_clock().now().nanoseconds - stamp_ns(header.stamp)) / NANOSECONDS
        self._target.publish(messages.target_state(header, reading, age))

    @property
    def debug_image_wanted(self) -> bool:
        """Whether anybody subscribes to the debug image."""
        return bool(self._debug_image.get_subscription_count() > 0)

    def publish_debug_image(self, header: Header, picture: NDArray[np.uint8], reading: Reading) -> None:
        """Publish a copy of ``picture``, HxWx3 BGR, with ``reading`` drawn on it."""
        confidence = reading.confidence if reading.box is not None else None
        drawn = draw_target(
            picture.copy(), reading.state.name, box=reading.box, confidence=confidence, target_id=reading.target_id
        )
        self._debug_image.publish(from_bgr(header, drawn))

    def destroy(self) -> None:
        """Take the topics off the graph."""
        for publisher in (self._detections, self._target, self._debug_image):
            self._node.destroy_publisher(publisher)
