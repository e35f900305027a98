# SPDX-License-Identifier: Apache-2.0
"""Videos of other kinds than OpenCV writes: of variable frame rate, interlaced, turned."""

from __future__ import annotations

import struct
from collections.abc import Container
from pathlib import Path

import cv2
import numpy as np


def set_frame_durations(path: Path, seconds: list[float]) -> None:
    """Change how long the frames of an MP4 are shown, in seconds: its box stts."""
    data = path.read_bytes()
    (scale,) = struct.unpack_from(">I", data, data.index(b"mdhd") + 16)
    at = data.index(b"stts") - 4
    (size,) = struct.unpack_from(">I", data, at)
    table = b"".join(struct.pack(">II", 1, round(scale * duration)) for duration in seconds)
    box = struct.pack(">I4sII", 16 + len(table), b"stts", 0, len(seconds)) + table
    data = data[:at] + box + data[at + size :]
    for name in (b"stbl", b"minf", b"mdia", b"trak", b"moov"):  # the boxes around it; nothing lies behind moov
        place = data.rindex(name, 0, at) - 4
        (old,) = struct.unpack_from(">I", data, place)
        data = data[:place] + struct.pack(">I", old + len(box) - size) + data[place + 4 :]
    path.write_bytes(data.replace(b"edts", b"free"))  # the edit list ends the film at its old length


def write_mpeg2(path: Path, images: list[np.ndarray], interlaced: Container[int] = (), degrees: int = 0) -> None:
    """Write images as MPEG-2, those with the numbers ``interlaced`` marked so; an MP4 to be turned by ``degrees``."""
    height, width = images[0].shape[:2]
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mpg2"), 25.0, (width, height))
    assert writer.isOpened()
    for image in images:
        writer.write(image)
    writer.release()
    data, at, number = bytearray(path.read_bytes()), -1, 0
    while (at := data.find(b"\0\0\1\xb5", at + 1)) >= 0:
        kind = data[at + 4] >> 4
        if kind == 1:  # sequence extension
            data[at + 5] &= ~8  # progressive_sequence
        elif kind == 8:  # picture coding extension
            if number in interlaced:
                data[at + 8] &= 0x7F  # progressive_frame
            number += 1
    if degrees:
        cosine, sine = (round(value) << 16 for value in cv2.getRotationMatrix2D((0, 0), degrees, 1)[0, :2])
        struct.pack_into(">9i", data, data.index(b"tkhd") + 44, cosine, -sine, 0, sine, cosine, 0, 0, 0, 1 << 30)
    path.write_bytes(data)
