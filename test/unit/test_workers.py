# SPDX-License-Identifier: Apache-2.0
"""Work that processes share ends when one of them dies or cannot start, and whenever its caller ends it."""

import multiprocessing
import os
import signal
import time
from functools import partial

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


def test_all_is_done_and_ctrl_c_left_to_the_parent():
    assert sum(share_work(signal.raise_signal, [signal.SIGINT] * 20, 2, int)) == 20
    assert list(share_work(abs, [], 2, int)) == []


@pytest.mark.parametrize(
    ("function", "items", "start"),
    [
        (os._exit, [1, 0, 3], int),
        (signal.raise_signal, [signal.SIGKILL] * 2, int),  # as where memory is short
        (time.sleep, [60] * 9, partial(int, "x")),
        (time.sleep, [60] * 9, partial(os._exit, 1)),
    ],
)
def test_process_that_dies_is_an_error(function, items, start):
    others, done = multiprocessing.active_children(), []
    with pytest.raises(ChildProcessError, match=r"has died: .* give fewer --processes"):
        done.extend(share_work(function, items, 2, start))
    assert not sum(done) and not set(multiprocessing.active_children()) - set(others)


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


@pytest.mark.parametrize("reuse", [0, 1])
def test_images_that_allow_no_sequence_are_refused_before_a_process_is_made(tmp_path, reuse):
    data = CompactDataSet(write_images(tmp_path / "images", clip_frames=1))
    build_store(tmp_path / "train", [WeightedDataSet(data, 1.0)], lambda _: True)
    trainer = Trainer.__new__(Trainer)
    trainer.config = TrainingConfig(reuse=reuse, groups=8, scenes=SceneConfig(mix=(0, 0, 1)))
    trainer.context, trainer.store = DistributedContext(0, 1, "cpu"), tmp_path
    with pytest.raises(ValueError, match="these images allow no sequence"):
        trainer._batches(bool)
