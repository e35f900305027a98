# SPDX-License-Identifier: Apache-2.0
"""The node's subscriptions: images, raw or compressed, and what goes with them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from vision_msgs.msg import Detection2DArray

from dimp_ros.ros_utils.callbacks import logged
from dimp_ros.ros_utils.qos import image_qos, sensor_qos, subscription_options

if TYPE_CHECKING:
    from rclpy.node import Node
    from rclpy.qos import QoSProfile


IMAGE_TYPES = {"raw": Image, "compressed": CompressedImage}
"""Message type of the images, by transport."""


def image_topic(node: Node, transport: str) -> str:
    """Return the topic that images come from; remapping `image` moves the compressed one, too."""
    topic = node.resolve_topic_name("image")
    return topic if transport == "raw" else f"{topic}/{transport}"


class Inputs:
    """Subscriptions of one node, from its activation to its deactivation.

    Each has a callback group of its own, so that none waits for another.

    :param transport: ``raw`` or ``compressed``. :param on_depth: None where depth is not wanted.
    """

    def __init__(
        self,
        node: Node,
        transport: str,
        *,
        on_image: Callable[[Any], None],
        on_camera_info: Callable[[CameraInfo], None],
        on_depth: Callable[[Image], None] | None,
        on_detections: Callable[[Detection2DArray], None],
    ) -> None:
        self._node = node
        self.image_qos = image_qos()
        """Quality of service of the images; overrides are written into it."""
        self._subscriptions: list[Any] = []
        self.image_topic = image_topic(node, transport)
        try:
            self._subscribe(IMAGE_TYPES[transport], self.image_topic, on_image, self.image_qos)
            self._subscribe(CameraInfo, "camera_info", on_camera_info, sensor_qos(1))
            if on_depth is not None:
                self._subscribe(Image, "depth", on_depth, sensor_qos(5))
            self._subscribe(Detection2DArray, "init_detections", on_detections, sensor_qos(1))
        except Exception:  # a QoS override that is none: what was opened before it must not stay
            self.destroy()
            raise

    def _subscribe(self, kind: type, topic: str, callback: Callable[[Any], None], qos: QoSProfile) -> None:
        self._subscriptions.append(
            self._node.create_subscription(
                kind,
                topic,
                logged(callback, self._node.get_logger()),
                qos,
                callback_group=MutuallyExclusiveCallbackGroup(),
                **subscription_options(),
            )
        )

    def destroy(self) -> None:
        """Receive nothing more."""
        while self._subscriptions:
            self._node.destroy_subscription(self._subscriptions.pop())
