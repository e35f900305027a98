# SPDX-License-Identifier: Apache-2.0
"""Launch files with the real launch of a ROS distribution; CONTRIBUTING.md says how to run them without one."""

from __future__ import annotations

import itertools
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

pytest.importorskip("launch.actions", reason="launch is not installed: it comes with a ROS distribution only")
pytest.importorskip("launch_ros.actions", reason="launch_ros is not installed: it comes with a ROS distribution only")

ROOT = Path(__file__).resolve().parents[2]
IN_FILE = yaml.safe_load((ROOT / "config" / "tracker.yaml").read_text(encoding="utf-8"))["/**"]["ros__parameters"]

LAUNCH = """
import sys
from launch import LaunchDescription, LaunchService
from launch.actions import ExecuteProcess, IncludeLaunchDescription, SetLaunchConfiguration
from launch.launch_description_sources import PythonLaunchDescriptionSource
file, prefix, before, *given = sys.argv[1:]
service = LaunchService(argv=given)
first = [ExecuteProcess(cmd=before.split())] if before else []
prefixes = [SetLaunchConfiguration("launch-prefix", prefix)] if prefix else []
arguments = [argument.split(":=", 1) for argument in given]
include = IncludeLaunchDescription(PythonLaunchDescriptionSource(file), launch_arguments=arguments)
service.include_launch_description(LaunchDescription([*prefixes, *first, include]))
sys.exit(service.run())
"""


def start(name: str, *given: str, prefix: str = "", before: str = "", cwd: Path = ROOT) -> subprocess.Popen[str]:
    """Launch a file in a process group of its own. :param before: command that is started ahead of it."""
    command = [sys.executable, "-c", LAUNCH, str(ROOT / "launch" / name), prefix, before, *given]
    return subprocess.Popen(
        command, cwd=cwd, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True
    )


def finish(launched: subprocess.Popen[str], seconds: float = 90.0) -> tuple[int, str]:
    """Wait for a launch; return its exit status and output. No process of its group may be left."""
    try:
        output, _ = launched.communicate(timeout=seconds)
        with pytest.raises(ProcessLookupError):  # nobody is left in the group
            os.killpg(launched.pid, 0)
    finally:
        if launched.poll() is None:
            os.killpg(launched.pid, signal.SIGKILL)
    return launched.returncode, output


def command_lines(name: str, *given: str) -> dict[str, list[str]]:
    """Launch a file with ``echo`` before each executable; return the command line of each."""
    status, output = finish(start(name, *given, prefix="echo"))
    assert status == 0, output
    lines = [line.partition("] ")[2] for line in output.splitlines() if "/lib/dimp_ros/" in line]
    commands = [shlex.split(line) for line in lines]
    return {Path(command[0]).name: command for command in commands}


def given_parameters(command: list[str]) -> dict[str, Any]:
    """Return what the parameter files of a command line amount to, the last one winning."""
    result: dict[str, Any] = {}
    name = next(part for part in command if part.startswith("__node:=")).removeprefix("__node:=")
    for option, value in itertools.pairwise(command):
        if option == "--params-file":
            text = Path(value).read_text().replace("!!python/tuple", "")
            for section, content in yaml.safe_load(text).items():
                if section == "/**" or section.endswith(name):
                    result.update(content["ros__parameters"])
    return result


def test_arguments_and_parameter_file_reach_the_tracker(tmp_path: Path) -> None:
    command = command_lines("tracker.launch.py")["tracker_node"]
    assert "image:=camera/image_raw" in command and given_parameters(command) == IN_FILE
    file = tmp_path / "mine.yaml"
    file.write_text("/**: {ros__parameters: {model: dimp50, device: cuda, autostart: false}}")
    given = ("image:=/front/image", f"params_file:={file}", "device:=cpu", "namespace:=robot", "use_sim_time:=True")
    command = command_lines("tracker.launch.py", *given, "log_level:=debug")["tracker_node"]
    wanted = {"model": "dimp50", "device": "cpu", "autostart": False, "use_sim_time": True}
    assert given_parameters(command) == wanted
    assert {"image:=/front/image", "__ns:=/robot", "debug"} <= set(command)


