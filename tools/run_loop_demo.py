# SPDX-License-Identifier: Apache-2.0
"""Close a loop in the simulator: tools/run_loop_demo.py follow|servo [arguments of the tracker's --ros-args].

Simulator, tracker and controller each run in a process of their own, the recorder in this one, which kills the tracker
at the end to see everything stop. Plot, video and figures are written to build/demo-follow or build/demo-servo.
"""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
CONFIG = ROOT / "config"
STOP_SECONDS = 5.0


class Demo(NamedTuple):
    """What is started: the files with the parameters of simulator and controller."""

    mode: str
    simulator: str
    controller: str
    parameters: str


DEMOS = {
    "follow": Demo("vehicle", "simulator_vehicle.yaml", "follower", "simulator_vehicle.yaml"),
    "servo": Demo("arm", "simulator_arm.yaml", "servo", "simulator_arm.yaml"),
}


def command(script: str, *parameter_files: str) -> list[str]:
    """Return the command line of a node with its parameters."""
    files = [part for name in parameter_files for part in ("--params-file", str(CONFIG / name))]
    return [sys.executable, str(ROOT / "scripts" / script), "--ros-args", *files]


def main() -> int:
    """Start all, record, stop all; the exit code is the recorder's."""
    if len(sys.argv) < 2 or sys.argv[1] not in DEMOS:
        print(__doc__, file=sys.stderr)
        return 2
    name, demo = sys.argv[1], DEMOS[sys.argv[1]]
    from dimp_ros.apps.simulator.recorder import LoopPlan, LoopRecorder
    from dimp_ros.node.spinning import run

    processes: dict[str, subprocess.Popen[bytes]] = {}
    try:
        processes["simulator"] = subprocess.Popen(command("simulator_node", demo.simulator), cwd=ROOT)
        processes["tracker"] = subprocess.Popen([*command("tracker_node", "tracker.yaml"), *sys.argv[2:]], cwd=ROOT)
        processes["controller"] = subprocess.Popen(command(f"{demo.controller}_node", demo.parameters), cwd=ROOT)
        plan = LoopPlan(demo.mode, demo.controller, ROOT / "build" / f"demo-{name}", processes["tracker"].kill)
        return run(lambda finish: LoopRecorder(plan, finish), [], threads=8)
    finally:
        for process in processes.values():
            if process.poll() is None:
                process.send_signal(signal.SIGINT)
        for who, process in processes.items():
            try:
                process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                print(f"[loop] the {who} did not end within {STOP_SECONDS:g} s and was killed", file=sys.stderr)
                process.kill()
                process.wait()


if __name__ == "__main__":
    sys.exit(main())
