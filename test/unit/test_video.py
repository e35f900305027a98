# SPDX-License-Identifier: Apache-2.0
"""Videos in and out: the same frames from a file and from a folder, what cannot be read, and the MP4 written."""

from __future__ import annotations

import os
from pathlib import Path

import cv2
import numpy as np
import pytest

from dimp_ros.images.video import Video, VideoWriter

FRAMES = 6


def picture(number: int, width: int = 64) -> np.ndarray:
    return np.full((48, width, 3), 40 * number, np.uint8)


def numbers(video: Video, *span: int | None) -> list[tuple[int, int]]:
    """Return the index of each frame, and the number that its pixels say."""
    return [(index, round(image.mean() / 40)) for index, image in video.frames(*span)]


@pytest.fixture(params=["file", "folder"])
def source(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Write the pictures as a video at 12 Hz, or as a folder; return its path."""
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
    assert all(image.shape == (48, 64, 3) and image.dtype == np.uint8 for _, image in frames)
    assert [index for index, _ in frames] == list(range(FRAMES))


def test_a_span_can_be_read_again_and_again(source):
    video = Video(source)
    for _ in range(2):
        assert numbers(video, 2, 5) == [(2, 2), (3, 3), (4, 4)]
    next(video.frames())
    assert numbers(video, 4) == [(4, 4), (5, 5)] and numbers(video, FRAMES) == numbers(video, 3, 3) == []


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("not_there.mp4", "no such file or folder: .*not_there.mp4; give"),
        ("text.mp4", "text.mp4 is not a video that OpenCV"),
        ("empty", "no pictures in the folder .*empty"),
    ],
)
def test_what_is_not_a_video_is_refused_by_name(tmp_path, name, reason):
    (tmp_path / "text.mp4").write_text("not a video")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=reason):
        Video(str(tmp_path / name))


def test_an_empty_name_is_not_the_current_folder_and_a_number_is_a_camera():
    with pytest.raises(ValueError, match="no such file or folder: ''"):
        Video("")
    with pytest.raises(ValueError, match="camera 987 cannot be opened"):
        Video("987")


def test_a_damaged_picture_is_named_when_its_turn_comes(tmp_path):
    cv2.imwrite(str(tmp_path / "1.png"), picture(1))
    (tmp_path / "2.png").write_text("not a picture")
    frames = Video(str(tmp_path)).frames()
    next(frames)
    with pytest.raises(ValueError, match=r"cannot read the image .*2\.png"):
        next(frames)


def test_all_pictures_of_a_video_written_have_the_first_ones_size(tmp_path):
    path = tmp_path / "out.mp4"
    writer = VideoWriter(path, 25.0)
    assert not path.exists()
    writer.write(picture(1))
    with pytest.raises(ValueError, match="66 x 48 follows 64 x 48"):
        writer.write(picture(2, width=66))
    writer.write(picture(3))
    writer.close()
    assert numbers(Video(str(path))) == [(0, 1), (1, 3)]


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
