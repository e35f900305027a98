# SPDX-License-Identifier: Apache-2.0
"""Programs that start others: those end with them, and one of a demo that ends by itself ends the demo."""

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


def gone(pid, seconds=20.0):
    """Whether a process ends in time; one that nobody waits for has ended, too."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return True
        except FileNotFoundError:
            return True
        time.sleep(0.05)
    return False


ENDS = {
    "left": "os._exit(2)",
    "killed": "os.kill(os.getpid(), 9)",
    "terminated": "os.kill(os.getpid(), 15)",
    "returned": "pass",
}


@pytest.mark.skipif(sys.platform != "linux", reason="needs Linux's prctl")
@pytest.mark.parametrize("end", ENDS.values(), ids=ENDS)
def test_programs_of_a_demo_end_with_it(end):
    child = [sys.executable, "-c", "import time; time.sleep(60)"]
    code = f"import os, programs; print(programs.start({child!r}, '/').pid, flush=True); {end}"
    folder = Path(programs.__file__).parent
    demo = subprocess.run([sys.executable, "-c", code], cwd=folder, stdout=subprocess.PIPE, timeout=60)
    assert gone(int(demo.stdout))


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
