# SPDX-License-Identifier: Apache-2.0
"""Statistics of the image stream: rates, ages, stage times, stamps and errors of the last few seconds."""

from __future__ import annotations

import itertools
import math
import statistics
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

T = TypeVar("T")

WINDOW_SECONDS = 5.0
MAX_EVENTS = 4096
"""Maximum number of events of a kind: more come in a window only above 800 Hz."""

RECENT_STAMPS, QUARTERS = 64, 4
"""Stamps from which the camera's rate is estimated, and the parts in each of which it must be the same."""
MAX_DIFFERENCE = 3.0
"""Quarters whose rates differ by more than this factor are of a camera that has changed its rate or paused."""
REGULAR_SHARE, REGULAR_TOLERANCE = 0.7, 0.2
"""A regular camera has so large a share of its stamps' distances within so much of a multiple of its interval."""


@dataclass(frozen=True)
class StreamStatistics:
    """The stream in the last ``window`` seconds, or since the start if that is less; times in seconds.

    :param input_rate: images received, Hz. :param processed_rate: images reported on, Hz.
    :param dropped: images in the window that a newer one replaced before their turn. :param bad: images in the window
        that could not be understood. :param failed: images in the window in which the tracker raised an error.
    :param received: images received in the window. :param processed: images reported on in it.
    :param jitter: 95th percentile of how far the time between two images received is from its median.
    :param age_median: of the images when they were reported on, by the node's clock; None if there was none.
    :param stage_ms: median time of each stage, milliseconds.
    :param since_received: since the last image was received; None if there was none. So are the following.
    :param last_stamp: stamp of that image, nanoseconds.
    :param zero_stamps: images in the window without a stamp. :param backward: images in the window whose stamp is
        before that of the image before. :param backward_seconds: how far the last such one was back.
    :param last_bad: what was wrong with the last image that could not be understood, since the start; empty if nothing.
    :param last_failure: the tracker's last error, likewise. :param last_error: the last of both.
    :param total: images since the start: received, processed, dropped, bad, failed.
    :param image_bytes: size of the last image. :param stamped_rate: rate of the last received images by their stamps,
        Hz. :param camera_rate: the rate at which the camera takes them, by the smallest distance of two stamps; None
        where that is not known, both.
    """

    window: float = 0.0
    input_rate: float = 0.0
    processed_rate: float = 0.0
    received: int = 0
    processed: int = 0
    dropped: int = 0
    bad: int = 0
    failed: int = 0
    jitter: float | None = None
    age_median: float | None = None
    age_p95: float | None = None
    age_max: float | None = None
    stage_ms: Mapping[str, float] = field(default_factory=dict)
    since_start: float = 0.0
    since_received: float | None = None
    since_processed: float | None = None
    last_stamp: int | None = None
    zero_stamps: int = 0
    backward: int = 0
    backward_seconds: float = 0.0
    last_bad: str = ""
    last_failure: str = ""
    last_error: str = ""
    since_error: float | None = None
    total: Mapping[str, int] = field(default_factory=dict)
    image_bytes: int = 0
    stamped_rate: float | None = None
    camera_rate: float | None = None


