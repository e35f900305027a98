# SPDX-License-Identifier: Apache-2.0
"""The last few images of a stream, found again by their stamp."""

from __future__ import annotations

import threading
from collections import deque
from typing import TYPE_CHECKING

from dimp_ros.images.stamps import NANOSECONDS, stamp_ns

if TYPE_CHECKING:
    from builtin_interfaces.msg import Time

    from dimp_ros.images.stamps import StampedImage


class ImageNotBuffered(LookupError):
    """No held image has the stamp asked for; the text says which span is held."""


class ImageBuffer:
    """Images of the last ``seconds`` (by their stamps), never more than ``max_frames`` or ``max_bytes``.

    The newest image is always kept, whatever its size. A stamp that goes back (a bag that loops, a reset clock) empties
    the buffer: older images would be taken for future ones. All methods may be called from any thread.
    """

    TOLERANCE_NS = 1_000_000  # a stamp that went through a float has lost less than this
    OVERTAKEN_SECONDS = 1.0  # a request may arrive before its image does; further ahead, or later, it never will

    def __init__(self, seconds: float, max_bytes: int, max_frames: int = 600) -> None:
        self._span_ns = round(seconds * NANOSECONDS)
        self._max_bytes = max_bytes
        self._max_frames = max_frames
        self._frames: deque[tuple[int, StampedImage]] = deque()
        self._bytes = 0
        self._lock = threading.Condition()

    def add(self, image: StampedImage) -> None:
        """Add ``image`` and remove what has become too old or too much."""
        stamp = stamp_ns(image.header.stamp)
        with self._lock:
            if self._frames and stamp < self._frames[-1][0]:
                self._frames.clear()
                self._bytes = 0
            self._frames.append((stamp, image))
            self._bytes += len(image.data)
            while len(self._frames) > 1 and (
                stamp - self._frames[0][0] > self._span_ns
                or len(self._frames) > self._max_frames
                or self._bytes > self._max_bytes
            ):
                self._bytes -= len(self._frames.popleft()[1].data)
            self._lock.notify_all()

    def find(self, stamp: Time) -> StampedImage:
        """Return the image with ``stamp``, to within a millisecond; a zero stamp means the newest.

        Waits for an image whose stamp is just ahead of the newest one's, up to `OVERTAKEN_SECONDS`.

        :raises ImageNotBuffered: if no image is held, or none with that stamp.
        """
        wanted = stamp_ns(stamp)
        with self._lock:
            self._lock.wait_for(lambda: not self._may_come(wanted), self.OVERTAKEN_SECONDS)
            frames = list(self._frames)
        if not frames:
            raise ImageNotBuffered("no image has been received yet")
        if wanted == 0:
            return frames[-1][1]
        found, image = min(reversed(frames), key=lambda frame: abs(frame[0] - wanted))
        if abs(found - wanted) <= self.TOLERANCE_NS:
            return image
        raise ImageNotBuffered(_explain(wanted, [held for held, _ in frames]))

    def _may_come(self, wanted: int) -> bool:
        """Return whether the image of a stamp is probably still on its way."""
        newest = self._frames[-1][0] if self._frames else wanted - 2 * self.TOLERANCE_NS
        ahead = wanted - newest
        return wanted > 0 and self.TOLERANCE_NS < ahead <= self.OVERTAKEN_SECONDS * NANOSECONDS

    def after(self, stamp: int, limit: int, stride: int = 1) -> tuple[int, StampedImage] | None:
        """Return the image that is ``stride`` images after the one of ``stamp``, with its stamp, in nanoseconds.

        Where there are fewer, the last one; where that one has been let go, the oldest held takes its place.

        :param limit: images beyond this stamp do not count. :return: None if there is none in (stamp, limit].
        """
        with self._lock:
            later = [frame for frame in self._frames if stamp < frame[0] <= limit]
        return later[min(stride, len(later)) - 1] if later else None

    @property
    def held(self) -> tuple[int, int]:
        """How many images are held, and their bytes."""
        with self._lock:
            return len(self._frames), self._bytes

    def clear(self) -> None:
        """Remove all images."""
        with self._lock:
            self._frames.clear()
            self._bytes = 0

    def __len__(self) -> int:
        return len(self._frames)


def _explain(wanted: int, held: list[int]) -> str:
    """Return why no image has the stamp ``wanted``, with the span and the nearest stamps that are ``held``."""
    span = f"{len(held)} images from {_text(held[0])} to {_text(held[-1])} are held ({_text(held[-1] - held[0])} s)"
    if wanted < held[0]:
        return (
            f"stamp {_text(wanted)} is {_text(held[0] - wanted)} s too old: {span}; use a newer image, stamp 0 for the "
            "newest, or raise history_seconds"
        )
    if wanted > held[-1]:
        return f"stamp {_text(wanted)} is {_text(wanted - held[-1])} s ahead of the newest image: {span}; use stamp 0"
    before = max(stamp for stamp in held if stamp < wanted)
    after = min(stamp for stamp in held if stamp > wanted)
    return (
        f"no image with stamp {_text(wanted)} was received: {span}, the nearest are {_text(before)} and "
        f"{_text(after)}; copy the stamp from the image's header"
    )


def _text(nanoseconds: int) -> str:
    """Write nanoseconds as seconds with all nine digits, as in a header."""
    return f"{nanoseconds // NANOSECONDS}.{nanoseconds % NANOSECONDS:09d}"
