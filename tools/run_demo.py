# SPDX-License-Identifier: Apache-2.0
"""Run what demo.launch.py starts, without launch: tracker, video source and recorder, each in a process of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from programs import stop

ROOT = Path(__file__).resolve().parents[1]
CONFIG = ROOT / "config"
PROGRAMS = {"tracker_node": "tracker.yaml", "video_source": "demo.yaml", "demo": "demo.yaml"}
STOP_SECONDS = 5.0


def main() -> int:
    """Start all, wait for the recorder, stop the others; further arguments go to the tracker's --ros-args."""
    processes: dict[str, subprocess.Popen[bytes]] = {}
    try:
        for name, parameters in PROGRAMS.items():
            command = [sys.executable, str(ROOT / "scripts" / name), "--ros-args", "-r", "image:=/demo/image"]
            command += ["--params-file", str(CONFIG / parameters), *(sys.argv[1:] if name == "tracker_node" else [])]
            processes[name] = subprocess.Popen(command, cwd=ROOT)
        while True:
            try:
                return processes["demo"].wait(0.5)
            except subprocess.TimeoutExpired:
                code = processes["tracker_node"].poll()
                if code is not None:
                    print(f"[demo] error: the tracker ended with {code}", file=sys.stderr)
                    return 1
    except KeyboardInterrupt:
        return 130
    finally:
        stop(processes, STOP_SECONDS, "demo")


if __name__ == "__main__":
    sys.exit(main())
