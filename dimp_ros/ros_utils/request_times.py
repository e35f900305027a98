# SPDX-License-Identifier: Apache-2.0
"""When a request was received, which rclpy knows and does not tell a service's callback."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

Callback = TypeVar("Callback", bound=Callable[..., Any])

_times: dict[int, int] = {}
"""By the id of a request that is not answered yet; nanoseconds of the system's clock."""


def timed(callback: Callback) -> Callback:
    """Mark a service's callback as one that asks for `received_at`."""
    callback.wants_times = True  # type: ignore[attr-defined]
    return callback


def note_times(service: Any, taken: Any) -> None:
    """Note when a request was received, for a callback that is `timed`.

    :param taken: what rclpy's ``Executor._take_service`` has returned: a request with its information, or a function
        around them.
    """
    if not getattr(service.callback, "wants_times", False) or taken is None:
        return
    if not isinstance(taken, tuple):
        cells = dict(zip(taken.__code__.co_freevars, taken.__closure__ or (), strict=False))
        taken = cells["request_and_header"].cell_contents
    request, info = taken
    if request is not None and info is not None:
        _times[id(request)] = int(info.received_timestamp or 0)


def received_at(request: Any) -> int:
    """Return when a request was received, nanoseconds of the system clock; 0 where rclpy or DDS cannot tell.

    To be called once, by the callback.
    """
    return _times.pop(id(request), 0)
