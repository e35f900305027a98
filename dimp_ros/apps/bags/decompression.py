# SPDX-License-Identifier: Apache-2.0
"""Decompression of chunks and messages of bags, with a bound on the size: a few megabytes may expand to gigabytes."""

from __future__ import annotations

import sys
from bz2 import BZ2Decompressor
from types import SimpleNamespace
from typing import Any

LARGEST_CHUNK = 2**28
"""Largest decompressed size of a chunk or message, bytes; recorders write chunks of megabytes."""


def unpack(data: bytes, compression: str, size: int | None = None) -> bytes:
    """Return the decompressed data.

    :param compression: "lz4", "zstd", "bz2", or "" or "none". :param size: the declared decompressed size, if any.
    :raises ValueError: if the declared or the real size exceeds `LARGEST_CHUNK`, or the data are damaged.
    """
    if size is not None and size > LARGEST_CHUNK:
        raise _too_large(f"{size} bytes")
    if compression in ("", "none"):
        if len(data) > LARGEST_CHUNK:
            raise _too_large(f"{len(data)} bytes")
        return data
    parts, room = [], LARGEST_CHUNK
    while data:  # there may be several frames
        decompressor = _decompressor(compression)
        parts.append(decompressor.decompress(data, max_length=room + 1))
        room -= len(parts[-1])
        if room < 0:
            raise _too_large(f"more than {LARGEST_CHUNK} bytes")
        if not decompressor.eof:
            raise ValueError(f"a chunk compressed with {compression} was cut off")
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
    """Replace the decompressors of rosbags, which have no bound on the size, by `unpack`."""
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
