# SPDX-License-Identifier: Apache-2.0
"""A command from its first import to its exit: Ctrl-C while it imports, and standard streams that are missing or break.

A reader that goes away, as ``head`` does, a terminal that is closed and a full disk must not cost results. Text that
nobody can read is dropped; only a failure that a user can mend, such as a full disk, is told, with status 1.
"""

from __future__ import annotations

import errno
import functools
import importlib
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any, ParamSpec, TextIO, cast

INTERRUPTED = 130
GONE = (errno.EPIPE, errno.EIO, errno.ECONNRESET)
"""Errors of a stream that nobody reads any more: EIO of a terminal that was closed."""

Given = ParamSpec("Given")


def begin() -> None:
    """Prepare for seconds of imports: Ctrl-C ends the process at once, and no file takes the place of a closed stream.

    Called before them; `command` takes the signal back. A job that ignores Ctrl-C goes on to do so.
    """
    open_closed_streams()
    interruptible = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if interruptible and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, _end)


def open_closed_streams() -> None:
    """Keep the numbers of closed standard streams from the next files, which output would spoil."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest number that is free


def _end(number: int, frame: FrameType | None) -> None:
    os._exit(INTERRUPTED)


def start(module: str) -> int:
    """Import a module and run its ``main``, see `command`; return its status."""
    begin()
    return int(importlib.import_module(module).main())


def command(name: str) -> Callable[[Callable[Given, int]], Callable[Given, int]]:
    """Make ``main`` a command: it returns 130 on Ctrl-C, and runs to its end if standard output or error break.

    :param name: of the program, before its messages.
    """

    def decorate(main: Callable[Given, int]) -> Callable[Given, int]:
        @functools.wraps(main)
        def run(*args: Given.args, **kwargs: Given.kwargs) -> int:
            if signal.getsignal(signal.SIGINT) is _end:
                signal.signal(signal.SIGINT, signal.default_int_handler)
            before = sys.stdout, sys.stderr
            out, err = _Stream(before[0]), _Stream(before[1])
            sys.stdout, sys.stderr = cast("TextIO", out), cast("TextIO", err)
            try:
                status = main(*args, **kwargs)
                out.flush()
                if out.error is not None and out.error.errno not in GONE:
                    print(f"{name}: cannot write to standard output: {out.error.strerror}", file=sys.stderr)
                    status = status or 1
            except KeyboardInterrupt:
                print(f"{name}: interrupted", file=sys.stderr)
                status = INTERRUPTED
            finally:
                out.flush()
                err.flush()
                sys.stdout, sys.stderr = before
            return status

        return run

    return decorate


@contextmanager
def interrupted_by_signals() -> Iterator[None]:
    """Raise KeyboardInterrupt on SIGTERM and SIGHUP, as on SIGINT, unless they are ignored, as by nohup."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
    handled = {number: handler for number, handler in before.items() if handler != signal.SIG_IGN}
    for number in handled:
        signal.signal(number, interrupt)
    try:
        yield
    finally:
        for number, handler in handled.items():
            signal.signal(number, handler)


class _Stream:
    """Passes text on to a standard stream, which may be missing; once that fails, what is written is dropped."""

    def __init__(self, stream: TextIO | None) -> None:
        self._stream: TextIO = open(os.devnull, "w") if stream is None else stream
        self.error: OSError | None = None

    def write(self, text: str) -> int:
        if self.error is None:
            try:
                self._stream.write(text)
            except OSError as error:
                self._drop(error)
        return len(text)

    def writelines(self, lines: list[str]) -> None:
        self.write("".join(lines))

    def flush(self) -> None:
        if self.error is None:
            try:
                self._stream.flush()
            except OSError as error:
                self._drop(error)

    def _drop(self, error: OSError) -> None:
        """Lead the stream nowhere: at the exit Python writes what it holds, and libraries write to its number."""
        self.error = error
        with suppress(OSError, ValueError):  # a stream of a test has no number
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self._stream.fileno())
            os.close(nowhere)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)
