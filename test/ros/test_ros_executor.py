# SPDX-License-Identifier: Apache-2.0
"""A callback that waits for a thread is handed over once, and does not busy the executor."""

import threading
import time

import rclpy
from harness.ros_harness import THREADS, context
from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from rclpy.task import Future

from dimp_ros.ros_utils.executor import START_SECONDS, FairExecutor, FairThreadPool


def test_waiting_work_runs_once_however_often_submitted():
    pool, go, runs = FairThreadPool(1), threading.Event(), []
    pool.submit(go.wait, 10)
    late = lambda: runs.append(1)  # noqa: E731 - one object, as rclpy submits the same task
    begin = time.monotonic()
    futures = {id(pool.submit(late)) for _ in range(20)}
    took = time.monotonic() - begin
    assert len(futures) == 1 and not runs
    assert took > 19 * START_SECONDS  # a break in each round: no spinning in circles
    go.set()
    pool.shutdown(wait=True)
    assert runs == [1]


def test_submit_returns_when_a_free_thread_has_begun():
    pool, begun = FairThreadPool(2), []
    for number in range(50):
        pool.submit(begun.append, number).result(5)
        assert begun[-1] == number
    gate = threading.Event()
    unfinished = pool.submit(gate.wait, 30)
    assert not unfinished.done()
    gate.set()
    pool.shutdown(wait=True)


def test_function_may_be_submitted_again_once_begun():
    pool, runs = FairThreadPool(2), []
    for _ in range(3):
        pool.submit(runs.append, 0).result(5)
    work = lambda: runs.append(1)  # noqa: E731
    for _ in range(3):
        pool.submit(work).result(5)
    assert runs == [0, 0, 0, 1, 1, 1]
    pool.shutdown(wait=True)


def test_an_error_is_the_futures():
    pool = FairThreadPool(1)
    assert isinstance(pool.submit(lambda: 1 / 0).exception(5), ZeroDivisionError)
    pool.shutdown(wait=True)


def test_busy_threads_are_not_given_the_same_again_and_again():
    """Of what rclpy's own pool is given in such a second, most is what it was given before."""

    class Pool(FairThreadPool):
        counted = repeated = 0

        def submit(self, fn, /, *args, **kwargs):
            Pool.counted += 1
            Pool.repeated += fn in self._waiting
            return super().submit(fn, *args, **kwargs)

    def work():
        end = time.perf_counter() + 0.004
        while time.perf_counter() < end:  # holds the interpreter's lock, as Python does
            pass

    with context():
        node, executor, done = rclpy.create_node("busy"), FairExecutor(THREADS), Future()
        executor._executor = Pool(THREADS)
        for _ in range(4):
            node.create_timer(0.01, work, callback_group=MutuallyExclusiveCallbackGroup())
        executor.add_node(node)
        thread = threading.Thread(target=executor.spin_until_future_complete, args=(done,), daemon=True)
        thread.start()
        time.sleep(1.0)
        done.set_result(None)
        thread.join(10)
        executor.finish_callbacks()
        executor.shutdown()
        node.destroy_node()
    assert Pool.counted > 20 and Pool.repeated < 0.5 * Pool.counted
