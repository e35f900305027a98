# SPDX-License-Identifier: Apache-2.0
"""The structure of video files: whether MP4, AVI, Matroska and WebM were cut off or have a gap that is no part of them.

FFmpeg reads on behind such a gap, or stops, and tells nobody.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import BinaryIO, NamedTuple

_MP4_DATA = {b"mdat", b"moov", b"moof"}
_MOST_BOXES, _LONGEST_LIST = 100_000, 2**20
"""Boxes of an MP4 side by side, and bytes of one that is read."""
_AVI_PARTS, _UNCLOSED = {b"RIFF", b"LIST"}, {0, 2**32 - 1}
_EBML, _SEGMENT, _CLUSTER = 0x1A45DFA3, 0x18538067, 0x1F43B675


def find_damage(path: Path, *, closed: bool = False) -> str:
    """Return what is wrong with a video's file; empty if nothing is, or for other containers and unfinished files.

    :param closed: it is FFmpeg's and finished: its lengths must be filled in, and be exact.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(12)
        if head[4:8] == b"ftyp":
            return _mp4(file, size)
        if head[:4] == b"RIFF" and head[8:] == b"AVI ":
            return _avi(file, size, closed)
        return _matroska(file, size, closed) if head[:4] == _EBML.to_bytes(4, "big") else ""


_OPEN = "it was not closed"


def _cut_off(size: int, end: int) -> str:
    return f"it was cut off at byte {size} of {end}"


def _mp4(file: BinaryIO, size: int) -> str:
    for kind, _, end in islice(_boxes(file, 0, size), _MOST_BOXES):
        if kind in _MP4_DATA and end > size:
            return _cut_off(size, end)
    return ""


def _boxes(file: BinaryIO, at: int, limit: int) -> Iterator[tuple[bytes, int, int]]:
    """Yield kind, begin of the content and end of the boxes of an MP4 that begin in a range."""
    while at + 8 <= limit:
        file.seek(at)
        length, kind = struct.unpack(">I4s", file.read(8))
        begin = at + 8
        if length == 1 and at + 16 <= limit:
            length, begin = struct.unpack(">Q", file.read(8))[0], at + 16
        end = at + length if length else limit
        if end < begin:
            return
        yield kind, begin, end
        at = end


class Mp4Length(NamedTuple):
    """How long the video of an MP4 is shown, and how much of it its edit list leaves out, seconds; whether all images
    but perhaps the last are shown equally long.
    """

    shown: float
    hidden: float
    steady: bool


def mp4_length(path: Path) -> Mp4Length | None:
    """Return the length of an MP4's video; None for other containers, and for one that is written in fragments."""
    with path.open("rb") as file:
        if file.read(8)[4:] != b"ftyp":
            return None
        try:
            boxes = _inside(file, 0, path.stat().st_size)
            movie = boxes[b"moov"][0]
            scale, _ = _clock(file, *_inside(file, *movie)[b"mvhd"][0])
            for track in _inside(file, *movie)[b"trak"] if b"moof" not in boxes else ():
                parts = _inside(file, *track)
                media = _inside(file, *parts[b"mdia"][0])
                if _bytes(file, *media[b"hdlr"][0])[8:12] == b"vide":
                    own, ticks = _clock(file, *media[b"mdhd"][0])
                    whole = ticks / own
                    edits = _inside(file, *parts[b"edts"][0]).get(b"elst") if b"edts" in parts else None
                    shown = (_edited(_bytes(file, *edits[0])) / scale if edits else 0.0) or whole
                    table = _inside(file, *_inside(file, *media[b"minf"][0])[b"stbl"][0])[b"stts"][0]
                    steps = list(struct.iter_unpack(">II", _bytes(file, *table)[8:][: 2 * 8]))
                    (entries,) = struct.unpack_from(">I", _bytes(file, *table), 4)
                    steady = entries == 1 or (entries == 2 and steps[1][0] == 1)
                    return Mp4Length(shown, max(0.0, whole - shown), steady)
        except (LookupError, struct.error, ZeroDivisionError):  # an unusual file
            return None
    return None


