# SPDX-License-Identifier: Apache-2.0
"""The worker thread: newest frame first, jobs between frames, clean shutdown."""

from __future__ import annotations

import threading
import time

import pytest

from dimp_ros.node.worker import Worker, WorkerStopped


class Bench:
    """A worker whose work can be held up, and that keeps what it did."""

    def __init__(self) -> None:
        self.done: list[object] = []
        self.errors: list[Exception] = []
        self.busy, self.go = threading.Event(), threading.Event()
        self.worker: Worker[object] = Worker(self.process, self.errors.append)
        self.worker.start()

    def process(self, frame: object) -> None:
        """Wait for the bench's go, then note the frame, or raise it if it is an exception."""
        self.busy.set()
        assert self.go.wait(10)
        if isinstance(frame, Exception):
            raise frame
        self.done.append(frame)


@pytest.fixture
def bench():
    bench = Bench()
    yield bench
    bench.go.set()
    assert bench.worker.stop(10)


def wait_for(condition) -> None:
    end = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.001)


def test_only_the_newest_frame_waits(bench):
    bench.worker.offer(0)
    assert bench.busy.wait(10)
    assert [bench.worker.offer(frame) for frame in range(1, 6)] == [False, True, True, True, True]
    bench.go.set()
    wait_for(lambda: bench.done == [0, 5])


def test_jobs_run_in_order_before_the_waiting_frame(bench):
    bench.worker.offer("first")
    assert bench.busy.wait(10)
    bench.worker.offer("second")
    futures = [bench.worker.submit(lambda n=n: bench.done.append(n) or 10 * n) for n in (1, 2, 3)]
    bench.go.set()
    assert [future.result(10) for future in futures] == [10, 20, 30]
    wait_for(lambda: bench.done == ["first", 1, 2, 3, "second"])


def test_errors_go_to_the_job_or_the_handler(bench):
    bench.go.set()
    with pytest.raises(ZeroDivisionError):
        bench.worker.submit(lambda: 1 / 0).result(10)
    failure = ValueError("bad frame")
    bench.worker.offer(failure)
    wait_for(lambda: bench.errors == [failure])
    bench.worker.offer("good")
    wait_for(lambda: bench.done == ["good"])


def test_a_job_that_is_cancelled_before_its_turn_is_not_run(bench):
    bench.worker.offer(0)
    assert bench.busy.wait(10)
    future = bench.worker.submit(lambda: bench.done.append("job"))
    assert future.cancel()
    bench.go.set()
    assert bench.worker.submit(lambda: None).result(10) is None
    assert bench.done == [0]


def test_stop_releases_all_waiting_callers(bench):
    started = threading.Event()

    def hang() -> None:
        started.set()
        bench.go.wait(10)

    running = bench.worker.submit(hang)
    assert started.wait(10)
    waiting = bench.worker.submit(lambda: None)
    bench.worker.offer("frame")
    assert not bench.worker.stop(0.05)
    for future in (running, waiting, bench.worker.submit(lambda: None)):
        with pytest.raises(WorkerStopped):
            future.result(10)
    bench.go.set()
    assert bench.worker.stop(10)
    assert bench.done == [], "a frame was processed after the stop"


def test_a_worker_that_was_never_started_can_be_stopped():
    assert Worker(lambda frame: None, lambda error: None).stop(1)


def test_background_work_runs_while_idle_until_done():
    left, calls, frames = [3], threading.Event(), []

    def idle() -> bool:
        calls.set()
        left[0] -= 1
        return left[0] > 0

    worker: Worker[object] = Worker(frames.append, lambda error: None, idle=idle)
    worker.start()
    try:
        time.sleep(0.05)
        assert not calls.is_set(), "before anything came there is nothing that could be left to do"
        worker.offer("frame")
        wait_for(lambda: left[0] == 0)
        time.sleep(0.05)
        assert frames == ["frame"] and left[0] == 0, "it is not asked again once it is done"
        worker.submit(lambda: left.__setitem__(0, 2)).result(10)
        wait_for(lambda: left[0] == 0)
    finally:
        assert worker.stop(10)


def test_a_frame_comes_before_what_can_wait():
    order: list[str] = []
    gate = threading.Event()

    def idle() -> bool:
        order.append("idle")
        assert gate.wait(10)
        return order.count("idle") < 3

    worker: Worker[str] = Worker(order.append, lambda error: None, idle=idle)
    worker.start()
    try:
        worker.offer("first")
        wait_for(lambda: order == ["first", "idle"])
        worker.offer("second")
        gate.set()
        wait_for(lambda: len(order) >= 5)
        assert order[:3] == ["first", "idle", "second"]
    finally:
        assert worker.stop(10)


def test_error_of_background_work_is_not_retried_at_once():
    errors: list[Exception] = []

    def idle() -> bool:
        raise RuntimeError("broken")

    worker: Worker[str] = Worker(lambda frame: None, errors.append, idle=idle)
    worker.start()
    try:
        worker.offer("frame")
        wait_for(lambda: errors)
        time.sleep(0.05)
        assert len(errors) == 1
    finally:
        assert worker.stop(10)


def test_next_frame_is_awaited_if_it_is_due():
    """Every 40 ms one, 60 ms for each: the one at hand is 20 ms old, the next due in 20; none older is used."""
    used: list[float] = []

    def process(offered: float) -> None:
        used.append(time.monotonic() - offered)
        time.sleep(0.06)

    ages = {}
    for share in (0.0, 0.6):
        used.clear()
        worker: Worker[float] = Worker(process, lambda error: None, wait_share=lambda share=share: share)
        worker.start()
        begin = time.monotonic()
        for number in range(40):
            time.sleep(max(0.0, begin + number * 0.04 - time.monotonic()))
            worker.offer(time.monotonic())
        assert worker.stop(10)
        ages[share] = sorted(used[6:])
    middle = {share: values[len(values) // 2] for share, values in ages.items()}
    assert middle[0.6] < 0.008 and max(ages[0.0]) > 0.012


def test_jobs_and_stopping_do_not_wait_for_the_next_frame():
    done: list[str] = []
    worker: Worker[str] = Worker(lambda frame: time.sleep(0.03), lambda error: None, wait_share=lambda: 1.0)
    worker.start()
    for _ in range(8):
        worker.offer("frame")
        time.sleep(0.01)
    worker._pace._intervals.clear()
    worker._pace._intervals.extend([60.0] * 3)  # the next is due in a minute
    worker._pace._durations.extend([61.0] * 9)
    worker.offer("last")
    assert worker.submit(lambda: done.append("job")).result(5) is None and done == ["job"]
    assert worker.stop(5)
