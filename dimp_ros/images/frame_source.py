# SPDX-License-Identifier: Apache-2.0
"""Sources of frames for `dimp-track`: videos and bags, and the span to read."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from dimp_ros.images.video import BgrImage, Place, Video


class Span(NamedTuple):
    """The part of a source from ``start``, or from the image with ``stamp`` (header, ns), to before ``end``."""

    start: Place = 0
    end: Place | None = None
    stamp: int | None = None

    def check(self) -> None:
        """Raise ValueError if the span is empty."""
        if self.end is not None and type(self.start) is type(self.end) and self.end <= self.start:
            raise ValueError(f"--end {show_place(self.end)} must be greater than --start {show_place(self.start)}")


@dataclass(frozen=True)
class Frame:
    """One image of a source.

    :param index: counted from the source's first frame. :param image: HxWx3 uint8 BGR; None if it cannot be read.
    :param time: stamp in nanoseconds; 0 if unknown. :param problem: why there is no image.
    :param origin: the message, if the source is a bag.
    """

    index: int
    image: BgrImage | None
    time: int
    problem: str = ""
    origin: BagImage | None = None


class Source(Protocol):
    """A video or the images of a bag."""

    name: str
    """As given by the user."""
    fps: float | None
    """Frames per second, None if unknown."""
    length: int | None
    """Number of frames, None if unknown."""

    notes: list[str]
    """Remarks about the state of the source, one line each; some are known after the last frame only."""

    @property
    def damage(self) -> str:
        """Why the frames ended before the end of the source; empty if they did not."""

    def frames(self, span: Span) -> Iterator[Frame]:
        """Yield the frames of a span."""

    def describe(self) -> dict[str, Any]:
        """Return the fields that identify the source, for the JSON file."""


class VideoFileSource:
    """A `Video` as a source."""

    def __init__(self, path: str) -> None:
        self._video = Video(path)
        self.name, self.fps, self.length = path, self._video.fps, self._video.length
        self.notes = self._video.notes

    @property
    def damage(self) -> str:
        """Why the file has more images than were read; known after the last frame."""
        return self._video.damage

    def frames(self, span: Span) -> Iterator[Frame]:
        """Yield the frames of a span."""
        for frame in self._video.frames(span.start, span.end):
            yield Frame(frame.index, frame.image, round(frame.seconds * 1e9), frame.problem)

    def describe(self) -> dict[str, Any]:
        """Return the name."""
        return {"video": self.name}


def show_place(place: Place) -> str:
    """Return a position as it is written on the command line."""
    return f"{place:g}s" if isinstance(place, float) else str(place)


def total_frames(source: Source, span: Span) -> int | None:
    """Return the number of frames of a span, None if it is not known in advance."""
    if isinstance(span.start, float) or isinstance(span.end, float) or span.stamp is not None:
        return None
    ends = [value for value in (span.end, source.length) if value is not None]
    return max(0, min(ends) - span.start) if ends else None


class BagImage(NamedTuple):
    """An image message of a bag.

    :param time: when it was recorded, nanoseconds.
    :param message: sensor_msgs/Image or CompressedImage, None if damaged.
    :param raw: the serialised message: CDR, or ROS 1's format.
    """

    time: int
    message: Any
    raw: bytes
