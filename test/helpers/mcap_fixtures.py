# SPDX-License-Identifier: Apache-2.0
"""MCAP files without an index, with any channels, chunks and further records; others with a part of an index."""

from __future__ import annotations

import struct
import sys
from collections.abc import Container
from pathlib import Path

import numpy as np
from lz4.frame import compress as lz4_compress

from dimp_ros.apps.bags.mcap import MAGIC
from dimp_ros.apps.bags.types import IMAGE, ros2_types

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

__all__ = [
    "CAMERA",
    "Channel",
    "chunk_record",
    "lz4_compress",
    "record",
    "serialized",
    "text",
    "write_indexed_mcap",
    "write_mcap",
    "zstd",
]


def serialized(index: int, form: str) -> bytes:
    """Return an image message of 32 x 24 grey pixels, all ``index``, as "cdr" or "ros1"."""
    stamp, pixels = 1_700_000_000 + index, bytes([index]) * (32 * 24)
    if form == "ros1":
        header = struct.pack("<IIII3s", index, stamp, 0, 3, b"cam")
        return header + struct.pack("<III5sBII", 24, 32, 5, b"mono8", 0, 32, len(pixels)) + pixels
    types = ros2_types()
    make = types.types
    head = make["std_msgs/msg/Header"](make["builtin_interfaces/msg/Time"](stamp, 0), "cam")
    image = make[IMAGE](head, 24, 32, "mono8", 0, 32, np.frombuffer(pixels, np.uint8))
    return bytes(types.serialize_cdr(image, IMAGE))


def record(kind: int, content: bytes) -> bytes:
    return struct.pack("<BQ", kind, len(content)) + content


def text(value: str) -> bytes:
    return struct.pack("<I", len(value)) + value.encode()


def chunk_record(content: bytes, compression: str, declared: int, checksum: int = 0) -> bytes:
    """Return a chunk that says that it unpacks to ``declared`` bytes; a checksum of 0 is none."""
    packed = {"": bytes, "zstd": zstd.compress, "lz4": lz4_compress}[compression](content)
    head = struct.pack("<QQQI", 0, 0, declared, checksum) + text(compression)
    return record(6, head + struct.pack("<Q", len(packed)) + packed)


Channel = tuple[str, str, str, str]  # topic, type, encoding of the type, of the messages
CAMERA: Channel = ("/cam", IMAGE, "ros2msg", "cdr")


def write_mcap(path: Path, channels: list[Channel], profile: str = "ros2", chunk: str = "", more: bytes = b"") -> Path:
    """Write an MCAP file without an index, five messages on each channel.

    :param chunk: how the messages are compressed, as one chunk; not at all by default. :param more: further records.
    """
    data = b""
    for number, (topic, name, schema, encoding) in enumerate(channels, 1):
        data += record(3, struct.pack("<H", number) + text(name) + text(schema) + text(""))
        data += record(4, struct.pack("<HH", number, number) + text(topic) + text(encoding) + text(""))
    for index in range(5):
        for number, (_, _, _, encoding) in enumerate(channels, 1):
            content = serialized(index, encoding) if encoding in ("cdr", "ros1") else b"{}"
            data += record(5, struct.pack("<HIQQ", number, index, index * 10**8 + 1, 0) + content)
    data = (chunk_record(data, chunk, len(data)) if chunk else data) + more
    footer = record(15, bytes(4)) + record(2, bytes(20))
    path.write_bytes(MAGIC + record(1, text(profile) + text("test")) + data + footer + MAGIC)
    return path


def write_indexed_mcap(
    path: Path,
    *,
    left_out: Container[int] = (),
    twice: Container[int] = (),
    without_offsets: Container[int] = (),
    outside: Container[int] = (),
    statistics: bool = False,
) -> Path:
    """Write an MCAP file of five chunks with a message each.

    :param left_out: chunks that its index lacks. :param twice: chunks that it has twice. :param without_offsets: chunks
        without an index of their messages. :param outside: messages that are in no chunk.
    """
    topic = record(3, struct.pack("<H", 1) + text(IMAGE) + text("ros2msg") + text(""))
    topic += record(4, struct.pack("<HH", 1, 1) + text("/cam") + text("cdr") + text(""))
    data, index = MAGIC + record(1, text("ros2") + text("test")) + topic, topic
    for number in range(5):
        time = number * 10**8 + 1
        message = record(5, struct.pack("<HIQQ", 1, number, time, time) + serialized(number, "cdr"))
        if number in outside:
            data += message
            continue
        chunk, at = chunk_record(message, "", len(message)), len(data)
        offsets = b"" if number in without_offsets else struct.pack("<HQ", 1, at + len(chunk))
        messages = record(7, struct.pack("<HIQQ", 1, 16, time, 0)) if offsets else b""
        data += chunk + messages
        place = struct.pack("<QQQQI", time, time, at, len(chunk), len(offsets)) + offsets
        place += struct.pack("<Q", len(messages)) + text("") + struct.pack("<QQ", len(message), len(message))
        index += record(8, place) * (0 if number in left_out else 2 if number in twice else 1)
    if statistics:
        index += record(11, struct.pack("<QHIIIIQQIHQ", 5, 1, 1, 0, 0, 5, 1, 4 * 10**8 + 1, 10, 1, 5))
    data += record(15, bytes(4))
    path.write_bytes(data + index + record(2, struct.pack("<QQI", len(data), 0, 0)) + MAGIC)
    return path
