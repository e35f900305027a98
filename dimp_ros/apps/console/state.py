# SPDX-License-Identifier: Apache-2.0
"""What is known at this moment: the newest images, what the tracker said of them, and what is wrong."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from numpy.typing import NDArray

NANOSECONDS = 1_000_000_000
MAX_FRAMES = 64
MAX_BYTES = 128 * 2**20
"""Of the images that wait for their boxes."""


class Target(NamedTuple):
    """What the tracker said of a target: state as a word, box (x, y, w, h) in pixels of the image or None.

    :param confidence: 0 to 1. :param age: seconds from the image's stamp to when it was said.
    :param unseen: seconds of stamps since it was last found.
    """

    target_id: str
    state: str
    box: tuple[float, float, float, float] | None
    confidence: float
    age: float
    unseen: float


class TrackerUpdate(NamedTuple):
    """What the tracker said of one image, and when that came, by this process's steady clock.

    :param number: counts what was said: a target that was dropped is not to come back with a picture that comes later.
    """

    number: int
    stamp: int
    targets: tuple[Target, ...]
    at: float


class Frame(NamedTuple):
    """An image that has come: its stamp in nanoseconds, when it came, its bytes, and what opens it.

    :param open: returns the picture, HxWx3 uint8 BGR; raises ValueError for one that cannot be shown.
    """

    number: int
    stamp: int
    at: float
    size: int
    open: Callable[[], NDArray[Any]]


class Tracker(NamedTuple):
    """How the tracker is: whether its services are there, whether it works (None if not known), what is wrong."""

    present: bool = False
    enabled: bool | None = None
    trouble: str = ""


class Shown(NamedTuple):
    """A frame to show, and the news that are of this very frame; None where there are none."""

    frame: Frame
    news: TrackerUpdate | None


class Board:
    """Takes notes from ROS' threads, and is read by the web server's. All methods may be called from any thread.

    :param pair_seconds: how far, in seconds of stamps, the frame that is shown may lie behind the newest one so that
        it is one that the tracker has spoken about. :param stale_after: seconds. :param clock: steady, seconds.
    """

    def __init__(self, pair_seconds: float, stale_after: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._pair_ns = round(pair_seconds * NANOSECONDS)
        self._stale_after = stale_after
        self._clock = clock
        self._lock = threading.Lock()
        self._frames: deque[Frame] = deque()
        self._number = 0
        self._news: TrackerUpdate | None = None
        self._tracker = Tracker()
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
            self._frames.append(Frame(self._number, stamp, self._clock(), size, open_picture))
            self._let_go()
        self._listener()

    def _let_go(self) -> None:
        """Forget frames that will not be shown: older than the tracker's last news, or too old or many to wait."""
        frames = self._frames
        spoken = self._news.stamp if self._news else 0
        while len(frames) > 1 and (
            frames[0].stamp < frames[-1].stamp - self._pair_ns
            or (frames[0].stamp < spoken <= frames[-1].stamp)
            or len(frames) > MAX_FRAMES
            or sum(frame.size for frame in frames) > MAX_BYTES
        ):
            frames.popleft()

    def on_targets(self, stamp: int, targets: Sequence[Target]) -> None:
        """Take what the tracker said of the image with ``stamp``."""
        with self._lock:
            number = self._news.number + 1 if self._news else 1
            self._news = TrackerUpdate(number, stamp, tuple(targets), self._clock())
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

    def set_tracker(self, tracker: Tracker) -> None:
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

    def shown(self) -> Shown | None:
        """Return the frame to show: the newest that the tracker has spoken about, if that is fresh enough.

        Otherwise the newest of all, without boxes. None if there is no image.
        """
        with self._lock:
            if not self._frames:
                return None
            news, newest = self._news, self._frames[-1]
            if news is not None and newest.stamp - self._pair_ns <= news.stamp <= newest.stamp:
                for frame in reversed(self._frames):
                    if frame.stamp == news.stamp:
                        return Shown(frame, news)
            return Shown(newest, None)

    def status(self) -> dict[str, Any]:
        """Return all but the pictures, for JSON; ages in seconds at this moment."""
        now = self._clock()
        with self._lock:
            newest = self._frames[-1] if self._frames else None
            news, tracker, silence, bad = self._news, self._tracker, self._silence, self._bad
        age = None if newest is None else now - newest.at
        state = "none" if age is None else "bad" if bad else "live" if age < self._stale_after else "stale"
        return {
            "video": {"state": state, "age": _rounded(age), "reason": bad or ("" if state == "live" else silence)},
            "tracker": tracker._asdict(),
            "targets": news_fields(news, now),
        }


def news_fields(news: TrackerUpdate | None, now: float) -> dict[str, Any] | None:
    """Return news for JSON, with how long ago, in seconds, they came."""
    if news is None:
        return None
    return {
        "number": news.number,
        "stamp": stamp_fields(news.stamp),
        "age": _rounded(now - news.at),
        "list": [
            {
                "id": target.target_id,
                "state": target.state,
                "box": None if target.box is None else [round(value, 2) for value in target.box],
                "confidence": round(target.confidence, 4),
                "age": _rounded(target.age),
                "unseen": _rounded(target.unseen),
            }
            for target in news.targets
        ],
    }


def stamp_fields(stamp: int) -> list[int]:
    """Return nanoseconds as seconds and nanoseconds: JavaScript's numbers hold no more than 53 bits."""
    return [stamp // NANOSECONDS, stamp % NANOSECONDS]


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 3)