def test_demo_launches_three_programs_on_one_topic() -> None:
    given = ("target:=1,2,3.5,4", "rate:=15", f"video:={__file__}", "namespace:=robot", "image:=/cam/raw")
    commands = command_lines("demo.launch.py", *given, "device:=cpu", "log_level:=error")
    assert commands.keys() == {"tracker_node", "video_source", "demo"}
    assert all({"image:=/cam/raw", "__ns:=/robot", "error"} <= set(command) for command in commands.values())
    assert given_parameters(commands["tracker_node"]) == {**IN_FILE, "device": "cpu"}
    assert given_parameters(commands["demo"])["box"] == [1.0, 2.0, 3.5, 4.0]
    source = given_parameters(commands["video_source"])
    assert (source["video"], source["rate"], source["last_frame"]) == (__file__, 15.0, -1)


@pytest.mark.parametrize(("name", "argument", "node"), [("follow", "cmd_vel", "follower"), ("servo", "twist", "servo")])
def test_controller_is_launched_with_the_tracker_or_alone(name: str, argument: str, node: str) -> None:
    given = ("image:=/front/image", f"{argument}:=/robot/velocities", "device:=cpu", "log_level:=warn")
    commands = command_lines(f"{name}.launch.py", *given)
    assert commands.keys() == {"tracker_node", f"{node}_node"}
    assert given_parameters(commands["tracker_node"]) == {**IN_FILE, "device": "cpu"}
    steering = commands[f"{node}_node"]
    assert {"camera_info:=/front/camera_info", f"__node:={node}", "warn"} <= set(steering)
    assert any(part.endswith(":=/robot/velocities") for part in steering)
    assert command_lines(f"{name}.launch.py", "tracker:=False").keys() == {f"{node}_node"}


def test_console_and_simulator_are_launched_as_asked() -> None:
    console = command_lines("console.launch.py", "image:=/front/image", "port:=9000")["console_node"]
    assert "image:=/front/image" in console and given_parameters(console)["port"] == 9000
    given = ("mode:=arm", "commands:=/twist", "namespace:=sim", "log_level:=warn", "use_sim_time:=false")
    simulator = command_lines("simulator.launch.py", *given)["simulator_node"]
    assert {"delta_twist_cmds:=/twist", "__ns:=/sim", "warn"} <= set(simulator)
    assert given_parameters(simulator)["mode"] == "arm" and given_parameters(simulator)["use_sim_time"] is False


@pytest.mark.parametrize(
    ("name", "given"),
    [
        ("demo", "target:=a,b,c,d"),
        ("demo", "rate:=fast"),
        ("console", "port:=http"),
        ("follow", "follower_file:=/no/such/file"),
        ("servo", "device:=gpu"),
        ("simulator", "speed:=quick"),
        ("tracker", "params_file:=/no/such/file"),
    ],
)
def test_bad_argument_ends_the_launch_in_one_line(name: str, given: str) -> None:
    status, output = finish(start(f"{name}.launch.py", given))
    errors = [line for line in output.splitlines() if "ERROR" in line or "Traceback" in line]
    assert status == 1 and len(errors) == 1 and f"argument {given}: " in errors[0]
    assert "process started" not in output


def test_bad_argument_leaves_no_program_of_an_including_file() -> None:
    status, output = finish(start("tracker.launch.py", "device:=gpu", before="sleep 60"), 30.0)
    assert status == 1 and "argument device:=gpu: " in output and "sending signal 'SIGINT'" in output


def test_demo_without_footage_ends_at_once(tmp_path: Path) -> None:
    status, output = finish(start("demo.launch.py", cwd=tmp_path), 30.0)
    assert status == 1 and "make footage" in output and "process started" not in output


def test_video_that_cannot_be_played_ends_the_demo() -> None:
    status, output = finish(start("demo.launch.py", f"video:={__file__}", "target:=1,2,30,40", "device:=cpu"))
    assert status == 1 and "is not a video" in output and "video_source ended with exit code 1" in output
    assert "no image has come" not in output, "the launch waited for the recorder to give up"


def test_second_interrupt_leaves_no_traceback() -> None:
    launched = start("follow.launch.py", "device:=cpu")
    time.sleep(4.0)
    for _ in range(2):  # as a terminal does: to every process of the group
        os.killpg(launched.pid, signal.SIGINT)
        time.sleep(0.04)
    status, output = finish(launched, 30.0)
    assert status == 0 and "Traceback" not in output and "process has died" not in output
    assert output.count("process has finished cleanly") == 2
