# SPDX-License-Identifier: Apache-2.0
"""The loop of `dimp-track`: targets followed through a source, every word on them handed to what shows or keeps it."""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
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


class Stopped(Exception):
    """The person wants no more frames."""


class Output(Protocol):
    """Something that keeps or shows what is said about each frame."""

    def add(self, frame: Frame, readings: Sequence[TargetEstimate], milliseconds: float) -> None:
        """Take the readings of all targets in a frame; raise `Stopped` to end."""

    def close(self) -> None:
        """Put the output under its name if there was a frame, also after an error; raise OSError if that fails."""

    def discard(self) -> None:
        """Remove what is not finished; called last, also after `close`."""


@dataclass
class Figures:
    """What a run comes to: milliseconds of each update, frames in which each target was in sight, what went wrong."""

    frames: int = 0
    in_sight: dict[str, int] = field(default_factory=dict)
    milliseconds: list[float] = field(default_factory=list)
    unread: int = 0
    problems: list[str] = field(default_factory=list)
    unwritten: list[str] = field(default_factory=list)
    set_back: int = 0
    disbelieved: int = 0
    nonsense: str = ""

    def add(self, frame: Frame, readings: Sequence[TargetEstimate], milliseconds: float, nonsense: str) -> None:
        """Count a frame. :param nonsense: what the tracker said that could not be believed."""
        self.frames += 1
        for reading in readings:
            self.in_sight[reading.target_id] = self.in_sight.get(reading.target_id, 0) + (reading.box is not None)
        if nonsense:
            self.disbelieved += 1
            self.nonsense = self.nonsense or f"frame {frame.index}: {nonsense}"
        if frame.picture is None:
            self.unread += 1
            if len(self.problems) < SHOWN_PROBLEMS:
                self.problems.append(f"frame {frame.index}: {frame.problem}")
        else:
            self.milliseconds.append(milliseconds)

    def text(self) -> str:
        """Return the figures as one line; the first frame, in which targets are learned, counts as no update."""
        median = statistics.median(self.milliseconds[1:] or self.milliseconds)
        sight = f"target in sight in {next(iter(self.in_sight.values()))}"
        if len(self.in_sight) > 1:
            sight = "in sight: " + ", ".join(f"{name} in {count}" for name, count in self.in_sight.items())
        return f"{self.frames} frames, {sight}, median {median:.1f} ms a frame"

    def complaints(self) -> list[str]:
        """Return lines about what went wrong on the way."""
        lines = []
        if self.unread:
            more = "" if self.unread <= SHOWN_PROBLEMS else "; ..."
            lines.append(f"{self.unread} of {self.frames} images could not be read: {'; '.join(self.problems)}{more}")
        if self.disbelieved:
            lines.append(f"in {self.disbelieved} frames a target was taken for LOST; at first {self.nonsense}")
        if self.set_back:
            lines.append(f"the images' stamps went back {self.set_back} times; they were taken as they were recorded")
        return lines


class Screen:
    """The frames with the targets drawn on them: a video, a window, or both.

    A video has one size: frames of another are scaled to fit into the first one's.
    """

    def __init__(self, out: Path | None, fps: float, painter: Annotator, *, window: bool) -> None:
        self._writer = VideoWriter(out, fps) if out else None
        self._painter, self._window = painter, window
        self._size: tuple[int, int] | None = None

    def add(self, frame: Frame, readings: Sequence[TargetEstimate], milliseconds: float) -> None:
        """Draw a frame and show it."""
        picture = self._painter.paint(frame, readings)
        self._size = self._size or (picture.shape[1], picture.shape[0])
        if self._writer:
            self._writer.write(_fitted(picture, self._size))
        if self._window:
            cv2.imshow(WINDOW, picture)
            if cv2.waitKey(1) & 0xFF in (ord("q"), 27):
                raise Stopped

    def close(self) -> None:
        """Finish the video and close the window."""
        if self._writer:
            self._writer.close()
        if self._window:
            cv2.destroyAllWindows()

    def discard(self) -> None:
        """Remove a video that was not finished."""
        if self._writer:
            self._writer.discard()


