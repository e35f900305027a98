# SPDX-License-Identifier: Apache-2.0
"""Callbacks that may fail without ending the program."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from functools import wraps
from typing import TYPE_CHECKING, Any

from dimp_ros.ros_utils.text import shortened, traceback_text

if TYPE_CHECKING:
    from rclpy.impl.rcutils_logger import RcutilsLogger
    from rclpy.node import Node
    from rclpy.subscription import Subscription
    from rclpy.task import Future

LOG_PERIOD_SECONDS = 5.0
"""A repeated error is logged once in so many seconds."""

ANSWER_SECONDS = 0.7
"""How long a node that ends waits for the answers to its last requests."""


def logged(callback: Callable[..., None], logger: RcutilsLogger) -> Callable[..., None]:
    """Return ``callback`` with its exceptions logged; the next message or tick is served.

    Uncaught, an exception would end the executor, and with it the program. Of errors in quick succession the first is
    logged.
    """
    silent_until = 0.0

    @wraps(callback)
    def wrapper(*arguments: Any) -> None:
        nonlocal silent_until
        try:
            callback(*arguments)
        except Exception as error:
            if time.monotonic() >= silent_until:
                name = getattr(callback, "__qualname__", repr(callback))
                logger.error(f"{name} failed:\n{traceback_text(error)}")
                silent_until = time.monotonic() + LOG_PERIOD_SECONDS

    return wrapper


def are_answered(calls: Collection[Future], since: float) -> bool:
    """Wait for the answers to a node's last requests until `ANSWER_SECONDS` after ``since``; return whether all came.

    A request is sent only while its process runs. Not to be called in a callback: others must be served meanwhile.

    :param since: by `time.monotonic`.
    """
    while not all(call.done() for call in calls):
        if time.monotonic() > since + ANSWER_SECONDS:
            return False
        time.sleep(0.01)
    return True


def listen_to_newest(node: Node, kind: type, topic: str, callback: Callable[..., None]) -> Subscription:
    """Subscribe to messages of type ``kind``, volatile and with depth 1: latched or queued messages are old.

    The callback has a group of its own, and its errors are logged.
    """
    from rclpy.callback_groups import MutuallyExclusiveCallbackGroup

    from dimp_ros.ros_utils.qos import sensor_qos, subscription_options

    return node.create_subscription(
        kind,
        topic,
        logged(callback, node.get_logger()),
        sensor_qos(1),
        callback_group=MutuallyExclusiveCallbackGroup(),
        **subscription_options(),
    )


def call_every(node: Node, seconds: float, callback: Callable[[], None]) -> None:
    """Call ``callback`` every ``seconds`` of a clock that cannot be set, in a group of its own; errors are logged."""
    from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
    from rclpy.clock import Clock, ClockType

    steady = Clock(clock_type=ClockType.STEADY_TIME)
    guarded = logged(callback, node.get_logger())
    node.create_timer(seconds, guarded, callback_group=MutuallyExclusiveCallbackGroup(), clock=steady)


def with_info(callback: Callable[[Any, Any], None]) -> Callable[..., None]:
    """Return a subscription's callback for which rclpy has the message's times; without them (Humble) they are None."""
    from rclpy.subscription import Subscription

    return callback if hasattr(Subscription, "CallbackType") else lambda message: callback(message, None)


def guard_services(node: Node) -> None:
    """Make every service that ``node`` has by now answer also if its callback raises; the exception is logged.

    rclpy's own raise if asked for a parameter of a type that does not exist, which would end the program. May be called
    again when there are more services.
    """
    for service in node.services:
        if not hasattr(service.callback, "answers_anything"):
            service.callback = _answered(service.callback, node.get_logger())


def _answered(callback: Callable[[Any, Any], Any], logger: RcutilsLogger) -> Callable[[Any, Any], Any]:
    """Return a service's callback that answers with what it had so far where ``callback`` raises."""

    @wraps(callback)
    def wrapper(request: Any, response: Any) -> Any:
        try:
            return callback(request, response)
        except Exception as error:
            logger.error(f"a request failed: {type(request).__qualname__}:\n{traceback_text(error)}")
            return _refusal(request, response, shortened(f"{type(error).__name__}: {error}"))

    wrapper.answers_anything = True  # type: ignore[attr-defined]
    return wrapper


def _refusal(request: Any, response: Any, reason: str) -> Any:
    """Return the response to a request that failed, with ``reason`` for the parameters that were to be set by it."""
    from rcl_interfaces.msg import SetParametersResult
    from rcl_interfaces.srv import SetParameters, SetParametersAtomically

    refused = SetParametersResult(successful=False, reason=reason)
    if isinstance(response, SetParametersAtomically.Response):
        response.result = refused
    elif isinstance(response, SetParameters.Response):  # those before the one that failed were set
        response.results = [*response.results, *[refused] * (len(request.parameters) - len(response.results))]
    return response
