# SPDX-License-Identifier: Apache-2.0
"""First compilation of a network's graphs in a process of its own: what torch takes of the memory ends with it."""

from __future__ import annotations

import dataclasses
import json
import logging
import subprocess
import sys
from pathlib import Path

from dimp_ros.tracker.config import TrackerConfig

_START = """
import json, sys
request = json.load(sys.stdin)
sys.path[:] = request["path"]
from dimp_ros.tracker.compile_graphs import compile_all
compile_all(request)
"""
SECONDS = 900
"""After which the process is ended."""


def compile_in_child(model: Path, precision: str, threads: int, config: TrackerConfig) -> None:
    """Have another process compile the graphs of a weights file into the cache folder.

    Where that fails, the graphs are missing there as before.
    """
    request = {
        "path": [folder for folder in sys.path if folder],
        "model": str(model.resolve()),
        "precision": precision,
        "threads": threads,
        "config": dataclasses.asdict(config),
    }
    command = [sys.executable, "-I", "-c", _START]
    try:
        done = subprocess.run(
            command, input=json.dumps(request).encode(), capture_output=True, timeout=SECONDS, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        logging.getLogger(__name__).info("graphs are compiled here: %s", error)
        return
    if done.returncode:
        text = done.stderr.decode(errors="replace").strip().rsplit("\n", 1)[-1]
        logging.getLogger(__name__).info("graphs are compiled here: another process ended with %.300s", text)
