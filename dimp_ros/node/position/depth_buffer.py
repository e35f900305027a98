# SPDX-License-Identifier: Apache-2.0
"""A buffer of the last depth images, and the depths inside a box."""

from __future__ import annotations

import math
import threading
from collections import deque
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from dimp_ros.geometry.box import Box
from dimp_ros.geometry.camera import same_shape
from dimp_ros.images.conversion import BadImage
from dimp_ros.images.stamps import NANOSECONDS, stamp_ns

if TYPE_CHECKING:
    from builtin_interfaces.msg import Time
    from sensor_msgs.msg import Image

_MIDDLE = 0.5
"""Share of a box's sides that is read: near its edges, there is background."""

_LEAST_SIDE = 3
_MOST_SAMPLES = 48
"""Maximum number of pixels per side; of larger regions every second, third ... is read."""


class DepthBuffer:
    """Holds the newest depth images, up to a number and an amount of memory. Safe to use from several threads.

    :param max_bytes: for their data; the newest is held however large it is.
    """

    def __init__(self, max_bytes: int, max_images: int = 30) -> None:
        self._max_bytes = max_bytes
        self._images: deque[tuple[int, int, Image]] = deque(maxlen=max_images)  # stamp, bytes, image
        self._lock = threading.Lock()

    def __len__(self) -> int:
        """How many images are held."""
        return len(self._images)

    def add(self, image: Image) -> None:
        """Add ``image`` and remove the oldest that are too much."""
        entry = (stamp_ns(image.header.stamp), len(image.data), image)
        with self._lock:
            self._images.append(entry)
            total = sum(size for _, size, _ in self._images)
            while total > self._max_bytes and len(self._images) > 1:
                total -= self._images.popleft()[1]

    def nearest(self, stamp: Time) -> tuple[Image, float] | None:
        """Return the image whose stamp is nearest to ``stamp``, and how far off it is in seconds; None without any.

        Of several with that stamp it is the one that came last.
        """
        wanted = stamp_ns(stamp)
        with self._lock:
            if not self._images:
                return None
            found, _, image = min(reversed(self._images), key=lambda entry: abs(entry[0] - wanted))
        return image, (found - wanted) / NANOSECONDS

    def clear(self) -> None:
        """Remove all images."""
        with self._lock:
            self._images.clear()


def depths_inside(depth: Image, box: Box, width: int, height: int) -> NDArray[np.float64]:
    """Return the depths in the middle of ``box``, [rows, columns] in metres; NaN or 0 where there is none.

    Nothing but that region of the message's data is read.

    :param depth: 16UC1 in millimetres or 32FC1 in metres, aligned to the image; of its size or another resolution.
    :param box: (x, y, w, h) in pixels of the ``width`` x ``height`` image; of what is outside there are no depths.
    :raises BadImage: for an inconsistent message, another encoding or another shape.
    """
    pixels = _pixels(depth)
    if not same_shape(depth.width, depth.height, width, height):
        raise BadImage(
            f"depth image is {depth.width} x {depth.height}, the image {width} x {height}, another shape; "
            "publish depth that is aligned (registered) to the image"
        )
    visible = box.clipped(width, height)
    x, y = visible.center
    across, down = depth.width / width, depth.height / height
    columns = _middle(x * across, visible.w * across, depth.width)
    rows = _middle(y * down, visible.h * down, depth.height)
    if visible.area <= 0.0:
        columns = slice(0)
    region = pixels[rows, columns]
    with np.errstate(invalid="ignore"):  # a signalling NaN
        metres = region.astype(np.float64)
    if pixels.dtype.kind == "u":
        metres[region == np.iinfo(np.uint16).max] = 0.0  # some cameras say by it that there is none
        metres *= 0.001
    return metres


def _middle(center: float, side: float, end: int) -> slice:
    """Return the pixels of one axis that are looked at."""
    half = max(side * _MIDDLE, _LEAST_SIDE) / 2.0
    first, last = max(0, math.floor(center - half)), min(end, math.ceil(center + half))
    return slice(first, last, max(1, math.ceil((last - first) / _MOST_SAMPLES)))


def _pixels(depth: Image) -> NDArray[np.generic]:
    """Return a view of a depth image's data, [height, width], uint16 or float32 of either byte order."""
    kind = {"16UC1": "u2", "mono16": "u2", "32FC1": "f4"}.get(depth.encoding)
    if kind is None:
        raise BadImage(f"depth image has encoding {depth.encoding!r}; publish 16UC1 (millimetres) or 32FC1 (metres)")
    item = np.dtype((">" if depth.is_bigendian else "<") + kind)
    if depth.width < 1 or depth.height < 1:
        raise BadImage(f"depth image is {depth.width} x {depth.height} pixels; both sides must be at least 1")
    if depth.step < depth.width * item.itemsize or len(depth.data) < depth.step * depth.height:
        raise BadImage(
            f"depth image has {len(depth.data)} bytes and step {depth.step}; {depth.width} x {depth.height} pixels in "
            f"{depth.encoding} need a step of {depth.width * item.itemsize} or more and step x height bytes"
        )
    strides = (depth.step, item.itemsize)
    return np.ndarray((depth.height, depth.width), item, buffer=depth.data, strides=strides)
