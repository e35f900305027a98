# SPDX-License-Identifier: Apache-2.0
"""The package: metadata agree, layers are separate, interfaces and launch files work."""

from __future__ import annotations

import ast
import importlib
import itertools
import os
import re
import runpy
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import yaml

import dimp_ros

ROOT = Path(__file__).resolve().parents[2]
ROS_MODULES = {"rclpy", "ament_index_python", "builtin_interfaces", "cv_bridge", "launch", "launch_ros"}


def python_files() -> list[Path]:
    """List the Python files of the checkout, executables without an ending included."""
    folders = ("dimp_ros", "examples", "launch", "scripts", "test", "tools")
    found = [path for folder in folders for path in sorted((ROOT / folder).rglob("*")) if path.is_file()]
    return [path for path in found if path.suffix == ".py" or path.read_bytes().startswith(b"#!/usr/bin/env python3")]


def imported(path: Path) -> Iterator[str]:
    """Yield the names of the modules that a file imports, wherever in it."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module


def run_python(code: str, *arguments: str) -> str:
    """Run code in an interpreter of its own and return what it printed."""
    command = [sys.executable, "-c", code, *arguments]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_every_file_states_the_same_version() -> None:
    from_xml = ElementTree.parse(ROOT / "package.xml").findtext("version")
    from_setup = re.search(r'version="([^"]+)"', (ROOT / "setup.py").read_text())
    from_changelog = re.search(r"^(\d+\.\d+\.\d+)", (ROOT / "CHANGELOG.rst").read_text(), re.MULTILINE)
    assert from_setup and from_changelog
    assert {from_xml, from_setup[1], from_changelog[1]} == {dimp_ros.__version__}


def test_every_python_file_names_its_licence() -> None:
    nameless = [str(path) for path in python_files() if "SPDX-License-Identifier: Apache-2.0" not in path.read_text()]
    assert nameless == []


def test_importing_the_package_is_cheap() -> None:
    heavy = run_python("import sys, dimp_ros; print({'torch', 'rclpy', 'cv2', 'numpy'} & set(sys.modules))")
    assert heavy.strip() == "set()"


@pytest.mark.parametrize("layer", ["model", "tracker", "training", "evaluation", "benchmark"])
def test_computing_folders_import_no_ros(layer: str) -> None:
    for path in (ROOT / "dimp_ros" / layer).rglob("*.py"):
        for name in imported(path):
            top = name.split(".")[0]
            assert top not in ROS_MODULES and not top.endswith("_msgs"), f"{path} imports {name}"
            assert not name.startswith(("dimp_ros.node", "dimp_ros.msg", "dimp_ros.srv")), f"{path} imports {name}"


def test_the_node_does_not_compute() -> None:
    for path in (ROOT / "dimp_ros" / "node").rglob("*.py"):
        assert "torch" not in {name.split(".")[0] for name in imported(path)}, f"{path} imports torch"


def test_all_interfaces_and_executables_are_built() -> None:
    cmake = (ROOT / "CMakeLists.txt").read_text()
    interfaces = {f"{path.parent.name}/{path.name}" for path in [*ROOT.glob("msg/*"), *ROOT.glob("srv/*")]}
    assert set(re.findall(r'"((?:msg|srv)/\w+\.\w+)"', cmake)) == interfaces
    assert set(re.findall(r"scripts/\w+", cmake)) == {f"scripts/{path.name}" for path in ROOT.glob("scripts/*")}
    assert all(os.access(path, os.X_OK) for path in ROOT.glob("scripts/*"))


@pytest.mark.parametrize("name", ["msg/TargetState.msg", "srv/InitTarget.srv", "srv/DropTarget.srv"])
def test_every_field_of_an_interface_is_explained(name: str) -> None:
    lines = (ROOT / name).read_text().splitlines()
    for above, line in itertools.pairwise(["", *lines]):
        if line and not line.startswith(("#", "---")):
            assert above.startswith("# "), f"{name}: nothing explains {line!r}"


def test_placeholders_are_in_package_xml_only() -> None:
    package = (ROOT / "package.xml").read_text()
    assert package.count("example.org") == 2 and "PLACEHOLDERS" in package
    folders = ("dimp_ros", "docs", "launch", "config", "scripts", "tools", ".ci", ".github", "msg", "srv")
    files = [*ROOT.glob("*"), *(path for folder in folders for path in (ROOT / folder).rglob("*"))]
    found = [path for path in files if path.is_file() and b"example.org" in path.read_bytes()]
    assert found == [ROOT / "package.xml"]


def test_environment_keeps_bytecode_of_rewritten_tests() -> None:
    env = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
    command = [str(ROOT / "tools" / "env"), "python", "-c", "import sys; print(sys.dont_write_bytecode)"]
    assert subprocess.run(command, env=env, capture_output=True, text=True).stdout == "False\n"


def test_workflow_tests_the_pythons_that_the_set_up_takes() -> None:
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text())
    lowest, highest = re.search(
        r"\((3, \d+)\) <= .* <= \((3, \d+)\)", (ROOT / "tools" / "bootstrap.py").read_text()
    ).groups()
    minors = range(int(lowest.split(", ")[1]), int(highest.split(", ")[1]) + 1)
    assert workflow["jobs"]["test"]["strategy"]["matrix"]["python"] == [f"3.{minor}" for minor in minors]


def test_setup_pins_all_that_it_installs() -> None:
    code = "import sys; sys.path.insert(0, sys.argv[1]); import bootstrap as s; print(*s.PACKAGES, *s.WHEELS)"
    names = run_python(code, str(ROOT / "tools")).split()
    pinned = {line.split("==")[0] for line in (ROOT / "constraints.txt").read_text().splitlines() if "==" in line}
    assert {re.split(r"[;[]", name)[0] for name in names} <= pinned


def test_default_target_state_is_uninitialized_without_a_box() -> None:
    messages = pytest.importorskip("dimp_ros.msg", reason="the interfaces are not built: `make setup`, or colcon")
    state = messages.TargetState()
    assert state.state == messages.TargetState.UNINITIALIZED == 0
    assert (messages.TargetState.TRACKING, messages.TargetState.UNCERTAIN, messages.TargetState.LOST) == (1, 2, 3)
    assert state.bbox.size_x == state.bbox.size_y == state.confidence == 0


SERVER = """
import sys, rclpy
from dimp_ros.srv import InitTarget
rclpy.init()
node = rclpy.create_node("server")
def answer(request, response):
    response.success, response.message, response.stamp = True, request.id, request.stamp
    return response
