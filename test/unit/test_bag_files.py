# SPDX-License-Identifier: Apache-2.0
"""Foreign bags: MCAP of other recorders, upper-case suffixes, chunks that expand to gigabytes."""

from __future__ import annotations

import bz2
import os
import re
import shutil
import sqlite3
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from functools import partial
from pathlib import Path

import pytest
import yaml

pytest.importorskip("rosbags", reason="rosbags is not installed: pip install rosbags")
from harness.bag_fixtures import COUNT, shots, write_ros2
from helpers.mcap_fixtures import (
    CAMERA,
    Channel,
    chunk_record,
    lz4_compress,
    record,
    text,
    write_indexed_mcap,
    write_mcap,
    zstd,
)

from dimp_ros.apps.bags import databases, decompression, files
from dimp_ros.apps.bags.files import is_bag
from dimp_ros.apps.bags.mcap import MAGIC
from dimp_ros.apps.bags.reader import ImageBag
from dimp_ros.apps.bags.types import IMAGE
from dimp_ros.images.frame_source import Span


@pytest.mark.parametrize(
    ("channels", "profile"),
    [
        ([CAMERA, ("/info", "Info", "jsonschema", "json")], "ros2"),
        ([("/info", "foxglove.Image", "protobuf", "protobuf"), CAMERA], ""),
        ([("/json", IMAGE, "jsonschema", "json"), CAMERA], "ros2"),
        ([CAMERA], ""),
        ([("/cam", "sensor_msgs/Image", "ros1msg", "ros1")], "ros1"),
        ([("/cam", IMAGE, "", "cdr")], "x"),
    ],
)
@pytest.mark.parametrize("chunk", ["", "zstd", "lz4"])
def test_images_are_read_beside_channels_of_other_encodings(
    tmp_path: Path, channels: list[Channel], profile: str, chunk: str
) -> None:
    path = write_mcap(tmp_path / "FLIGHT.MCAP", channels, profile, chunk)
    assert is_bag(str(path))
    with ImageBag(str(path)) as bag:
        frames = list(bag.frames(Span()))
        assert (bag.topic.name, bag.notes, bag.damage) == ("/cam", [], "")
    assert [frame.image.mean() for frame in frames if frame.image is not None] == [0, 1, 2, 3, 4]


def test_images_of_an_unknown_encoding_are_listed_with_it(tmp_path: Path) -> None:
    path = write_mcap(tmp_path / "x.mcap", [("/cam", IMAGE, "jsonschema", "json")])
    with pytest.raises(ValueError, match=r"no topic with images, only /cam \(sensor_msgs/Image as json, 5 messages"):
        ImageBag(str(path))


@pytest.mark.parametrize("in_chunk", [False, True])
@pytest.mark.parametrize("kind", [3, 4, 5])
@pytest.mark.parametrize("content", [b"", b"\x01", b"\x01\0\0\0\xff\0\0\0\xff", b"\xff" * 21])
def test_record_shorter_than_its_fields_costs_no_other_message(
    tmp_path: Path, kind: int, content: bytes, in_chunk: bool
) -> None:
    short = record(kind, content)
    more = chunk_record(short, "zstd", len(short)) if in_chunk else short
    path = write_mcap(tmp_path / "x.mcap", [CAMERA], more=more)
    with ImageBag(str(path)) as bag:
        assert len(list(bag.frames(Span()))) == 5


@pytest.mark.parametrize("statistics", [False, True])
@pytest.mark.parametrize(
    "index",
    [
        {},
        {"left_out": [0]},
        {"left_out": [1, 2]},
        {"left_out": [4]},
        {"left_out": range(5)},
        {"twice": [2]},
        {"without_offsets": [3]},
        {"without_offsets": range(5)},
        {"outside": [2]},
        {"outside": [4]},
        {"outside": range(5)},
    ],
    ids=str,
)
def test_what_an_index_lacks_is_read(tmp_path: Path, index: dict[str, list[int]], statistics: bool) -> None:
    path = write_indexed_mcap(tmp_path / "x.mcap", statistics=statistics, **index)
    for source in (path, tmp_path):
        with ImageBag(str(source)) as bag:
            frames = list(bag.frames(Span()))
            assert (bag.length, bag.damage, bag.notes) == (5, "", [])
        assert [frame.image.mean() for frame in frames if frame.image is not None] == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("in_folder", [False, True])
@pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
def test_capital_suffixes_are_read(tmp_path: Path, storage: str, in_folder: bool) -> None:
    folder = write_ros2(tmp_path / "made", shots(), storage)
    (file,) = folder.glob("made.*")
    capital = file.rename(file.with_suffix(file.suffix.upper()))
    (folder / "metadata.yaml").unlink()
    path = folder if in_folder else capital
    with ImageBag(str(path)) as bag:
        assert is_bag(str(path)) and len(list(bag.frames(Span()))) == COUNT and not bag.damage


READ = r"""
import re, sys
from dimp_ros.apps.bags.reader import ImageBag
from dimp_ros.images.frame_source import Span
try:
    bag = ImageBag(sys.argv[1])
    print(len(list(bag.frames(Span()))), bag.damage)
except ValueError as error:
    print(error)
# Not ru_maxrss: a process starts with what its parent had when it forked.
print(int(re.search(r"VmHWM:\s+(\d+) kB", open("/proc/self/status").read()).group(1)) * 1024)
"""
BOMB = 2**31


@pytest.mark.parametrize("declared", [1000, BOMB, 2**62])
@pytest.mark.parametrize("compression", ["zstd", "lz4"])
def test_chunk_that_unpacks_to_gigabytes_is_not_unpacked(tmp_path: Path, compression: str, declared: int) -> None:
    part = zstd.compress(bytes(2**24)) if compression == "zstd" else lz4_compress(bytes(2**24))
    packed = part * (BOMB // 2**24)  # frames one behind the other are one stream
    head = struct.pack("<QQQI", 0, 0, declared, 0) + text(compression) + struct.pack("<Q", len(packed))
    path = write_mcap(tmp_path / "x.mcap", [CAMERA], more=record(6, head + packed))
    result = subprocess.run([sys.executable, "-c", READ, path], capture_output=True, text=True, check=True, timeout=60)
    assert int(result.stdout.split()[-1]) < 2**29 + 2**28, result.stdout


@pytest.mark.parametrize("compression", ["", "zstd", "lz4", "bz2"])
def test_unpacking_is_bounded_whatever_is_declared(monkeypatch: pytest.MonkeyPatch, compression: str) -> None:
    monkeypatch.setattr(decompression, "LARGEST_CHUNK", 1000)
    pack = {"": bytes, "zstd": zstd.compress, "lz4": lz4_compress, "bz2": bz2.compress}[compression]
    assert decompression.unpack(pack(bytes(1000)), compression, 1000) == bytes(1000)
    assert decompression.unpack(2 * pack(bytes(500)), compression) == bytes(1000)
    if compression:
        with pytest.raises(ValueError, match="was cut off"):
            decompression.unpack(pack(bytes(1000))[:-5], compression)
    for declared in (None, 5, 1001):
        with pytest.raises(ValueError, match="may unpack to 1000"):
            decompression.unpack(pack(bytes(1001)), compression, declared)
    with pytest.raises(ValueError, match="'xz' is not known"):
        decompression.unpack(b"x", "xz")


def test_rosbags_unpacks_within_the_same_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    from rosbags.rosbag1 import reader as ros1
    from rosbags.rosbag2 import reader as ros2
    from rosbags.rosbag2 import storage_mcap

    decompression.bound_rosbags()
    monkeypatch.setattr(decompression, "LARGEST_CHUNK", 1000)
    packed = {"lz4": lz4_compress(bytes(1001)), "zstd": zstd.compress(bytes(1001)), "bz2": bz2.compress(bytes(1001))}
    calls = [partial(storage_mcap.DECOMPRESSORS[name], packed[name], 5) for name in ("lz4", "zstd")]
    calls += [partial(ros1.decompressors[name], packed[name]) for name in ("lz4", "bz2")]
    calls.append(partial(ros2.zstd.decompress, packed["zstd"]))
    for call in calls:
        with pytest.raises(ValueError, match="may unpack to 1000"):
            call()


def compress_whole(folder: Path, file: Path, times: int = 1) -> Path:
    """Compress the only file of a bag, and return the new one, which metadata.yaml names so many times."""
    packed = folder / f"{file.name}.zstd"
    packed.write_bytes(zstd.compress(file.read_bytes()))
    file.unlink()
    metadata = (folder / "metadata.yaml").read_text()
    metadata = metadata.replace("compression_format: ''", "compression_format: zstd")
    metadata = metadata.replace("compression_mode: ''", "compression_mode: FILE")
    listed = ", ".join([packed.name] * times)
    metadata = re.sub(r"relative_file_paths:\n\s*- \S+", f"relative_file_paths: [{listed}]", metadata)
    (folder / "metadata.yaml").write_text(metadata)
    return packed


@pytest.mark.parametrize("times", [1, 50])
def test_whole_file_that_unpacks_to_too_much_is_not_unpacked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, times: int
) -> None:
    folder = write_ros2(tmp_path / "bag", shots())
    (file,) = folder.glob("bag.*")
    content = file.read_bytes()
    packed = compress_whole(folder, file, times)
    monkeypatch.setattr(decompression, "LARGEST_CHUNK", len(content) * 3 // 2)
    monkeypatch.setattr(decompression, "LARGEST_RATIO", 0)
    if times == 1:
        with ImageBag(str(folder)) as bag:
            assert len(list(bag.frames(Span()))) == COUNT
        packed.write_bytes(zstd.compress(content + bytes(2**24)))
    with pytest.raises(ValueError, match="unzstd"):
        ImageBag(str(folder))


def test_large_metadata_is_not_parsed(tmp_path: Path) -> None:
    folder = write_ros2(tmp_path / "made", shots())
    with (folder / "metadata.yaml").open("a") as file:
        file.write("# " + "x" * (5 * 2**20))
    with ImageBag(str(folder)) as bag:
        assert "metadata.yaml cannot be used" in bag.notes[0] and bag.length == COUNT


@pytest.mark.parametrize(
    "text",
    [
        "a0: &a0 [lol]\n" + "".join(f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]\n" for n in range(1, 40)),
        "m0: &m0 {a: 1}\n" + "".join(f"m{n}: &m{n} {{<<: [*m{n - 1}, *m{n - 1}]}}\n" for n in range(1, 40)),
        "x: " + "[" * 10_000 + "]" * 10_000,
    ],
    ids=["aliases", "merged", "nested"],
)
def test_metadata_that_expands_or_nests_is_not_used(tmp_path: Path, text: str) -> None:
    folder = write_ros2(tmp_path / "bag", shots())
    (folder / "metadata.yaml").write_text(text)
    with ImageBag(str(folder)) as bag:
        assert "metadata.yaml cannot be used" in bag.notes[0] and bag.length == COUNT


PROFILES = {
    "merged": "- &m0 {a: 1}\n" + "".join(f"- &m{n} {{<<: [*m{n - 1}, *m{n - 1}]}}\n" for n in range(1, 40)),
    "nested": "[" * 2000,
    "long": "- {history: 1}\n" * 10_000,
}


@pytest.mark.parametrize("text", PROFILES.values(), ids=PROFILES)
def test_qos_profiles_that_expand_or_nest_are_not_used(tmp_path: Path, text: str) -> None:
    folder = write_ros2(tmp_path / "bag", shots())
    metadata = yaml.safe_load((folder / "metadata.yaml").read_text())
    for topic in metadata["rosbag2_bagfile_information"]["topics_with_message_count"]:
        topic["topic_metadata"]["offered_qos_profiles"] = text
    (folder / "metadata.yaml").write_text(yaml.safe_dump(metadata))
    with ImageBag(str(folder)) as bag:
        assert "metadata.yaml cannot be used" in bag.notes[0] and bag.length == COUNT


ENDLESS = "WITH RECURSIVE r(id) AS (SELECT 1 UNION ALL SELECT id + 1 FROM r) SELECT id, 1 AS topic_id, id AS timestamp"
RENAMED = "ALTER TABLE messages RENAME TO m"
COMPUTED = {
    "view": ["ALTER TABLE topics RENAME TO t", f"CREATE VIEW topics AS {ENDLESS} FROM r"],
    "search": [
        RENAMED,
        f"CREATE VIEW v AS {ENDLESS}, x'00' AS data FROM r",
        "CREATE VIRTUAL TABLE messages USING fts5(id, topic_id, timestamp, data, content='v', content_rowid='id')",
    ],
    "column": [
        RENAMED,
        "CREATE TABLE messages(id INTEGER, topic_id INTEGER, timestamp INTEGER, data AS (zeroblob(900000000)))",
        "INSERT INTO messages(id, topic_id, timestamp) SELECT id, topic_id, timestamp FROM m",
    ],
}


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("kind", COMPUTED)
def test_database_that_computes_its_data_is_not_read(tmp_path: Path, kind: str, compressed: bool) -> None:
    folder = write_ros2(tmp_path / "bag", shots(), "sqlite3")
    (file,) = folder.glob("*.db3")
    with closing(sqlite3.connect(file)) as database, database:
        for statement in COMPUTED[kind]:
            database.execute(statement)
    if compressed:
        compress_whole(folder, file)
    with pytest.raises(ValueError, match=r"does not have|computed columns|unzstd"):
        ImageBag(str(folder))


@pytest.mark.parametrize("again", [lambda path: path.name, lambda path: f"./{path.name}"], ids=["name", "alias"])
def test_a_file_that_metadata_names_again_is_read_once(tmp_path: Path, again) -> None:
    folder = write_ros2(tmp_path / "bag", shots())
    metadata, (file,) = folder / "metadata.yaml", list(folder.glob("*.mcap"))
    text = metadata.read_text()
    assert f"- {file.name}\n" in text
    metadata.write_text(text.replace(f"- {file.name}\n", f"- {file.name}\n  - {again(file)}\n"))
    with ImageBag(str(folder)) as bag:
        assert "metadata.yaml cannot be used" in bag.notes[0] and bag.length == COUNT


def test_a_bag_of_too_many_files_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_ros2(tmp_path / "bag", shots())
    (file,) = folder.glob("*.mcap")
    file.with_name("two.mcap").write_bytes(file.read_bytes())
    (folder / "metadata.yaml").unlink()
    monkeypatch.setattr(files, "MAX_FILES", 1)
    with pytest.raises(ValueError, match="2 files; a bag of at most 1 is opened"):
        ImageBag(str(folder))


def test_zeros_at_the_end_of_an_mcap_file_end_it(tmp_path: Path) -> None:
    """A machine that lost its power leaves them; a sparse file may have 200 GB."""
    path = tmp_path / "sparse.mcap"
    path.write_bytes(MAGIC)
    os.truncate(path, 200 * 2**30)
    start = time.monotonic()
    with pytest.raises(ValueError, match="cannot be opened"):
        ImageBag(str(path))
    assert time.monotonic() - start < 20  # read to its end, it takes hours


def test_a_database_of_too_many_topics_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_ros2(tmp_path / "bag", shots(), storage="sqlite3")
    (file,) = folder.glob("*.db3")
    with ImageBag(str(file)) as bag:
        assert bag.length == COUNT
    monkeypatch.setattr(databases, "MOST_TOPICS", 0)
    with pytest.raises(ValueError, match="1 topics; a bag of at most 0"):
        ImageBag(str(file))


LOGS = {
    "a part": (3, 0),
    "everything": (0, 0),
    "nothing new": (COUNT, 0),
    "an unfinished page": (3, -100),
    "an unfinished header": (3, -5000),
}
"""Messages outside of the log, and bytes that the log lacks."""


def in_log(folder: Path, outside: int, name: str = "x.db3") -> Iterator[Path]:
    """Yield a database of which all but the first messages are in its write-ahead log, while it is recorded."""
    (made,) = write_ros2(folder.with_name("made"), shots(), "sqlite3").glob("*.db3")
    folder.mkdir()
    file = folder / name
    with closing(sqlite3.connect(made)) as source, closing(sqlite3.connect(file, isolation_level=None)) as recorder:
        recorder.execute("PRAGMA journal_mode=WAL")
        recorder.execute("PRAGMA wal_autocheckpoint=0")
        lines = [line for line in source.iterdump() if "sqlite_sequence" not in line]
        messages = [line for line in lines if line.startswith('INSERT INTO "messages"')]
        recorder.executescript("\n".join(line for line in lines if line not in messages))
        for number, message in enumerate(messages):
            if number == outside and number:
                recorder.execute("PRAGMA wal_checkpoint")
            recorder.execute(message)
        if outside == COUNT:
            recorder.execute("PRAGMA wal_checkpoint")
        yield file


def state(folder: Path) -> dict[str, tuple[int, bytes]]:
    return {path.name: (path.stat().st_mtime_ns, path.read_bytes()) for path in folder.iterdir()}


@pytest.mark.parametrize(
    ("case", "recording"), [*((case, False) for case in LOGS), *((case, True) for case in list(LOGS)[:3])]
)
def test_write_ahead_log_of_a_database_is_read(tmp_path: Path, case: str, recording: bool) -> None:
    outside, lacks = LOGS[case]
    folder = tmp_path / "a?b#c%41"
    for file in in_log(folder, outside):
        place = folder
        if not recording:  # as after the recorder was killed
            place = shutil.copytree(folder, tmp_path / "killed")
            (place / "x.db3-shm").unlink()
        log = place / "x.db3-wal"
        if lacks:
            os.truncate(log, log.stat().st_size + lacks)
        before = state(place)
        for path in (place, place / file.name):
            with ImageBag(str(path)) as bag:
                assert bag.length == (COUNT - 1 if lacks else COUNT)
                values = [frame.image.mean() for frame in bag.frames(Span()) if frame.image is not None]
                assert len(values) == bag.length and not bag.damage and not bag.notes
        assert state(place) == before


@pytest.mark.parametrize("change", ["page", "header", "size", "zeros"])
def test_damaged_write_ahead_log_is_refused_with_what_applies_the_rest(tmp_path: Path, change: str) -> None:
    for file in in_log(tmp_path / "bag", 2):
        killed = shutil.copytree(file.parent, tmp_path / "killed")
    log = killed / "x.db3-wal"
    content = bytearray(log.read_bytes())
    middle = len(content) // 2
    at, value = {
        "page": (middle, b"damage"),
        "zeros": (middle, bytes(6000)),
        "header": (25, b"damage"),
        "size": (8, b"\0\0\0\1"),
    }[change]
    content[at : at + len(value)] = value
    log.write_bytes(content)
    with pytest.raises(ValueError, match=r"x\.db3-wal is damaged after \d+ of \d+ pages; `sqlite3 .*checkpoint"):
        ImageBag(str(killed))


def test_half_written_database_is_refused_until_sqlite_has_rolled_it_back(tmp_path: Path) -> None:
    (made,) = write_ros2(tmp_path / "made", shots(), "sqlite3").glob("*.db3")
    for mode in ("DELETE", "TRUNCATE", "PERSIST"):
        killed = tmp_path / mode
        killed.mkdir()
        with closing(sqlite3.connect(made, isolation_level=None)) as recorder:
            recorder.execute(f"PRAGMA journal_mode={mode}")
            recorder.execute("PRAGMA cache_size=1")  # pages of the transaction reach the file before its end
            recorder.execute("BEGIN")
            recorder.execute("DELETE FROM messages")
            for name in (made, made.with_name(made.name + "-journal")):
                shutil.copy(name, killed)
            recorder.execute("ROLLBACK")
        file = killed / made.name
        with pytest.raises(ValueError, match=r"was killed while it did, see .*-journal.* `sqlite3 "):
            ImageBag(str(killed))
        with closing(sqlite3.connect(file)) as repair:  # what the remedy does
            repair.execute("SELECT count(*) FROM sqlite_master").fetchall()
        with ImageBag(str(killed)) as bag, ImageBag(str(made)) as whole:  # PERSIST leaves a journal of zeros
            assert bag.length == whole.length == COUNT


def test_write_ahead_log_without_space_for_a_copy_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(databases.shutil, "disk_usage", lambda _: usage._replace(free=1000))
    for file in in_log(tmp_path / "bag", 2):
        with pytest.raises(ValueError, match=r"more than half of what is free in .*set TMPDIR .*checkpoint"):
            ImageBag(str(file))


def test_database_that_changes_all_the_time_is_not_copied_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copyfile = shutil.copyfile

    def grow(source: Path, target: Path) -> None:
        copyfile(source, target)
        os.utime(source, ns=(0, time.monotonic_ns()))

    for file in in_log(tmp_path / "bag", 2):
        monkeypatch.setattr(databases.shutil, "copyfile", grow)
        with pytest.raises(ValueError, match="it changes while it is copied; read it when the recording has ended"):
            ImageBag(str(file))
