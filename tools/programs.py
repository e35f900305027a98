# SPDX-License-Identifier: Apache-2.0
"""Start, watch and stop the programs of a demo."""

from __future__ import annotations

import ctypes
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO

POLL_SECONDS = 0.5
PR_SET_PDEATHSIG = 1
"""Of prctl, in Linux's sys/prctl.h."""


def start(
    command: Sequence[str | Path], folder: Path | None = None, output: IO[bytes] | None = None
) -> subprocess.Popen[bytes]:
    """Start a program that is ended by SIGTERM when this process ends, however it ends; on Linux.

    Call it in a thread that lives as long as the process: the system takes the thread's end for it.

    :param folder: to run it in. :param output: for what it prints; this process's by default.
    """
    prctl = ctypes.CDLL(None).prctl if sys.platform == "linux" else None

    def follow_parent() -> None:
        if prctl is not None:
            prctl(PR_SET_PDEATHSIG, signal.SIGTERM)  # SIGINT may be ignored, as in a background job

    return subprocess.Popen(command, cwd=folder, stdout=output, stderr=output, preexec_fn=follow_parent)


class Watch:
    """Calls ``ended`` from a thread of its own, once, if a program ends by itself; to be used as a context.

    A program that was killed by a signal does not count: the demo kills its tracker.
    """

    def __init__(self, processes: Mapping[str, subprocess.Popen[bytes]], ended: Callable[[str], None]) -> None:
        self._processes, self._ended = processes, ended
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watch", daemon=True)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._over.wait(POLL_SECONDS):
            for name, process in self._processes.items():
                if (code := process.poll()) is not None and code >= 0:
                    self._ended(f"{name} has ended with code {code}")
                    return


def stop(processes: Mapping[str, subprocess.Popen[bytes]], seconds: float, label: str) -> None:
    """Interrupt programs, wait for each, and kill those that have not ended within ``seconds``, with a message."""
    for process in processes.values():
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
    for name, process in processes.items():
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            print(f"[{label}] {name} did not end within {seconds:g} s and was killed", file=sys.stderr)
            process.kill()
            process.wait()
