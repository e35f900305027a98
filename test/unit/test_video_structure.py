# SPDX-License-Identifier: Apache-2.0
"""Videos that were cut off or damaged are told from whole ones, whatever the container says of its images."""

from __future__ import annotations

import struct
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import pytest
from helpers.video_fixtures import set_frame_durations

from dimp_ros.images.frame_source import Span, VideoFileSource
from dimp_ros.images.video import Video
from dimp_ros.images.video_structure import find_damage, mp4_length

FRAMES = 80
KINDS = {"mp4": "mp4v", "mov": "mp4v", "avi": "MJPG", "mkv": "mp4v", "webm": "VP80", "ts": "mp4v"}


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write 80 images of noise at 20 Hz in every container; return the folder."""
    folder = tmp_path_factory.mktemp("films")
    noise = np.random.default_rng(0).integers(0, 255, (FRAMES, 48, 64, 3), np.uint8)
    for suffix, codec in KINDS.items():
        writer = cv2.VideoWriter(str(folder / f"film.{suffix}"), cv2.VideoWriter.fourcc(*codec), 20.0, (64, 48))
        for image in noise:
            writer.write(image)
        writer.release()
    return folder


@pytest.fixture
def film(films: Path, tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """Return a copy of the film in the container that a test names."""
    path = tmp_path / f"film.{request.param}"
    if not cv2.VideoCapture(str(films / path.name)).isOpened():
        pytest.skip(f"this OpenCV does not write {request.param}")
    path.write_bytes((films / path.name).read_bytes())
    return path


def read(path: Path) -> tuple[int, str, list[str]]:
    """Return the number of images of a film, its damage and the notes."""
    source = VideoFileSource(str(path))
    return len(list(source.frames(Span()))), source.damage, source.notes


@pytest.mark.parametrize("film", KINDS, indirect=True)
def test_whole_film_is_not_called_damaged(film):
    assert read(film) == (FRAMES, "", []) and find_damage(film, closed=True) == ""


@pytest.mark.parametrize("share", [0.3, 0.6, 0.95])
@pytest.mark.parametrize("film", ["avi", "mkv", "webm"], indirect=True)
def test_film_that_was_cut_off_says_how_many_images_it_has(film, share):
    whole = film.read_bytes()
    size = int(len(whole) * share)
    film.write_bytes(whole[:size])
    count, damage, _ = read(film)
    assert 0 < count < FRAMES and f"has {count} of {FRAMES} images" in damage
    assert damage.endswith(f"it was cut off at byte {size} of {len(whole)}")


def test_mp4_with_its_index_in_front_is_cut_off(films, tmp_path):
    path = tmp_path / "film.mp4"
    content = (films / path.name).read_bytes()
    head, index = int.from_bytes(content[:4], "big"), content.index(b"moov") - 4
    path.write_bytes(content[:head] + content[index:] + content[head : index - 1000])
    assert find_damage(path).startswith("it was cut off at byte")
    path.write_bytes(content + bytes(100))  # some writers leave zeros
    assert find_damage(path) == ""


@pytest.mark.parametrize("film", ["mp4", "mov", "avi", "mkv", "webm"], indirect=True)
def test_zeros_in_the_middle_of_a_film_are_reported(film):
    content = bytearray(film.read_bytes())
    middle, end = len(content) // 3, len(content) * 5 // 6
    if film.suffix in (".mp4", ".mov"):
        end = content.index(b"moov") - 4
    content[middle:end] = bytes(end - middle)
    film.write_bytes(content)
    count, damage, _ = read(film)
    if film.suffix in (".mp4", ".mov"):  # the index is whole, but the decoder gives up
        assert count < FRAMES and damage.endswith(
            f"ends after {count} of {FRAMES} images: the others cannot be decoded"
        )
    else:
        assert f"has {count} of {FRAMES} images that can be read: it is damaged at byte " in damage


@pytest.mark.parametrize("film", ["ts"], indirect=True)
def test_gap_of_a_stream_is_noted(film):
    content = film.read_bytes()
    packets = len(content) // 188 // 3 * 188
    film.write_bytes(content[:packets] + content[2 * packets :])
    count, damage, (note,) = read(film)
    assert count < FRAMES and damage == ""
    times = [frame.seconds for frame in Video(str(film)).frames()]
    steps = [later - earlier for earlier, later in pairwise(times)]
    assert f"has no image for {max(steps):.2f} s after frame {np.argmax(steps)}: its frame rate varies, or" in note


@pytest.mark.parametrize("film", ["mp4"], indirect=True)
@pytest.mark.parametrize("last", [0.05, 10.0])
def test_variable_frame_rate_is_no_damage(film, last):
    set_frame_durations(film, [0.05] * 40 + [0.2] * (FRAMES - 41) + [last])
    assert read(film) == (FRAMES, "", [])


@pytest.mark.parametrize("film", ["mp4"], indirect=True)
@pytest.mark.parametrize(("begin", "shown"), [(0.0, 2.0), (1.0, 2.0), (1.0, 3.0)])
def test_images_that_an_edit_list_leaves_out_are_no_damage(film, begin, shown):
    content = bytearray(film.read_bytes())
    scale, clock = (struct.unpack_from(">I", content, content.index(name) + 16)[0] for name in (b"mvhd", b"mdhd"))
    struct.pack_into(">Ii", content, content.index(b"elst") + 12, round(shown * scale), round(begin * clock))
    film.write_bytes(content)
    assert mp4_length(film) == (pytest.approx(shown), pytest.approx(4.0 - shown), True)
    count, damage, _ = read(film)
    assert count == pytest.approx(shown * 20, abs=2) and damage == ""


@pytest.mark.parametrize("film", ["avi"], indirect=True)
@pytest.mark.parametrize("size", [0, 2**32 - 1])
def test_avi_whose_recorder_was_killed_is_read_as_far_as_it_goes(film, size):
    content = bytearray(film.read_bytes()[:-5000])
    struct.pack_into("<I", content, 4, size)
    film.write_bytes(content)
    assert find_damage(film) == "" and find_damage(film, closed=True) == "it was not closed"


@pytest.mark.parametrize("film", ["mkv", "webm"], indirect=True)
def test_matroska_of_unknown_length_may_end_anywhere(film):
    content = film.read_bytes()
    segment = content.index(b"\x18\x53\x80\x67") + 4
    assert content[segment] == 1  # eight bytes of length
    content = content[:segment] + b"\x01" + b"\xff" * 7 + content[segment + 8 :]
    for size in (len(content), len(content) * 2 // 3, len(content) // 2):
        film.write_bytes(content[:size])
        assert find_damage(film) == "" and find_damage(film, closed=True) == "it was not closed"
    film.write_bytes(content[:size] + bytes(size // 3) + content[size * 4 // 3 :])
    assert "it is damaged at byte" in find_damage(film)


@pytest.mark.parametrize("film", KINDS, indirect=True)
def test_any_bytes_give_an_answer(film):
    content, draw = film.read_bytes(), np.random.default_rng(1)
    for _ in range(60):
        changed = bytearray(content)
        for at in draw.integers(0, min(len(content), draw.choice((100, 10**7))), draw.integers(1, 20)):
            changed[at] = draw.choice((0, 1, 255, draw.integers(256)))
        film.write_bytes(changed[: draw.integers(len(changed))] if draw.random() < 0.5 else changed)
        assert isinstance(find_damage(film), str)
        mp4_length(film)
