# SPDX-License-Identifier: Apache-2.0
"""Problems of an image topic: why no image arrives, what is wrong with its publishers; each logged once."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from difflib import SequenceMatcher
from typing import TYPE_CHECKING, NamedTuple

from rclpy.qos import DurabilityPolicy, ReliabilityPolicy

from dimp_ros.ros_utils.fastdds import large_images_remedy

if TYPE_CHECKING:
    from rclpy.node import Node
    from rclpy.qos import QoSProfile
    from rclpy.topic_endpoint_info import TopicEndpointInfo

HOLD_SECONDS = 5.0
MAX_LISTED = 8
"""How many image topics a text names."""

TRANSPORTS = {"sensor_msgs/msg/Image": "raw", "sensor_msgs/msg/CompressedImage": "compressed"}


class Notice(NamedTuple):
    """A condition that has begun, or has ended.

    :param text: what it was when it began. :param lasted: for how many seconds; None where it has begun just now.
    """

    text: str
    lasted: float | None = None

    @property
    def line(self) -> str:
        """The line for the log."""
        if self.lasted is None:
            return self.text
        return f"OK again after {max(self.lasted, 1.0):.0f} s; what is over: {self.text}"


class ConditionLog:
    """Reports each condition once when it begins and once when it has ended.

    :param hold: a condition has ended when it was absent for so many seconds: one that comes and goes is reported once.
    :param clock: a clock that never goes back, seconds.
    """

    def __init__(self, hold: float = HOLD_SECONDS, clock: Callable[[], float] = time.monotonic) -> None:
        self._hold = hold
        self._clock = clock
        self._ongoing: dict[str, tuple[str, float, float]] = {}  # text when it began, when that was, when last seen

    def check(self, conditions: Mapping[str, str]) -> list[Notice]:
        """Return the conditions that have begun or ended since the last call.

        :param conditions: what is wrong at this moment, by kind; an empty text or a missing kind is no condition.
        """
        now = self._clock()
        notices = []
        for kind, text in conditions.items():
            if text:
                if kind not in self._ongoing:
                    notices.append(Notice(text))
                first, began, _ = self._ongoing.get(kind, (text, now, now))
                self._ongoing[kind] = (first, began, now)
        for kind, (text, began, last) in list(self._ongoing.items()):
            if not conditions.get(kind) and now - last >= self._hold:
                del self._ongoing[kind]
                notices.append(Notice(text, last - began))
        return notices


def explain_silence(node: Node, topic: str, qos: QoSProfile, kind: type) -> str:
    """Return why no image comes on ``topic``, to which ``node`` subscribes with ``qos``: one line with a remedy.

    :param kind: message type that is subscribed.
    """
    wanted = f"sensor_msgs/msg/{kind.__name__}"
    publishers = node.get_publishers_info_by_topic(topic)
    if not publishers:
        return f"nobody publishes on {topic}: {_suggestion(node, topic, kind)}"
    described = "; ".join(map(describe, publishers))
    whys = [why for publisher in publishers if (why := mismatches(publisher, qos, wanted))]
    if whys:
        why = "; ".join(dict.fromkeys(whys))
        return f"publishers on {topic}: {described}. They do not reach this node: {why}"
    text = f"publishers on {topic}: {described}. They fit this node, but send nothing: is the camera running?"
    if kind.__name__ == "Image" and (remedy := large_images_remedy()):
        text += f" Large images may be lost on the way: {remedy}"
    return text


def publisher_trouble(node: Node, topic: str, qos: QoSProfile, kind: type) -> str:
    """Return what is wrong with the publishers of ``topic`` although images may arrive; empty if nothing is.

    One that does not reach this node is not noticed beside one that does, and the images of two are mixed.
    """
    publishers = node.get_publishers_info_by_topic(topic)
    wanted = f"sensor_msgs/msg/{kind.__name__}"
    for publisher in publishers:
        if why := mismatches(publisher, qos, wanted):
            return f"a publisher on {topic}, {describe(publisher)}, does not reach this node: {why}"
    if len(publishers) > 1:
        names = ", ".join(map(describe, publishers))
        return f"{len(publishers)} publishers on {topic} mix their images: {names}; remap one of them, or image"
    return ""


def describe(publisher: TopicEndpointInfo) -> str:
    """Return a publisher's node, type, reliability and durability."""
    qos = publisher.qos_profile
    name = f"{publisher.node_namespace.rstrip('/')}/{publisher.node_name}"
    return f"{name} ({publisher.topic_type}, {qos.reliability.name}, {qos.durability.name})"


def mismatches(publisher: TopicEndpointInfo, qos: QoSProfile, wanted: str, topic: str = "image") -> str:
    """Return why messages of ``publisher`` cannot reach a subscription with ``qos``; empty if they can.

    :param wanted: type that is subscribed. :param topic: the topic's name before it is remapped.
    """
    found = []
    if publisher.topic_type != wanted:
        remedy = ", or set image_transport" if topic == "image" else ""
        found.append(f"its type is {publisher.topic_type}, not {wanted}: remap {topic} to a topic of that type{remedy}")
    offered = publisher.qos_profile
    if qos.reliability == ReliabilityPolicy.RELIABLE and offered.reliability == ReliabilityPolicy.BEST_EFFORT:
        found.append(f"it offers BEST_EFFORT but RELIABLE is asked for: remove that QoS override of {topic}")
    if qos.durability == DurabilityPolicy.TRANSIENT_LOCAL and offered.durability == DurabilityPolicy.VOLATILE:
        found.append(f"it offers VOLATILE but TRANSIENT_LOCAL is asked for: remove that QoS override of {topic}")
    return "; ".join(found)


def _suggestion(node: Node, topic: str, kind: type) -> str:
    """Return how to subscribe an image topic that has a publisher, the one with the most similar name first."""
    found = _image_topics(node)
    if not found:
        return "start the camera, or remap: --ros-args -r image:=/your/image_topic"
    transport = "compressed" if kind.__name__ == "CompressedImage" else "raw"
    nearest = max(found, key=lambda one: (one[1] == transport, SequenceMatcher(None, topic, one[0]).ratio()))
    listed = ", ".join(f"{name} ({way})" for name, way in found[:MAX_LISTED])
    more = f" and {len(found) - MAX_LISTED} more" if len(found) > MAX_LISTED else ""
    change = "" if nearest[1] == transport else f" -p image_transport:={nearest[1]}"
    launch = "" if nearest[1] == transport else f" image_transport:={nearest[1]}"
    return (
        f"images are on {listed}{more}. Start the node with --ros-args -r image:={nearest[0]}{change}, a launch file "
        f"with image:={nearest[0]}{launch}"
    )


def _image_topics(node: Node) -> list[tuple[str, str]]:
    """Return the topics on which other nodes publish images, as `image` is to be remapped, and their transport."""
    found = []
    for name, kinds in node.get_topic_names_and_types():
        way = next((way for kind, way in TRANSPORTS.items() if kind in kinds), None)
        base = name.removesuffix("/compressed") if way == "compressed" else name
        if way is None or (way == "compressed" and base == name):
            continue
        publishers = node.get_publishers_info_by_topic(name)
        own = (node.get_name(), node.get_namespace())
        if any((one.node_name, one.node_namespace) != own for one in publishers):
            found.append((base, way))
    return found
