# SPDX-License-Identifier: Apache-2.0
"""JPEG images for browsers in several qualities, each encoded once for all browsers."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, NamedTuple

import cv2
from numpy.typing import NDArray

if TYPE_CHECKING:
    from dimp_ros.apps.console.state import VideoImage


class Level(NamedTuple):
    """A quality: the greatest width in pixels, and JPEG's 0 to 100."""

    width: int
    quality: int


def ladder(max_width: int) -> tuple[Level, ...]:
    """Return the qualities from the best to the least, each with some 0.45 to 0.6 of the bytes of the one before it."""
    steps = ((1.0, 80), (0.75, 75), (0.56, 70), (0.42, 65), (0.3, 55), (0.2, 45))
    return tuple(Level(max(96, round(max_width * share)), quality) for share, quality in steps)


def encode(picture: NDArray[Any], level: Level) -> bytes:
    """Return ``picture``, HxWx3 uint8 BGR, as JPEG; it is never enlarged.

    :raises ValueError: if it cannot be encoded.
    """
    height, width = picture.shape[:2]
    if width > level.width:
        size = (level.width, max(1, round(height * level.width / width)))
        picture = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
    done, data = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, level.quality])
    if not done:
        raise ValueError(f"an image of {width} x {height} pixels could not be encoded as JPEG")
    return bytes(data)


class Encoded(NamedTuple):
    """A JPEG, and the size of the original image, in pixels."""

    jpeg: bytes
    width: int
    height: int


class JpegEncoder:
    """Encodes JPEGs in a thread of its own, one after the other; used by the event loop only.

    Results for the newest image are kept: ten browsers on equal links cost as much as one.
    """

    def __init__(self, levels: tuple[Level, ...]) -> None:
        self.levels = levels
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="console_jpeg")
        self._made: dict[tuple[int, int], asyncio.Future[Encoded]] = {}
        self._opened: tuple[int, NDArray[Any]] | None = None
        self.count = 0
        """How many JPEGs were encoded."""

    async def get(self, frame: VideoImage, level: int) -> Encoded:
        """Return ``frame`` in the quality of index ``level``.

        :raises ValueError: for an image that cannot be shown.
        """
        key = (frame.number, level)
        if key not in self._made:
            self._made = {kept: made for kept, made in self._made.items() if kept[0] >= frame.number - 1}
            self._made[key] = asyncio.ensure_future(
                asyncio.get_running_loop().run_in_executor(self._thread, self._make, frame, level)
            )
        return await asyncio.shield(self._made[key])

    def _make(self, frame: VideoImage, level: int) -> Encoded:
        if self._opened is None or self._opened[0] != frame.number:
            self._opened = (frame.number, frame.open())
        picture = self._opened[1]
        self.count += 1
        return Encoded(encode(picture, self.levels[level]), picture.shape[1], picture.shape[0])

    def close(self) -> None:
        """Stop the thread."""
        self._thread.shutdown(wait=False, cancel_futures=True)
