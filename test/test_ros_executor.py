# SPDX-License-Identifier: Apache-2.0
"""A callback that waits for a thread is handed over once, and does not keep the executor turning."""

import threading
import time

import rclpy
from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from ros_harness import THREADS, context, spinning, wait_until

from dimp_ros.node.executor import START_SECONDS, PatientPool


def test_what_waits_for_a_thread_is_run_once_however_often_it_is_submitted():
    pool, go, runs = PatientPool(1), threading.Event(), []
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


def test_who_submits_waits_until_a_free_thread_has_begun_and_no_longer():
    pool, begun = PatientPool(2), []
    for number in range(50):
        pool.submit(begun.append, number).result(5)
        assert begun[-1] == number
    begin = time.monotonic()
    pool.submit(time.sleep, 0.5)
    assert time.monotonic() - begin < 0.25
    pool.shutdown(wait=True)


def test_the_same_function_may_be_submitted_again_once_it_has_begun():
    pool, runs = PatientPool(2), []
    for _ in range(3):
        pool.submit(runs.append, 0).result(5)
    work = lambda: runs.append(1)  # noqa: E731
    for _ in range(3):
        pool.submit(work).result(5)
    assert runs == [0, 0, 0, 1, 1, 1]
    pool.shutdown(wait=True)


def test_an_error_is_the_futures():
    pool = PatientPool(1)
    assert isinstance(pool.submit(lambda: 1 / 0).exception(5), ZeroDivisionError)
    pool.shutdown(wait=True)


def test_while_all_threads_are_busy_the_executor_rests():
    """Rclpy's own takes all of a core meanwhile."""
    go, busy, ran = threading.Event(), threading.Semaphore(0), []
    with context():
        node = rclpy.create_node("busy")
        timers = []

        def hold() -> None:
            busy.release()
            go.wait(20)

        for _ in range(THREADS):
            timers.append(node.create_timer(0.01, hold, callback_group=MutuallyExclusiveCallbackGroup()))
        node.create_timer(0.05, lambda: ran.append(1), callback_group=MutuallyExclusiveCallbackGroup())
        with spinning(node):
            for _ in range(THREADS):
                assert busy.acquire(timeout=10)
            for timer in timers:
                timer.cancel()
            before, begin = len(ran), time.process_time()
            time.sleep(1.0)
            assert time.process_time() - begin < 0.5 and len(ran) <= before + 1
            go.set()
            wait_until(lambda: len(ran) > before + 1, "the timer that had to wait")
