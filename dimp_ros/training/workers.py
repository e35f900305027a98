# SPDX-License-Identifier: Apache-2.0
"""Work that several processes share, any of which may die: where memory is short, or by an error at its start."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, wait
from concurrent.futures.process import BrokenProcessPool
from itertools import islice
from typing import TypeVar

from dimp_ros.files.worker_processes import worker_pool

LONGEST_WAIT = 0.5
"""Seconds after which the caller is heard, though nothing is done."""
_QUEUED = 4
"""Items that wait, or are worked on, for each process."""
DIED = (
    "a process that makes the sequences has died: its error is above, or else the system killed it, as where memory is "
    "short; give fewer --processes, and repeat the command"
)

Item = TypeVar("Item")


def share_work(
    function: Callable[[Item], object], items: Iterable[Item], jobs: int, start: Callable[[], object]
) -> Iterator[int]:
    """Call a function with each item in ``jobs`` processes; yield how many more are done, or 0 when that takes long.

    Closing the iterator ends the processes.

    :param start: is called in each process before.
    :raises ChildProcessError: if a process died; also what the function raises. It yields 0 before: a signal that ended
        the process may have asked the caller to stop, too.
    """
    rest, pending = iter(items), set[Future[object]]()
    try:
        with worker_pool(jobs, start) as pool:
            while True:
                pending |= {pool.submit(function, item) for item in islice(rest, _QUEUED * jobs - len(pending))}
                if not pending:
                    return
                done, pending = wait(pending, LONGEST_WAIT, FIRST_COMPLETED)
                for future in done:
                    future.result()
                yield len(done)
    except BrokenProcessPool as error:
        yield 0
        raise ChildProcessError(DIED) from error
