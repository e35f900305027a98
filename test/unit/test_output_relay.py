# SPDX-License-Identifier: Apache-2.0
"""Whoever does not read a node's output does not stop it; whoever reads it gets all of it."""

from __future__ import annotations

import fcntl
import os
import pty
import subprocess
import sys
import termios
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dimp_ros.ros_utils.output_relay import LEFT_OUT, LIMIT

PROGRAM = """
import ctypes, os, sys, threading, time
from dimp_ros.ros_utils.output_relay import relayed_output
with relayed_output():
    {body}
"""
MUCH = """for number in range({lines}):
        os.write({stream}, b"%08d" % number + 91 * b"." + b"\\n")
        if number % 100 == 99:
            time.sleep(0.001)
    open({done!r}, "w").close()
    time.sleep({rest})"""


def start(body: str, **streams: Any) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", PROGRAM.format(body=body)], **streams)


def wait_for(condition: Callable[[], bool], what: str, seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"{what} did not come"
        time.sleep(0.01)


@pytest.mark.parametrize("stream", [1, 2])
def test_pipe_that_nobody_reads_stops_nothing_and_keeps_the_newest_lines(stream: int, tmp_path: Path) -> None:
    done, lines = tmp_path / "done", 3 * LIMIT // 100
    source, sink = os.pipe()
    fcntl.fcntl(source, fcntl.F_SETPIPE_SZ, 4096)
    body = MUCH.format(lines=lines, stream=stream, done=str(done), rest=0)
    with start(body, **{("stdout", "stderr")[stream - 1]: sink}) as process, os.fdopen(source, "rb") as reader:
        os.close(sink)
        wait_for(done.exists, "the last line")
        text = reader.read()
        process.wait(10)
    read = text.splitlines()
    assert read[-1].startswith(b"%08d" % (lines - 1)) and LEFT_OUT.strip() in read
    newest = read[-LIMIT // 250 :]
    assert [int(line[:8]) for line in newest] == list(range(lines - len(newest), lines))


def test_terminal_that_is_stopped_stops_nothing(tmp_path: Path) -> None:
    done = tmp_path / "done"
    master, slave = pty.openpty()
    attributes = termios.tcgetattr(slave)
    attributes[1] &= ~termios.OPOST
    termios.tcsetattr(slave, termios.TCSANOW, attributes)
    termios.tcflow(slave, termios.TCOOFF)
    body = MUCH.format(lines=2000, stream=2, done=str(done), rest=0)
    with start(body, stdout=slave, stderr=slave) as process:
        try:
            wait_for(done.exists, "the last line")
            assert process.wait(10) == 0
        finally:
            process.kill()
    os.close(slave)
    os.close(master)


def test_all_output_arrives_in_order_and_before_the_program_ends() -> None:
    body = """for number in range(20000):
        print(number, file=sys.stdout if number % 3 else sys.stderr, flush=number % 7 == 0)
        if number % 500 == 0:
            time.sleep(0.001)"""
    with start(body, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        out, err = process.communicate(timeout=30)
    assert [int(line) for line in out.split()] == [number for number in range(20000) if number % 3]
    assert [int(line) for line in err.split()] == list(range(0, 20000, 3))


def test_last_words_of_a_program_that_is_killed_or_crashes_arrive() -> None:
    for end, status in (("os.kill(os.getpid(), 9)", -9), ("os.abort()", -6), ("os._exit(3)", 3), ("1 / 0", 1)):
        with start(
            f"print('last words', flush=True); {end}", stdout=subprocess.PIPE, stderr=subprocess.PIPE
        ) as process:
            out, err = process.communicate(timeout=30)
        assert out == b"last words\n" and process.returncode == status
        assert (b"ZeroDivisionError" in err) == (end == "1 / 0")


def test_reader_that_has_gone_ends_nothing(tmp_path: Path) -> None:
    done = tmp_path / "done"
    source, sink = os.pipe()
    os.close(source)
    body = MUCH.format(lines=2000, stream=1, done=str(done), rest=0)
    with start(body, stdout=sink, stderr=subprocess.PIPE) as process:
        os.close(sink)
        assert process.wait(30) == 0 and done.exists()
        assert process.stderr is not None and process.stderr.read() == b""


@pytest.mark.parametrize("closed", ["1", "2", "1 2"])
def test_closed_streams_are_no_other_files(closed: str, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    body = f"""victim = open({str(victim)!r}, "w")
    os.system("echo to the wrong file; echo to the wrong file >&2")
    os.write(1, b"to the wrong file"); os.write(2, b"to the wrong file")"""
    redirections = " ".join(f"{stream}>&-" for stream in closed.split())
    program = tmp_path / "program.py"
    program.write_text(PROGRAM.format(body=body))
    assert (
        subprocess.run(["sh", "-c", f'exec "{sys.executable}" "{program}" {redirections}'], timeout=30).returncode == 0
    )
    assert victim.read_text() == ""


def test_program_with_a_terminal_keeps_its_colours() -> None:
    body = "os.write(1, os.environ.get('RCUTILS_COLORIZED_OUTPUT', 'none').encode())"
    master, slave = pty.openpty()
    for stderr, colored in ((slave, b"1"), (subprocess.DEVNULL, b"none")):
        with start(body, stdout=subprocess.PIPE, stderr=stderr) as process:
            assert process.communicate(timeout=30)[0] == colored
    os.close(slave)
    os.close(master)
