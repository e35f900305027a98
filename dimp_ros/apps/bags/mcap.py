# SPDX-License-Identifier: Apache-2.0
"""Sequential reading of MCAP files without their index: truncated files, and files of other recorders than ROS 2's.

Channels may have any encoding; ``ext.serialization_format`` of a connection names it.
"""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Collection, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, BinaryIO

from dimp_ros.apps.bags.decompression import LARGEST_CHUNK, unpack

MAGIC = b"\x89MCAP0\r\n"
FOOTER, SCHEMA, CHANNEL, MESSAGE, CHUNK, STATISTICS, DATA_END = 0x02, 0x03, 0x04, 0x05, 0x06, 0x0B, 0x0F
"""Opcodes, see the MCAP specification."""
LARGEST_RECORD = LARGEST_CHUNK + 2**20
"""In bytes, of the kinds that are read."""
_READ = (SCHEMA, CHANNEL, MESSAGE, CHUNK, STATISTICS, DATA_END)
_HEAD, _COUNT = struct.Struct("<BQ"), struct.Struct("<HQ")
_MESSAGE_HEAD, _COUNTS, _LONGEST_END = 22, 46, 64
_FOOTER, _DATA_END = struct.Struct("<BQQQI"), struct.Struct("<BQI")
_ZEROS = 2**20
"""So many zeros after an opcode of 0 are the end of a file that was not closed."""


def has_end(path: Path) -> bool:
    """Return whether a file has the end of an MCAP file that was closed."""
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - len(MAGIC)))
        return file.read() == MAGIC


def index_is_whole(path: Path, begin: int, end: int, chunks: Collection[Any]) -> bool:
    """Return whether a file's index has each chunk of its data once, with its messages, and no message is outside.

    :param begin: of the data, up to ``end``. :param chunks: of the index, as rosbags has them.
    """
    known = {chunk.chunk_start_offset: chunk for chunk in chunks}
    if len(known) < len(chunks):
        return False
    places = sorted(known, reverse=True)
    with path.open("rb") as file:
        while begin < end:
            if begin in known:  # where there is nothing else, nothing is read
                places.pop()
                if not known[begin].message_index_offsets and _has_messages(file, begin):
                    return False
                size = known[begin].chunk_length + known[begin].message_index_length
            else:
                file.seek(begin)
                kind, size = _HEAD.unpack(file.read(_HEAD.size).ljust(_HEAD.size, b"\0"))
                if kind in (CHUNK, MESSAGE, 0):
                    return False
                size += _HEAD.size
            begin += size
            if size < _HEAD.size or (places and places[-1] < begin):
                return False
    return True


def _has_messages(file: BinaryIO, at: int) -> bool:
    """Return whether there is a message in the chunk at a place; True if there is no such chunk."""
    file.seek(at)
    kind, size = _HEAD.unpack(file.read(_HEAD.size).ljust(_HEAD.size, b"\0"))
    if kind != CHUNK or size > LARGEST_RECORD:
        return True
    try:
        return any(inner == MESSAGE for inner, _ in _contents(at, kind, file.read(size)))
    except ValueError:
        return True


