# SPDX-License-Identifier: Apache-2.0
"""Close a loop in the simulator: tools/run_loop_demo.py follow|servo [--truth] [--circle] [arguments of the tracker].

Simulator, tracker and controller each run in a process of their own, the recorder in this one, which kills the tracker
at the end to see everything stop. With --truth there is no tracker: the simulator's ground truth stands in. With
--circle the target goes round the vehicle at a constant distance, never hidden, and the forward command must be smooth.
Plot, video and figures are written to build/demo-follow or build/demo-servo.
"""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from programs import Watch, start, stop

if TYPE_CHECKING:
    from dimp_ros.apps.simulator.recorder import LoopPlan, LoopRecorder
    from dimp_ros.ros_utils.spin import Finish

ROOT = Path(__file__).resolve().parents[1]
CONFIG = ROOT / "config"
FOOTAGE = ROOT / "build" / "demo" / "footage.mov"
STOP_SECONDS = 5.0
CIRCLE = ("-p", "path:=circle", "-p", "hide_until:=0.0")
SMOOTH = 0.3
"""Largest standard deviation of the commanded forward acceleration at a constant distance, m/s²."""


class LoopDemo(NamedTuple):
    """What is started, the file with the simulator's parameters, and `LoopPlan.final_px`.

    :param tuned: whether that file has parameters of the controller, too.
    """

    mode: str
    controller: str
    parameters: str
    final_px: float | None
    tuned: bool = True


DEMOS = {
    "follow": LoopDemo("vehicle", "follower", "simulator_vehicle.yaml", None, tuned=False),
    "servo": LoopDemo("arm", "servo", "simulator_arm.yaml", 2.0),
    "drone": LoopDemo("vehicle", "follower", "simulator_drone.yaml", None),
}


def command(script: str, files: list[str], *arguments: str) -> list[str]:
    """Return the command line of a node with its parameter files, of which the last one wins."""
    parameters = [part for name in files for part in ("--params-file", str(CONFIG / name))]
    return [sys.executable, str(ROOT / "scripts" / script), "--ros-args", *parameters, *arguments]


def main() -> int:
    """Run the demo of the command line."""
    if {"-h", "--help"} & set(sys.argv):
        print(__doc__)
        return 0
    if len(sys.argv) < 2 or sys.argv[1] not in ("follow", "servo"):
        print(__doc__, file=sys.stderr)
        return 2
    from dimp_ros.apps.simulator.recorder import LoopRecorder

    return run_demo(sys.argv[1], sys.argv[2:], LoopRecorder)


def run_demo(
    name: str, arguments: list[str], recorder: Callable[[LoopPlan, Finish], LoopRecorder], ground: int | None = None
) -> int:
    """Start all, record, stop all; the exit code is the recorder's.

    A program that ends by itself ends the demo, with exit code 2.

    :param ground: port of a ground station: the vehicle has an autopilot, and the controller's velocities go to it
        through a MAVLink camera. The recorder's commands are those that the vehicle obeys then.
    """
    from dimp_ros.apps.recording.run_files import check_free
    from dimp_ros.apps.simulator.recorder import LoopPlan, LoopRecorder
    from dimp_ros.ros_utils.spin import run

    demo = DEMOS[name]
    truth, circle = "--truth" in arguments, "--circle" in arguments
    arguments = [argument for argument in arguments if argument not in ("--truth", "--circle")]
    remapping = ["-r", "targets:=ground_truth"] if truth else []
    # A photograph of a table, where `make footage` or `make demo` has fetched it.
    table = ["-p", f"ground_picture:={FOOTAGE}"] if demo.mode == "arm" and FOOTAGE.is_file() else []
    own = [f"{demo.controller}.yaml", *([demo.parameters] if demo.tuned else [])]
    commands = {
        "simulator": command("simulator_node", [demo.parameters], *table, *(CIRCLE if circle else ())),
        "controller": command(f"{demo.controller}_node", own, *remapping),
    }
    if not truth:
        commands["tracker"] = command("tracker_node", ["tracker.yaml"], *arguments)
    if ground is not None:
        port = free_port()
        links = {"ground_connection": f"udpout:127.0.0.1:{ground}", "companion_connection": f"udpin:127.0.0.1:{port}"}
        commands["simulator"] += [part for key, value in links.items() for part in ("-p", f"{key}:={value}")]
        connection = ["-p", f"connection:=udpout:127.0.0.1:{port}"]
        commands["camera"] = command("mavlink_node", ["mavlink.yaml", demo.parameters], *connection)
        remapping += ["-r", "cmd_vel:=obeyed"]
    out = ROOT / "build" / f"demo-{name}"
    try:
        check_free(out, LoopRecorder.results)
        require_alone()
    except ValueError as error:
        print(f"[loop] error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    processes: dict[str, subprocess.Popen[bytes]] = {}
    try:
        for who, line in commands.items():
            processes[who] = start(line, ROOT)
        plan = LoopPlan(demo.mode, demo.controller, out, final_px=demo.final_px)
        if circle:
            plan = replace(plan, forward_acceleration=SMOOTH)
        if not truth:
            plan = replace(plan, kill_tracker=processes["tracker"].kill)

        def create(finish: Finish) -> LoopRecorder:
            def ended(what: str) -> None:
                print(f"[loop] {what}", file=sys.stderr)
                finish(2)

            contexts.enter_context(Watch(processes, ended))
            return recorder(plan, finish)

        with ExitStack() as contexts:
            return run(create, ["--ros-args", *remapping], threads=8)
    finally:
        stop(processes, STOP_SECONDS, "loop")


def require_alone() -> None:
    """Refuse to start beside another simulator or loop, before anything moves.

    :raises ValueError: if there is one.
    """
    import rclpy
    from rclpy.signals import SignalHandlerOptions

    from dimp_ros.ros_utils.namesakes import DISCOVERY_SECONDS, conflicting_program

    context = rclpy.Context()
    rclpy.init(context=context, signal_handler_options=SignalHandlerOptions.NO)
    try:
        node = rclpy.create_node("loop_demo", context=context)
        end, other = time.monotonic() + DISCOVERY_SECONDS, ""
        while not other and time.monotonic() < end:
            time.sleep(0.1)
            other = conflicting_program(node, ("simulator_node", "loop_recorder"))
        node.destroy_node()
    finally:
        rclpy.try_shutdown(context=context)
    if other:
        raise ValueError(other)


def free_port() -> int:
    """Return a UDP port that is free."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


if __name__ == "__main__":
    sys.exit(main())
