# SPDX-License-Identifier: Apache-2.0
"""Signals as a request to stop after the current step, so that a checkpoint is written; before, at once."""

from __future__ import annotations

import os
import select
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""Ctrl-C, a request to end, a terminal that is closed."""

REPEAT_SECONDS = 0.5
"""A signal so soon after the first is the same: ``timeout`` sends two, one to the process and one to its group."""

NOTICE = b"stopping after this step, with a checkpoint; a second signal ends it at once, without\n"


@contextmanager
def deferred_signals() -> Iterator[Callable[[], bool]]:
    """Give a function that tells whether a signal asks to stop; a second signal, later, ends the process as usual.

    Before the function is called for the first time there is no step to complete, as while a store is made or waited
    for: then a signal raises SystemExit with status 3. In other threads than the main one signals are left alone, and
    so is a SIGHUP that is ignored: under nohup a run outlives its terminal.
    """
    asked, stepping, process = threading.Event(), threading.Event(), os.getpid()
    first = time.monotonic()

    def interrupted() -> bool:
        stepping.set()
        return asked.is_set()

    if threading.current_thread() is not threading.main_thread():
        yield asked.is_set
        return
    usual = {number: signal.getsignal(number) for number in SIGNALS}
    if usual[signal.SIGHUP] == signal.SIG_IGN:
        del usual[signal.SIGHUP]

    def restore() -> None:
        for number, handler in usual.items():
            signal.signal(number, handler)

    def ask(number: int, frame: FrameType | None) -> None:
        nonlocal first
        if asked.is_set():
            if time.monotonic() > first + REPEAT_SECONDS:
                restore()
                os.kill(os.getpid(), number)
            return
        first = time.monotonic()
        asked.set()
        if not stepping.is_set() and os.getpid() == process:  # a worker that was forked stops with its parent
            print("interrupted before the first step; repeat the command", file=sys.stderr)
            raise SystemExit(3)
        _say(NOTICE)

    for number in usual:
        signal.signal(number, ask)
    try:
        yield interrupted
    finally:
        restore()


def _say(text: bytes) -> None:
    """Write to standard error from a signal handler: without Python's buffer, and only where that does not wait."""
    with suppress(OSError, ValueError):
        if select.select([], [sys.stderr.fileno()], [], 0.0)[1]:
            os.write(sys.stderr.fileno(), text)
