# SPDX-License-Identifier: Apache-2.0
"""Processes that work for a program: the signals of its process group are left to the program, and they end with it.

Ctrl-C and a terminal that is closed signal the whole group, and so do ``timeout``, systemd and batch systems when they
end a job. A worker that died of it would take from the program what it needs to end in order.
"""

from __future__ import annotations

import atexit
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import resource_tracker
from multiprocessing.context import SpawnContext, SpawnProcess
from typing import Any

LEFT_TO_PARENT = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class WorkerProcess(SpawnProcess):
    """Has `LEFT_TO_PARENT` blocked from its first instruction, also while it imports; SIGKILL ends it."""

    def start(self) -> None:
        """Begin, with the signals blocked."""
        with _blocked():  # inherited
            super().start()

    def run(self) -> None:
        """Do the work, until the parent ends."""
        end_with_parent()
        super().run()

    def terminate(self) -> None:
        """End it, also where a pool of Python or a DataLoader of torch does: SIGTERM would not."""
        self.kill()


class _WorkerContext(SpawnContext):
    Process = WorkerProcess


def worker_context() -> SpawnContext:
    """Return the context of worker processes, for a pool or a DataLoader.

    They are spawned: a fork of a process whose libraries have started threads can hang.
    """
    with _blocked():  # for the process that removes what others leave; SIGHUP ends it otherwise
        resource_tracker.ensure_running()
    return _WorkerContext()


@atexit.register
def _kill_what_is_left() -> None:
    """Kill the workers that Python would send SIGTERM, and wait for, such as those of a DataLoader."""
    for child in multiprocessing.active_children():
        if isinstance(child, WorkerProcess):
            child.kill()


class _Pool(ProcessPoolExecutor):
    """Watches each process from its start: Python's tells its watching thread of a call before it starts another one,
    whose death is then seen only after the next result.
    """

    def submit(self, *args: Any, **kwargs: Any) -> Future[Any]:
        """Give a call to a process, see `ProcessPoolExecutor`."""
        future = super().submit(*args, **kwargs)
        with self._shutdown_lock:
            if self._executor_manager_thread_wakeup is not None:
                self._executor_manager_thread_wakeup.wakeup()
        return future


@contextmanager
def worker_pool(jobs: int, start: Callable[..., object], *args: Any) -> Iterator[ProcessPoolExecutor]:
    """Give a pool of worker processes; an exception in the block, also a closed generator's, ends them at once.

    :param start: is called with ``args`` in each process before.
    """
    others = set(multiprocessing.active_children())
    with _Pool(jobs, worker_context(), start, args) as pool:
        try:
            yield pool
        except BrokenProcessPool:  # it has ended them
            raise
        except BaseException:  # do not wait for what is worked on
            pool.shutdown(wait=False, cancel_futures=True)
            for child in set(multiprocessing.active_children()) - others:
                child.kill()
            raise


def end_with_parent() -> None:
    """End this worker when its parent has ended, however that came: nobody would give it work, or end it."""
    parent = multiprocessing.parent_process()

    def wait() -> None:
        if parent is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=wait, name="parent", daemon=True).start()


@contextmanager
def _blocked() -> Iterator[None]:
    """Block the signals in this thread; those that come meanwhile act afterwards."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, LEFT_TO_PARENT)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
