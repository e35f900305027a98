# SPDX-License-Identifier: Apache-2.0
"""Why no image arrives: what the graph tells about the topic, its publishers and their QoS."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rclpy.qos import DurabilityPolicy, ReliabilityPolicy

if TYPE_CHECKING:
    from rclpy.node import Node
    from rclpy.qos import QoSProfile
    from rclpy.topic_endpoint_info import TopicEndpointInfo


class Watchdog:
    """Says of each thing that goes wrong when it begins, and when it has ended; once each, not all the time."""

    def __init__(self) -> None:
        self._ongoing: dict[str, str] = {}

    def check(self, conditions: dict[str, str]) -> list[tuple[bool, str]]:
        """Return what has begun (True) or ended (False) since the last time, in words.

        :param conditions: what is wrong at this moment, by kind; empty where nothing is.
        """
        said = []
        for kind, text in conditions.items():
            before = self._ongoing.pop(kind, "")
            if text:
                self._ongoing[kind] = before or text
            if bool(text) != bool(before):
                said.append((bool(text), text or before))
        return said


def explain_silence(node: Node, topic: str, qos: QoSProfile, kind: type) -> str:
    """Say what is wrong with ``topic``, to which ``node`` subscribes images with ``qos``: one line with a remedy.

    :param kind: message type that is subscribed.
    """
    wanted = f"sensor_msgs/msg/{kind.__name__}"
    publishers = node.get_publishers_info_by_topic(topic)
    if not publishers:
        return f"nobody publishes on {topic}: start the camera, or remap: --ros-args -r image:=/your/image_topic"
    described = "; ".join(_describe(publisher) for publisher in publishers)
    complaints = [complaint for publisher in publishers for complaint in _complaints(publisher, qos, wanted)]
    if complaints:
        why = "; ".join(dict.fromkeys(complaints))
        return f"publishers on {topic}: {described}. They do not reach this node: {why}"
    return f"publishers on {topic}: {described}. They fit this node, but send nothing: is the camera running?"


def _describe(publisher: TopicEndpointInfo) -> str:
    qos = publisher.qos_profile
    name = f"{publisher.node_namespace.rstrip('/')}/{publisher.node_name}"
    return f"{name} ({publisher.topic_type}, {qos.reliability.name}, {qos.durability.name})"


def _complaints(publisher: TopicEndpointInfo, qos: QoSProfile, wanted: str) -> list[str]:
    """Return why messages of ``publisher`` cannot reach a subscription with ``qos``; empty if they can."""
    found = []
    if publisher.topic_type != wanted:
        found.append(
            f"its type is {publisher.topic_type}, not {wanted}: remap image to the raw image topic, or set image_transport"
        )
    offered = publisher.qos_profile
    if qos.reliability == ReliabilityPolicy.RELIABLE and offered.reliability == ReliabilityPolicy.BEST_EFFORT:
        found.append("it offers BEST_EFFORT but RELIABLE is asked for: remove that QoS override of image")
    if qos.durability == DurabilityPolicy.TRANSIENT_LOCAL and offered.durability == DurabilityPolicy.VOLATILE:
        found.append("it offers VOLATILE but TRANSIENT_LOCAL is asked for: remove that QoS override of image")
    return found
