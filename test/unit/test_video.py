# SPDX-License-Identifier: Apache-2.0
"""Videos: the same frames from a file and a folder, unreadable sources, and what is written."""

from __future__ import annotations

import os
import resource
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from helpers.video_fixtures import set_frame_durations, write_mpeg2

from dimp_ros.datasets.film import Film
from dimp_ros.files.outputs import WriteFailed
from dimp_ros.images import film_capture
from dimp_ros.images.files import list_images, read_image
from dimp_ros.images.frame_source import Span, VideoFileSource
from dimp_ros.images.video import Video, VideoWriter

FRAMES = 6


def picture(number: int, width: int = 64) -> np.ndarray:
    return np.full((48, width, 3), 40 * number, np.uint8)


def images(video: Video, *span: Any) -> list[tuple[int, np.ndarray]]:
    return [(frame.index, frame.image) for frame in video.frames(*span) if frame.image is not None]


def numbers(video: Video, *span: int | None) -> list[tuple[int, int]]:
    """Return the index of each frame, and the number that its pixels say."""
    return [(index, round(image.mean() / 40)) for index, image in images(video, *span)]


@pytest.fixture(params=["file", "folder"])
def source(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Write the images as a video at 12 Hz, or as a folder; return its path."""
    if request.param == "folder":
        for number in range(FRAMES):
            cv2.imwrite(str(tmp_path / f"{number:03d}.{'PNG' if number % 2 else 'png'}"), picture(number))
        (tmp_path / "notes.txt").write_text("not a picture")
        return str(tmp_path)
    writer = VideoWriter(tmp_path / "film.mp4", 12.0)
    for number in range(FRAMES):
        writer.write(picture(number))
    writer.close()
    return str(tmp_path / "film.mp4")


def test_file_and_folder_give_the_same_frames_and_say_how_many(source):
    video = Video(source)
    assert video.length == FRAMES
    assert video.fps == (None if Path(source).is_dir() else pytest.approx(12.0))
    frames = list(video.frames())
    assert all(frame.image.shape == (48, 64, 3) and frame.image.dtype == np.uint8 for frame in frames)
    assert [frame.index for frame in frames] == list(range(FRAMES))
    assert [frame.seconds for frame in frames] == pytest.approx([i / (video.fps or 25) for i in range(FRAMES)])


def test_a_span_can_be_read_again_and_again(source):
    video = Video(source)
    for _ in range(2):
        assert numbers(video, 2, 5) == [(2, 2), (3, 3), (4, 4)]
    next(iter(video.frames()))
    assert numbers(video, 4) == [(4, 4), (5, 5)] and numbers(video, FRAMES) == numbers(video, 3, 3) == []


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("not_there.mp4", "no such file or folder: .*not_there.mp4; give"),
        ("text.mp4", "text.mp4 is not a video but a text"),
        ("empty", "no images in the folder .*empty"),
    ],
)
def test_what_is_not_a_video_is_refused_by_name(tmp_path, name, reason):
    (tmp_path / "text.mp4").write_text("not a video")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=reason):
        Video(str(tmp_path / name))


def test_empty_name_is_refused_and_a_number_is_a_camera():
    with pytest.raises(ValueError, match="no such file or folder: ''"):
        Video("")
    with pytest.raises(ValueError, match="no such file or folder"):  # more than OpenCV's 32 bits
        Video("9" * 20)
    with pytest.raises(ValueError, match="camera 987 cannot be opened"):
        Video("987")


UNREADABLE = {
    "2.png": b"not an image",
    "2.bmp": b"",
    "2.jpg": cv2.imencode(".jpg", picture(2))[1].tobytes()[:-30],
    "2.webp": cv2.imencode(".webp", picture(2))[1].tobytes()[:-5],
    "2.tif": cv2.imencode(".tif", picture(2))[1].tobytes()[:-300],
}


@pytest.mark.parametrize("name", UNREADABLE)
def test_unreadable_image_costs_only_its_own_frame(tmp_path: Path, name: str) -> None:
    for number in (1, 3):
        cv2.imwrite(str(tmp_path / f"{number}.png"), picture(number))
    (tmp_path / name).write_bytes(UNREADABLE[name])
    first, second, third = Video(str(tmp_path)).frames()
    assert (second.index, second.image) == (1, None) and f"cannot read the image {tmp_path / name}" in second.problem
    assert first.image is not None and third.image is not None and third.image.mean() == 120


def test_wrong_suffix_does_not_matter(tmp_path: Path) -> None:
    for suffix in (".png", ".jpg", ".bmp"):
        path = tmp_path / f"x{suffix}"
        cv2.imwrite(str(path), picture(2))
        path.rename(tmp_path / "x.webp")
        assert read_image(tmp_path / "x.webp").mean() == 80


def test_fifo_among_images_and_as_a_video_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "1.png")
    (frame,) = Video(str(tmp_path)).frames()
    assert "is a FIFO" in frame.problem
    os.mkfifo(tmp_path / "film.mp4")
    with pytest.raises(ValueError, match="is a FIFO; only regular files are read"):
        Video(str(tmp_path / "film.mp4"))


@pytest.mark.parametrize(
    "names",
    [
        ["1", "2", "9", "10", "11", "100"],
        ["frame_9", "frame_10", "frame_11"],
        ["a2b1", "a2b10", "a10b1"],
        ["00001", "00002", "00010"],
        ["0a1f", "10a0", "1b00", "a000"],  # hexadecimal, of one width: as they were
        ["0.25", "0.5", "1.0625"],
        ["999.5", "1000.25"],
        ["0", "0.125", "0.5", "1", "1.0625", "10"],
        ["cam1-2", "cam1-10", "cam2-1"],
    ],
)
def test_images_are_listed_in_the_order_of_their_numbers(tmp_path: Path, names: list[str]) -> None:
    for name in names:
        (tmp_path / f"{name}.PNG").touch()
    (tmp_path / f"._{names[0]}.png").touch()
    (tmp_path / ".hidden.jpg").touch()
    assert [path.stem for path in list_images(tmp_path)] == names


@pytest.mark.parametrize("suffix", [".png", ".tiff", ".ppm"])
def test_images_of_more_than_8_bits_share_their_stream_scale(tmp_path: Path, suffix: str) -> None:
    scene = np.random.default_rng(0).integers(16, 139, (48, 64, 3)).astype(np.uint16)
    cv2.imwrite(str(tmp_path / f"1{suffix}"), scene)
    cv2.imwrite(str(tmp_path / f"2{suffix}"), scene // 2)
    first, second = (frame.image for frame in Video(str(tmp_path)).frames())
    assert first is not None and second is not None
    np.testing.assert_allclose(first, scene * (255 / 1023), atol=1)
    np.testing.assert_allclose(second, first / 2, atol=1.5)


@pytest.fixture
def variable(tmp_path: Path) -> Path:
    """Return a film of 20 frames: ten at 20 a second, then ten at 5 a second."""
    path = tmp_path / "variable.mp4"
    writer = VideoWriter(path, 20.0)
    for number in range(20):
        writer.write(picture(number % 6))
    writer.close()
    set_frame_durations(path, [0.05] * 10 + [0.2] * 10)
    return path


def test_time_of_a_frame_is_what_the_container_says(variable: Path) -> None:
    seconds = [frame.seconds for frame in Video(str(variable)).frames()]
    assert seconds == pytest.approx([i / 20 for i in range(10)] + [0.5 + i / 5 for i in range(10)], abs=1e-3)


@pytest.mark.parametrize(
    ("start", "end", "expected"),
    [
        (0.5, None, range(10, 20)),
        (0.51, 1.3, range(11, 14)),
        (0, 0.5, range(10)),
        (12, 1.5, range(12, 15)),
        (9.0, 9.5, []),
    ],
)
def test_span_in_seconds_follows_the_container(variable: Path, start: Any, end: Any, expected: Any) -> None:
    assert [frame.index for frame in Video(str(variable)).frames(start, end)] == list(expected)
    assert [frame.index for frame in VideoFileSource(str(variable)).frames(Span(start, end))] == list(expected)


def test_names_with_a_colon_are_read_and_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("2026-05-01T12:30:05.mp4", "C:film.AVI", "http:x.mp4"):
        writer = VideoWriter(Path(name), 12.0)
        writer.write(picture(1))
        writer.close()
        assert numbers(Video(name)) == [(0, 1)]
        assert Film(name)(0).shape == (48, 64, 3)
    cv2.imwrite("./a:b.png", picture(2))
    assert read_image(Path("a:b.png")).mean() == 80


def test_all_images_of_a_video_must_have_one_size(tmp_path):
    path = tmp_path / "out.mp4"
    writer = VideoWriter(path, 25.0)
    assert not path.exists()
    writer.write(picture(1))
    with pytest.raises(ValueError, match="66 x 48 follows 64 x 48"):
        writer.write(picture(2, width=66))
    writer.write(picture(3))
    writer.close()
    assert numbers(Video(str(path))) == [(0, 1), (1, 3)]


@pytest.mark.parametrize("suffix", [".mp4", ".m4v", ".MOV", ".mkv", ".avi"])
def test_video_that_lacks_its_last_bytes_is_not_kept(tmp_path: Path, suffix: str) -> None:
    """OpenCV reports no error when the disk is full, and most such files can be read up to somewhere."""
    path = tmp_path / f"film{suffix}"
    noise = np.random.default_rng(0).integers(0, 255, (30, 48, 64, 3), np.uint8)

    def write(limit: int) -> None:
        writer, before = VideoWriter(path, 20.0), resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
        try:
            for image in noise:
                writer.write(image)
            writer.close()
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)

    write(10**7)
    size = path.stat().st_size
    path.unlink()
    for missing in (1, 3, 9, 63, 64, 65, 200, 900, size // 4, size // 2, size - 100):
        with pytest.raises(WriteFailed, match=r"film.* could not be finished: (of 30 images|it was cut off at byte)"):
            write(size - missing)
        assert os.listdir(tmp_path) == []
    write(size)
    assert len(images(Video(str(path)))) == 30


def test_a_video_that_cannot_be_written_is_refused_each_time(tmp_path):
    writer = VideoWriter(tmp_path / "no_folder" / "out.mp4", 25.0)
    for _ in range(2):
        with pytest.raises(OSError, match=r"out\.mp4 cannot be written: its folder is not there"):
            writer.write(picture(1))
    writer.close()


def test_name_that_is_not_utf8_is_refused(tmp_path: Path) -> None:
    """OpenCV ends the process on such a name."""
    folder = tmp_path / os.fsdecode(b"f\xfcr")
    folder.mkdir()
    (folder / "film.mp4").write_bytes(b"film")
    cv2.imwrite(str(tmp_path / "0.png"), picture(0))
    (tmp_path / "0.png").rename(folder / "0.png")
    for path in (folder, folder / "film.mp4"):
        with pytest.raises(ValueError, match="is not a UTF-8 name"):
            next(Video(str(path)).frames())
    with pytest.raises(ValueError, match="is not a UTF-8 name"):
        VideoWriter(folder / "out.mp4", 12.0)


def moving(count: int = 7) -> list[np.ndarray]:
    """Return coloured noise that moves, [64, 96, 3] each."""
    coarse = np.random.default_rng(0).integers(0, 255, (8, 12, 3)).astype(np.uint8)
    scene = cv2.resize(coarse, (96, 64), interpolation=cv2.INTER_CUBIC)
    return [np.roll(scene, 7 * number, axis=1) for number in range(count)]


@pytest.mark.parametrize("interlaced", [range(7), [0], [3], range(2, 7), [1, 2, 6]], ids=str)
@pytest.mark.parametrize("name", ["film.mkv", "film.avi", "film.mp4", "a: 'b' [c],;\\ d=e%.mp4", "\t#@$\n .mkv"])
def test_interlaced_images_are_read_as_they_are(tmp_path: Path, name: str, interlaced: Any) -> None:
    """OpenCV 4.14 gives the image before in their place, or memory in which nothing was written."""
    write_mpeg2(tmp_path / "plain.mkv", moving())
    write_mpeg2(tmp_path / name, moving(), interlaced)
    plain, video = Video(str(tmp_path / "plain.mkv")), Video(str(tmp_path / name))
    expected, read = list(plain.frames()), list(video.frames())
    assert len(read) == 7 and [frame.seconds for frame in read] == pytest.approx([i / 25 for i in range(7)])
    for one, other in zip(expected, read, strict=True):
        np.testing.assert_array_equal(one.image, other.image)
    (note,) = video.notes
    assert "is interlaced" in note and "ffmpeg" in note and not plain.notes and not video.damage
    for (index, image), one in zip(images(video, 3, 5), expected[3:5], strict=True):  # begun in the middle
        np.testing.assert_array_equal(image, one.image, err_msg=str(index))
    film = Film(tmp_path / name)
    for number in (5, 2, 6):
        np.testing.assert_array_equal(film(number), expected[number].image)


@pytest.mark.parametrize("degrees", [90, 180, 270])
@pytest.mark.parametrize("interlaced", [(), range(7), [3]], ids=str)
def test_turned_videos_are_turned_once(tmp_path: Path, interlaced: Any, degrees: int) -> None:
    write_mpeg2(tmp_path / "plain.mp4", moving())
    write_mpeg2(tmp_path / "turned.mp4", moving(), interlaced, degrees)
    turned = Video(str(tmp_path / "turned.mp4"))
    for (_, one), (_, other) in zip(images(Video(str(tmp_path / "plain.mp4"))), images(turned), strict=True):
        np.testing.assert_array_equal(np.rot90(one, degrees // 90), other)
    assert bool(turned.notes) == bool(interlaced)


@pytest.mark.parametrize("interlaced", [(), [0], range(5)], ids=str)
@pytest.mark.parametrize("count", [1, 5])
@pytest.mark.parametrize("level", [0, 120])
def test_images_that_repeat_are_images(tmp_path: Path, level: int, count: int, interlaced: Any) -> None:
    write_mpeg2(tmp_path / "still.mkv", [np.full((64, 96, 3), level, np.uint8)] * count, interlaced)
    video = Video(str(tmp_path / "still.mkv"))
    assert [image.mean() for _, image in images(video)] == pytest.approx([level] * count, abs=5)
    assert not video.damage and (interlaced or not video.notes)


def test_images_that_repeat_are_told_where_nothing_can_check_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(film_capture, "_filtered", lambda _: cv2.VideoCapture())
    write_mpeg2(tmp_path / "film.mkv", moving(), range(7))
    video = Video(str(tmp_path / "film.mkv"))
    assert len(images(video)) == 7
    assert "image 1 equals the one before" in video.notes[0] and "yadif" in video.notes[0]
    write_mpeg2(tmp_path / "moves.mkv", moving())
    assert len(images(moves := Video(str(tmp_path / "moves.mkv")))) == 7 and not moves.notes