def _inside(file: BinaryIO, begin: int, end: int) -> dict[bytes, list[tuple[int, int]]]:
    """Return begin and end of the content of each kind of box in a range."""
    found: dict[bytes, list[tuple[int, int]]] = {}
    for kind, first, last in islice(_boxes(file, begin, end), _MOST_BOXES):
        found.setdefault(kind, []).append((first, last))
    return found


def _bytes(file: BinaryIO, begin: int, end: int) -> bytes:
    file.seek(begin)
    return file.read(min(end - begin, _LONGEST_LIST))


def _clock(file: BinaryIO, begin: int, end: int) -> tuple[int, int]:
    """Return ticks in a second, and the duration in ticks, of mvhd or mdhd."""
    data = _bytes(file, begin, end)
    scale, duration = struct.unpack_from(">IQ", data, 20) if data[:1] == b"\1" else struct.unpack_from(">II", data, 12)
    return scale, duration


def _edited(data: bytes) -> int:
    """Return the duration of all edits of an elst but the empty ones, in ticks of the movie."""
    entry = struct.Struct(">QqI" if data[:1] == b"\1" else ">IiI")
    entries = entry.iter_unpack(data[8 : 8 + (len(data) - 8) // entry.size * entry.size])
    return sum(duration for duration, media_time, _ in entries if media_time >= 0)


def _avi(file: BinaryIO, size: int, closed: bool) -> str:
    at, limit = 0, 0
    while at + 12 <= size:
        file.seek(at)
        kind, length, _ = struct.unpack("<4sI4s", file.read(12))
        if at >= limit:  # between the RIFFs of a large file
            if kind != b"RIFF" or length in _UNCLOSED:
                return _OPEN if closed and kind == b"RIFF" else ""
            limit = at + 8 + length
            if limit > size + (0 if closed else 64):  # some recorders count their own head, too
                return _cut_off(size, limit)
        if not all(32 <= byte < 127 for byte in kind):
            return f"it is damaged at byte {at}"
        at += 12 if kind in _AVI_PARTS else 8 + length + length % 2
    return ""


def _matroska(file: BinaryIO, size: int, closed: bool) -> str:
    """Walk through the elements; one of unknown length is of a stream or of a recorder that may have been killed."""
    at, limits, unfinished = 0, [size], False
    while at < size:
        while at >= limits[-1] and len(limits) > 1:
            limits.pop()
        file.seek(at)
        head = file.read(12)
        found = _element(head)
        if found is None:
            return "" if len(limits) == 1 or (unfinished and size < at + 12) else f"it is damaged at byte {at}"
        name, begin, length = found
        end = limits[-1] if length is None else at + begin + length
        unfinished = unfinished or (name == _SEGMENT and length is None)
        if closed and unfinished:
            return _OPEN
        if name == _SEGMENT and end > size:
            return _cut_off(size, end)
        if (len(limits) == 1 and name not in (_EBML, _SEGMENT)) or (unfinished and end > size):
            return ""
        if end > limits[-1]:
            return f"it is damaged at byte {at}"
        if name in (_SEGMENT, _CLUSTER):
            if name == _CLUSTER:  # one of unknown length ends where the next begins
                del limits[2:]
            limits.append(end)
        at = at + begin if name in (_SEGMENT, _CLUSTER) else end
    return ""


def _element(head: bytes) -> tuple[int, int, int | None] | None:
    """Return an element's number, the length of its head and that of its content; None if the bytes cannot be one."""
    if len(head) < 2 or head[0] < 0x10:
        return None
    wide = 9 - head[0].bit_length()
    if len(head) <= wide or not head[wide]:
        return None
    more = 9 - head[wide].bit_length()
    if len(head) < wide + more:
        return None
    length = int.from_bytes(head[wide : wide + more], "big") & ((1 << 7 * more) - 1)
    unknown = length == (1 << 7 * more) - 1
    return int.from_bytes(head[:wide], "big"), wide + more, None if unknown else length
