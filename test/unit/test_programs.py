# SPDX-License-Identifier: Apache-2.0
"""Programs of a demo: one that ends by itself ends the demo, within seconds."""

import subprocess
import sys
import threading
import time
from pathlib import Path

import programs
import pytest
from programs import Watch, stop


def program(code):
    return subprocess.Popen([sys.executable, "-c", code])


def test_a_program_that_ends_by_itself_is_told_of():
    told, heard = [], threading.Event()
    processes = {"idle": program("import time; time.sleep(60)"), "tracker": program("raise SystemExit(3)")}
    try:
        with Watch(processes, lambda what: (told.append(what), heard.set())):
            assert heard.wait(20)
        assert told == ["tracker has ended with code 3"]
    finally:
        stop(processes, 5.0, "test")


def test_a_program_that_was_killed_is_not_told_of():
    told = []
    processes = {"tracker": program("import time; time.sleep(60)")}
    with Watch(processes, told.append):
        processes["tracker"].kill()
        processes["tracker"].wait()
        time.sleep(1.2)
    assert told == []


@pytest.mark.parametrize("name", ["run_loop_demo", "run_drone_demo", "record_follow"])
def test_help_starts_nothing(name):
    path = Path(programs.__file__).with_name(f"{name}.py")
    done = subprocess.run([sys.executable, str(path), "--help"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0
    assert len(done.stdout) > 60 and not done.stderr
