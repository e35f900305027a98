# SPDX-License-Identifier: Apache-2.0
"""Decompression of chunks and messages of bags, with a bound on the size: a few megabytes may expand to gigabytes."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from bz2 import BZ2Decompressor
from io import BytesIO
from types import SimpleNamespace
from typing import Any, BinaryIO

from dimp_ros.apps.bags.databases import PlainDatabases
from dimp_ros.files.yaml_file import parse_yaml

LARGEST_CHUNK = 2**28
"""Largest decompressed size of a chunk or message, bytes; recorders write chunks of megabytes."""

_PIECE = 2**24

LARGEST_PROFILES = 2**16
"""Characters of the QoS profiles of a topic."""

LARGEST_RATIO = 200
"""How many times their size files that were compressed as a whole may have, beyond `LARGEST_CHUNK`."""


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
    whole = BytesIO()  # whose value is not copied
    while data:  # there may be several frames
        decompressor = _decompressor(compression)
        while not decompressor.eof:
            whole.write(decompressor.decompress(data, max_length=_PIECE))
            data = b""
            if whole.tell() > LARGEST_CHUNK:
                raise _too_large(f"more than {LARGEST_CHUNK} bytes")
            if decompressor.needs_input and not decompressor.eof:
                raise ValueError(f"a chunk compressed with {compression} was cut off")
        data = decompressor.unused_data or b""
    return whole.getvalue()


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
    """Replace the decompressors of rosbags, which have no bound on the size, by `unpack`, and bound its databases."""
    from rosbags.rosbag1 import reader as ros1
    from rosbags.rosbag2 import metadata, storage_mcap, storage_sqlite3
    from rosbags.rosbag2 import reader as ros2
    from ruamel.yaml import YAML

    for name in storage_mcap.DECOMPRESSORS:
        storage_mcap.DECOMPRESSORS[name] = lambda data, size, name=name: unpack(data, name, size)
    for name in ros1.decompressors:
        ros1.decompressors[name] = lambda data, name=name: unpack(data, name)
    ros2.zstd = SimpleNamespace(decompress=lambda data: unpack(data, "zstd"), open=_WholeFiles().open)
    storage_sqlite3.apsw = PlainDatabases()
    metadata.YAML = type("BoundedYaml", (YAML,), {"load": lambda _self, text: _parse_profiles(text)})


def _parse_profiles(text: str) -> Any:
    """Return QoS profiles, which a recorder writes as a text of YAML into metadata.yaml or a database."""
    if len(text) > LARGEST_PROFILES:
        raise ValueError(f"QoS profiles of a topic have {len(text)} characters, and may have {LARGEST_PROFILES}")
    return parse_yaml(text)


class _WholeFiles:
    """Opens the files of a bag that were compressed as a whole, with a bound on all of them together.

    rosbags unpacks them to the folder of temporary files before it reads them.
    """

    def __init__(self) -> None:
        self._known: set[tuple[int, int]] = set()
        self._size, self._unpacked = 0, 0
        self._free = shutil.disk_usage(tempfile.gettempdir()).free // 2

    def open(self, file: BinaryIO, _mode: str) -> BinaryIO:
        """Return the stream of a file's content, which raises ValueError where it becomes too large."""
        status = os.fstat(file.fileno())
        if (status.st_dev, status.st_ino) not in self._known:  # metadata.yaml may name a file again and again
            self._known.add((status.st_dev, status.st_ino))
            self._size += status.st_size
        stream: BinaryIO = _zstd().open(file, "rb")
        read = stream.read

        def bounded(count: int = -1) -> bytes:
            data = read(count)
            self._unpacked += len(data)
            if self._unpacked > min(LARGEST_CHUNK + LARGEST_RATIO * self._size, self._free):
                raise ValueError(
                    f"its {self._size} bytes unpack to more than {LARGEST_RATIO} times as many, or half of what is "
                    f"free in {tempfile.gettempdir()}; unpack them with unzstd, or set TMPDIR to a larger disk"
                )
            return data

        stream.read = bounded  # type: ignore[method-assign]
        return stream


def _zstd() -> Any:
    if sys.version_info >= (3, 14):
        from compression import zstd
    else:
        from backports import zstd
    return zstd


def _too_large(size: str) -> ValueError:
    return ValueError(f"a chunk unpacks to {size}, and may unpack to {LARGEST_CHUNK}; record it in smaller chunks")
