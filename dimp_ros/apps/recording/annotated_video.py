# SPDX-License-Identifier: Apache-2.0
"""Annotated video and summary of a run: images and target states matched by stamp."""

from __future__ import annotations

import math
import statistics
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from queue import SimpleQueue
from types import TracebackType
from typing import Any, NamedTuple

import numpy as np

from dimp_ros.images.overlay import draw_target
from dimp_ros.images.video import BgrImage, VideoWriter

DEFAULT_RATE = 30.0
LAST_SECONDS = 0.4
"""For so long images are written when a recording is to end at once."""

WAITING_BYTES = 256 * 2**20
"""Most bytes of images that wait for their states; beyond, the oldest are written without."""

WAITING_JOBS = 600
"""Most images and states that wait for the thread of a `BackgroundVideo`; further images are left out."""

MEASURED_FRAMES = 10
"""Number of images from which the frame rate of the video is computed."""


class Observation(NamedTuple):
    """State of the target in one image; ``box`` is (x, y, w, h) in pixels, None if not in sight; ``age`` in seconds."""

    state: str
    box: tuple[float, float, float, float] | None
    confidence: float
    age: float
    target_id: str = ""


class AnnotatedVideo:
    """Writes every image once, in the order of their stamps, with the target's state in it.

    An image is written when its state has arrived, or that of a later image: then the tracker skipped it, and it shows
    the last box thin and grey. So it does where `WAITING_BYTES` wait, as behind a tracker that is silent. Used by one
    thread at a time.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._frames: deque[tuple[int, BgrImage]] = deque()
        self._waiting_bytes = 0
        self._observations: dict[int, Observation] = {}
        self._newest = -1
        self._last: Observation | None = None
        self._writer: VideoWriter | None = None
        self._end = math.inf
        self._added = 0
        self.written = 0
        self.skipped = 0

    def __enter__(self) -> AnnotatedVideo:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def add_image(self, stamp: int, image: BgrImage) -> None:
        """Add the image of ``stamp``, in nanoseconds; HxWx3 uint8 BGR, writable."""
        self._added += 1
        self._frames.append((stamp, image))
        self._waiting_bytes += image.nbytes
        self._write_ready()

    def add_observation(self, stamp: int, observation: Observation) -> None:
        """Add the state in the image of ``stamp``, nanoseconds; a later one for the same image replaces it."""
        self._observations[stamp] = observation
        self._newest = max(self._newest, stamp)
        self._write_ready()

    def hasten(self) -> None:
        """Write images for `LAST_SECONDS` more; those that remain then are left out. May be called by any thread."""
        self._end = time.monotonic() + LAST_SECONDS

    @property
    def hastened(self) -> bool:
        """Whether the time since `hasten` is over."""
        return time.monotonic() >= self._end

    def close(self) -> int:
        """Write the remaining images, finish the file, and return how many images were left out, see `hasten`."""
        try:
            self._write_ready(everything=True)
        finally:
            self._frames.clear()
            writer, self._writer = self._writer, None
            if writer is not None:
                writer.close()
        return self._added - self.written

    def _write_ready(self, *, everything: bool = False) -> None:
        if self._writer is None and len(self._frames) < MEASURED_FRAMES and not everything:
            return
        while self._frames and not self.hastened:
            due = self._frames[0][0] <= self._newest or self._waiting_bytes > WAITING_BYTES
            if not (everything or due):
                break
            self._writer = self._writer or self._open()
            stamp, image = self._frames.popleft()
            self._waiting_bytes -= image.nbytes
            self._writer.write(self._annotate(image, self._observations.pop(stamp, None)))
            self.written += 1

    def _annotate(self, image: BgrImage, current: Observation | None) -> BgrImage:
        if current is not None:
            self._last = current
            box, name = current.box, current.target_id
            confidence = current.confidence if box is not None else None
            return draw_target(image, current.state, box=box, confidence=confidence, target_id=name)
        self.skipped += 1
        last = self._last or Observation("UNINITIALIZED", None, 0.0, 0.0)
        return draw_target(image, last.state, box=last.box, note="image skipped", held=True)

    def _open(self) -> VideoWriter:
        """Create the folder and a video at the frame rate of the waiting images."""
        stamps = [stamp for stamp, _ in self._frames]
        steps = [later - earlier for earlier, later in pairwise(stamps) if later > earlier]
        self.path.parent.mkdir(parents=True, exist_ok=True)
        return VideoWriter(self.path, 1e9 / statistics.median(steps) if steps else DEFAULT_RATE)


class BackgroundVideo:
    """An `AnnotatedVideo` written by its own thread, in the order of the calls, which return at once.

    Images are kept in memory until they are written, and left out while `WAITING_JOBS` wait. An error ends the video,
    and `close` raises it.
    """

    def __init__(self, path: Path) -> None:
        self._video = AnnotatedVideo(path)
        self._jobs: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._error: Exception | None = None
        self._added = 0
        self._thread = threading.Thread(target=self._run, name="video", daemon=True)
        self._thread.start()

    def add_image(self, stamp: int, open_image: Callable[[], BgrImage]) -> None:
        """Add the image of ``stamp``, in nanoseconds; ``open_image`` returns it, HxWx3 uint8 BGR and writable."""
        self._added += 1
        if self._jobs.qsize() < WAITING_JOBS:
            self._jobs.put(lambda: self._video.add_image(stamp, open_image()))

    def add_observation(self, stamp: int, observation: Observation) -> None:
        """Add the state in the image of ``stamp``, nanoseconds."""
        self._jobs.put(lambda: self._video.add_observation(stamp, observation))

    def hasten(self) -> None:
        """Write images for `LAST_SECONDS` more; those that remain then are left out."""
        self._video.hasten()

    def close(self) -> int:
        """Wait until everything is written, finish the file, and return how many images were left out.

        :raises Exception: the error that ended the video.
        """
        self._jobs.put(None)
        self._thread.join()
        if self._error is not None:
            raise self._error
        return self._added - self._video.written

    def _run(self) -> None:
        while (job := self._jobs.get()) is not None:
            try:
                if self._error is None and not self._video.hastened:
                    job()
            except Exception as error:
                self._error = error
        try:
            self._video.close()
        except Exception as error:
            self._error = self._error or error


@dataclass(frozen=True)
class Summary:
    """The metrics of a run.

    ``frames`` of ``published`` images were processed; ``tracker_fps`` is their rate by stamps, at most the camera's.
    Ages are from an image's stamp to the publication of its result.
    """

    frames: int
    published: int
    tracked: int
    uncertain: int
    lost: int
    median_confidence: float
    tracker_fps: float
    age_ms_median: float
    age_ms_p95: float

    @classmethod
    def of(cls, observations: dict[int, Observation], published: int) -> Summary:
        """Summarise observations by stamp (nanoseconds), of ``published`` images."""
        results = list(observations.values())
        states = [one.state for one in results]
        stamps = sorted(observations)
        seconds = (stamps[-1] - stamps[0]) / 1e9 if len(stamps) > 1 else 0.0
        seen = [one.confidence for one in results if one.box is not None]
        ages = [one.age * 1e3 for one in results] or [0.0]
        return cls(
            frames=len(results),
            published=published,
            tracked=states.count("TRACKING"),
            uncertain=states.count("UNCERTAIN"),
            lost=states.count("LOST") + states.count("UNINITIALIZED"),
            median_confidence=round(statistics.median(seen), 3) if seen else 0.0,
            tracker_fps=round((len(stamps) - 1) / seconds, 1) if seconds else 0.0,
            age_ms_median=round(float(np.percentile(ages, 50)), 1),
            age_ms_p95=round(float(np.percentile(ages, 95)), 1),
        )

    def text(self, **more: Any) -> str:
        """Return the metrics as text, one line each."""
        lines = {
            "images": f"{self.frames} processed of {self.published} published, {self.tracker_fps:g} a second",
            "target": f"tracked in {self.tracked}, uncertain in {self.uncertain}, lost in {self.lost}",
            "confidence": f"{self.median_confidence:.2f} (median)",
            "age": f"{self.age_ms_median:.0f} ms (median), {self.age_ms_p95:.0f} ms (95 %)",
            **more,
        }
        return "\n".join(f"  {name:<11} {value}" for name, value in lines.items())
