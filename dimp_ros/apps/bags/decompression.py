# SPDX-License-Identifier: Apache-2.0
"""Chunks and messages of bags, unpacked within bounds: a few megabytes may unpack to gigabytes."""

from __future__ import annotations

import sys
from bz2 import BZ2Decompressor
from types import SimpleNamespace
from typing import Any

LARGEST_CHUNK = 2**28
"""Bytes that a chunk, or a message that is compressed by itself, may unpack to; recorders write chunks of megabytes."""


def unpack(data: bytes, compression: str, size: int | None = None) -> bytes:
    """Return what was compressed with "lz4", "zstd" or "bz2", or not at all: "" or "none".

    :param size: what the file says it unpacks to, if it does.
    :raises ValueError: if it says, or is, more than `LARGEST_CHUNK`, or is damaged.
    """
    if size is not None and size > LARGEST_CHUNK:
        raise _too_large(f"{size} bytes")
    if compression in ("", "none"):
        if len(data) > LARGEST_CHUNK:
            raise _too_large(f"{len(data)} bytes")
        return data
    parts, room = [], LARGEST_CHUNK
    while data:  # frames may follow one another
        decompressor = _decompressor(compression)
        parts.append(decompressor.decompress(data, max_length=room + 1))
        room -= len(parts[-1])
        if room < 0:
            raise _too_large(f"more than {LARGEST_CHUNK} bytes")
        if not decompressor.eof:
            raise ValueError(f"a chunk that is compressed with {compression} was cut off")
        data = decompressor.unused_data or b""
    return b"".join(parts)


def _decompressor(compression: str) -> Any:
    if compression == "zstd":
        return _zstd().ZstdDecompressor()
    if compression == "lz4":
        from lz4.frame import LZ4FrameDecompressor

        return LZ4FrameDecompressor()
    if compression == "bz2":
        return BZ2Decompressor()
    raise ValueError(f"compression {compression!r} is not known, only lz4, zstd and bz2")


def bound_rosbags() -> None:
    """Let rosbags unpack within bounds: its tables of decompressors, which have none, are replaced."""
    from rosbags.rosbag1 import reader as ros1
    from rosbags.rosbag2 import reader as ros2
    from rosbags.rosbag2 import storage_mcap

    for name in storage_mcap.DECOMPRESSORS:
        storage_mcap.DECOMPRESSORS[name] = lambda data, size, name=name: unpack(data, name, size)
    for name in ros1.decompressors:
        ros1.decompressors[name] = lambda data, name=name: unpack(data, name)
    messages = SimpleNamespace(decompress=lambda data: unpack(data, "zstd"), open=_zstd().open)
    ros2.zstd = messages


def _zstd() -> Any:
    if sys.version_info >= (3, 14):
        from compression import zstd
    else:
        from backports import zstd
    return zstd


def _too_large(size: str) -> ValueError:
    return ValueError(f"a chunk unpacks to {size}, and may unpack to {LARGEST_CHUNK}; record it in smaller chunks")
