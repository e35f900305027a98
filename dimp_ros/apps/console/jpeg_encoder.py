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
    """A quality level: largest width in pixels, and JPEG quality, 0 to 100."""

    width: int
    quality: int


def ladder(max_width: int) -> tuple[Level, ...]:
    """Return the levels from best to worst, each with about 0.45 to 0.6 of the bytes of the one before."""
    steps = ((1.0, 80), (0.75, 75), (0.56, 70), (0.42, 65), (0.3, 55), (0.2, 45))
    return tuple(Level(max(96, round(max_width * share)), quality) for share, quality in steps)


def encode(image: NDArray[Any], level: Level) -> bytes:
    """Return ``image``, HxWx3 uint8 BGR, as JPEG; it is never enlarged.

    :raises ValueError: if it cannot be encoded.
    """
    height, width = image.shape[:2]
    if width > level.width:
        size = (level.width, max(1, round(height * level.width / width)))
        image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    done, data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, level.quality])
    if not done:
        raise ValueError(f"an image of {width} x {height} pixels could not be encoded as JPEG")
    return bytes(data)


class Encoded(NamedTuple):
    """A JPEG and the size of the original image in pixels."""

    jpeg: bytes
    width: int
    height: int


class JpegEncoder:
    """Encodes JPEGs one by one in its own thread; used by the event loop only.

    Results for the newest images are cached: ten browsers at one level cost as much as one.
    """

    def __init__(self, levels: tuple[Level, ...]) -> None:
        self.levels = levels
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="console_jpeg")
        self._encoded: dict[tuple[int, int], asyncio.Future[Encoded]] = {}
        self._decoded: tuple[int, NDArray[Any]] | None = None
        self.count = 0
        """Number of JPEGs encoded so far."""

    async def get(self, frame: VideoImage, level: int) -> Encoded:
        """Return ``frame`` at the quality level with index ``level``.

        :raises ValueError: for an image that cannot be shown.
        """
        key = (frame.number, level)
        if key not in self._encoded:
            self._encoded = {other: jpeg for other, jpeg in self._encoded.items() if other[0] >= frame.number - 1}
            self._encoded[key] = asyncio.ensure_future(
                asyncio.get_running_loop().run_in_executor(self._thread, self._make, frame, level)
            )
        return await asyncio.shield(self._encoded[key])

    def _make(self, frame: VideoImage, level: int) -> Encoded:
        if self._decoded is None or self._decoded[0] != frame.number:
            self._decoded = (frame.number, frame.open())
        image = self._decoded[1]
        self.count += 1
        return Encoded(encode(image, self.levels[level]), image.shape[1], image.shape[0])

    def close(self) -> None:
        """Stop the thread."""
        self._thread.shutdown(wait=False, cancel_futures=True)
