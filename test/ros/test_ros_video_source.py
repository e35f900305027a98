# SPDX-License-Identifier: Apache-2.0
"""The video source: published images, start and end."""

from __future__ import annotations

import os
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
from harness.ros_harness import RELIABLE, Image, Node, Parameter, SetBool, context, spinning, wait_until
from helpers.video_fixtures import set_frame_durations

from dimp_ros.apps.demo.video_source import VideoSource, main
from dimp_ros.images.video import VideoWriter


@pytest.fixture(autouse=True)
def _no_discovery(monkeypatch: pytest.MonkeyPatch) -> None:
    """Do not wait for other sources: there are none."""
    monkeypatch.setattr("dimp_ros.apps.demo.video_source.DISCOVERY_SECONDS", 0.1)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder with six images of 32 x 24 pixels, whose pixels are 0, 10, 20 ..."""
    for number in range(6):
        cv2.imwrite(str(tmp_path / f"{number:03d}.png"), np.full((24, 32, 3), 10 * number, np.uint8))
    (tmp_path / "notes.txt").write_text("not an image")
    return tmp_path


@pytest.fixture
def film(tmp_path: Path) -> Path:
    """Return a video of six frames at 12 Hz, whose pixels are about 0, 40, 80 ..."""
    path = tmp_path / "film.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 12.0, (32, 24))
    for number in range(6):
        writer.write(np.full((24, 32, 3), 40 * number, np.uint8))
    writer.release()
    return path


class Viewer:
    """Plays a video and keeps what is shown."""

    def __init__(self, **parameters: object) -> None:
        self.codes: list[int] = []
        self.images: list[Image] = []
        overrides = [Parameter(name, value=value) for name, value in parameters.items()]
        self.source = VideoSource(self.codes.append, parameter_overrides=overrides)
        self.node = Node("viewer")

    def look(self) -> None:
        """Subscribe."""
        self.node.create_subscription(Image, "image", self.images.append, RELIABLE)

    def set_playing(self, playing: bool) -> None:
        """Let the source play, or wait."""
        client = self.node.create_client(SetBool, "video_source/set_playing")
        assert client.wait_for_service(timeout_sec=10)
        future = client.call_async(SetBool.Request(data=playing))
        wait_until(future.done, "answer")

    @property
    def shown(self) -> list[int]:
        """Return what the pixels of the images say."""
        return [image.data[0] // 10 for image in self.images]


def test_images_come_in_order_once_all_subscribers_are_there(folder):
    with context():
        viewer = Viewer(video=str(folder), rate=100, wait_for_subscribers=1, frame_id="lens")
        with spinning(viewer.source, viewer.node):
            time.sleep(0.2)
            assert viewer.source.published == 0
            viewer.look()
            wait_until(lambda: viewer.codes, "the end")
            wait_until(lambda: len(viewer.images) == 6, "all images")
            assert viewer.shown == [0, 1, 2, 3, 4, 5] and viewer.codes == [0]
            image = viewer.images[3]
            assert (image.encoding, image.width, image.height, image.step) == ("bgr8", 32, 24, 96)
            assert image.header.frame_id == "lens" and bytes(image.data) == bytes([30]) * (96 * 24)
            stamps = [(i.header.stamp.sec, i.header.stamp.nanosec) for i in viewer.images]
            assert stamps == sorted(set(stamps)) and abs(stamps[0][0] - time.time()) < 60


def test_first_and_last_frame_are_played_and_a_loop_repeats(folder):
    with context():
        parameters = {"first_frame": 2, "last_frame": 4, "loop": True}
        viewer = Viewer(video=str(folder), rate=100.0, wait_for_subscribers=1, **parameters)
        with spinning(viewer.source, viewer.node):
            viewer.look()
            wait_until(lambda: len(viewer.images) >= 7, "the third round")
            assert viewer.shown[:7] == [2, 3, 4, 2, 3, 4, 2] and not viewer.codes


@pytest.mark.parametrize("fault", ["gone", "cut", "fifo"])
def test_a_video_that_goes_away_in_a_loop_ends_it_in_one_line(film, fault, capfd):
    with context():
        viewer = Viewer(video=str(film), rate=100.0, loop=True, wait_for_subscribers=1)
        with spinning(viewer.source, viewer.node):
            if fault == "cut":
                os.truncate(film, 200)
            else:
                film.unlink()
            if fault == "fifo":
                os.mkfifo(film)
            viewer.look()
            wait_until(lambda: viewer.codes, "the end")
    output = "".join(capfd.readouterr())
    assert viewer.codes == [1] and "the video cannot be played any more: " in output and "Traceback" not in output


def test_while_paused_the_image_is_repeated_with_new_stamps(folder):
    with context():
        viewer = Viewer(video=str(folder), rate=100.0, wait_for_subscribers=1, paused=True)
        with spinning(viewer.source, viewer.node):
            viewer.look()
            wait_until(lambda: len(viewer.images) >= 3, "repetitions")
            viewer.set_playing(True)
            wait_until(lambda: viewer.codes, "the end")
            wait_until(lambda: viewer.shown[-1] == 5, "the last image")
            assert list(dict.fromkeys(viewer.shown)) == [0, 1, 2, 3, 4, 5] and viewer.shown[:3] == [0, 0, 0]
            stamps = [(i.header.stamp.sec, i.header.stamp.nanosec) for i in viewer.images]
            assert len(set(stamps)) == len(stamps)


def test_a_video_is_played_at_its_own_rate(film):
    with context():
        viewer = Viewer(video=str(film), wait_for_subscribers=1, first_frame=1)
        with spinning(viewer.source, viewer.node):
            viewer.look()
            begin = time.monotonic()
            wait_until(lambda: viewer.codes, "the end")
            assert time.monotonic() - begin >= 4 / 12
            wait_until(lambda: len(viewer.images) == 5, "all frames")
            assert [round(image.data[0] / 40) for image in viewer.images] == [1, 2, 3, 4, 5]


def test_unreadable_image_is_left_out_and_logged(folder, capfd):
    (folder / "003.png").write_text("not an image")
    with context():
        viewer = Viewer(video=str(folder), rate=100.0)
        with spinning(viewer.source):
            wait_until(lambda: viewer.codes, "the end")
    assert viewer.codes == [0] and viewer.source.published == 5
    assert "image 3 is left out" in capfd.readouterr().err


def test_variable_frame_rate_is_played_at_the_times_of_the_video(tmp_path):
    path = tmp_path / "film.mp4"
    writer = VideoWriter(path, 20.0)
    for _ in range(8):
        writer.write(np.zeros((24, 32, 3), np.uint8))
    writer.close()
    set_frame_durations(path, [0.1] * 4 + [0.4] * 4)
    with context():
        viewer = Viewer(video=str(path), wait_for_subscribers=1)
        with spinning(viewer.source, viewer.node):
            viewer.look()
            wait_until(lambda: viewer.codes, "the end")
            wait_until(lambda: len(viewer.images) == 8, "all images")
    stamps = [image.header.stamp.sec + image.header.stamp.nanosec * 1e-9 for image in viewer.images]
    steps = np.diff(stamps)  # medians: on a busy machine one image may be late
    assert (np.median(steps[:4]), np.median(steps[4:])) == pytest.approx((0.1, 0.4), abs=0.06)


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["video:=/no/such/video.mp4"], "/no/such/video.mp4"),
        (["video:={here}"], "is not a video"),
        (["rate:=10.0"], "no such file or folder: ''"),
        (["video:={folder}", "first_frame:=99"], "no image 99"),
        (["video:={folder}", "first_frame:=3", "last_frame:=1"], "last_frame"),
        (["video:={folder}", "rate:=-5.0"], "rate"),
    ],
)
def test_what_cannot_be_played_is_refused_in_one_line(arguments, word, folder, capsys):
    filled = [argument.format(folder=folder, here=__file__) for argument in arguments]
    assert main(["--ros-args", *(part for argument in filled for part in ("-p", argument))]) == 1
    error = capsys.readouterr().err
    assert word in error and len(error.strip().splitlines()) == 1
