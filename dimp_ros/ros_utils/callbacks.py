# SPDX-License-Identifier: Apache-2.0
"""What an executor calls may fail without ending the program."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable
from functools import wraps
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rclpy.impl.rcutils_logger import RcutilsLogger
    from rclpy.node import Node

LOG_PERIOD_SECONDS = 5.0


def logged(callback: Callable[..., None], logger: RcutilsLogger) -> Callable[..., None]:
    """Return ``callback`` for an executor: what it raises is logged, and the next message or tick is served.

    Uncaught, it would end the executor, and with it the program: a message that nobody has foreseen would do so again
    after every restart. Of errors in quick succession, the first is logged.
    """
    silent_until = 0.0

    @wraps(callback)
    def wrapper(*arguments: Any) -> None:
        nonlocal silent_until
        try:
            callback(*arguments)
        except Exception:
            if time.monotonic() >= silent_until:
                name = getattr(callback, "__qualname__", repr(callback))
                logger.error(f"{name} failed:\n{traceback.format_exc()}")
                silent_until = time.monotonic() + LOG_PERIOD_SECONDS

    return wrapper


def guard_services(node: Node) -> None:
    """Have every service that ``node`` has by now answer whatever it is asked; what its callback raises is logged.

    rclpy's own are meant: asked for a parameter of a type that does not exist, they raise, which ends the program.
    May be called again when there are more services.
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
            logger.error(f"a request failed: {type(request).__qualname__}:\n{traceback.format_exc()}")
            return _refusal(request, response, f"{type(error).__name__}: {error}")

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
