# SPDX-License-Identifier: Apache-2.0
"""Run what demo.launch.py starts, without launch, each program in a process of its own: ``rate:=10 device:=cpu``."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

from programs import start, stop

from dimp_ros.ros_utils.launch_arguments import Program, read_arguments

ROOT = Path(__file__).resolve().parents[1]
STOP_SECONDS = 5.0


def wanted(given: dict[str, str]) -> list[Program]:
    """Return the programs that the launch file starts for these arguments.

    :raises ValueError: for arguments that cannot be used.
    """
    spec = importlib.util.spec_from_file_location("demo_launch", ROOT / "launch" / "demo.launch.py")
    assert spec and spec.loader
    launch_file = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(launch_file)
    names = {argument.name for argument in launch_file.ARGUMENTS}
    if unknown := sorted(given.keys() - names):
        raise ValueError(f"no such argument: {', '.join(unknown)}; there are NAME:=VALUE of {', '.join(sorted(names))}")
    return launch_file.programs(read_arguments(launch_file.ARGUMENTS, given))


def command(program: Program) -> list[str]:
    """Return the command line that starts a program."""
    result = [sys.executable, str(ROOT / "scripts" / program.executable), "--ros-args", "-r", f"__node:={program.name}"]
    if program.namespace:
        result += ["-r", f"__ns:=/{program.namespace.lstrip('/')}"]
    for topic, name in program.remappings.items():
        result += ["-r", f"{topic}:={name}"]
    for file in program.files:
        result += ["--params-file", file]
    for name, value in program.parameters.items():
        result += ["-p", f"{name}:={json.dumps(value)}"]
    return [*result, "--log-level", program.log_level]


def watch(processes: dict[str, subprocess.Popen[bytes]]) -> int:
    """Wait for the recorder, or for another program to fail; return the exit status."""
    while True:
        try:
            return processes["demo"].wait(0.5)
        except subprocess.TimeoutExpired:
            for name, process in processes.items():
                if process.poll():
                    print(f"[demo] error: {name} ended with exit code {process.poll()}", file=sys.stderr)
                    return 1


def main() -> int:
    """Start all programs, wait for the recorder, stop the others."""
    processes: dict[str, subprocess.Popen[bytes]] = {}
    try:
        programs = wanted({name: value for name, _, value in (argument.partition(":=") for argument in sys.argv[1:])})
        for program in programs:
            processes[program.executable] = start(command(program), ROOT)
        return watch(processes)
    except ValueError as error:
        print(f"[demo] error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    finally:
        stop(processes, STOP_SECONDS, "demo")


if __name__ == "__main__":
    sys.exit(main())
