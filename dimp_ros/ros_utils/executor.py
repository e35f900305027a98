# SPDX-License-Identifier: Apache-2.0
"""A multi-threaded executor that does not submit a callback again while it waits for a thread.

rclpy's hands a callback to its pool, and as long as no thread has begun with it, finds it as work to be handed over
again, in a loop that takes no break. The loop holds the interpreter's lock, which the thread that should begin has to
wait for, and looks each time through all that was handed over, which grows with each round. With four nodes in a
program, 39,500 of 40,209 submissions were repeated ones (here 1 of 1,776), and callbacks came seconds late.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from typing import Any

from rclpy.executors import MultiThreadedExecutor

from dimp_ros.ros_utils.request_times import note_times

START_SECONDS = 0.005
"""How long to wait for a thread to begin with a callback before looking for other work."""


class FairThreadPool(ThreadPoolExecutor):
    """A pool whose `submit` waits a moment for a thread to begin, and queues a callback once only."""

    def __init__(self, threads: int) -> None:
        super().__init__(threads)
        self._waiting: dict[Callable[..., Any], tuple[threading.Event, Future[Any]]] = {}
        self._lock = threading.Lock()

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Have a thread call ``fn``; if it was submitted before and none has begun with it, that stands."""
        with self._lock:
            known = self._waiting.get(fn)
            if known is None:
                begun = threading.Event()
                future = super().submit(self._begin, begun, fn, *args, **kwargs)
                if not begun.is_set():
                    self._waiting[fn] = begun, future
            else:
                begun, future = known
        begun.wait(START_SECONDS)
        return future

    def _begin(self, begun: threading.Event, fn: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        with self._lock:
            begun.set()
            self._waiting.pop(fn, None)
        return fn(*args, **kwargs)


class FairExecutor(MultiThreadedExecutor):
    """rclpy's executor with a `FairThreadPool`, as far as it has the pool where it is known to be."""

    def __init__(self, threads: int) -> None:
        super().__init__(num_threads=threads)
        if isinstance(getattr(self, "_executor", None), ThreadPoolExecutor):
            self._executor = FairThreadPool(threads)

    def _take_service(self, srv: Any) -> Any:
        taken = super()._take_service(srv)
        with suppress(AttributeError, KeyError, TypeError, ValueError):  # another rclpy than those that are known
            note_times(srv, taken)
        return taken

    def finish_callbacks(self) -> None:
        """Wait until callbacks that have begun have ended.

        To be called before `shutdown`, which takes away what they trigger in their end: an InvalidHandle comes of that.
        """
        pool = getattr(self, "_executor", None)
        if isinstance(pool, ThreadPoolExecutor):
            pool.shutdown(wait=True)
