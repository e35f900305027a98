# SPDX-License-Identifier: Apache-2.0
"""Images of bags: every supported format, and damaged bags."""

from __future__ import annotations

import builtins
import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("rosbags", reason="rosbags is not installed: pip install rosbags")
import lz4.frame
from harness.bag_fixtures import BEGIN, COUNT, DELAY, STEP, TOPIC, Shot, changed, picture, shots, write_ros1, write_ros2
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.rosbag2.storage_mcap import McapWriter

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

from dimp_ros.apps.bags import types as bag_types
from dimp_ros.apps.bags.files import is_bag
from dimp_ros.apps.bags.mcap import MAGIC
from dimp_ros.apps.bags.reader import ImageBag
from dimp_ros.apps.bags.types import COMPRESSED_IMAGE, DEFINITIONS, IMAGE, ros2_types
from dimp_ros.images.frame_source import Frame, Span

ROOT = Path(__file__).resolve().parents[2]

WHOLE = Span()
HEIGHT_OF_NOISE = 128


def read(path: Path, span: Span = WHOLE, topic: str | None = None) -> tuple[list[Frame], str]:
    """Return the frames of a span, and what the bag says about damage."""
    with ImageBag(str(path), topic) as bag:
        return list(bag.frames(span)), bag.damage


@pytest.fixture(params=["mcap folder", "mcap file", "sqlite3 folder", "sqlite3 file", "ros1"])
def bag(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """Write the same images in each format."""
    if request.param == "ros1":
        return write_ros1(tmp_path / "made.bag", shots(), encoding="rgb8")
    storage, what = request.param.split()
    folder = write_ros2(tmp_path / "made", shots(), storage)
    return folder if what == "folder" else next(path for path in folder.iterdir() if path.suffix in (".mcap", ".db3"))


def test_every_format_gives_the_same_images_and_stamps(bag: Path) -> None:
    assert is_bag(str(bag))
    frames, damage = read(bag)
    assert damage == "" and [frame.index for frame in frames] == list(range(COUNT))
    for index, frame in enumerate(frames):
        assert np.array_equal(frame.image, picture(index)) and frame.problem == ""
        assert frame.time == BEGIN + index * STEP and frame.origin.time == frame.time + DELAY
        assert frame.origin.message.header.frame_id == "camera_optical"


def test_rate_and_number_of_images_are_known_beforehand(bag: Path) -> None:
    with ImageBag(str(bag)) as images:
        assert (images.length, images.topic.name, images.topic.type) == (COUNT, TOPIC, IMAGE)
        assert images.fps == pytest.approx(10.0)


@pytest.mark.parametrize("ros", [1, 2])
def test_compressed_images_are_decoded(tmp_path: Path, ros: int) -> None:
    if ros == 1:
        path = write_ros1(tmp_path / "made.bag", shots(3), COMPRESSED_IMAGE)
    else:
        path = write_ros2(tmp_path / "made", shots(3), kind=COMPRESSED_IMAGE)
    frames, _ = read(path)
    assert all(np.array_equal(frame.image, picture(i)) for i, frame in enumerate(frames)) and len(frames) == 3


@pytest.mark.parametrize(
    ("span", "expected"),
    [
        (Span(2, 5), [2, 3, 4]),
        (Span(0.25, 0.5), [3, 4]),
        (Span(7, 0.85), [7, 8]),
        (Span(stamp=BEGIN + 6 * STEP), [6, 7, 8, 9]),
        (Span(stamp=BEGIN + 6 * STEP + 400), [6, 7, 8, 9]),
        (Span(end=3, stamp=BEGIN + STEP), [1, 2]),
        (Span(50), []),
    ],
)
def test_a_span_is_by_frame_by_seconds_or_by_stamp(tmp_path: Path, span: Span, expected: list[int]) -> None:
    frames, _ = read(write_ros2(tmp_path / "made", shots()), span)
    assert [frame.index for frame in frames] == expected


@settings(deadline=None)
@given(st.integers(0, 12), st.integers(0, 12))
def test_frames_of_two_spans_that_meet_are_all_frames(made_once: Path, cut: int, end: int) -> None:
    first, second = read(made_once, Span(0, cut))[0], read(made_once, Span(cut, end))[0]
    assert [f.index for f in first + second] == list(range(min(COUNT, max(cut, end) if end > cut else cut)))


@pytest.fixture(scope="module")
def made_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write one bag for many readings."""
    return write_ros2(tmp_path_factory.mktemp("bags") / "made", shots())


def test_a_stamp_that_no_image_has_is_refused_with_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"1700000000\.320000000: the nearest is 1700000000\.300000000; copy"):
        read(write_ros2(tmp_path / "made", shots()), Span(stamp=BEGIN + 320_000_000))


def test_only_image_topic_is_default_and_several_are_listed(tmp_path: Path) -> None:
    path = write_ros2(tmp_path / "made", shots(), topics=("/left/image", "/right/image"))
    with pytest.raises(ValueError, match=r"Give --topic NAME; .*\n  /left/image \(sensor_msgs/Image, 10 mess") as error:
        ImageBag(str(path))
    assert "/right/image" in str(error.value) and "10 a second" in str(error.value)
    assert ImageBag(str(path), "right/image").topic.name == "/right/image"
    with pytest.raises(ValueError, match=r"has no topic /middle; its topics with images are:\n  /left"):
        ImageBag(str(path), "/middle")


def test_a_bag_without_images_is_refused_with_what_it_has(tmp_path: Path) -> None:
    path = write_ros2(tmp_path / "made", [], kind="sensor_msgs/msg/Imu", topics=("/imu",))
    with pytest.raises(ValueError, match=r"it has no topic with images, only /imu \(sensor_msgs/Imu, 0 messages"):
        ImageBag(str(path))
    with pytest.raises(ValueError, match=r"/imu .* has no images"):
        ImageBag(str(path), "/imu")


def test_a_topic_without_a_single_image_has_no_frames(tmp_path: Path) -> None:
    assert read(write_ros2(tmp_path / "made", [])) == ([], "")
    assert read(write_ros2(tmp_path / "made_too", [], "sqlite3"), Span(stamp=5)) == ([], "")


@pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
def test_a_folder_without_metadata_is_read_file_by_file(tmp_path: Path, storage: str) -> None:
    folder = write_ros2(tmp_path / "made", shots()[:6], storage)
    rest = write_ros2(tmp_path / "rest", shots()[6:], storage)
    for file in rest.glob("rest.*"):
        shutil.move(file, folder / f"a{file.suffix}")  # before the other by its name, after it by its times
    (folder / "metadata.yaml").unlink()

    assert is_bag(str(folder))
    frames, damage = read(folder)
    assert damage == "" and [frame.time for frame in frames] == [shot.stamp for shot in shots()]


def split(tmp_path: Path, storage: str) -> list[Path]:
    """Write a bag of two files, and return them."""
    folder = write_ros2(tmp_path / "made", shots()[:6], storage)
    rest = write_ros2(tmp_path / "rest", shots()[6:], storage)
    (first,), (second,) = folder.glob("made.*"), rest.glob("rest.*")
    second = Path(shutil.move(second, folder / f"part_2{first.suffix}"))
    text = (folder / "metadata.yaml").read_text().replace(f"- {first.name}\n", f"- {first.name}\n  - {second.name}\n")
    (folder / "metadata.yaml").write_text(text.replace("message_count: 6", "message_count: 10"))
    return [first, second]


@pytest.mark.parametrize("lost", [0, 1, None])
@pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
def test_a_file_that_metadata_names_and_is_not_there_is_missed(tmp_path: Path, storage: str, lost: int | None) -> None:
    files = split(tmp_path, storage)
    folder = files[0].parent
    assert len(read(folder)[0]) == COUNT and read(folder)[1] == ""
    if lost is None:  # under another name, it is there
        files[1].rename(folder / f"other{files[1].suffix}")
    else:
        files[lost].unlink()
    with ImageBag(str(folder)) as bag:
        assert f"it names {files[1 if lost is None else lost].name}, not there" in bag.notes[0]
        frames = list(bag.frames(WHOLE))
        there = COUNT if lost is None else (4, 6)[lost]
        assert bag.length == COUNT and len(frames) == there
        assert bag.damage == ("" if lost is None else f"{folder} is damaged: {COUNT - there} of 10 images are missing")


@pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
def test_a_file_that_metadata_does_not_name_is_told(tmp_path: Path, storage: str) -> None:
    first, second = split(tmp_path, storage)
    metadata = first.with_name("metadata.yaml")
    metadata.write_text(metadata.read_text().replace(f"  - {second.name}\n", "").replace("count: 10", "count: 6"))
    with ImageBag(str(first.parent)) as bag:
        assert bag.length == len(list(bag.frames(WHOLE))) == 6
        assert f"metadata.yaml does not name {second.name}, which is not read" in bag.notes[0]


def test_bag_of_a_killed_recorder_is_not_read_as_a_folder(tmp_path: Path) -> None:
    assert not is_bag(str(tmp_path)) and not is_bag("0") and not is_bag("ride.mp4") and not is_bag("not_there")
    assert is_bag("not_there.mcap") and is_bag("x.db3.zstd")
    (tmp_path / "x_0.mcap").write_bytes(b"")
    assert is_bag(str(tmp_path))


@pytest.mark.parametrize(
    ("make", "remedy"),
    [
        (lambda p: (p / "x.mcap").write_bytes(b"") or p / "x.mcap", "nothing was recorded"),
        (lambda p: (p / "x.mcap").write_bytes(b"no mcap at all" * 9) and p / "x.mcap", "not begin as a .mcap file"),
        (lambda p: (p / "x.mcap").write_bytes(MAGIC + b"\1" * 99) and p / "x.mcap", "mcap recover"),
        (lambda p: (p / "x.mcap").write_bytes(MAGIC * 9) and p / "x.mcap", "the file is complete"),
        (lambda p: (p / "x.db3").write_bytes(b"no database" * 99) and p / "x.db3", "not begin as a .db3 file"),
        (lambda p: (p / "x.db3").write_bytes(b"SQLite format 3\0cut" * 99) and p / "x.db3", r"sqlite3 .* \.recover"),
        (lambda p: (p / "X.BAG").write_bytes(b"no bag" * 99) and p / "X.BAG", "not begin as a .bag file"),
        (lambda p: (p / "x.bag").write_bytes(b"#ROSBAG V2.0\ncut" * 99) and p / "x.bag", "rosbag reindex"),
        (lambda p: os.mkfifo(p / "x.mcap") or p / "x.mcap", "is a FIFO; only regular files"),
        (lambda p: os.mkfifo(p / "x.db3") or ((p / "metadata.yaml").write_text("{}") and p), "is a FIFO; only regular"),
        (lambda p: (p / "metadata.yaml").write_text("{") and p, "ros2 bag reindex"),
        (lambda p: (p / "x.mcap.zstd").write_bytes(b"1") and p, "compressed as a whole"),
        (lambda p: p / "none.mcap", "no such file or folder"),
    ],
)
def test_what_cannot_be_opened_is_refused_with_the_remedy(tmp_path: Path, make: Any, remedy: str) -> None:
    path = make(tmp_path)
    with pytest.raises(ValueError, match=remedy):
        ImageBag(str(path))


@pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
@pytest.mark.parametrize("filling", [b"\x00", b"\xff", b"\x05"])
def test_a_damaged_file_gives_the_images_it_has_and_says_so(tmp_path: Path, storage: str, filling: bytes) -> None:
    folder = write_ros2(tmp_path / "made", noisy(120), storage)
    file = next(folder.glob("made.*"))
    content = bytearray(file.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 200_000] = filling * 200_000
    file.write_bytes(content)

    frames, damage = read(folder)

    intact = [frame for frame in frames if frame.image is not None and np.array_equal(frame.image, noisy(1)[0].picture)]
    assert 20 < len(intact) < 120
    assert TOPIC in damage or "images are missing" in damage


def cut_off(folder: Path) -> Path:
    """Cut the storage file of a bag in half and return it."""
    file = next(folder.glob("made.*"))
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    return file


def test_a_database_that_was_cut_off_is_refused_with_the_remedy(tmp_path: Path) -> None:
    folder = write_ros2(tmp_path / "made", noisy(120), "sqlite3")
    for path in (cut_off(folder), folder):
        with pytest.raises(ValueError, match=r"cannot be opened: .*\.recover"):
            ImageBag(str(path))


@pytest.mark.parametrize("compression", ["", "zstd", "lz4"])
@pytest.mark.parametrize("metadata", [True, False])
def test_an_mcap_file_that_was_cut_off_is_read_up_to_there(tmp_path: Path, compression: str, metadata: bool) -> None:
    with pytest.MonkeyPatch.context() as patch:
        if compression:
            patch.setattr(McapWriter, "close_chunk", compressed(McapWriter.close_chunk, compression))
        folder = write_ros2(tmp_path / "made", noisy(120))
    file = cut_off(folder)
    if not metadata:
        (folder / "metadata.yaml").unlink()

    for path in (folder, file):
        with ImageBag(str(path)) as bag:
            frames = list(bag.frames(Span()))
            told = metadata and path == folder
            assert bag.damage == (f"{path} is damaged: {120 - len(frames)} of 120 images are missing" if told else "")
            assert bag.length == (120 if told else len(frames)) and bag.fps == pytest.approx(10)
            assert any("was cut off (File end magic is invalid.): it is used up to there" in note for note in bag.notes)
        assert 20 < len(frames) < 100
        for frame, shot in zip(frames, noisy(120), strict=False):
            assert frame.time == shot.stamp and np.array_equal(frame.image, shot.picture)


def compressed(close_chunk: Any, name: str) -> Any:
    """Return a method of rosbags' writer that compresses its chunks."""
    pack = {"zstd": zstd.compress, "lz4": lz4.frame.compress}[name]

    def close(self: Any) -> None:
        self.compression, self.compressor = name, pack
        close_chunk(self)

    return close


@pytest.fixture(scope="module")
def four_megabytes(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """Write an MCAP file of several chunks and return it."""
    return (write_ros2(tmp_path_factory.mktemp("bags") / "made", noisy(120)) / "made.mcap").read_bytes()


@settings(max_examples=30)
@given(st.data())
def test_an_mcap_file_cut_anywhere_gives_the_first_of_its_images(four_megabytes: bytes, data: st.DataObject) -> None:
    whole = four_megabytes
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "cut.mcap"
        file.write_bytes(whole[: data.draw(st.integers(0, len(whole) - 1))])
        try:
            bag = ImageBag(str(file))
        except ValueError as error:
            assert (
                "mcap recover" in str(error) or "nothing was recorded" in str(error)
            ) and file.stat().st_size < 2e6  # the first chunk is not whole
            return
        with bag:
            assert [frame.time for frame in bag.frames(Span())] == [shot.stamp for shot in shots(120)][: bag.length]
            assert bag.length >= 28 * (file.stat().st_size // 1_100_000)


def noisy(count: int) -> list[Shot]:
    """Return images that do not shrink to nothing."""
    noise = np.random.default_rng(0).integers(0, 255, (HEIGHT_OF_NOISE, 96, 3), dtype=np.uint8)
    return [Shot(noise, shot.stamp, shot.time) for shot in shots(count)]


@pytest.mark.parametrize(
    ("what", "reason"),
    [
        ({"data": b"too short"}, "data has 9 bytes"),
        ({"raw": b"\x00\x01\x00\x00nonsense"}, "12 bytes are no sensor_msgs/msg/Image"),
        ({"raw": b""}, "0 bytes are no sensor_msgs/msg/Image"),
    ],
)
def test_damaged_image_in_the_middle_gives_a_frame_without_image(
    tmp_path: Path, what: dict[str, Any], reason: str
) -> None:
    frames, damage = read(write_ros2(tmp_path / "made", changed(4, **what)))
    assert damage == "" and len(frames) == COUNT
    assert frames[4].image is None and reason in frames[4].problem
    assert all(frame.image is not None for frame in frames if frame.index != 4)


def test_damaged_compressed_image_gives_a_frame_without_image(tmp_path: Path) -> None:
    frames, _ = read(write_ros2(tmp_path / "made", changed(4, data=b"no png"), kind=COMPRESSED_IMAGE))
    assert frames[4].image is None and "no image file" in frames[4].problem and frames[5].image is not None


def test_images_come_in_the_order_of_recording(tmp_path: Path) -> None:
    frames, _ = read(write_ros2(tmp_path / "made", changed(4, stamp=BEGIN)))
    assert [frame.time for frame in frames][3:6] == [BEGIN + 3 * STEP, BEGIN, BEGIN + 5 * STEP]


def test_image_without_a_stamp_has_its_recording_time(tmp_path: Path) -> None:
    frames, _ = read(write_ros2(tmp_path / "made", changed(4, stamp=0)))
    assert frames[4].time == BEGIN + 4 * STEP + DELAY


def test_bag_of_humble_without_definitions_is_read(tmp_path: Path) -> None:
    folder = write_ros2(tmp_path / "made", shots(), "sqlite3")
    with sqlite3.connect(folder / "made.db3") as database:
        for statement in (
            "DROP TABLE schema",
            "DROP TABLE metadata",
            "DROP TABLE message_definitions",
            "ALTER TABLE topics DROP COLUMN type_description_hash",
        ):
            database.execute(statement)
    database.close()
    for path in (folder, folder / "made.db3"):
        frames, _ = read(path)
        assert len(frames) == COUNT and np.array_equal(frames[9].image, picture(9))


@pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
def test_reading_holds_a_few_images_however_many_there_are(tmp_path: Path, storage: str) -> None:
    path = write_ros2(tmp_path / "made", noisy(400), storage)  # 15 MB
    with ImageBag(str(path)) as bag:
        tracemalloc.start()
        assert sum(frame.image is not None for frame in bag.frames(Span())) == 400
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < 6e6


def test_without_rosbags_one_line_says_how_to_install_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_ros2(tmp_path / "made", shots(1))
    real = builtins.__import__

    def without(name: str, *rest: Any, **more: Any) -> Any:
        if name.split(".")[0] == "rosbags":
            raise ModuleNotFoundError("No module named 'rosbags'")
        return real(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", without)
    bag_types.ros2_types.cache_clear()
    with pytest.raises(ImportError, match="pip install rosbags") as error:
        ImageBag(str(path))
    assert "\n" not in str(error.value)


def test_the_definitions_are_those_of_the_msg_files() -> None:
    files = [*ROOT.glob("msg/*.msg"), *ROOT.glob("third_party/vision_msgs/msg/*.msg")]
    for file in files:
        package = "dimp_ros" if file.parent.parent == ROOT else "vision_msgs"
        lines = [line.strip() for line in file.read_text().splitlines()]
        assert DEFINITIONS[f"{package}/msg/{file.stem}"].split("\n") == [
            "",
            *(line for line in lines if line and not line.startswith("#")),
            "",
        ]
    assert len(files) == len(DEFINITIONS)


def test_reading_bags_needs_neither_ros_nor_torch() -> None:
    code = (
        "import sys, dimp_ros.apps.track.cli, dimp_ros.apps.bags.reader, dimp_ros.apps.bags.writer\n"
        "print({'rclpy', 'torch', 'rosbags', 'sensor_msgs', 'vision_msgs'} & set(sys.modules))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert result.stdout.strip() == "set()"


def test_mcap_file_of_another_profile_is_read(tmp_path: Path) -> None:
    file = write_ros2(tmp_path / "made", shots()) / "made.mcap"
    file.write_bytes(file.read_bytes().replace(b"\x04\x00\x00\x00ros2", b"\x04\x00\x00\x00ros1", 1))
    frames, damage = read(file)
    assert damage == "" and len(frames) == COUNT and ImageBag(str(file)).notes == []


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("UPDATE topics SET name = X'2F61'", "not text"),
        ("UPDATE topics SET type = zeroblob(20000000)", "not text"),
        ("UPDATE topics SET type = 7.5", ""),
        ("UPDATE messages SET timestamp = 'noon' WHERE id > 5", ""),
        ("UPDATE messages SET data = 0.5 WHERE id = 6", "damaged after 5 images"),
        ("UPDATE messages SET data = 'text' WHERE id = 6", "damaged after 5 images"),
    ],
)
def test_database_with_numbers_for_texts_is_refused(tmp_path: Path, change: str, words: str) -> None:
    file = write_ros2(tmp_path / "made", shots(), "sqlite3") / "made.db3"
    database = sqlite3.connect(file)
    database.execute(change)
    database.commit()
    database.close()
    try:
        frames, damage = read(file)
    except ValueError as error:
        frames, damage = [], str(error)
    assert words in damage and len(damage) > 20 and len(frames) <= 5
    assert all(frame.image is not None for frame in frames)


@pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
@pytest.mark.parametrize("kind", ["sensor_msgs/msg/Image", "std_msgs/msg/String"])
def test_names_in_a_bag_can_neither_flood_nor_control_a_terminal(tmp_path: Path, storage: str, kind: str) -> None:
    with Writer(tmp_path / "bag", version=8, storage_plugin=StoragePlugin[storage.upper()]) as writer:
        for name in ("/\x1b[2J\x07", "/a\nb", "/" + "x" * 100_000, *(f"/t{number}" for number in range(200))):
            writer.write(writer.add_connection(name, kind, typestore=ros2_types()), 1, bytes(64))
    with pytest.raises(ValueError, match=r"and 173 more") as caught:
        ImageBag(str(tmp_path / "bag"))
    lines = str(caught.value).splitlines()
    assert all(line.isprintable() for line in lines) and len(str(caught.value)) < 5000 and len(lines) < 40
