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
