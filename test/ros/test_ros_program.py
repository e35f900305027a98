# SPDX-License-Identifier: Apache-2.0
"""Executables and signals: exit code 0 and no traceback during import, run and shutdown."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def run_module(tmp_path: Path, code: str) -> subprocess.CompletedProcess[str]:
    """Start a module of this code as an executable is started."""
    (tmp_path / "program.py").write_text("import atexit, os, signal, sys, time\n" + code)
    command = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); from dimp_ros.ros_utils.program import start; "
    return subprocess.run(
        [sys.executable, "-c", command + "start('program')"], capture_output=True, text=True, timeout=60
    )


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_signal_during_imports_ends_with_status_0(number: signal.Signals, tmp_path: Path) -> None:
    result = run_module(tmp_path, f"os.kill(os.getpid(), {number.value})\ntime.sleep(30)\n")
    assert (result.returncode, result.stderr) == (0, "")


def test_signal_at_the_end_changes_neither_status_nor_output(tmp_path: Path) -> None:
    code = "atexit.register(lambda: [os.kill(os.getpid(), signal.SIGINT), time.sleep(0.2)])\ndef main(): return 3\n"
    result = run_module(tmp_path, code)
    assert (result.returncode, result.stderr) == (3, "")


def test_second_interrupt_ends_a_node_with_status_0() -> None:
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "scripts" / "follower_node")],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdout is not None
    try:
        first = process.stdout.readline()  # the node runs
        for _ in range(3):
            process.send_signal(signal.SIGINT)
            time.sleep(0.04)
        output = first + process.communicate(timeout=30.0)[0]
    finally:
        process.kill()
    assert process.returncode == 0 and "Traceback" not in output, output


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_signal_ends_a_node_whose_output_nobody_reads(number: signal.Signals) -> None:
    source, sink = os.pipe()
    os.set_blocking(sink, False)
    with pytest.raises(BlockingIOError):
        while True:
            os.write(sink, bytes(4096))
    os.set_blocking(sink, True)
    begun, told = os.pipe()
    code = f"""
import os, threading
from dimp_ros.ros_utils.spin import run
def create(finish):
    for number in range(300):
        os.write(2, bytes(1000))
    os.write({told}, b"begun")
    threading.Event().wait()
run(create)
"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=sink, stderr=sink, pass_fds=[told]) as process:
        try:
            os.close(told)
            assert os.read(begun, 5) == b"begun"
            process.send_signal(number)
            assert process.wait(timeout=20.0) == 0
        finally:
            process.kill()
    for descriptor in (source, sink, begun):
        os.close(descriptor)


HANGING = {
    "read": "os.read(os.pipe()[0], 1)",
    "read in C": "lock = ctypes.create_string_buffer(64); libc = ctypes.CDLL(None)\n"
    "    libc.pthread_mutex_lock(lock); libc.pthread_mutex_lock(lock)",
}


@pytest.mark.parametrize(("hang", "number"), [("read", signal.SIGINT), ("read in C", signal.SIGTERM)])
def test_signal_ends_a_node_that_waits_for_a_file_at_its_start(hang: str, number: signal.Signals) -> None:
    code = f"""
import ctypes, os
from dimp_ros.ros_utils.spin import run
def create(finish):
    print("begun", flush=True)
    {HANGING[hang]}
run(create)
"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stdout.readline() == b"begun\n"
        process.send_signal(number)
        try:
            assert process.wait(timeout=10.0) == 0
        finally:
            process.kill()


@pytest.mark.parametrize("status", [0, 2])
def test_node_without_a_result_fails_after_a_signal(status: int) -> None:
    code = f"""
from rclpy.node import Node
from dimp_ros.ros_utils.spin import run
class Recorder(Node):
    def __init__(self, finish):
        super().__init__("recorder")
        self.finish = finish
        print("begun", flush=True)
    def close(self):
        self.finish({status})
        return True
raise SystemExit(run(Recorder))
"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stdout.readline() == b"begun\n"
        time.sleep(0.3)
        process.send_signal(signal.SIGTERM)
        try:
            assert process.wait(timeout=10.0) == status
        finally:
            process.kill()


NODES = {
    "node.tracker_node": "TrackerNode()",
    "apps.mavlink.node": "MavlinkNode(finish)",
    "apps.steering.follower": "Follower()",
    "apps.simulator.node": "Simulator(finish)",
}


@pytest.mark.parametrize("module", NODES)
def test_a_node_that_ends_leaves_no_shared_memory(module: str) -> None:
    code = f"""
import gc, os
from dimp_ros.{module} import {NODES[module].partition("(")[0]}
from dimp_ros.ros_utils import spin
spin.GRACE_SECONDS = 40.0
kept = []
def segments():
    return [line.split()[-1] for line in open("/proc/self/maps") if "/dev/shm/fast" in line and "port" not in line]
def create(finish):
    kept.append({NODES[module]})
    kept.extend(segments())
    finish(0)
    return kept[0]
gc.disable()
assert spin.run(create) == 0
print(len(kept) - 1, *(path for path in kept[1:] if os.path.exists(path)))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    mapped, *left = done.stdout.split("\n")[-2].split()
    if mapped == "0":
        pytest.skip("this middleware has no segments of shared memory")
    assert left == []


def test_bad_parameter_file_is_refused_in_one_line(tmp_path: Path) -> None:
    file = tmp_path / "bad.yaml"
    file.write_text("/**: {ros__parameters: {rate: [1,\n")
    command = [sys.executable, str(ROOT / "scripts" / "follower_node"), "--ros-args", "--params-file", str(file)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60)
    lines = [line for line in result.stderr.splitlines() if line.startswith("cannot start: ")]
    assert result.returncode == 1 and "Traceback" not in result.stderr
    assert len(lines) == 1 and str(file) in lines[0]
