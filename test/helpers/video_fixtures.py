# SPDX-License-Identifier: Apache-2.0
"""Videos of variable frame rate, as phones and screen recorders write them."""

from __future__ import annotations

import struct
from pathlib import Path


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
