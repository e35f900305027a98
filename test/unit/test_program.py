# SPDX-License-Identifier: Apache-2.0
"""Commands whose standard streams are missing or break, and Ctrl-C while they import."""

import errno
import importlib
import io
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from tqdm import tqdm

from dimp_ros import commands
from dimp_ros.files.program import command

ROOT = Path(__file__).resolve().parents[2]
MODULES = sorted(
    path for path in (ROOT / "dimp_ros").rglob("*.py") if "argparse.ArgumentParser(" in path.read_text(encoding="utf-8")
)


class Broken(io.StringIO):
    """A stream that fails, at once or when it is flushed."""

    def __init__(self, number, *, late):
        super().__init__()
        self.number, self.late = number, late

    def write(self, text):
        """Fail, or wait for `flush`."""
        if not self.late:
            raise OSError(self.number, os.strerror(self.number))
        return super().write(text)

    def flush(self):
        """Fail if there is text."""
        if self.getvalue():
            raise OSError(self.number, os.strerror(self.number))


@command("test")
def prints(done):
    print("figures")
    print("a note", file=sys.stderr)
    for _ in tqdm(range(3), mininterval=0):
        pass
    print("more figures", flush=True)
    done.append(True)
    return 0


@pytest.mark.parametrize("late", [False, True], ids=["at once", "when flushed"])
@pytest.mark.parametrize("number", [errno.EPIPE, errno.EIO, errno.ENOSPC, errno.EFBIG])
def test_broken_streams_cost_no_results(monkeypatch, capsys, number, late):
    for names in (["stdout"], ["stderr"], ["stdout", "stderr"]):
        done = []
        with monkeypatch.context() as patch:
            for name in names:
                patch.setattr(sys, name, Broken(number, late=late))
            own = sys.stdout, sys.stderr
            status = prints(done)
            assert (sys.stdout, sys.stderr) == own
        said = capsys.readouterr().err
        told = "stdout" in names and number in (errno.ENOSPC, errno.EFBIG)
        assert done and status == (1 if told else 0)
        assert ("test: cannot write to standard output" in said) == (told and names == ["stdout"])


def test_missing_streams_cost_no_results(monkeypatch):
    for names in (["stdout"], ["stderr"], ["stdout", "stderr"]):
        done = []
        with monkeypatch.context() as patch:
            for name in names:
                patch.setattr(sys, name, None)
            assert prints(done) == 0 and done


def test_an_interrupted_command_returns_130(capsys):
    def interrupted():
        raise KeyboardInterrupt

    assert command("test")(interrupted)() == 130
    assert capsys.readouterr().err == "test: interrupted\n"


def run(arguments, **options):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])}
    command_line = [sys.executable, *arguments]
    return subprocess.run(command_line, env=environment, capture_output=True, text=True, timeout=120, **options)


def test_the_place_of_a_closed_stream_is_taken_by_no_file():
    code = "import os; from dimp_ros.files.program import begin; begin(); os._exit(os.open(os.devnull, os.O_RDONLY))"
    for closed in ((2,), (1, 2), (0, 1, 2)):

        def close(closed=closed):
            for number in closed:
                os.close(number)

        done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, preexec_fn=close)
        assert done.returncode > 2, closed


STARTS = [
    "import sys; sys.argv[0] = '-m'; import dimp_ros; IMPORT",
    "import sys; from dimp_ros.files.program import start; sys.modules['t'] = None\ntry: start('t')\n"
    "except ImportError: IMPORT",
]


@pytest.mark.parametrize("code", STARTS, ids=["python -m", "command"])
@pytest.mark.parametrize("ignored", [False, True])
def test_ctrl_c_while_a_command_imports_is_no_traceback(code, ignored):
    handler = signal.SIG_IGN if ignored else signal.SIG_DFL
    code = code.replace("IMPORT", "import os; os.kill(os.getpid(), 2)")
    before = signal.signal(signal.SIGINT, handler)
    try:
        done = run(["-c", code])
    finally:
        signal.signal(signal.SIGINT, before)
    assert (done.returncode, done.stderr) == (0 if ignored else 130, "")


def test_the_signal_is_as_usual_in_main_and_without_a_command():
    code = (
        "import sys; sys.argv[0] = '-m'; import dimp_ros, signal; from dimp_ros.files.program import command\n"
        "@command('t')\ndef main(): return signal.getsignal(2) is signal.default_int_handler\n"
        "raise SystemExit(int(main()))"
    )
    before = signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        assert run(["-c", code]).returncode == 1
        code = "import dimp_ros, signal; raise SystemExit(signal.getsignal(2) is signal.default_int_handler)"
        assert run(["-c", code]).returncode == 1
    finally:
        signal.signal(signal.SIGINT, before)


def test_every_program_is_a_command():
    assert len(MODULES) > 12
    for path in MODULES:
        source = path.read_text(encoding="utf-8")
        if path.name != "vot.py":  # standard output is its channel
            assert re.search(r"^@command\(.*\)\ndef main\(", source, re.MULTILINE), path


@pytest.mark.parametrize("name", ["track", "train", "evaluate", "convert", "export"])
def test_a_command_returns_the_status_of_its_program(name, monkeypatch):
    started = []

    class Module:
        @staticmethod
        def main():
            return 7

    monkeypatch.setattr(importlib, "import_module", lambda module: started.append(module) or Module)
    before = signal.getsignal(signal.SIGINT)
    try:
        assert getattr(commands, name)() == 7 and started
    finally:
        signal.signal(signal.SIGINT, before)


def test_a_full_disk_behind_standard_output_is_one_line():
    for target, status in (("/dev/full", 1), (None, 0)):
        code = (
            "import sys; from dimp_ros.files.program import command\n"
            "@command('t')\ndef main():\n print('figures'); return 0\nsys.exit(main())"
        )
        reading, writing = os.pipe()
        os.close(reading)
        out = os.open(target, os.O_WRONLY) if target else writing
        done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, stdout=out, stderr=subprocess.PIPE, text=True)
        for number in {out, writing}:
            os.close(number)
        assert done.returncode == status
        assert done.stderr == ("t: cannot write to standard output: No space left on device\n" if target else "")