class SequentialMcap:
    """An MCAP file up to the first damaged record, with the part of rosbags' reader interface that is used here.

    Opening reads the file once for its topics and counts. Messages come in the order in which they were written.
    `damage`: what is wrong with the first damaged record, and where it is; empty if there is none.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self.connections: list[Any] = []
        self.message_count, self.start_time, self.end_time = 0, 2**63 - 1, 0
        self.damage = ""
        self._data_checksum, self._has_statistics = _checksums(path)
        schemas: dict[int, str] = {}
        by_id: dict[int, Any] = {}
        for kind, record in self._until_damage():
            try:
                if kind == SCHEMA:
                    schemas[_number("<H", record)] = _text(record, 2)[0]
                elif kind == CHANNEL and _number("<H", record) not in by_id:
                    number, schema = struct.unpack_from("<HH", record)
                    topic, after = _text(record, 4)
                    ext = SimpleNamespace(offered_qos_profiles=[], serialization_format=_text(record, after)[0])
                    name = _ros2_name(schemas.get(schema, ""))
                    by_id[number] = SimpleNamespace(id=number, topic=topic, msgtype=name, msgcount=0, ext=ext)
                elif kind == STATISTICS:  # more messages than were read: others are damaged
                    size = _number("<I", record, _COUNTS - 4) // _COUNT.size * _COUNT.size
                    for number, count in _COUNT.iter_unpack(record[_COUNTS : _COUNTS + size]):
                        if number in by_id:
                            by_id[number].msgcount = max(by_id[number].msgcount, count)
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
        """Yield connection, time and message; raise ValueError at the first damaged record, or, if the file has a
        checksum of all its data, at the end.
        """
        wanted = {connection.id: connection for connection in connections}
        for kind, record in self._records():
            if kind == MESSAGE and (number := _number("<H", record)) in wanted:
                yield wanted[number], _number("<Q", record, 6), record[_MESSAGE_HEAD:]
        if self._data_checksum:
            raise ValueError(self._data_checksum)

    def _until_damage(self) -> Iterator[tuple[int, bytes]]:
        try:
            yield from self._records()
        except ValueError as error:
            self.damage = str(error)

    def close(self) -> None:
        """Do nothing: no file is open between two passes."""

    def _records(self) -> Iterator[tuple[int, bytes]]:
        """Yield the records of the file and of its chunks; of those behind the data, only the statistics.

        A file without its end, whose recorder was killed, may end in an incomplete record or in zeros.

        :raises ValueError: at the first damaged record, with its place.
        """
        with self._path.open("rb") as file:
            if file.read(len(MAGIC)) != MAGIC:
                return
            behind = False
            try:
                for at, kind, record in _split(file, self._path.stat().st_size, whole=has_end(self._path)):
                    behind = behind or kind == DATA_END
                    if behind == (kind == STATISTICS) and (not behind or self._has_statistics):
                        yield from _contents(at, kind, record)
            except ValueError:
                if not behind:  # every message was read
                    raise


def _checksums(path: Path) -> tuple[str, bool]:
    """Return what is wrong with the checksum of a file's data, empty if nothing or if it has none, and whether that of
    what is behind them is right, or not there.
    """
    footer_at = path.stat().st_size - len(MAGIC) - _FOOTER.size
    if not has_end(path) or footer_at < len(MAGIC):
        return "", True
    with path.open("rb") as file:
        file.seek(footer_at)
        kind, size, summary_at, _, summary = _FOOTER.unpack(file.read(_FOOTER.size))
        summary_at = summary_at or footer_at
        if (kind, size) != (FOOTER, _FOOTER.size - _HEAD.size) or not _DATA_END.size < summary_at <= footer_at:
            return "", True
        sound = not summary or summary == _crc(file, summary_at, footer_at + _FOOTER.size - 4)
        file.seek(summary_at - _DATA_END.size)
        kind, size, expected = _DATA_END.unpack(file.read(_DATA_END.size))
        if (kind, size) != (DATA_END, _DATA_END.size - _HEAD.size) or not expected:
            return "", sound
        found = _crc(file, 0, summary_at - _DATA_END.size)
    wrong = f"the checksum of the file's data is {found:#010x}, and must be {expected:#010x}"
    return wrong if found != expected else "", sound


def _crc(file: BinaryIO, begin: int, end: int) -> int:
    """Return the CRC-32 of a range."""
    file.seek(begin)
    found = 0
    while begin < end and (part := file.read(min(2**20, end - begin))):
        found, begin = zlib.crc32(part, found), begin + len(part)
    return found


def _contents(at: int, kind: int, record: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield a record, or those in it if it is a chunk. :param at: its place, for the error text."""
    try:
        for inner, content in _split_bytes(_unpacked(record)) if kind == CHUNK else [(kind, record)]:
            if inner == MESSAGE and len(content) < _MESSAGE_HEAD:
                raise ValueError(f"a message has {len(content)} bytes, fewer than its head")
            yield inner, content
    except Exception as error:  # errors of damaged data
        raise ValueError(f"the record at byte {at}: {error}") from error


def _split(file: BinaryIO, end: int, *, whole: bool) -> Iterator[tuple[int, int, bytes]]:
    """Yield position, opcode and content of each record up to the footer; content only of the kinds that are read.

    :param whole: whether the file has its end. Without it, its last record may be incomplete, and zeros may follow.
    :raises ValueError: for a record that cannot be one, with its position.
    """
    while True:
        at = file.tell()
        head = file.read(_HEAD.size)
        kind, size = _HEAD.unpack(head) if len(head) == _HEAD.size else (0, 0)
        rest = end - file.tell()
        if not whole and (rest < size <= LARGEST_RECORD if kind else not any(file.read(_ZEROS))):
            return
        early = (kind == FOOTER and whole and rest != size + len(MAGIC)) or (kind == DATA_END and size > _LONGEST_END)
        if not kind or early or size > rest or (kind in _READ and size > LARGEST_RECORD):
            raise ValueError(f"no valid record at byte {at}: it would be of kind {kind:#04x} and {size} bytes")
        if kind == FOOTER:
            return
        if kind in _READ:
            yield at, kind, file.read(size)
        else:
            file.seek(size, os.SEEK_CUR)


def _split_bytes(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield opcode and content of each record in a chunk; raise ValueError for one that cannot be one."""
    position = 0
    while position < len(data):
        head = data[position : position + _HEAD.size]
        kind, size = _HEAD.unpack(head) if len(head) == _HEAD.size else (0, 0)
        begin = position + _HEAD.size
        if not kind or size > len(data) - begin:
            what = f"it would be of kind {kind:#04x} and {size} bytes"
            raise ValueError(f"no valid record at byte {position} of the {len(data)} of a chunk: {what}")
        yield kind, data[begin : begin + size]
        position = begin + size


def _unpacked(chunk: bytes) -> bytes:
    """Return the records of a chunk; raise ValueError if their checksum, where it has one, differs."""
    compression, position = _text(chunk, 28)
    size = _number("<Q", chunk, position)
    data = chunk[position + 8 : position + 8 + size]
    if len(data) < size:
        raise ValueError(f"a chunk of {len(chunk)} bytes says that it holds {size}")
    records, checksum = unpack(data, compression, _number("<Q", chunk, 16)), _number("<I", chunk, 24)
    if checksum and zlib.crc32(records) != checksum:
        raise ValueError(f"the checksum of a chunk is {zlib.crc32(records):#010x}, and must be {checksum:#010x}")
    return records


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