def _fitted(picture: BgrImage, size: tuple[int, int]) -> BgrImage:
    """Return the picture scaled into (width, height), black where its shape is another."""
    height, width = picture.shape[:2]
    if (width, height) == size:
        return picture
    scale = min(size[0] / width, size[1] / height)
    w, h = max(1, round(width * scale)), max(1, round(height * scale))
    fitted = np.zeros((size[1], size[0], 3), np.uint8)
    fitted[:h, :w] = cv2.resize(picture, (w, h), interpolation=cv2.INTER_AREA)
    return fitted


def follow(
    tracker: Tracker,
    source: Source,
    span: Span,
    boxes: dict[str, Box],
    outputs: Sequence[Output],
    ask: Callable[[BgrImage], Box],
) -> Figures:
    """Follow targets through a span, until it ends, the person stops it, or an output cannot be written.

    :param boxes: of each target in the first frame, by name; where there are none, that of target "0" is added, which
        ``ask`` returns for that frame.
    :return: what the run came to.
    :raises ValueError: if the first frame or a box in it cannot be used.
    """
    targets, figures, last = TargetManager(tracker), Figures(), 0
    with tqdm(total=total_frames(source, span), unit="frame", disable=None, file=sys.stderr) as bar:
        try:
            for frame in source.frames(span):
                when = frame.time or last
                if figures.frames and when < last:  # a bag of several runs, or a clock that was set
                    targets.shift(when - last, targets.ids)
                    figures.set_back += 1
                last = when
                if not figures.frames and not boxes:
                    boxes["0"] = ask(_first_picture(source, frame))
                clock = time.perf_counter()
                readings = _look(targets, source, frame, when, boxes)
                milliseconds = (time.perf_counter() - clock) * 1e3
                figures.add(frame, readings, milliseconds, targets.invalid)
                for output in outputs:
                    _hand(output, frame, readings, milliseconds, figures)
                bar.set_postfix_str(f"{readings[0].state.name} {readings[0].confidence:.2f}", refresh=False)
                bar.update()
        except Stopped:
            pass
        except KeyboardInterrupt:  # how one stops a camera: keep what there is
            print("dimp-track: interrupted", file=sys.stderr)
    if not figures.frames:
        if source.damage:
            raise ValueError(source.damage)
        raise ValueError(f"no frame to start on: {source.name} has no readable frame {show_place(span.start)}")
    return figures


def _hand(
    output: Output, frame: Frame, readings: Sequence[TargetEstimate], milliseconds: float, figures: Figures
) -> None:
    """Give a frame's results to an output; one that cannot be written ends the run, and the others keep what they have.

    :raises Stopped: if it cannot be written, or the person stops it.
    """
    try:
        output.add(frame, readings, milliseconds)
    except OSError as error:
        output.discard()
        figures.unwritten.append(f"stopped at frame {frame.index}: {error}")
        raise Stopped from error


def _look(
    targets: TargetManager, source: Source, frame: Frame, when: int, boxes: Mapping[str, Box]
) -> list[TargetEstimate]:
    """Return the readings of all targets in a frame; in the first one they are taken."""
    if not targets.ids:
        picture = ArrayPicture(_first_picture(source, frame))
        return [targets.init(picture, box, name, when) for name, box in boxes.items()]
    if frame.picture is None:
        return [targets.skip(name, when) for name in targets.ids]
    readings = targets.follow(ArrayPicture(frame.picture), when, targets.ids)
    return [readings.get(name) or targets.skip(name, when) for name in targets.ids]


def _first_picture(source: Source, frame: Frame) -> BgrImage:
    if frame.picture is None:
        raise ValueError(
            f"no frame to start on: frame {frame.index} of {source.name} cannot be read: {frame.problem}; "
            "start on another, --start N"
        )
    return frame.picture