service = node.create_service(InitTarget, "~/init_target", answer)
while rclpy.ok():
    rclpy.spin_once(node)
"""


def test_two_processes_exchange_a_request_over_loopback() -> None:
    rclpy = pytest.importorskip("rclpy", reason="rclpy is not installed")
    services = pytest.importorskip("dimp_ros.srv", reason="the interfaces are not built: `make setup`, or colcon")
    server = subprocess.Popen([sys.executable, "-c", SERVER])
    context = rclpy.Context()
    rclpy.init(context=context)
    try:
        node = rclpy.create_node("client", context=context)
        executor = rclpy.executors.SingleThreadedExecutor(context=context)
        executor.add_node(node)
        client = node.create_client(services.InitTarget, "/server/init_target")
        assert client.wait_for_service(20.0), "the other process was not discovered"
        request = services.InitTarget.Request(id="coin")
        request.stamp.sec, request.stamp.nanosec = 12, 34
        # A reply is lost where the server does not know the client yet; on a busy machine that takes a while.
        for _ in range(10):
            future = client.call_async(request)
            executor.spin_until_future_complete(future, 2.0)
            if future.done():
                break
        response = future.result()
        assert response.success and response.message == "coin" and response.stamp == request.stamp
    finally:
        server.kill()  # how a node ends is tested elsewhere
        server.wait()
        rclpy.shutdown(context=context)


PARAMETERS = """
import sys, json, rclpy
rclpy.init(args=["--ros-args", "--params-file", sys.argv[1]])
node = rclpy.create_node(sys.argv[2], namespace="/robot", automatically_declare_parameters_from_overrides=True)
values = {name: parameter.value for name, parameter in node.get_parameters_by_prefix("").items()}
print(json.dumps({k: v if isinstance(v, (bool, int, float, str)) else list(v) for k, v in values.items()}))
"""


@pytest.mark.parametrize(
    ("file", "node", "expected"),
    [
        ("tracker.yaml", "tracker_node", {"model": "dimp_lite", "device": "auto"}),
        ("demo.yaml", "video_source", {"first_frame": 0, "rate": 0.0}),
        ("demo.yaml", "demo", {"box": [423.5, 117.0, 62.0, 41.0]}),
        ("follower.yaml", "follower", {"horizontal": "yaw"}),
        ("servo.yaml", "servo", {"axes": "translation"}),
        ("console.yaml", "console", {"port": 8080, "host": "127.0.0.1"}),
        ("mavlink.yaml", "mavlink_camera", {"connection": "udpout:127.0.0.1:14550", "system_id": 1}),
    ],
)
def test_a_parameter_file_reaches_its_node_in_any_namespace(file: str, node: str, expected: dict[str, Any]) -> None:
    pytest.importorskip("rclpy", reason="rclpy is not installed")
    values = yaml.safe_load(run_python(PARAMETERS, str(ROOT / "config" / file), node))
    assert expected.items() <= values.items()


@pytest.mark.parametrize("name", ["track", "convert", "train", "evaluate", "export"])
def test_command_line_tools_are_executables_of_the_package(name: str) -> None:
    command = [str(ROOT / "scripts" / name), "--help"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert result.returncode == 0 and result.stdout.startswith("usage: ") and not result.stderr


def test_every_executable_starts_a_main_that_exists() -> None:
    commands = (ROOT / "dimp_ros" / "commands.py").read_text()
    for path in ROOT.glob("scripts/*"):
        source = path.read_text()
        if own := re.search(r"^from dimp_ros.commands import (\w+)$", source, re.MULTILINE):
            source = commands.partition(f"def {own[1]}() ")[2]
        found = re.search(r'start\("(dimp_ros\.[\w.]+?)"\)$', source, re.MULTILINE)
        assert found, f"{path} starts no module of the package"
        source = (ROOT / found[1].replace(".", "/")).with_suffix(".py").read_text()
        decorated = r'^@command\("dimp-\w+"\)\n' if own else "^"
        assert re.search(decorated + r"def main\(", source, re.MULTILINE), f"{found[1]} has no main of a command"


@pytest.mark.parametrize("path", sorted(ROOT.glob("scripts/*")), ids=lambda path: path.name)
def test_worker_processes_do_not_run_an_executable_again(path: Path) -> None:
    """A process that is spawned imports the main file of its parent under this name."""
    before = signal.getsignal(signal.SIGTERM)
    runpy.run_path(str(path), run_name="__mp_main__")
    assert signal.getsignal(signal.SIGTERM) is before


def test_every_console_script_is_a_command_that_exists() -> None:
    for name in re.findall(r'"dimp-\w+ = ([\w.:]+)"', (ROOT / "setup.py").read_text()):
        module, _, function = name.partition(":")
        assert callable(getattr(importlib.import_module(module), function)), name


def test_signals_end_every_node_from_its_first_import_to_its_last_exit() -> None:
    nodes = [path for path in ROOT.glob("scripts/*") if path.name.endswith("_node")]
    assert len(nodes) > 5
    for path in [*nodes, ROOT / "scripts" / "demo", ROOT / "scripts" / "video_source"]:
        assert re.search(r'^    start\("', path.read_text(), re.MULTILINE), f"{path} does not start by program.start()"
