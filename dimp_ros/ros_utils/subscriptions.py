# SPDX-License-Identifier: Apache-2.0
"""The tracker node's subscriptions: images, raw or compressed, camera_info, depth and detections."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from typing import TYPE_CHECKING, Any

from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from vision_msgs.msg import Detection2DArray

from dimp_ros.ros_utils.adaptive_subscription import AdaptiveSubscription
from dimp_ros.ros_utils.image_topic_monitor import describe, mismatches

if TYPE_CHECKING:
    from rclpy.node import Node


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
    :param required: which of ``camera_info`` and ``depth`` the parameters need; it is reported if nobody publishes it.
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
        required: Collection[str] = (),
    ) -> None:
        self._required = required
        self._inputs: dict[str, AdaptiveSubscription] = {}
        self.image_topic = image_topic(node, transport)
        try:
            self._inputs["image"] = AdaptiveSubscription(node, IMAGE_TYPES[transport], self.image_topic, on_image, 1)
            self._inputs["camera_info"] = AdaptiveSubscription(
                node, CameraInfo, "camera_info", on_camera_info, 1, latched=True
            )
            if on_depth is not None:
                self._inputs["depth"] = AdaptiveSubscription(node, Image, "depth", on_depth, 5)
            self._inputs["init_detections"] = AdaptiveSubscription(
                node, Detection2DArray, "init_detections", on_detections, 1
            )
        except Exception:  # an invalid QoS override: close what was opened before it
            self.destroy()
            raise

    @property
    def images(self) -> AdaptiveSubscription:
        """The subscription of the images."""
        return self._inputs["image"]

    def adapt(self) -> None:
        """Follow what publishers offer now."""
        for one in list(self._inputs.values()):
            one.adapt()

    def problem(self, limit: float) -> str:
        """Return why an input beside the images brings nothing; empty if nothing is wrong.

        :param limit: seconds after which silence is a problem; 0 for never.
        """
        found = [self._problem(name, one, limit) for name, one in list(self._inputs.items()) if name != "image"]
        return "; ".join(filter(None, found))

    def _problem(self, name: str, one: AdaptiveSubscription, limit: float) -> str:
        publishers = one.publishers
        for publisher in publishers:
            if why := mismatches(publisher, one.qos, one.type_name, name):
                return f"{name}: a publisher on {one.topic}, {describe(publisher)}, does not reach this node: {why}"
        silent = time.monotonic() - one.opened
        if one.received or not 0.0 < limit < silent:
            return ""
        if not publishers:
            remedy = f"start it, or remap: --ros-args -r {name}:=/your/topic"
            return f"{name}: nobody publishes on {one.topic}: {remedy}" if name in self._required else ""
        if name == "init_detections":  # a detector may well find nothing
            return ""
        return (
            f"{name}: nothing has come for {silent:.0f} s from {', '.join(map(describe, publishers))} on {one.topic}; "
            "what was published once before this node started arrives only if it is TRANSIENT_LOCAL and RELIABLE"
        )

    def destroy(self) -> None:
        """Receive nothing more."""
        while self._inputs:
            self._inputs.popitem()[1].destroy()
