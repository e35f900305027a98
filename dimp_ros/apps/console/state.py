# SPDX-License-Identifier: Apache-2.0
"""The newest images, the tracker's estimates for them, and what is wrong: all that browsers are shown."""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from numpy.typing import NDArray

from dimp_ros.tracker.result import TargetEstimate

NANOSECONDS = 1_000_000_000
MAX_FRAMES = 64
MAX_BYTES = 128 * 2**20
"""Of the images that wait for their boxes."""


class TrackerUpdate(NamedTuple):
    """The tracker's estimates for one image, and when they arrived, by this process's steady clock.

    :param number: counts the updates: a target that was dropped must not come back with an image that arrives later.
    """

    number: int
    stamp: int
    targets: tuple[TargetEstimate, ...]
    at: float


class VideoImage(NamedTuple):
    """An image that arrived: its stamp in nanoseconds, when it arrived, its bytes, and what decodes it.

    :param open: returns the image, HxWx3 uint8 BGR; raises ValueError for one that cannot be shown.
    """

    number: int
    stamp: int
    at: float
    size: int
    open: Callable[[], NDArray[Any]]


class TrackerStatus(NamedTuple):
    """Whether the tracker's services are there, whether it is enabled (None if not known), and what is wrong."""

    present: bool = False
    enabled: bool | None = None
    trouble: str = ""


class ShownImage(NamedTuple):
    """An image to show, and the update for this very image; None where there is none."""

    frame: VideoImage
    update: TrackerUpdate | None


class ConsoleState:
    """Takes notes from ROS' threads, and is read by the web server's. All methods may be called from any thread.

    :param pair_seconds: how far, in seconds of stamps, the frame that is shown may lie behind the newest one so that
        it is one that the tracker has spoken about. :param stale_after: seconds. :param clock: steady, seconds.
    """

    def __init__(self, pair_seconds: float, stale_after: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._pair_ns = round(pair_seconds * NANOSECONDS)
        self._stale_after = stale_after
        self._clock = clock
        self._lock = threading.Lock()
        self._frames: deque[VideoImage] = deque()
        self._number = 0
        self._update: TrackerUpdate | None = None
        self._tracker = TrackerStatus()
        self._silence = ""
        self._bad = ""
        self._listener: Callable[[], None] = lambda: None

    def listen(self, listener: Callable[[], None]) -> None:
        """Have ``listener`` called, in whatever thread, whenever something has changed."""
        self._listener = listener

    def on_image(self, stamp: int, size: int, open_picture: Callable[[], NDArray[Any]]) -> None:
        """Take an image of ``size`` bytes under its stamp, nanoseconds; it is opened only if it is shown."""
        with self._lock:
            if self._frames and stamp < self._frames[-1].stamp:  # the images' clock was set back
                self._frames.clear()
            self._number += 1
            self._frames.append(VideoImage(self._number, stamp, self._clock(), size, open_picture))
            self._let_go()
        self._listener()

    def _let_go(self) -> None:
        """Forget frames that will not be shown: older than the tracker's last update, or too old or many to wait."""
        frames = self._frames
        spoken = self._update.stamp if self._update else 0
        while len(frames) > 1 and (
            frames[0].stamp < frames[-1].stamp - self._pair_ns
            or (frames[0].stamp < spoken <= frames[-1].stamp)
            or len(frames) > MAX_FRAMES
            or sum(frame.size for frame in frames) > MAX_BYTES
        ):
            frames.popleft()

    def on_targets(self, stamp: int, targets: Sequence[TargetEstimate]) -> None:
        """Take what the tracker said of the image with ``stamp``."""
        with self._lock:
            number = self._update.number + 1 if self._update else 1
            self._update = TrackerUpdate(number, stamp, tuple(targets), self._clock())
            self._let_go()
        self._listener()

    def on_bad_image(self, text: str) -> None:
        """Note that an image cannot be shown, and why; empty once one can."""
        with self._lock:
            changed, self._bad = text != self._bad, text
        if changed:
            self._listener()

    def forget_images(self) -> None:
        """Note that images are no longer received: nobody looks."""
        with self._lock:
            self._frames.clear()
            self._bad = ""

    def set_tracker(self, tracker: TrackerStatus) -> None:
        """Note how the tracker is."""
        with self._lock:
            changed, self._tracker = tracker != self._tracker, tracker
        if changed:
            self._listener()

    def set_silence(self, text: str) -> None:
        """Note why no image comes; empty while images do."""
        with self._lock:
            changed, self._silence = text != self._silence, text
        if changed:
            self._listener()

    @property
    def seconds_without_image(self) -> float | None:
        """How long ago the newest image came; None if none has."""
        with self._lock:
            return self._clock() - self._frames[-1].at if self._frames else None

    def shown(self) -> ShownImage | None:
        """Return the frame to show: the newest that the tracker has spoken about, if that is fresh enough.

        Otherwise the newest of all, without boxes. None if there is no image.
        """
        with self._lock:
            if not self._frames:
                return None
            update, newest = self._update, self._frames[-1]
            if update is not None and newest.stamp - self._pair_ns <= update.stamp <= newest.stamp:
                for frame in reversed(self._frames):
                    if frame.stamp == update.stamp:
                        return ShownImage(frame, update)
            return ShownImage(newest, None)

    def status(self) -> dict[str, Any]:
        """Return all but the pictures, for JSON; ages in seconds at this moment."""
        now = self._clock()
        with self._lock:
            newest = self._frames[-1] if self._frames else None
            update, tracker, silence, bad = self._update, self._tracker, self._silence, self._bad
        age = None if newest is None else now - newest.at
        state = "none" if age is None else "bad" if bad else "live" if age < self._stale_after else "stale"
        return {
            "video": {"state": state, "age": _rounded(age), "reason": bad or ("" if state == "live" else silence)},
            "tracker": tracker._asdict(),
            "targets": update_fields(update, now),
        }


def update_fields(update: TrackerUpdate | None, now: float) -> dict[str, Any] | None:
    """Return update for JSON, with how long ago, in seconds, they came."""
    if update is None:
        return None
    return {
        "number": update.number,
        "stamp": stamp_fields(update.stamp),
        "age": _rounded(now - update.at),
        "list": [
            {
                "id": target.target_id,
                "state": target.state.name,
                "box": None if target.box is None else [round(value, 2) for value in target.box],
                "confidence": round(target.confidence, 4) if math.isfinite(target.confidence) else 0.0,
                "age": _rounded(target.age),
                "unseen": _rounded(target.seconds_since_seen),
            }
            for target in update.targets
        ],
    }


def stamp_fields(stamp: int) -> list[int]:
    """Return nanoseconds as seconds and nanoseconds: JavaScript's numbers hold no more than 53 bits."""
    return [stamp // NANOSECONDS, stamp % NANOSECONDS]


def _rounded(seconds: float | None) -> float | None:
    """Return seconds for JSON, which has no numbers that are not finite."""
    if seconds is None:
        return None
    return round(seconds, 3) if math.isfinite(seconds) else 0.0
