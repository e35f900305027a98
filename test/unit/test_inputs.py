# SPDX-License-Identifier: Apache-2.0
"""Input files: what is no file of data is refused before it is opened."""

import os
from pathlib import Path

import cv2
import numpy as np
import pytest

from dimp_ros.files.inputs import opencv_path, read_small_file, require_regular_file, video_path
from dimp_ros.images.video import Video

KERNEL = [path for path in ("/proc/self/status", "/proc/kmsg", "/sys/kernel/uevent_seqnum") if os.path.exists(path)]


@pytest.mark.parametrize("name", KERNEL)
@pytest.mark.parametrize("linked", [False, True], ids=["itself", "link"])
def test_files_of_the_kernel_are_refused(tmp_path, name, linked):
    path = Path(name)
    if linked:
        (path := tmp_path / "film.mp4").symlink_to(name)
    for read in (require_regular_file, opencv_path):
        with pytest.raises(ValueError, match="file of the kernel"):
            read(path)
    with pytest.raises((ValueError, PermissionError)):
        read_small_file(path, 2**20)


def test_an_open_file_by_its_number_is_taken(tmp_path):
    path = tmp_path / "data"
    path.write_bytes(b"abc")
    with path.open("rb") as file:
        number = f"/proc/self/fd/{file.fileno()}"
        assert read_small_file(number, 10) == b"abc"
        assert require_regular_file(Path(number)) == Path(number)


ID3 = b"ID3\x04\0\0\0\0\0\x05" + bytes(5)
PLAYLISTS = {
    "concat": b"ffconcat version 1.0\nfile other.mp4\n",
    "concat with other bytes": b"ffconcat version 1.0\n# \0\xff\nfile other.mp4\n",
    "HLS": b"#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:2,\nother.mp4\n#EXT-X-ENDLIST\n",
    "HLS with other bytes": b"#EXTM3U\n#\xff\0\n#EXT-X-TARGETDURATION:10\n#EXTINF:2,\nother.mp4\n#EXT-X-ENDLIST\n",
    "DASH": b"<?xml version='1.0' encoding='ISO-8859-1'?><!-- \xff --><MPD><BaseURL>other.mp4</BaseURL></MPD>",
    "SDP": b"v=0\r\nc=IN IP4 127.0.0.1\r\nm=video 5004 RTP/AVP 96\r\n",
    "VobSub": b"# VobSub index file, v7\n",
    "script": 'DirectShowSource("other.mp4")  # é'.encode(),
}


@pytest.fixture(scope="module")
def film(tmp_path_factory):
    path = tmp_path_factory.mktemp("film") / "other.mp4"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), 10.0, (64, 64))
    for index in range(3):
        writer.write(np.full((64, 64, 3), 50 * index, np.uint8))
    writer.release()
    return path


@pytest.mark.parametrize("kind", PLAYLISTS)
@pytest.mark.parametrize("tags", [b"", ID3, 2 * ID3], ids=["", "ID3", "two ID3"])
@pytest.mark.parametrize("suffix", [".txt", ".mp4"])
def test_playlist_is_no_video_whatever_its_name_and_tags(film, kind, tags, suffix):
    """What it names would be an input that nobody has checked against the outputs."""
    path = film.with_name(f"list{suffix}")
    path.write_bytes(tags + PLAYLISTS[kind])
    with pytest.raises(ValueError, match=r"not a video but a text.*give the video itself"):
        Video(str(path))


@pytest.mark.parametrize("name", ["x_%03d.png", "x_%d.jpg", "x_%*.bmp", "%02d/x.png"])
def test_name_that_stands_for_many_images_is_no_video(film, name):
    path = film.with_name("many") / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(film.read_bytes())
    with pytest.raises(ValueError, match="or rename it"):
        video_path(path)


@pytest.mark.parametrize("name", ["100%done.mp4", "film", "flat.y4m", "50%.mkv"])
def test_other_names_and_containers_are_videos(film, name):
    path = film.with_name(name)
    data = b"YUV4MPEG2 W8 H8 F10:1\n" + (b"FRAME\n" + b"A" * 96) * 3 if name.endswith("y4m") else film.read_bytes()
    path.write_bytes(data)
    assert len(list(Video(str(path)).frames())) == 3
