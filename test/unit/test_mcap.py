# SPDX-License-Identifier: Apache-2.0
"""MCAP files without an index that are damaged in the middle, cut off, or whole."""

from __future__ import annotations

import struct
import tracemalloc
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest

pytest.importorskip("rosbags", reason="rosbags is not installed: pip install rosbags")
from helpers.mcap_fixtures import CAMERA, chunk_record, record, write_mcap

from dimp_ros.apps.bags.mcap import MAGIC
from dimp_ros.apps.bags.reader import ImageBag
from dimp_ros.images.frame_source import Span

END = record(15, bytes(4)) + record(2, bytes(20)) + MAGIC


def parts(path: Path) -> tuple[bytes, bytes]:
    """Return the header and the records of a camera's five images, 841 bytes each."""
    content = write_mcap(path, [CAMERA], "x").read_bytes()[: -len(END)]
    end = len(MAGIC) + 9 + struct.unpack_from("<Q", content, len(MAGIC) + 1)[0]
    return content[:end], content[end:]


def read(path: Path, content: bytes) -> tuple[int, list[str], str]:
    """Write a file and return the number of its images, the notes and the damage."""
    path.write_bytes(content)
    with ImageBag(str(path)) as bag:
        return len(list(bag.frames(Span()))), bag.notes, bag.damage


def third(data: bytes) -> int:
    """Return where the record of the third image begins."""
    at = 0
    for _ in range(4):  # schema, channel, two images
        at += 9 + struct.unpack_from("<Q", data, at + 1)[0]
    return at


def put(form: str, offset: int, value: int) -> Callable[[bytearray, int], None]:
    return lambda data, at: struct.pack_into(form, data, at + offset, value)


DAMAGE = {
    "no kind": put("<B", 0, 0),
    "length beyond the file": put("<Q", 1, 2**40),
    "length a little too long": put("<Q", 1, 5000),
    "length a little too short": put("<Q", 1, 700),
    "zeros": lambda data, at: data.__setitem__(slice(at - 4, at + 500), bytes(504)),
    "ones": lambda data, at: data.__setitem__(slice(at, at + 500), b"\xff" * 500),
    "end of data": put("<B", 0, 15),
    "footer": put("<B", 0, 2),
}


ENDS = ("end of data", "footer")  # a chunk has none


@pytest.mark.parametrize(
    ("name", "chunk"),
    [(name, chunk) for chunk in (None, "", "zstd") for name in DAMAGE if chunk is None or name not in ENDS],
)
def test_damage_in_the_middle_is_reported_with_its_byte(tmp_path, name, chunk):
    begin, whole = parts(tmp_path / "x.mcap")
    data = bytearray(whole)
    DAMAGE[name](data, third(whole))
    later = b"" if chunk is None else chunk_record(whole, chunk, len(whole))
    content = bytes(data) if chunk is None else chunk_record(bytes(data), chunk, len(data))
    count, notes, damage = read(tmp_path / "x.mcap", begin + content + later + END)
    assert (count, notes) == (2 if name != "length a little too short" else 3, [])
    assert f"is damaged after {count} images of /cam: ValueError: " in damage and " at byte " in damage


@pytest.mark.parametrize("compression", ["", "lz4", "zstd"])
@pytest.mark.parametrize("end", [END, b"", record(6, bytes(2**20))[:1000]], ids=["whole", "cut", "cut in a chunk"])
@pytest.mark.parametrize("at", [9 + 4, 9 + 22 + 60, 9 + 500], ids=["time", "header", "pixels"])
def test_chunk_whose_checksum_differs_is_damage_and_not_read(tmp_path, compression, end, at):
    begin, whole = parts(tmp_path / "x.mcap")
    data = bytearray(whole)
    checksum = zlib.crc32(data)
    good = chunk_record(whole, compression, len(whole), checksum)
    assert read(tmp_path / "x.mcap", begin + good + end)[::2] == (5, "")
    data[third(whole) + at] ^= 0x10
    bad = chunk_record(bytes(data), compression, len(data), checksum)
    count, _, damage = read(tmp_path / "x.mcap", begin + good + bad + good + end)
    assert count == 5 and f"at byte {len(begin + good)}: the checksum of a chunk is" in damage


def closed(begin: bytes, data: bytes, summary: bytes = b"") -> bytes:
    """Return a file with the checksums of its data, and of what is behind them."""
    content = MAGIC + begin[len(MAGIC) :] + data
    content += record(15, struct.pack("<I", zlib.crc32(content)))
    footer = record(2, struct.pack("<QQI", len(content) if summary else 0, 0, 0))[:-4]
    return content + summary + footer + struct.pack("<I", zlib.crc32(summary + footer)) + MAGIC


