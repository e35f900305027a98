# SPDX-License-Identifier: Apache-2.0
"""A thread for the slow work: jobs in order, of frames the newest only, and idle work."""

from __future__ import annotations

import statistics
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, InvalidStateError
from typing import Any, Generic, TypeVar

Frame = TypeVar("Frame")


REMEMBERED = 9
"""Number of intervals and durations that are kept; their medians are used."""


ENOUGH = 3
"""With fewer of them there is no wait."""


LATE = 0.2
"""How much later than expected the next image may come, in intervals, before the wait ends."""


class WaitPolicy:
    """Estimates how often images come and how long one takes. Times are seconds of a monotonic clock.

    Not thread-safe: to be called with one lock held.
    """

    def __init__(self) -> None:
        self._arrival: float | None = None
        self._intervals: deque[float] = deque(maxlen=REMEMBERED)
        self._durations: deque[float] = deque(maxlen=REMEMBERED)

    def arrived(self, now: float) -> None:
        """Record the arrival of an image."""
        if self._arrival is not None:
            self._intervals.append(now - self._arrival)
        self._arrival = now

    def worked(self, seconds: float) -> None:
        """Record how long an image took."""
        self._durations.append(seconds)

    def wait_time(self, now: float, share: float) -> float:
        """Return for how many seconds to wait for an image newer than the last one; 0 to take that.

        :param share: the longest wait, in intervals between images, 0 to 1.
        """
        if self._arrival is None or share <= 0 or min(len(self._intervals), len(self._durations)) < ENOUGH:
            return 0.0
        interval = statistics.median(self._intervals)
        due = self._arrival + interval - now
        if statistics.median(self._durations) <= interval or not 0 < due <= share * interval:
            return 0.0
        return due + LATE * interval


class WorkerStopped(RuntimeError):
    """The worker ended before it could do the job."""


class Worker(Generic[Frame]):
    """Runs ``process`` on the newest frame offered, and jobs between frames, in a thread of its own.

    A frame offered while another is being processed replaces the one that waits: the queue cannot grow, so the
    result's age stays below twice the processing time whatever the rates are.

    :param process: called in the worker's thread with a frame.
    :param on_error: called in the worker's thread with what ``process`` raised; the worker goes on.
    :param idle: called in the worker's thread while there is nothing else to do, again and again as long as it returns
        True; what it does in one call delays the next frame by as much.
    :param wait_share: asked, where frames come faster than they are processed, for what share of the interval
        between them to wait for one that is newer than the one at hand; see `WaitPolicy`.
    """

    def __init__(
        self,
        process: Callable[[Frame], None],
        on_error: Callable[[Exception], None],
        name: str = "tracker_worker",
        *,
        idle: Callable[[], bool] = lambda: False,
        wait_share: Callable[[], float] = lambda: 0.0,
    ) -> None:
        self._process = process
        self._on_error = on_error
        self._idle = idle
        self._wait_share = wait_share
        self._pace = WaitPolicy()
        self._resting = True
        self._wakeup = threading.Condition()
        self._frame: Frame | None = None
        self._jobs: deque[tuple[Callable[[], Any], Future[Any]]] = deque()
        self._running: Future[Any] | None = None
        self._stopping = False
        self.cause: BaseException | None = None
        """What ended the thread without `stop`: not an `Exception`, or an error of ``on_error``."""
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def offer(self, frame: Frame) -> bool:
        """Leave ``frame`` as the next to process; return whether one that still waited is replaced. Never blocks."""
        with self._wakeup:
            replaces = self._frame is not None
            self._frame = frame
            self._pace.arrived(time.monotonic())
            self._wakeup.notify()
        return replaces

    def submit(self, job: Callable[[], Any]) -> Future[Any]:
        """Have ``job`` run before the next frame; the future gets its result or its exception."""
        future: Future[Any] = Future()
        with self._wakeup:
            if self._stopping:
                future.set_exception(WorkerStopped("the node is being stopped"))
            else:
                self._jobs.append((job, future))
                self._wakeup.notify()
        return future

    @property
    def died(self) -> bool:
        """Whether the thread has ended although nobody stopped it."""
        return self._thread.ident is not None and not self._thread.is_alive() and not self._stopping

    def stop(self, timeout: float) -> bool:
        """Ask the thread to end, release everyone who waits for a job, and wait up to ``timeout`` seconds.

        :returns: whether the thread has ended; false means that the work in progress takes longer.
        """
        with self._wakeup:
            self._stopping = True
            self._frame = None
            waiting = [future for _, future in self._jobs]
            if self._running is not None:
                waiting.append(self._running)
            self._jobs.clear()
            self._wakeup.notify()
        for future in waiting:
            _settle(future, error=WorkerStopped("the node is being stopped"))
        if self._thread.ident is not None:
            self._thread.join(timeout)
        return not self._thread.is_alive()

    def _run(self) -> None:
        try:
            self._work()
        except BaseException as error:
            self.cause = error
            raise

    def _work(self) -> None:
        while True:
            with self._wakeup:
                self._wakeup.wait_for(
                    lambda: self._stopping or self._jobs or self._frame is not None or not self._resting
                )
                self._wait_for_newer()
                if self._stopping:
                    return
                job: Callable[[], Any] | None = None
                frame: Frame | None = None
                if self._jobs:
                    job, future = self._jobs.popleft()
                    if not future.set_running_or_notify_cancel():
                        continue
                    self._running = future
                else:
                    frame, self._frame = self._frame, None
            if job is not None:
                self._run_job(job)
                self._resting = False  # whatever was asked for may have left something to do
            else:
                self._run_frame(frame)
            del frame

    def _wait_for_newer(self) -> None:
        """Wait for the next frame if one waits and the next is worth it; with the lock held."""
        frame = self._frame
        if frame is None or self._jobs or self._stopping:
            return
        seconds = self._pace.wait_time(time.monotonic(), self._wait_share())
        if seconds > 0:
            self._wakeup.wait_for(lambda: self._stopping or self._jobs or self._frame is not frame, seconds)

    def _run_frame(self, frame: Frame | None) -> None:
        """Process a frame, or do what can wait if there is none."""
        try:
            if frame is not None:
                self._resting = False
                begin = time.monotonic()
                self._process(frame)
                self._pace.worked(time.monotonic() - begin)
            else:
                self._resting = True
                self._resting = not self._idle()
        except Exception as error:  # the stream must go on whatever one frame does
            self._on_error(error)

    def _run_job(self, job: Callable[[], Any]) -> None:
        future = self._running
        assert future is not None
        try:
            _settle(future, result=job())
        except Exception as error:  # belongs to whoever asked for the job
            _settle(future, error=error)
        self._running = None


def _settle(future: Future[Any], *, result: Any = None, error: Exception | None = None) -> None:
    """Give ``future`` its outcome, unless `Worker.stop` was quicker or its owner has cancelled it."""
    try:
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(result)
    except InvalidStateError:
        pass
