# SPDX-License-Identifier: Apache-2.0
"""Start of an executable: signals end it with status 0 while it still imports, and change nothing while it ends."""

from __future__ import annotations

import atexit
import importlib
import os
import signal
from typing import NoReturn

from dimp_ros.ros_utils.output_relay import flush


def ending_signals() -> tuple[signal.Signals, ...]:
    """Return the signals that end a program in order; also that of a closed terminal, unless it is ignored (nohup)."""
    ignored = signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    return (signal.SIGINT, signal.SIGTERM) if ignored else (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def start(module: str) -> NoReturn:
    """Run ``main`` of a module and exit with what it returns.

    Imports take a second or two, in which Ctrl-C would end in a traceback; so would a second Ctrl-C, which comes when
    ``ros2 launch`` passes on what the terminal has already sent to each program, while the interpreter ends.
    """
    signals = ending_signals()
    for number in signals:
        signal.signal(number, lambda *_: os._exit(0))
    ended: list[int] = []
    atexit.register(_leave, ended)  # the first one runs last
    code = importlib.import_module(module).main()
    for number in signals:
        signal.signal(number, signal.SIG_IGN)
    ended.append(code or 0)
    raise SystemExit(code)


def _leave(ended: list[int]) -> None:
    """End without tearing the interpreter down, which takes seconds with torch on a busy computer."""
    if ended:
        flush()
        os._exit(ended[0])