class _Window(Generic[T]):
    """Values of the last few seconds with the time of each, and how many there ever were."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._entries: deque[tuple[float, T]] = deque(maxlen=MAX_EVENTS)
        self.total = 0

    def add(self, now: float, value: T) -> None:
        self._entries.append((now, value))
        self.total += 1
        self.expire(now)

    def expire(self, now: float) -> None:
        while self._entries and now - self._entries[0][0] > self._seconds:
            self._entries.popleft()

    def entries(self, now: float) -> list[tuple[float, T]]:
        self.expire(now)
        return list(self._entries)

    def rate(self, now: float, since: float) -> float:
        """Return how many come in a second, over the window or, if that is less, the time since the start."""
        full = len(self._entries) == self._entries.maxlen  # then they do not reach back through the window
        span = now - (self._entries[0][0] if full else max(since, now - self._seconds))
        return len(self._entries) / span if span > 0 else 0.0


class Statistics:
    """Counts what happens to every image. Any thread may call it; a call takes microseconds; memory is bounded.

    :param clock: a clock that never goes back, seconds.
    """

    def __init__(self, seconds: float = WINDOW_SECONDS, clock: Callable[[], float] = time.monotonic) -> None:
        self._seconds = seconds
        self._clock = clock
        self._lock = threading.Lock()
        self._start = clock()
        self._received: _Window[int] = _Window(seconds)
        self._processed: _Window[tuple[float, Mapping[str, float]]] = _Window(seconds)
        self._dropped: _Window[None] = _Window(seconds)
        self._bad: _Window[None] = _Window(seconds)
        self._failed: _Window[None] = _Window(seconds)
        self._backward: _Window[float] = _Window(seconds)
        self._last_received: tuple[float, int] | None = None
        self._last_processed: float | None = None
        self._last_error: tuple[float, str] | None = None
        self._last_bad = self._last_failure = ""
        self._stamps: deque[int] = deque(maxlen=RECENT_STAMPS)
        self._image_bytes = 0

    def on_received(self, stamp: int, size: int = 0) -> None:
        """Count an image with its stamp, nanoseconds, and its size in bytes."""
        with self._lock:
            now = self._clock()
            self._received.add(now, stamp)
            if self._last_received is not None and stamp < self._last_received[1]:
                self._backward.add(now, (self._last_received[1] - stamp) / 1e9)
                self._stamps.clear()
            self._last_received = (now, stamp)
            self._stamps.append(stamp)
            self._image_bytes = size

    def on_replaced(self) -> None:
        """Count an image that was dropped in favour of a newer one."""
        with self._lock:
            self._dropped.add(self._clock(), None)

    def on_processed(self, age: float, stage_ms: Mapping[str, float]) -> None:
        """Count an image that was reported on.

        :param age: seconds since its stamp, by the node's clock. :param stage_ms: time of each stage, milliseconds.
        """
        with self._lock:
            self._last_processed = self._clock()
            self._processed.add(self._last_processed, (age, stage_ms))

    def on_error(self, text: str, *, bad_image: bool = False) -> None:
        """Count an error; ``bad_image`` where the image is the cause, not the tracker."""
        with self._lock:
            now = self._clock()
            self._last_error = (now, text)
            if bad_image:
                self._bad.add(now, None)
                self._last_bad = text
            else:
                self._failed.add(now, None)
                self._last_failure = text

    def snapshot(self) -> StreamStatistics:
        """Return the statistics of this moment; sorting is done outside of the lock."""
        with self._lock:
            now = self._clock()
            received, processed = self._received.entries(now), self._processed.entries(now)
            dropped, bad, failed = (len(one.entries(now)) for one in (self._dropped, self._bad, self._failed))
            backward = self._backward.entries(now)
            input_rate, processed_rate = self._received.rate(now, self._start), self._processed.rate(now, self._start)
            last_received, last_processed, last_error = self._last_received, self._last_processed, self._last_error
            last_bad, last_failure = self._last_bad, self._last_failure
            stamps, image_bytes = list(self._stamps), self._image_bytes
            total = {
                "received": self._received.total,
                "processed": self._processed.total,
                "dropped": self._dropped.total,
                "bad": self._bad.total,
                "failed": self._failed.total,
            }
        window = min(self._seconds, now - self._start)
        ages = sorted(age for _, (age, _) in processed)
        return StreamStatistics(
            window=window,
            input_rate=input_rate,
            processed_rate=processed_rate,
            received=len(received),
            processed=len(processed),
            dropped=dropped,
            bad=bad,
            failed=failed,
            jitter=_jitter([at for at, _ in received]),
            age_median=statistics.median(ages) if ages else None,
            age_p95=percentile(ages, 0.95) if ages else None,
            age_max=ages[-1] if ages else None,
            stage_ms=_stage_medians([stages for _, (_, stages) in processed]),
            since_start=now - self._start,
            since_received=None if last_received is None else now - last_received[0],
            since_processed=None if last_processed is None else now - last_processed,
            last_stamp=None if last_received is None else last_received[1],
            zero_stamps=sum(stamp == 0 for _, stamp in received),
            backward=len(backward),
            backward_seconds=backward[-1][1] if backward else 0.0,
            last_bad=last_bad,
            last_failure=last_failure,
            last_error="" if last_error is None else last_error[1],
            since_error=None if last_error is None else now - last_error[0],
            total=total,
            image_bytes=image_bytes,
            stamped_rate=_stamped_rate(stamps),
            camera_rate=camera_rate(stamps),
        )


def percentile(ordered: Sequence[float], share: float) -> float:
    """Return the least of ``ordered`` values that at least ``share`` of them do not exceed.

    :param ordered: ascending, at least one. :param share: 0 to 1.
    """
    rank = math.ceil(round(share * len(ordered), 9))
    return ordered[min(max(rank, 1), len(ordered)) - 1]


def camera_rate(stamps: Sequence[int]) -> float | None:
    """Return the rate of a regular camera of whose images some are missing, Hz.

    Its interval is the smallest distance of two stamps in each quarter of them. Quarters that differ much are of a
    camera that has changed its rate or paused, whose images are not lost.

    :param stamps: of the images received, nanoseconds. :returns: None where there are too few, or they are irregular.
    """
    steps = [later - earlier for earlier, later in itertools.pairwise(stamps) if later > earlier]
    if len(steps) < RECENT_STAMPS // 2 - 1:
        return None
    ends = [n * len(steps) // QUARTERS for n in range(QUARTERS + 1)]
    quarters = [steps[begin:end] for begin, end in itertools.pairwise(ends)]
    interval = max(map(min, quarters))
    if max(map(sum, quarters)) > MAX_DIFFERENCE * min(map(sum, quarters)):
        return None
    regular = [abs(step / interval - round(step / interval)) <= REGULAR_TOLERANCE for step in steps]
    return 1e9 / interval if sum(regular) >= REGULAR_SHARE * len(steps) else None


def _stamped_rate(stamps: Sequence[int]) -> float | None:
    span = stamps[-1] - stamps[0] if stamps else 0
    return (len(stamps) - 1) * 1e9 / span if span > 0 else None


def _jitter(times: Sequence[float]) -> float | None:
    """Return the 95th percentile of the deviation of intervals from their median; None for less than two of them."""
    intervals = [later - earlier for earlier, later in itertools.pairwise(times)]
    if len(intervals) < 2:
        return None
    median = statistics.median(intervals)
    return percentile(sorted(abs(interval - median) for interval in intervals), 0.95)


def _stage_medians(records: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Return the median of each stage over the images that had it, in the order in which the stages came up."""
    stages: dict[str, list[float]] = {}
    for record in records:
        for name, milliseconds in record.items():
            stages.setdefault(name, []).append(milliseconds)
    return {name: statistics.median(values) for name, values in stages.items()}
