# SPDX-License-Identifier: Apache-2.0
"""The loop of `dimp-track`: tracks targets through a source and passes the estimates to the outputs."""

from __future__ import annotations

import signal
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import cv2
import numpy as np
from tqdm import tqdm

from dimp_ros.apps.recording.annotator import Annotator
from dimp_ros.geometry.box import Box
from dimp_ros.images.frame_source import Frame, Source, Span, show_place, total_frames
from dimp_ros.images.picture import ArrayPicture
from dimp_ros.images.video import BgrImage, VideoWriter
from dimp_ros.tracker.result import TargetEstimate
from dimp_ros.tracker.target_set import TargetManager, Tracker

WINDOW = "dimp-track"
SHOWN_PROBLEMS = 3
ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""Signals that end a run with its results: Ctrl-C, a request to end, a terminal that is closed."""


class Stopped(Exception):
    """The user, or an output, ends the run."""


class Output(Protocol):
    """A destination of the estimates of each frame: a file, a bag or a window."""

    def add(self, frame: Frame, estimates: Sequence[TargetEstimate], milliseconds: float) -> None:
        """Take the estimates of all targets in a frame; raise `Stopped` to end the run."""

    def close(self) -> None:
        """Put the output under its name if there was a frame, also after an error.

        :raises OSError: if that fails.
        """

    def discard(self) -> None:
        """Remove an unfinished output; called last, also after `close`."""


@dataclass
class RunStatistics:
    """Statistics of a run: frames in which each target was in sight, milliseconds of each update, problems."""

    frames: int = 0
    in_sight: dict[str, int] = field(default_factory=dict)
    milliseconds: list[float] = field(default_factory=list)
    unread: int = 0
    problems: list[str] = field(default_factory=list)
    unwritten: list[str] = field(default_factory=list)
    clock_resets: int = 0
    invalid: int = 0
    first_invalid: str = ""

    def add(self, frame: Frame, estimates: Sequence[TargetEstimate], milliseconds: float, error: str) -> None:
        """Count a frame. :param error: the reason if the tracker's result was invalid, else empty."""
        self.frames += 1
        for estimate in estimates:
            self.in_sight[estimate.target_id] = self.in_sight.get(estimate.target_id, 0) + (estimate.box is not None)
        if error:
            self.invalid += 1
            self.first_invalid = self.first_invalid or f"frame {frame.index}: {error}"
        if frame.image is None:
            self.unread += 1
            if len(self.problems) < SHOWN_PROBLEMS:
                self.problems.append(f"frame {frame.index}: {frame.problem}")
        else:
            self.milliseconds.append(milliseconds)

    def text(self) -> str:
        """Return a summary in one line; the median time excludes the first frame, which initialises the targets."""
        median = statistics.median(self.milliseconds[1:] or self.milliseconds)
        sight = f"target in sight in {next(iter(self.in_sight.values()))}"
        if len(self.in_sight) > 1:
            sight = "in sight: " + ", ".join(f"{name} in {count}" for name, count in self.in_sight.items())
        return f"{self.frames} frames, {sight}, median {median:.1f} ms a frame"

    def warnings(self) -> list[str]:
        """Return lines about problems of the run."""
        lines = []
        if self.unread:
            more = "" if self.unread <= SHOWN_PROBLEMS else "; ..."
            lines.append(f"{self.unread} of {self.frames} images could not be read: {'; '.join(self.problems)}{more}")
        if self.invalid:
            lines.append(f"in {self.invalid} frames an invalid result was reported as LOST; first {self.first_invalid}")
        if self.clock_resets:
            lines.append(f"the images' stamps went back {self.clock_resets} times; the recorded order was used")
        return lines


class Screen:
    """Shows frames with the targets drawn on them: in a video, a window, or both.

    A video has one size: frames of another size are scaled to fit into that of the first.
    """

    def __init__(self, out: Path | None, fps: float, annotator: Annotator, *, window: bool) -> None:
        self._writer = VideoWriter(out, fps) if out else None
        self._annotator, self._window = annotator, window
        self._size: tuple[int, int] | None = None

    def add(self, frame: Frame, estimates: Sequence[TargetEstimate], milliseconds: float) -> None:
        """Draw a frame and show it."""
        image = self._annotator.draw(frame, estimates)
        self._size = self._size or (image.shape[1], image.shape[0])
        if self._writer:
            self._writer.write(_fitted(image, self._size))
        if self._window:
            cv2.imshow(WINDOW, image)
            if cv2.waitKey(1) & 0xFF in (ord("q"), 27):
                raise Stopped

    def close(self) -> None:
        """Finish the video and close the window."""
        if self._writer:
            self._writer.close()
        if self._window:
            cv2.destroyAllWindows()

    def discard(self) -> None:
        """Remove an unfinished video."""
        if self._writer:
            self._writer.discard()


