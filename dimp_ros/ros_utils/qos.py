# SPDX-License-Identifier: Apache-2.0
"""Quality of service of this package's topics, and options of its publishers and subscriptions."""

from __future__ import annotations

from typing import Any

from rclpy.qos import DurabilityPolicy, HistoryPolicy, QoSProfile, ReliabilityPolicy
from rclpy.qos_overriding_options import QoSOverridingOptions

try:
    from rclpy.event_handler import PublisherEventCallbacks, SubscriptionEventCallbacks
except ModuleNotFoundError:  # Humble
    from rclpy.qos_event import PublisherEventCallbacks, SubscriptionEventCallbacks


def image_qos() -> QoSProfile:
    """Return BEST_EFFORT, KEEP_LAST 1: a subscription that matches every publisher and never queues."""
    return sensor_qos(1)


def sensor_qos(depth: int) -> QoSProfile:
    """Return BEST_EFFORT, KEEP_LAST ``depth``: a subscription that matches every publisher."""
    return QoSProfile(
        history=HistoryPolicy.KEEP_LAST,
        depth=depth,
        reliability=ReliabilityPolicy.BEST_EFFORT,
        durability=DurabilityPolicy.VOLATILE,
    )


def reliable_qos(depth: int, *, latched: bool = False) -> QoSProfile:
    """Return RELIABLE, KEEP_LAST ``depth``; ``latched`` hands the last messages to late joiners too."""
    return QoSProfile(
        history=HistoryPolicy.KEEP_LAST,
        depth=depth,
        reliability=ReliabilityPolicy.RELIABLE,
        durability=DurabilityPolicy.TRANSIENT_LOCAL if latched else DurabilityPolicy.VOLATILE,
    )


def publisher_options() -> dict[str, Any]:
    """Return arguments for a publisher that users can override the QoS of, and that may be destroyed at any time.

    It has no event handlers: rclpy's executors, up to Kilted at least, stop spinning with InvalidHandle if one is
    destroyed while they set up their next wait.
    """
    return {
        "qos_overriding_options": QoSOverridingOptions.with_default_policies(),
        "event_callbacks": PublisherEventCallbacks(use_default_callbacks=False),
    }


def subscription_options(overrides: QoSOverridingOptions | None = None) -> dict[str, Any]:
    """Return arguments for a subscription; see `publisher_options`.

    :param overrides: the policies that users can override; None for rclpy's default ones.
    """
    return {
        "qos_overriding_options": overrides or QoSOverridingOptions.with_default_policies(),
        "event_callbacks": SubscriptionEventCallbacks(use_default_callbacks=False),
    }
