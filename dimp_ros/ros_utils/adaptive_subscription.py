# SPDX-License-Identifier: Apache-2.0
"""A subscription that asks for the quality of service that all publishers of its topic offer."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from rcl_interfaces.msg import ParameterDescriptor
from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from rclpy.qos import DurabilityPolicy, QoSPolicyKind, ReliabilityPolicy
from rclpy.qos_overriding_options import QoSOverridingOptions

from dimp_ros.ros_utils.callbacks import logged
from dimp_ros.ros_utils.qos import sensor_qos, subscription_options

if TYPE_CHECKING:
    from rclpy.node import Node
    from rclpy.qos import QoSProfile
    from rclpy.topic_endpoint_info import TopicEndpointInfo

AUTOMATIC = "automatic"
RELIABILITIES = {
    "reliable": ReliabilityPolicy.RELIABLE,
    "best_effort": ReliabilityPolicy.BEST_EFFORT,
    "system_default": ReliabilityPolicy.SYSTEM_DEFAULT,
}
DURABILITIES = {
    "transient_local": DurabilityPolicy.TRANSIENT_LOCAL,
    "volatile": DurabilityPolicy.VOLATILE,
    "system_default": DurabilityPolicy.SYSTEM_DEFAULT,
}


class AdaptiveSubscription:
    """Receives a topic RELIABLE if every publisher offers that, otherwise BEST_EFFORT, which matches all of them.

    A best-effort reader loses most raw images of another process (docs/performance.md); a reliable one gets nothing
    from a best-effort publisher. The depth is that of `sensor_qos`: no old message is queued.

    Reliability and durability can be set by the usual QoS override parameters; they then stay as set.

    :param latched: ask for TRANSIENT_LOCAL, too, if every publisher offers it: for what is published once.
    """

    def __init__(
        self, node: Node, kind: type, topic: str, callback: Callable[[Any], None], depth: int, *, latched: bool = False
    ) -> None:
        self._node, self._kind, self._depth = node, kind, depth
        self._callback = logged(callback, node.get_logger())
        self.topic = node.resolve_topic_name(topic)
        self.type_name = f"{kind.__module__.split('.')[0]}/msg/{kind.__name__}"
        self.received = 0
        """Number of messages received."""
        self.opened = time.monotonic()
        """When the topic was subscribed first; by the monotonic clock."""
        self._reliability = self._override("reliability", RELIABILITIES, AUTOMATIC)
        self._durability = self._override("durability", DURABILITIES, AUTOMATIC if latched else "volatile")
        self._lock = threading.Lock()
        self._destroyed = False
        self._subscription: Any = None
        self.qos = self._wanted(self.publishers)
        """Quality of service of the subscription."""
        self._open()

    @property
    def publishers(self) -> list[TopicEndpointInfo]:
        """The publishers of the topic, of whatever type."""
        found: list[TopicEndpointInfo] = self._node.get_publishers_info_by_topic(self.topic)
        return found

    def adapt(self) -> None:
        """Subscribe anew if the publishers offer something else than before; without any, nothing changes."""
        publishers = self.publishers
        wanted = self._wanted(publishers)
        with self._lock:
            same = (wanted.reliability, wanted.durability) == (self.qos.reliability, self.qos.durability)
            if publishers and not same and not self._destroyed:
                self._node.destroy_subscription(self._subscription)
                self.qos = wanted
                self._open()

    def destroy(self) -> None:
        """Receive nothing more."""
        with self._lock:
            if not self._destroyed:
                self._destroyed = True
                self._node.destroy_subscription(self._subscription)

    def _open(self) -> None:
        self._subscription = self._node.create_subscription(
            self._kind,
            self.topic,
            self._receive,
            self.qos,
            callback_group=MutuallyExclusiveCallbackGroup(),
            **subscription_options(QoSOverridingOptions((QoSPolicyKind.HISTORY, QoSPolicyKind.DEPTH))),
        )

    def _receive(self, message: Any) -> None:
        self.received += 1
        self._callback(message)

    def _wanted(self, publishers: Sequence[TopicEndpointInfo]) -> QoSProfile:
        offers = [one.qos_profile for one in publishers if one.topic_type == self.type_name]
        reliable = bool(offers) and all(one.reliability == ReliabilityPolicy.RELIABLE for one in offers)
        kept = reliable and all(one.durability == DurabilityPolicy.TRANSIENT_LOCAL for one in offers)
        qos = sensor_qos(self._depth)
        qos.reliability = RELIABILITIES.get(self._reliability, RELIABILITIES["reliable" if reliable else "best_effort"])
        qos.durability = DURABILITIES.get(self._durability, DURABILITIES["transient_local" if kept else "volatile"])
        return qos

    def _override(self, policy: str, choices: dict[str, Any], default: str) -> str:
        """Return the value of a QoS override parameter.

        rclpy's own would keep the first value for good.

        :raises ValueError: for a value that does not exist.
        """
        name = f"qos_overrides.{self.topic}.subscription.{policy}"
        if not self._node.has_parameter(name):
            text = f"{policy} of the subscription of {self.topic}; automatic: as all publishers offer it"
            self._node.declare_parameter(name, default, ParameterDescriptor(description=text, read_only=True))
        value = str(self._node.get_parameter(name).value)
        if value not in (AUTOMATIC, *choices):
            raise ValueError(f"parameter {name} is {value!r}, but must be one of {', '.join((AUTOMATIC, *choices))}")
        return value
