# SPDX-License-Identifier: Apache-2.0
"""What goes wrong with the images, said once: why none arrives, and what the graph tells about their publishers."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, NamedTuple

from rclpy.qos import DurabilityPolicy, ReliabilityPolicy

if TYPE_CHECKING:
    from rclpy.node import Node
    from rclpy.qos import QoSProfile
    from rclpy.topic_endpoint_info import TopicEndpointInfo

HOLD_SECONDS = 5.0


class Notice(NamedTuple):
    """Something that goes wrong has begun, or has ended.

    :param text: what, as it was when it began. :param lasted: for how many seconds; None where it has begun just now.
    """

    text: str
    lasted: float | None = None

    @property
    def line(self) -> str:
        """What an operator is told."""
        if self.lasted is None:
            return self.text
        return f"OK again after {max(self.lasted, 1.0):.0f} s; what is over: {self.text}"


class ConditionLog:
    """Says of each thing that goes wrong when it begins, and when it has ended; once each, not all the time.

    :param hold: what is over for less than so many seconds is not over: what comes and goes is said once.
    :param clock: a clock that never goes back, seconds.
    """

    def __init__(self, hold: float = HOLD_SECONDS, clock: Callable[[], float] = time.monotonic) -> None:
        self._hold = hold
        self._clock = clock
        self._ongoing: dict[str, tuple[str, float, float]] = {}  # what was said, when it began, when it was last so

    def check(self, conditions: Mapping[str, str]) -> list[Notice]:
        """Return what has begun or ended since the last time.

        :param conditions: what is wrong at this moment, by kind; empty where nothing is, as is a kind that is missing.
        """
        now = self._clock()
        notices = []
        for kind, text in conditions.items():
            if text:
                if kind not in self._ongoing:
                    notices.append(Notice(text))
                said, began, _ = self._ongoing.get(kind, (text, now, now))
                self._ongoing[kind] = (said, began, now)
        for kind, (text, began, last) in list(self._ongoing.items()):
            if not conditions.get(kind) and now - last >= self._hold:
                del self._ongoing[kind]
                notices.append(Notice(text, last - began))
        return notices


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


def publisher_trouble(node: Node, topic: str, qos: QoSProfile, kind: type) -> str:
    """Say what is wrong with the publishers of ``topic`` although images may arrive; empty if nothing is.

    One that does not reach this node goes unheard beside one that does, and the images of two are mixed.
    """
    publishers = node.get_publishers_info_by_topic(topic)
    wanted = f"sensor_msgs/msg/{kind.__name__}"
    for publisher in publishers:
        if complaints := _complaints(publisher, qos, wanted):
            return f"a publisher on {topic}, {_describe(publisher)}, does not reach this node: {'; '.join(complaints)}"
    if len(publishers) > 1:
        names = ", ".join(map(_describe, publishers))
        return f"{len(publishers)} publishers on {topic} mix their images: {names}; remap one of them, or image"
    return ""


def _describe(publisher: TopicEndpointInfo) -> str:
    qos = publisher.qos_profile
    name = f"{publisher.node_namespace.rstrip('/')}/{publisher.node_name}"
    return f"{name} ({publisher.topic_type}, {qos.reliability.name}, {qos.durability.name})"


def _complaints(publisher: TopicEndpointInfo, qos: QoSProfile, wanted: str) -> list[str]:
    """Return why messages of ``publisher`` cannot reach a subscription with ``qos``; empty if they can."""
    found = []
    if publisher.topic_type != wanted:
        found.append(
            f"its type is {publisher.topic_type}, not {wanted}: remap image to a topic of that type, or set "
            "image_transport"
        )
    offered = publisher.qos_profile
    if qos.reliability == ReliabilityPolicy.RELIABLE and offered.reliability == ReliabilityPolicy.BEST_EFFORT:
        found.append("it offers BEST_EFFORT but RELIABLE is asked for: remove that QoS override of image")
    if qos.durability == DurabilityPolicy.TRANSIENT_LOCAL and offered.durability == DurabilityPolicy.VOLATILE:
        found.append("it offers VOLATILE but TRANSIENT_LOCAL is asked for: remove that QoS override of image")
    return found
