# SPDX-License-Identifier: Apache-2.0
"""Files that several runs use are made once, and replaced only where nobody holds them."""

import signal
import subprocess
import sys
import threading

import pytest

from dimp_ros.files import shared_folder
from dimp_ros.files.shared_folder import SharedFolder

OTHER = """
import sys
from pathlib import Path
from dimp_ros.files.shared_folder import SharedFolder
held = SharedFolder(Path(sys.argv[1]), lambda: True, lambda: None)
print("held", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def other(tmp_path):
    """Hold the folder in another process."""
    command = [sys.executable, "-c", OTHER, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"held\n"
        yield process


def open_with(folder, content):
    """Open a folder whose file has a content, or write it."""
    file = folder / "file"
    return SharedFolder(
        folder, lambda: file.is_file() and file.read_text() == content, lambda: file.write_text(content)
    )


def test_held_files_are_used_but_not_replaced(tmp_path, other, monkeypatch):
    monkeypatch.setattr(shared_folder, "PATIENCE", 0.2)
    (tmp_path / "file").write_text("a")
    held = open_with(tmp_path, "a")
    with pytest.raises(ValueError, match=r"another run uses .* with other data"):
        open_with(tmp_path, "b")
    assert (tmp_path / "file").read_text() == "a"
    del held
    other.kill()
    other.wait()
    open_with(tmp_path, "b")
    assert (tmp_path / "file").read_text() == "b"


def test_runs_that_begin_together_make_the_files_once(tmp_path):
    made, file = [], tmp_path / "file"
    begin = threading.Barrier(4)

    def make():
        made.append(1)
        file.write_text("a")

    def run():
        begin.wait()
        SharedFolder(tmp_path, file.is_file, make)

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert made == [1]


MAKING = """
import sys, time
from pathlib import Path
from dimp_ros.files.shared_folder import SharedFolder
SharedFolder(Path(sys.argv[1]), lambda: False, lambda: (print("making", flush=True), sys.stdin.read(), sys.exit()))
"""
WAITING = """
import sys
from pathlib import Path
from dimp_ros.files.shared_folder import SharedFolder
from dimp_ros.training.interruption import deferred_signals
with deferred_signals() as interrupted:
    SharedFolder(Path(sys.argv[1]), lambda: True, lambda: None)
    print("held", flush=True)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_run_that_waits_says_so_and_ends_by_one_signal(tmp_path, number):
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, "-c", MAKING, str(tmp_path)], **pipes) as maker:
        assert maker.stdout.readline() == "making\n"
        with subprocess.Popen([sys.executable, "-c", WAITING, str(tmp_path)], **pipes) as waiting:
            assert waiting.stderr.readline() == f"waiting for another run that makes {tmp_path}\n"
            waiting.send_signal(number)
            out, err = waiting.communicate(timeout=10)
            assert (waiting.returncode, out) == (3, "")
            assert err == "interrupted before the first step; repeat the command\n"
        with subprocess.Popen([sys.executable, "-c", WAITING, str(tmp_path)], **pipes) as waiting:
            maker.stdin.close()
            assert waiting.communicate(timeout=10)[0] == "held\n"


def test_files_that_could_not_be_made_are_made_by_the_next(tmp_path):
    def fail():
        raise KeyError

    with pytest.raises(KeyError):
        SharedFolder(tmp_path, lambda: False, fail)
    open_with(tmp_path, "a")
    assert (tmp_path / "file").read_text() == "a"