@pytest.mark.parametrize("statistics", [False, True])
@pytest.mark.parametrize("chunk", [None, ""])
def test_wrong_checksum_of_the_data_is_damage_after_the_last_image(tmp_path, chunk, statistics):
    """It says of no message whether it is whole: each is read."""
    begin, data = parts(tmp_path / "x.mcap")
    places = {"time": third(data) + 13, "pixels": third(data) + 500, "name of a topic": data.index(b"/cam") + 1}
    counts = struct.pack("<QHIIIIQQI", 5, 1, 1, 0, 0, 0, 0, 0, 10) + struct.pack("<HQ", 1, 5)
    summary = record(0x0B, counts) if statistics else b""
    good = closed(begin, data if chunk is None else chunk_record(data, chunk, len(data)), summary)
    assert read(tmp_path / "x.mcap", good) == (5, [], "")
    for at in places.values():
        bad = bytearray(data)
        bad[at] ^= 0x10
        content = bytes(bad) if chunk is None else chunk_record(bytes(bad), chunk, len(bad))
        end = good[-len(closed(b"", b"", summary)) + len(MAGIC) :]
        count, _, damage = read(tmp_path / "x.mcap", begin + content + end)
        assert count == 5 and "the checksum of the file's data is" in damage


@pytest.mark.parametrize("number", [7, 5, 3])
def test_statistics_with_a_wrong_checksum_do_not_count(tmp_path, number):
    begin, data = parts(tmp_path / "x.mcap")
    counts = struct.pack("<QHIIIIQQI", 7, 1, 1, 0, 0, 0, 0, 0, 10) + struct.pack("<HQ", 1, 7)
    content = closed(begin, data, record(0x0B, counts))
    assert read(tmp_path / "x.mcap", content)[2].endswith("2 of 7 images are missing")
    at = content.index(counts) + len(counts) - 8
    damaged = content[:at] + struct.pack("<Q", number ^ 0x40) + content[at + 8 :]
    assert read(tmp_path / "x.mcap", damaged) == (5, [], "")


@pytest.mark.parametrize("kind", [0x41, 0x10, 0x05 ^ 0x80])
def test_messages_that_statistics_count_and_nobody_finds_are_missing(tmp_path, kind):
    begin, whole = parts(tmp_path / "x.mcap")
    data = bytearray(whole)
    counts = struct.pack("<QHIIIIQQI", 5, 1, 1, 0, 0, 0, 0, 0, 10) + struct.pack("<HQ", 1, 5)
    end = record(15, bytes(4)) + record(0x0B, counts) + END[len(record(15, bytes(4))) :]
    assert read(tmp_path / "x.mcap", begin + whole + end) == (5, [], "")
    data[third(whole)] = kind  # of another's extension: it is not read
    assert read(tmp_path / "x.mcap", begin + bytes(data) + end)[2].endswith("1 of 5 images are missing")


@pytest.mark.parametrize(
    "end",
    [
        END,
        record(9, bytes(3000)) + END,
        record(15, bytes(4)) + bytes(500) + END,  # nothing but the index is damaged
        record(15, bytes(4)) + record(0x0B, bytes(50)) + record(0x0B, b"short") + END,
        END[:-30],
        b"",
        record(5, bytes(900))[:-1],
        record(5, bytes(900))[:7],
        record(6, bytes(2**20))[:1000],
        bytes(5),
        bytes(100_000),
    ],
)
def test_a_file_of_which_every_message_is_read_is_not_called_damaged(tmp_path, end):
    begin, whole = parts(tmp_path / "x.mcap")
    count, notes, damage = read(tmp_path / "x.mcap", begin + whole + end)
    assert (count, damage) == (5, "")
    assert len(notes) == (not end.endswith(MAGIC)) and all("was cut off" in note for note in notes)


def test_zeros_in_the_middle_of_a_file_without_its_end_are_damage(tmp_path):
    begin, whole = parts(tmp_path / "x.mcap")
    count, notes, damage = read(tmp_path / "x.mcap", begin + whole + bytes(4096) + whole[third(whole) :])
    assert count == 5 and "was cut off" in notes[0] and f"no valid record at byte {len(begin + whole)}" in damage


def test_records_that_are_not_needed_are_not_read(tmp_path):
    begin, whole = parts(tmp_path / "x.mcap")
    path, size = tmp_path / "x.mcap", 2**33
    path.write_bytes(begin + whole + struct.pack("<BQ", 9, size))
    with path.open("r+b") as file:
        file.seek(size, 2)
        file.write(END)
    tracemalloc.start()
    with ImageBag(str(path)) as bag:
        assert len(list(bag.frames(Span()))) == 5 and bag.damage == ""
    assert tracemalloc.get_traced_memory()[1] < 2**24
    tracemalloc.stop()


def test_a_message_of_gigabytes_is_damage_and_not_read(tmp_path):
    begin, whole = parts(tmp_path / "x.mcap")
    path, size = tmp_path / "x.mcap", 2**33
    path.write_bytes(begin + whole + struct.pack("<BQ", 5, size))
    with path.open("r+b") as file:
        file.seek(size, 2)
        file.write(END)
    with ImageBag(str(path)) as bag:
        assert len(list(bag.frames(Span()))) == 5
        assert f"no valid record at byte {len(begin + whole)}: it would be of kind 0x05 and {size} bytes" in bag.damage
