# SPDX-License-Identifier: Apache-2.0
"""The data that browsers show: the newest images, the tracker's estimates for them, and problems."""

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
"""Limit for the images that wait for their boxes."""


class TrackerUpdate(NamedTuple):
    """The tracker's estimates for one image, and when they arrived, by this process's steady clock.

    :param number: counts the updates, so that an image that arrives late does not restore a dropped target.
    """

    number: int
    stamp: int
    targets: tuple[TargetEstimate, ...]
    at: float


class VideoImage(NamedTuple):
    """A received image: stamp in nanoseconds, time of arrival, bytes, and the function that decodes it.

    :param open: returns the image, HxWx3 uint8 BGR; raises ValueError for one that cannot be shown.
    """

    number: int
    stamp: int
    at: float
    size: int
    open: Callable[[], NDArray[Any]]


class TrackerStatus(NamedTuple):
    """Whether the tracker's services are available, whether it is enabled (None if unknown), and its problem.

    :param drop_number: of the last drop that is known. :param pause_number: grows with each pause that is known.
    """

    present: bool = False
    enabled: bool | None = None
    trouble: str = ""
    drop_number: int = 0
    pause_number: int = 0


class ShownImage(NamedTuple):
    """An image to show, and the update for exactly this image; None if there is none."""

    frame: VideoImage
    update: TrackerUpdate | None


class ConsoleState:
    """Written by the threads of ROS and read by that of the web server. All methods are thread-safe.

    :param pair_seconds: how far, in seconds of stamps, the shown image may lie behind the newest one, in order to be
        one with an update. :param stale_after: seconds. :param clock: steady, seconds.
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
        """Set the function that is called, in any thread, after each change."""
        self._listener = listener

    def on_image(self, stamp: int, size: int, open_image: Callable[[], NDArray[Any]]) -> None:
        """Add an image of ``size`` bytes with its stamp, nanoseconds; it is decoded only if it is shown."""
        with self._lock:
            if self._frames and stamp < self._frames[-1].stamp:  # the clock of the images was set back
                self._frames.clear()
            self._number += 1
            self._frames.append(VideoImage(self._number, stamp, self._clock(), size, open_image))
            self._discard_old()
        self._listener()

    def _discard_old(self) -> None:
        """Discard frames that will not be shown: older than the last update, too old, or too many."""
        frames = self._frames
        updated = self._update.stamp if self._update else 0
        while len(frames) > 1 and (
            frames[0].stamp < frames[-1].stamp - self._pair_ns
            or (frames[0].stamp < updated <= frames[-1].stamp)
            or len(frames) > MAX_FRAMES
            or sum(frame.size for frame in frames) > MAX_BYTES
        ):
            frames.popleft()

    def on_targets(self, stamp: int, targets: Sequence[TargetEstimate]) -> None:
        """Set the tracker's estimates for the image with ``stamp``, nanoseconds."""
        with self._lock:
            number = self._update.number + 1 if self._update else 1
            self._update = TrackerUpdate(number, stamp, tuple(targets), self._clock())
            self._discard_old()
        self._listener()

    def on_bad_image(self, text: str) -> None:
        """Set why an image cannot be shown; empty once one can."""
        with self._lock:
            changed, self._bad = text != self._bad, text
        if changed:
            self._listener()

    def forget_images(self) -> None:
        """Discard the images: the subscription has ended."""
        with self._lock:
            self._frames.clear()
            self._bad = ""

    def set_tracker(self, tracker: TrackerStatus) -> None:
        """Set the state of the tracker."""
        with self._lock:
            changed, self._tracker = tracker != self._tracker, tracker
        if changed:
            self._listener()

    def set_silence(self, text: str) -> None:
        """Set why no images arrive; empty while they do."""
        with self._lock:
            changed, self._silence = text != self._silence, text
        if changed:
            self._listener()

    @property
    def seconds_without_image(self) -> float | None:
        """Time since the newest image arrived; None if there is none."""
        with self._lock:
            return self._clock() - self._frames[-1].at if self._frames else None

    def shown(self) -> ShownImage | None:
        """Return the image to show: that of the last update if it is recent enough, else the newest, without boxes.

        None if there is no image.
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
        """Return everything except the images, for JSON; ages in seconds at this moment."""
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
    """Return an update for JSON, with its age in seconds."""
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
    """Return nanoseconds as seconds and nanoseconds: JavaScript's numbers have 53 bits."""
    return [stamp // NANOSECONDS, stamp % NANOSECONDS]


def _rounded(seconds: float | None) -> float | None:
    """Return rounded seconds, 0 if not finite, which JSON cannot express."""
    if seconds is None:
        return None
    return round(seconds, 3) if math.isfinite(seconds) else 0.0
