# SPDX-License-Identifier: Apache-2.0
"""Sequential reading of MCAP files without their index: truncated files, and files of other recorders than ROS 2's.

Channels may have any encoding; ``ext.serialization_format`` of a connection names it.
"""

from __future__ import annotations

import struct
from collections.abc import Collection, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, BinaryIO

from dimp_ros.apps.bags.decompression import unpack

MAGIC = b"\x89MCAP0\r\n"
SCHEMA, CHANNEL, MESSAGE, CHUNK, DATA_END = 0x03, 0x04, 0x05, 0x06, 0x0F
"""Opcodes of the records that are read; see the MCAP specification."""
_MESSAGE_HEAD = 22


def has_end(path: Path) -> bool:
    """Return whether a file has the end of an MCAP file that was closed."""
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - len(MAGIC)))
        return file.read() == MAGIC


class SequentialMcap:
    """An MCAP file up to the first damaged record, with the part of rosbags' reader interface that is used here.

    Opening reads the file once for its topics and counts. Messages come in the order in which they were written.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self.connections: list[Any] = []
        self.message_count, self.start_time, self.end_time = 0, 2**63 - 1, 0
        self.damage = ""
        schemas: dict[int, str] = {}
        by_id: dict[int, Any] = {}
        for kind, record in self._records():
            try:
                if kind == SCHEMA:
                    schemas[_number("<H", record)] = _text(record, 2)[0]
                elif kind == CHANNEL and _number("<H", record) not in by_id:
                    number, schema = struct.unpack_from("<HH", record)
                    topic, after = _text(record, 4)
                    ext = SimpleNamespace(offered_qos_profiles=[], serialization_format=_text(record, after)[0])
                    name = _ros2_name(schemas.get(schema, ""))
                    by_id[number] = SimpleNamespace(id=number, topic=topic, msgtype=name, msgcount=0, ext=ext)
            except (struct.error, UnicodeDecodeError):  # its messages are not read
                continue
            if kind == MESSAGE and _number("<H", record) in by_id:
                time = _number("<Q", record, 6)
                by_id[_number("<H", record)].msgcount += 1
                self.message_count += 1
                self.start_time, self.end_time = min(self.start_time, time), max(self.end_time, time + 1)
        self.connections = list(by_id.values())

    @property
    def topics(self) -> dict[str, Any]:
        """Each topic with its type and the number of its messages."""
        found: dict[str, Any] = {}
        for connection in self.connections:
            topic = found.setdefault(connection.topic, SimpleNamespace(msgtype=connection.msgtype, msgcount=0))
            topic.msgcount += connection.msgcount
            topic.msgtype = topic.msgtype if topic.msgtype == connection.msgtype else None
        return found

    def messages(self, connections: Collection[Any]) -> Iterator[tuple[Any, int, bytes]]:
        """Yield connection, time and message."""
        wanted = {connection.id: connection for connection in connections}
        for kind, record in self._records():
            if kind == MESSAGE and (number := _number("<H", record)) in wanted:
                yield wanted[number], _number("<Q", record, 6), record[_MESSAGE_HEAD:]

    def close(self) -> None:
        """Do nothing: no file is open between two passes."""

    def _records(self) -> Iterator[tuple[int, bytes]]:
        """Yield the records of the file and of its chunks, up to the first incomplete one."""
        with self._path.open("rb") as file:
            if file.read(len(MAGIC)) != MAGIC:
                return
            for kind, record in _split(file, self._path.stat().st_size):
                if kind == DATA_END:
                    return
                try:
                    for inner, content in _split_bytes(_unpacked(record)) if kind == CHUNK else [(kind, record)]:
                        if inner == MESSAGE and len(content) < _MESSAGE_HEAD:
                            raise ValueError(f"a message has {len(content)} bytes, fewer than its head")
                        yield inner, content
                except Exception as error:  # errors of damaged data
                    self.damage = str(error)
                    return


def _split(file: BinaryIO, end: int) -> Iterator[tuple[int, bytes]]:
    """Yield opcode and content of each complete record, up to an opcode of 0, which is not valid."""
    while len(head := file.read(9)) == 9:
        kind, size = struct.unpack("<BQ", head)
        if not kind or size > end - file.tell():
            return
        yield kind, file.read(size)


def _split_bytes(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield opcode and content of each record in a chunk, up to an opcode of 0."""
    position = 0
    while position < len(data):
        kind, size = struct.unpack_from("<BQ", data, position)
        if not kind:
            return
        yield kind, data[position + 9 : position + 9 + size]
        position += 9 + size


def _unpacked(chunk: bytes) -> bytes:
    """Return the records of a chunk."""
    compression, position = _text(chunk, 28)
    data = chunk[position + 8 : position + 8 + _number("<Q", chunk, position)]
    return unpack(data, compression, _number("<Q", chunk, 16))


def _ros2_name(name: str) -> str:
    """Return the name of a message type with /msg/, which ROS 1 omits."""
    package, _, rest = name.partition("/")
    return f"{package}/msg/{rest}" if rest and "/" not in rest else name


def _number(form: str, data: bytes, position: int = 0) -> int:
    return int(struct.unpack_from(form, data, position)[0])


def _text(data: bytes, position: int) -> tuple[str, int]:
    """Return the string at a position, and the position behind it."""
    end = position + 4 + _number("<I", data, position)
    return data[position + 4 : end].decode(), end
