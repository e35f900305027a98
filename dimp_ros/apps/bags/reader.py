# SPDX-License-Identifier: Apache-2.0
"""Images of a bag, read one by one without ROS: rosbag2 (sqlite3 or MCAP, a folder or a file) and ROS 1."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

from dimp_ros.apps.bags.files import error_text, open_readers, shown
from dimp_ros.apps.bags.types import COMPRESSED_IMAGE, IMAGE, ros1_types, ros2_types
from dimp_ros.images.compressed_image import compressed_picture
from dimp_ros.images.contrast import Contrast
from dimp_ros.images.conversion import BadImage, to_bgr, to_picture
from dimp_ros.images.frame_source import BagImage, Frame, Span
from dimp_ros.images.stamps import NANOSECONDS, stamp_ns

LISTED_TOPICS = 30
MEASURED_IMAGES = 30
"""Number of images from which the rate of a topic is computed."""


@dataclass(frozen=True)
class Topic:
    """A topic of a bag: name, type, number of messages, and messages per second.

    ``encoding``: "cdr" (ROS 2), "ros1", or others, which are not supported.
    """

    name: str
    type: str
    count: int
    rate: float
    encoding: str = "cdr"

    @property
    def has_images(self) -> bool:
        """Whether it has images in a supported encoding."""
        return self.type in (IMAGE, COMPRESSED_IMAGE) and self.encoding in ("cdr", "ros1")

    def __str__(self) -> str:
        kind = self.type.replace("/msg/", "/") + ("" if self.encoding in ("cdr", "ros1") else f" as {self.encoding}")
        return f"{shown(self.name)} ({shown(kind)}, {self.count} messages, {self.rate:.3g} a second)"


class ImageBag:
    """The images of one topic of a bag, read on demand, one in memory at a time.

    `notes`: remarks about the state of its files. `damage`: why the last pass ended early; empty if it did not.

    :param topic: may be None if the bag has only one topic with images.
    :raises ImportError: without rosbags. :raises ValueError: if there are no images to read, with the remedy.
    """

    def __init__(self, path: str, topic: str | None = None) -> None:
        self.name = path
        self.damage = ""
        self._types = ros2_types()  # first, for the error text without rosbags
        self._readers, self.notes, self._told = open_readers(Path(path))
        try:
            self.topic = self._choose(topic)
        except BaseException:
            self.close()
            raise
        self.is_ros1 = self.topic.encoding == "ros1"
        self._deserialize = ros1_types().deserialize_ros1 if self.is_ros1 else self._types.deserialize_cdr
        self._to_picture: Callable[..., Any] = to_picture if self.topic.type == IMAGE else compressed_picture
        self._contrast = Contrast()
        self.length: int | None = self.topic.count
        self.fps = self._measured_rate()

    def __enter__(self) -> ImageBag:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the files."""
        for reader in self._readers:
            reader.close()
        self._readers = []

    def describe(self) -> dict[str, Any]:
        """Return the bag and the topic."""
        return {"bag": self.name, "topic": self.topic.name}

    def topics(self) -> list[Topic]:
        """Return all topics by name."""
        count: dict[tuple[str, str, str], int] = {}
        for reader in self._readers:
            encodings: dict[str, str] = {}
            for connection in reader.connections:
                encoding = getattr(connection.ext, "serialization_format", "ros1")
                same = encodings.setdefault(connection.topic, encoding) == encoding
                encodings[connection.topic] = encoding if same else "several encodings"
            for name, info in reader.topics.items():
                key = (name, info.msgtype or "several types", encodings.get(name, "cdr"))
                count[key] = count.get(key, 0) + info.msgcount
        kinds = Counter(name for name, _, _ in count)
        count |= {key: max(n, self._told.get(key[0], 0)) for key, n in count.items() if kinds[key[0]] == 1}
        filled = [reader for reader in self._readers if reader.message_count]
        begin = min((reader.start_time for reader in filled), default=0)
        seconds = (max((reader.end_time for reader in filled), default=0) - begin) / NANOSECONDS
        return [
            Topic(name, kind, n, (n - 1) / seconds if n > 1 and seconds > 0 else 0.0, encoding)
            for (name, kind, encoding), n in sorted(count.items())
        ]

    @property
    def qos(self) -> list[Any]:
        """The QoS profiles of the images' publishers, rosbags' `Qos`; empty for ROS 1."""
        return next((list(c.ext.offered_qos_profiles) for _, c in self._connections() if not self.is_ros1), [])

    def frames(self, span: Span) -> Iterator[Frame]:
        """Yield the images of a span in the order in which they were recorded.

        An unreadable image is a frame without image. A truncated bag ends early; `damage` has the reason.

        :raises ValueError: if no image has the stamp at which the span starts.
        """
        first, started, nearest = 0, span.stamp is None, None
        for index, image in enumerate(self._images()):
            first = first or image.time
            if not started:
                assert span.stamp is not None
                off = _stamp(image) - span.stamp
                started = abs(off) < 1_000_000  # rounding of a stamp to float is less than this
                nearest = off if nearest is None else min(nearest, off, key=abs)
            seconds = (image.time - first) / NANOSECONDS
            if span.end is not None and (seconds if isinstance(span.end, float) else index) >= span.end:
                break
            if started and (seconds if isinstance(span.start, float) else index) >= span.start:
                yield self._frame(index, image)
        if not started and nearest is not None:
            raise ValueError(
                f"no image on {self.topic.name} has the stamp {show_stamp(span.stamp or 0)}: the nearest is "
                f"{show_stamp((span.stamp or 0) + nearest)}; copy the stamp from the image's header"
            )

    def _choose(self, name: str | None) -> Topic:
        """Return the topic called ``name``, or the only one with images."""
        topics = self.topics()
        images = [topic for topic in topics if topic.has_images]
        known = f"; its topics with images are:\n  {_listed(images, chr(10) + '  ')}"
        if not images:
            known = f"; it has no topic with images, only {_listed(topics, ', ') or 'nothing at all'}"
            known += "" if topics else ": where its metadata.yaml is of a recorder that was killed, move that away"
        if name is None:
            if len(images) == 1:
                return images[0]
            raise ValueError(f"{self.name}: which images? Give --topic NAME{known}")
        for topic in topics:
            if topic.name.lstrip("/") == name.lstrip("/"):
                if topic in images:
                    return topic
                raise ValueError(f"{self.name}: {topic} has no images{known}")
        raise ValueError(f"{self.name} has no topic {name}{known}")

    def _connections(self) -> Iterator[tuple[Any, Any]]:
        for reader in self._readers:
            for connection in reader.connections:
                if (connection.topic, connection.msgtype) == (self.topic.name, self.topic.type):
                    yield reader, connection

    def _raw(self) -> Iterator[tuple[int, bytes]]:
        """Yield time and bytes of each image message; files of split bags in order of time."""
        for reader in self._readers:
            connections = [connection for owner, connection in self._connections() if owner is reader]
            if connections:
                for _, time, raw in reader.messages(connections=connections):
                    if not isinstance(time, int) or not isinstance(raw, bytes):
                        raise ValueError(
                            f"a message is {type(raw).__name__} at time {time!r}; it must be bytes at an int"
                        )
                    yield time, raw

    def _images(self) -> Iterator[BagImage]:
        self.damage, self._contrast = "", Contrast()  # each pass gives the same images
        count = 0
        try:
            for time, raw in self._raw():
                try:
                    message = self._deserialize(raw, self.topic.type)
                except Exception:  # of rosbags, numpy or struct
                    message = None
                count += 1
                yield BagImage(time, message, raw)
        except Exception as error:  # of sqlite, a decompressor or struct: the file is damaged
            self.damage = (
                f"{self.name} is damaged after {count} images of {shown(self.topic.name)}: {error_text(error)}"
            )
            return
        if count < self.topic.count:  # undetected damage, such as a block of zeros without checksum
            self.damage = f"{self.name} is damaged: {self.topic.count - count} of {self.topic.count} images are missing"

    def _frame(self, index: int, image: BagImage) -> Frame:
        if image.message is None:
            return Frame(index, None, 0, f"its {len(image.raw)} bytes are no {self.topic.type}", image)
        try:
            pixels = to_bgr(self._to_picture(image.message, self._contrast))
            return Frame(index, pixels, _stamp(image) or image.time, "", image)
        except BadImage as error:
            return Frame(index, None, _stamp(image) or image.time, str(error), image)

    def _measured_rate(self) -> float | None:
        """Return the rate of the first images, from their recording times."""
        try:
            times = [time for time, _ in islice(self._raw(), MEASURED_IMAGES)]
        except Exception:  # is reported when the images are read
            return None
        steps = [later - earlier for earlier, later in pairwise(times) if later > earlier]
        return NANOSECONDS / statistics.median(steps) if steps else None


def _listed(topics: Sequence[Topic], separator: str) -> str:
    """Return the first topics as a text, and how many more there are."""
    more = [f"and {len(topics) - LISTED_TOPICS} more"] if len(topics) > LISTED_TOPICS else []
    return separator.join([*map(str, topics[:LISTED_TOPICS]), *more])


def _stamp(image: BagImage) -> int:
    """Return the stamp in the image's header, nanoseconds; 0 if the message is unreadable."""
    return 0 if image.message is None else stamp_ns(image.message.header.stamp)


def show_stamp(nanoseconds: int) -> str:
    """Return nanoseconds as seconds with nine decimals."""
    return f"{nanoseconds // NANOSECONDS}.{nanoseconds % NANOSECONDS:09d}"
