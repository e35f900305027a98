# SPDX-License-Identifier: Apache-2.0
"""Watch and stop the programs of a demo."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping

POLL_SECONDS = 0.5


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
