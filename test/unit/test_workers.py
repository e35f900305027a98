# SPDX-License-Identifier: Apache-2.0
"""Work that processes share ends when one of them dies or cannot start, and whenever its caller ends it.

The processes leave the signals of their group to it, and end with it.
"""

import multiprocessing
import os
import re
import signal
import subprocess
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import pytest
from helpers.image_fixtures import write_images

from dimp_ros.datasets.compact import CompactDataSet
from dimp_ros.datasets.registry import WeightedDataSet
from dimp_ros.synthetic.image_store_writer import build_store
from dimp_ros.synthetic.scene_planner import SceneConfig
from dimp_ros.training.batches import FreshBatches
from dimp_ros.training.config import TrainingConfig
from dimp_ros.training.distributed import DistributedContext
from dimp_ros.training.trainer import Trainer
from dimp_ros.training.workers import share_work

ROOT = Path(__file__).resolve().parents[2]
GROUP = """
import os, signal, sys, time
from dimp_ros.files.worker_processes import worker_pool

if __name__ == "__main__":
    number, caught = int(sys.argv[1]), []
    signal.signal(number, lambda *_: caught.append(1))
    with worker_pool(2, int) as pool:
        for _ in range(2):  # while they begin, and when they work
            work = [pool.submit(time.sleep, 0.2) for _ in range(4)]
            os.killpg(0, number)
            for one in work:
                one.result()
    assert caught == [1, 1]
"""
PARENT = """
import multiprocessing, os, signal, sys, time
from dimp_ros.files.worker_processes import worker_context, worker_pool

if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)
    context = worker_context()  # of a DataLoader, too
    context.Process(target=time.sleep, args=(600,), daemon=True).start()
    with worker_pool(2, int) as pool:
        work = [pool.submit(time.sleep, 600) for _ in range(2)]
        print(*(child.pid for child in multiprocessing.active_children()), flush=True)
        while not all(one.running() for one in work):
            time.sleep(0.01)
        os.kill(os.getpid(), int(sys.argv[1]))
        time.sleep(60)
"""


def run(tmp_path, program, number):
    """Run a program as the leader of a process group, until all that hold its output have ended."""
    (tmp_path / "program.py").write_text(program)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])}
    command = [sys.executable, str(tmp_path / "program.py"), str(int(number))]
    options = {"capture_output": True, "text": True, "timeout": 120, "start_new_session": True}
    return subprocess.run(command, env=environment, **options)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_signals_of_the_group_are_left_to_the_parent(tmp_path, number):
    done = run(tmp_path, GROUP, number)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGKILL])
def test_workers_end_with_their_parent(tmp_path, number):
    done = run(tmp_path, PARENT, number)
    assert done.returncode == -number
    assert len(done.stdout.split()) == 3
    for worker in map(int, done.stdout.split()):
        state = Path(f"/proc/{worker}/stat")  # of a container's first process, which may wait for nobody
        assert not state.exists() or state.read_text().rpartition(")")[2].split()[0] == "Z"


def test_all_processes_that_work_are_of_this_kind():
    kinds = re.compile(
        r"\bPool\(|ProcessPoolExecutor\(|get_context\(|Process\(|multiprocessing_context=(?!worker_context)"
    )
    files = [path for path in (ROOT / "dimp_ros").rglob("*.py") if kinds.search(path.read_text(encoding="utf-8"))]
    assert [path.name for path in files] == ["worker_processes.py"]


def test_all_is_done():
    assert sum(share_work(abs, [-1] * 20, 2, int)) == 20
    assert list(share_work(abs, [], 2, int)) == []


@pytest.mark.parametrize(
    ("function", "items", "start"),
    [
        (os._exit, [1, 0, 3], int),
        (signal.raise_signal, [signal.SIGKILL] * 2, int),  # as where memory is short
        (exec, ["import time; time.sleep(600)", "import os; os._exit(1)"], int),
        (time.sleep, [60] * 9, partial(int, "x")),
        (time.sleep, [60] * 9, partial(os._exit, 1)),
    ],
)
def test_process_that_dies_is_an_error(function, items, start):
    others, done = multiprocessing.active_children(), []
    with pytest.raises(ChildProcessError, match=r"has died: .* give fewer --processes"):
        done.extend(share_work(function, items, 2, start))
    assert not sum(done) and not set(multiprocessing.active_children()) - set(others)


def test_death_of_a_process_that_was_started_late_is_seen_at_once(monkeypatch, tmp_path):
    start = ProcessPoolExecutor._adjust_process_count
    monkeypatch.setattr(ProcessPoolExecutor, "_adjust_process_count", lambda pool: time.sleep(0.2) or start(pool))
    items = [f"import time; time.sleep(30); open({str(tmp_path / 'done')!r}, 'w')", "import os; os._exit(1)"]
    with pytest.raises(ChildProcessError, match="has died"):
        list(share_work(exec, items, 2, int))
    assert not (tmp_path / "done").exists()


def test_error_of_the_function_is_the_caller_s():
    with pytest.raises(ValueError, match="invalid literal"):
        list(share_work(int, ["1", "x"], 2, int))


@pytest.mark.parametrize("items", [[600] * 2, [600] * 100])
def test_caller_is_heard_while_nothing_is_done(items):
    others, work = multiprocessing.active_children(), share_work(time.sleep, items, 2, int)
    assert [next(work) for _ in range(2)] == [0, 0]
    work.close()
    deadline = time.monotonic() + 60
    while set(multiprocessing.active_children()) - set(others):
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.parametrize("asked", [False, True])
@pytest.mark.parametrize("text", ["(pid 7) is killed by signal: Killed. ", "(pid(s) 7) exited unexpectedly"])
def test_worker_that_plans_and_dies_is_an_error_unless_the_run_is_to_stop(asked, text):
    def loader():
        yield []
        raise RuntimeError(f"DataLoader worker {text}")

    batches = FreshBatches.__new__(FreshBatches)
    batches.interrupted = lambda: asked
    plans = batches._planned(loader())
    assert next(plans) == []
    if asked:
        assert list(plans) == []
    else:
        with pytest.raises(ChildProcessError, match="has died"):
            next(plans)


def test_death_of_a_worker_that_plans_is_told_between_steps_only():
    class Loader:
        def __iter__(self):
            signal.signal(signal.SIGCHLD, lambda *_: None)  # as torch's, which raises
            return iter([[], []])

    before = signal.getsignal(signal.SIGCHLD)
    try:
        plans = FreshBatches.__new__(FreshBatches)._planned(Loader())
        assert next(plans) == []
        assert signal.getsignal(signal.SIGCHLD) == before
    finally:
        signal.signal(signal.SIGCHLD, before)


@pytest.mark.parametrize("reuse", [0, 1])
def test_images_that_allow_no_sequence_are_refused_before_a_process_is_made(tmp_path, reuse):
    data = CompactDataSet(write_images(tmp_path / "images", clip_frames=1))
    build_store(tmp_path / "train", [WeightedDataSet(data, 1.0)], lambda _: True)
    trainer = Trainer.__new__(Trainer)
    trainer.config = TrainingConfig(reuse=reuse, groups=8, scenes=SceneConfig(mix=(0, 0, 1)))
    trainer.context, trainer.store = DistributedContext(0, 1, "cpu"), tmp_path
    with pytest.raises(ValueError, match="these images allow no sequence"):
        trainer._batches(bool)
