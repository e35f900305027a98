# SPDX-License-Identifier: Apache-2.0
"""Folders of files that one run makes and others read at the same time."""

from __future__ import annotations

import fcntl
import logging
import os
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

PATIENCE = 5.0
"""Seconds until a folder that others hold is given up; those that only look at it release it at once."""

SILENT_SECONDS = 1.0
"""Waiting for longer is logged."""

_log = logging.getLogger(__name__)


@contextmanager
def sole_run(folder: Path, option: str = "--folder", *, shared: bool = False) -> Iterator[None]:
    """Hold the folder of a run, which is made if it is missing; the system releases it when the process dies.

    Two runs in one folder would overwrite each other's files. A file system without locks is used without one.

    :param option: names the folder on the command line. :param shared: with others that share it, too.
    :raises ValueError: if another run holds it.
    """
    made = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):  # this file system has no locks
            try:
                fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
            except BlockingIOError:
                raise ValueError(f"another run writes into {folder}: end it, or give another {option}") from None
        yield
    finally:
        if made:
            with suppress(OSError):  # a run that was refused leaves nothing; a folder with files stays
                folder.rmdir()
        os.close(descriptor)


class SharedFolder:
    """A folder with current files; as long as the object lives, no other process replaces them.

    A file system without locks is used without one.

    :param current: tells whether the files are there, whole and of the right content.
    :param make: writes them. While another process does, this one waits, and uses what it wrote.
    :raises ValueError: if others hold the folder with other content.
    """

    def __init__(self, folder: Path, current: Callable[[], bool], make: Callable[[], None]) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self._descriptor = os.open(folder, os.O_RDONLY)
        weakref.finalize(self, os.close, self._descriptor)
        end = time.monotonic() + PATIENCE
        while True:
            self._wait_to_read()
            if current():
                return
            if self._lock(fcntl.LOCK_EX | fcntl.LOCK_NB):
                if not current():
                    make()
                end = time.monotonic() + PATIENCE
            elif time.monotonic() > end:
                raise ValueError(
                    f"another run uses {folder} with other data: end it, or give this run a folder of its own"
                )
            else:
                self._lock(fcntl.LOCK_UN)
                time.sleep(0.05 + os.getpid() % 16 / 100)

    def _wait_to_read(self) -> None:
        """Take the lock of readers, and say so if that takes longer: another run may make the files for hours."""
        end: float | None = time.monotonic() + SILENT_SECONDS
        while not self._lock(fcntl.LOCK_SH | fcntl.LOCK_NB):
            if end is not None and time.monotonic() > end:
                _log.warning("waiting for another run that makes %s", self.folder)
                end = None
            time.sleep(0.05)

    def _lock(self, operation: int) -> bool:
        """Change the lock; return False if others hold one that forbids it."""
        try:
            fcntl.flock(self._descriptor, operation)
        except BlockingIOError:
            return False
        except OSError:  # this file system has no locks
            return True
        return True
