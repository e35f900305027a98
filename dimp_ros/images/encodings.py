# SPDX-License-Identifier: Apache-2.0
"""The supported encodings of sensor_msgs/Image, their layout, and the reason for refusing others."""

from __future__ import annotations

import re
from enum import Enum
from typing import Any, NamedTuple

import cv2
import numpy as np


class BadImage(ValueError):
    """An invalid or unsupported image; the text has the reason and the remedy."""


class Kind(Enum):
    """How pixels become BGR or grey."""

    READY = "used as it is"
    COLOR = "channels put in order, alpha dropped, scaled to 8 bits"
    GREY = "grey values scaled between the limits of the stream"
    BAYER = "demosaiced"
    PACKED = "YUV 4:2:2 in pairs of pixels"
    PLANAR = "YUV with a plane of luma and one of chroma"


class Encoding(NamedTuple):
    """One encoding: ``channels`` samples of type ``dtype`` a pixel; ``code`` is cv2's conversion to BGR, if any.

    ``chroma`` is for `Kind.PLANAR`: the columns and rows that share one chroma pair.
    """

    kind: Kind
    channels: int
    dtype: np.dtype[Any]
    code: int | None = None
    chroma: tuple[int, int] = (1, 1)

    def row_bytes(self, width: int) -> int:
        """Return the least number of bytes of a row of ``width`` pixels."""
        if self.kind is Kind.PACKED:
            return 4 * -(-width // 2)
        if self.kind is Kind.PLANAR and self.chroma[0] == 2:
            return 2 * -(-width // 2)
        return width * self.channels * self.dtype.itemsize

    def data_rows(self, height: int) -> int:
        """Return the number of rows of data of an image of ``height`` rows, its chroma plane included."""
        if self.kind is not Kind.PLANAR:
            return height
        return height + (2 * height if self.chroma[0] == 1 else -(-height // self.chroma[1]))


def _table() -> dict[str, Encoding]:
    byte, word = np.dtype(np.uint8), np.dtype(np.uint16)
    table = {"bgr8": Encoding(Kind.READY, 3, byte), "mono8": Encoding(Kind.READY, 1, byte)}
    orders = {"rgb": (3, cv2.COLOR_RGB2BGR), "rgba": (4, cv2.COLOR_RGBA2BGR), "bgra": (4, cv2.COLOR_BGRA2BGR)}
    for name, (channels, code) in orders.items():
        table[f"{name}8"] = Encoding(Kind.COLOR, channels, byte, code)
        table[f"{name}16"] = Encoding(Kind.COLOR, channels, word, code)
    table["bgr16"] = Encoding(Kind.COLOR, 3, word)
    table["mono16"] = Encoding(Kind.GREY, 1, word)
    # OpenCV names a pattern by the second row's second and third pixels, ROS by the first two rows' first two.
    patterns = {
        "rggb": cv2.COLOR_BayerBG2BGR,
        "bggr": cv2.COLOR_BayerRG2BGR,
        "gbrg": cv2.COLOR_BayerGR2BGR,
        "grbg": cv2.COLOR_BayerGB2BGR,
    }
    for name, code in patterns.items():
        table[f"bayer_{name}8"] = Encoding(Kind.BAYER, 1, byte, code)
        table[f"bayer_{name}16"] = Encoding(Kind.BAYER, 1, word, code)
    for name in ("uyvy", "yuv422"):
        table[name] = Encoding(Kind.PACKED, 2, byte, cv2.COLOR_YUV2BGR_UYVY)
    for name in ("yuyv", "yuv422_yuy2"):
        table[name] = Encoding(Kind.PACKED, 2, byte, cv2.COLOR_YUV2BGR_YUYV)
    table["nv12"] = Encoding(Kind.PLANAR, 1, byte, cv2.COLOR_YUV2BGR_NV12, (2, 2))
    table["nv21"] = Encoding(Kind.PLANAR, 1, byte, cv2.COLOR_YUV2BGR_NV21, (2, 2))
    # OpenCV has no code for these; they are rearranged to packed pairs first.
    for name, chroma in (("nv16", (2, 1)), ("nv24", (1, 1))):
        table[name] = Encoding(Kind.PLANAR, 1, byte, cv2.COLOR_YUV2BGR_YUYV, chroma)
    for name, chroma in (("nv61", (2, 1)), ("nv42", (1, 1))):
        table[name] = Encoding(Kind.PLANAR, 1, byte, cv2.COLOR_YUV2BGR_YVYU, chroma)
    types = {"8S": "i1", "16U": "u2", "16S": "i2", "32S": "i4", "32F": "f4", "64F": "f8"}
    for letters, dtype in types.items():
        table[f"{letters}C1"] = Encoding(Kind.GREY, 1, np.dtype(dtype))
    # As in cv_bridge, three unnamed channels are B, G and R.
    table["8UC1"], table["8UC3"], table["8UC4"] = table["mono8"], table["bgr8"], table["bgra8"]
    for letters in ("16U", "32F", "64F"):
        dtype = types[letters]
        table[f"{letters}C3"] = Encoding(Kind.COLOR, 3, np.dtype(dtype))
        table[f"{letters}C4"] = Encoding(Kind.COLOR, 4, np.dtype(dtype), cv2.COLOR_BGRA2BGR)
    return table


ENCODINGS = _table()
"""Every supported encoding, by its name in sensor_msgs/image_encodings.hpp."""
SUPPORTED_ENCODINGS = tuple(ENCODINGS)
COMMON_ENCODINGS = "bgr8, rgb8, mono8, mono16, bayer_rggb8, uyvy, yuyv or nv12"
_MATRIX = re.compile(r"(8|16|32|64)[USF]C(\d*)")


def find_encoding(name: object) -> Encoding:
    """Return the encoding called ``name``.

    :raises BadImage: for an unknown name, and for one whose channels are neither grey nor colour.
    """
    encoding = ENCODINGS.get(name) if isinstance(name, str) else None
    if encoding is not None:
        return encoding
    if not name or not isinstance(name, str):
        raise BadImage(f"image has no encoding; the publisher must set one, such as {COMMON_ENCODINGS}")
    shown = name if len(name) <= 40 else f"{name[:40]}..."  # it goes into a log line
    why = "is not known"
    if _MATRIX.fullmatch(name):
        why = "does not say what its channels show; one channel is grey, 3 or 4 unsigned or float ones are B, G, R (A)"
    elif name.lower() in ENCODINGS or name.upper() in ENCODINGS:
        right = name.lower() if name.lower() in ENCODINGS else name.upper()
        why = f"is not known: it is spelled {right!r}"
    raise BadImage(f"encoding {shown!r} {why}; publish one such as {COMMON_ENCODINGS} (docs/images.md lists all)")