def _fitted(image: BgrImage, size: tuple[int, int]) -> BgrImage:
    """Return the image scaled to fit into (width, height), padded with black."""
    height, width = image.shape[:2]
    if (width, height) == size:
        return image
    scale = min(size[0] / width, size[1] / height)
    w, h = max(1, round(width * scale)), max(1, round(height * scale))
    fitted = np.zeros((size[1], size[0], 3), np.uint8)
    fitted[:h, :w] = cv2.resize(image, (w, h), interpolation=cv2.INTER_AREA)
    return fitted


def follow(
    tracker: Tracker,
    source: Source,
    span: Span,
    boxes: dict[str, Box],
    outputs: Sequence[Output],
    ask: Callable[[BgrImage], Box],
) -> RunStatistics:
    """Track targets through a span, until it ends, the user stops it, or an output cannot be written.

    :param boxes: of each target in the first frame, by name; if empty, the box that ``ask`` returns for that frame is
        added as target "0". One of no size is a point, and replaced by the box that is found there.
    :raises ValueError: if the first frame or a box in it is invalid. :raises KeyboardInterrupt: before the first frame.
    """
    targets, run, last = TargetManager(tracker), RunStatistics(), 0
    with tqdm(total=total_frames(source, span), unit="frame", disable=None, file=sys.stderr) as bar:
        try:
            for frame in source.frames(span):
                when = frame.time or last
                if run.frames and when < last:  # a bag of several runs, or a clock that was reset
                    targets.shift(when - last, targets.ids)
                    run.clock_resets += 1
                last = when
                if not run.frames:
                    image = _first_image(source, frame)
                    if not boxes:
                        boxes["0"] = ask(image)
                    boxes.update({name: targets.find_box(ArrayPicture(image), box) for name, box in boxes.items()})
                clock = time.perf_counter()
                estimates = _track_frame(targets, source, frame, when, boxes)
                milliseconds = (time.perf_counter() - clock) * 1e3
                with held_signals():  # each output gets the frame, or none does
                    run.add(frame, estimates, milliseconds, targets.invalid)
                    _write(outputs, frame, estimates, milliseconds, run)
                bar.set_postfix_str(f"{estimates[0].state.name} {estimates[0].confidence:.2f}", refresh=False)
                bar.update()
        except Stopped:
            pass
        except KeyboardInterrupt:  # the way to stop a camera: keep the results
            if not run.frames:
                raise
            print("dimp-track: interrupted", file=sys.stderr)
    if not run.frames:
        if source.damage:
            raise ValueError(source.damage)
        raise ValueError(f"no frame to start on: {source.name} has no readable frame {show_place(span.start)}")
    return run


@contextmanager
def held_signals() -> Iterator[None]:
    """Let `ENDING` signals wait until the end of the block, which raises KeyboardInterrupt if there was one."""
    came: list[int] = []
    before = {number: signal.signal(number, lambda number, _: came.append(number)) for number in handled_signals()}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if came:
        raise KeyboardInterrupt


def handled_signals() -> list[signal.Signals]:
    """Return the `ENDING` signals that are not ignored, as nohup and the shell's background jobs have it."""
    return [number for number in ENDING if signal.getsignal(number) != signal.SIG_IGN]


def _write(
    outputs: Sequence[Output],
    frame: Frame,
    estimates: Sequence[TargetEstimate],
    milliseconds: float,
    run: RunStatistics,
) -> None:
    """Pass a frame's estimates to all outputs; after an error of one, whatever it is, the others keep their content.

    :raises Stopped: after a write error, or if the user stops the run.
    """
    stopped: Exception | None = None
    for output in outputs:
        try:
            output.add(frame, estimates, milliseconds)
        except Stopped as error:
            stopped = error
        except Exception as error:
            output.discard()
            run.unwritten.append(f"stopped at frame {frame.index}: {failure_text(error)}")
            stopped = error
    if stopped is not None:
        raise Stopped from stopped


def failure_text(error: Exception) -> str:
    """Return why an output is not written: of an error that no output announces, with its type."""
    return str(error) if isinstance(error, OSError) else f"an output is lost: {type(error).__name__}: {error}"


def _track_frame(
    targets: TargetManager, source: Source, frame: Frame, when: int, boxes: Mapping[str, Box]
) -> list[TargetEstimate]:
    """Return the estimates of all targets in a frame; the first frame initialises them."""
    if not targets.ids:
        picture = ArrayPicture(_first_image(source, frame))
        return [targets.init(picture, box, name, when) for name, box in boxes.items()]
    if frame.image is None:
        return [targets.skip(name, when) for name in targets.ids]
    estimates = targets.follow(ArrayPicture(frame.image), when, targets.ids)
    return [estimates.get(name) or targets.skip(name, when) for name in targets.ids]


def _first_image(source: Source, frame: Frame) -> BgrImage:
    if frame.image is None:
        raise ValueError(
            f"no frame to start on: frame {frame.index} of {source.name} cannot be read: {frame.problem}; "
            "start on another, --start N"
        )
    return frame.image
