# SPDX-License-Identifier: Apache-2.0
"""Stop the programs of a demo."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Mapping


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
