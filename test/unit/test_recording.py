# SPDX-License-Identifier: Apache-2.0
"""Recording of a run: every image once, in order, with its state by stamp; the summary."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from dimp_ros.apps.recording.annotated_video import AnnotatedVideo, BackgroundVideo, Observation, Summary
from dimp_ros.images.overlay import COLOURS
from dimp_ros.images.video import VideoWriter

FOUND = Observation("TRACKING", (100.0, 80.0, 60.0, 40.0), 0.8, 0.05)
LOST = Observation("LOST", None, 0.0, 0.07)
PERIOD = 40_000_000


def picture(number: int) -> np.ndarray:
    """Return a grey image with a white mark whose place says ``number``."""
    made = np.full((240, 320, 3), 90, np.uint8)
    made[150:200, 10 * number : 10 * number + 10] = 255
    return made


def read(path: Path) -> list[np.ndarray]:
    capture = cv2.VideoCapture(str(path))
    frames = []
    while (frame := capture.read()[1]) is not None:
        frames.append(frame)
    return frames


def number_of(frame: np.ndarray) -> int:
    return int(frame[160:190].mean((0, 2)).reshape(32, 10).mean(1).argmax())


def has_box(frame: np.ndarray) -> bool:
    """Whether the green of TRACKING is on the box's upper edge."""
    edge = frame[78:83, 110:150].reshape(-1, 3).astype(int)
    return bool((np.abs(edge - COLOURS["TRACKING"]).max(1) < 60).mean() > 0.2)


@pytest.mark.parametrize("words_first", [False, True])
def test_images_are_written_in_order_with_their_own_boxes(tmp_path, words_first):
    with AnnotatedVideo(tmp_path / "made" / "video.mp4") as video:
        for number in range(30):
            observation = LOST if number % 3 == 2 else FOUND
            add = [lambda n=number: video.add_image(n * PERIOD, picture(n)), None]
            add[1] = lambda n=number, s=observation: video.add_observation(n * PERIOD, s)
            for action in reversed(add) if words_first else add:
                action()
        waiting = len(video._frames)
    assert waiting <= 1, "images wait although all states have arrived"
    frames = read(video.path)
    assert [number_of(frame) for frame in frames] == list(range(30))
    assert [has_box(frame) for frame in frames] == [number % 3 != 2 for number in range(30)]
    assert cv2.VideoCapture(str(video.path)).get(cv2.CAP_PROP_FPS) == pytest.approx(25.0, rel=0.01)
    assert (video.written, video.skipped) == (30, 0)


def test_skipped_image_is_written_without_a_current_box(tmp_path):
    with AnnotatedVideo(tmp_path / "video.mp4") as video:
        for number in range(20):
            video.add_image(number * PERIOD, picture(number))
        for number in range(0, 20, 4):
            video.add_observation(number * PERIOD, FOUND)
    frames = read(video.path)
    assert [number_of(frame) for frame in frames] == list(range(20))
    assert [has_box(frame) for frame in frames] == [number % 4 == 0 for number in range(20)]
    assert video.skipped == 15


def test_the_figures_of_a_run():
    observations = {number * 2 * PERIOD: FOUND for number in range(8)}
    observations[8 * 2 * PERIOD] = LOST
    observations[9 * 2 * PERIOD] = Observation("UNCERTAIN", (0.0, 0.0, 5.0, 5.0), 0.2, 0.25)
    summary = Summary.of(observations, published=20)
    assert (summary.frames, summary.published) == (10, 20)
    assert (summary.tracked, summary.uncertain, summary.lost) == (8, 1, 1)
    assert summary.median_confidence == 0.8 and summary.tracker_fps == 12.5
    assert summary.age_ms_median == 50.0 and 100 < summary.age_ms_p95 < 250
    assert "10 processed of 20" in summary.text()


def test_run_without_results_has_a_summary():
    summary = Summary.of({}, published=5)
    assert (summary.frames, summary.lost, summary.tracker_fps, summary.age_ms_median) == (0, 0, 0.0, 0.0)


def test_background_video_blocks_nothing_and_is_complete(tmp_path):
    video = BackgroundVideo(tmp_path / "video.mp4")
    gate = threading.Event()

    def slowly(number: int) -> Callable[[], np.ndarray]:
        def made() -> np.ndarray:
            assert gate.wait(10.0)
            return picture(number)

        return made

    for number in range(12):
        video.add_image(number * PERIOD, slowly(number))
        video.add_observation(number * PERIOD, FOUND)
    assert not (tmp_path / "video.mp4").exists()
    gate.set()
    video.close()
    frames = read(tmp_path / "video.mp4")
    assert [number_of(frame) for frame in frames] == list(range(12)) and all(map(has_box, frames))


@pytest.mark.parametrize("late", [False, True], ids=["no states", "late states"])
def test_images_without_states_are_written_when_many_wait(tmp_path, monkeypatch, late):
    monkeypatch.setattr("dimp_ros.apps.recording.annotated_video.WAITING_BYTES", 15 * picture(0).nbytes)
    with AnnotatedVideo(tmp_path / "video.mp4") as video:
        for number in range(40):
            video.add_image(number * PERIOD, picture(number))
            assert number + 1 - video.written <= 15
            if late and number >= 5:
                video.add_observation((number - 5) * PERIOD, FOUND)
    assert video.written == 40 and video.skipped == (5 if late else 40)


def test_background_video_leaves_images_out_while_many_wait(tmp_path, monkeypatch):
    monkeypatch.setattr("dimp_ros.apps.recording.annotated_video.WAITING_JOBS", 12)
    video, gate = BackgroundVideo(tmp_path / "video.mp4"), threading.Event()
    video.add_image(0, lambda: (gate.wait(10), picture(0))[1])
    for number in range(1, 100):
        video.add_image(number * PERIOD, lambda number=number: picture(number))
    gate.set()
    assert 100 - 13 <= video.close() <= 100 - 12


@pytest.mark.parametrize("kind", [AnnotatedVideo, BackgroundVideo])
@pytest.mark.parametrize("words", [True, False], ids=["states came", "no states came"])
def test_video_that_is_hastened_is_finished_with_what_it_has(tmp_path, monkeypatch, kind, words):
    """Also while its backlog is written already."""
    monkeypatch.setattr("dimp_ros.apps.recording.annotated_video.LAST_SECONDS", 0.1)
    video = kind(tmp_path / "video.mp4")
    write = VideoWriter.write
    monkeypatch.setattr(VideoWriter, "write", lambda self, image: (time.sleep(0.02), write(self, image)))
    waiting = kind is BackgroundVideo or not words
    for number in range(30):
        image = picture(number)
        video.add_image(number * PERIOD, image if kind is AnnotatedVideo else lambda image=image: image)
        if words:
            video.add_observation(number * PERIOD, FOUND)
    begin = time.monotonic()
    video.hasten()
    missing = video.close()
    assert time.monotonic() - begin < 10.0 and [path.name for path in tmp_path.iterdir()] == ["video.mp4"]
    assert [number_of(frame) for frame in read(tmp_path / "video.mp4")] == list(range(30 - missing))
    assert 0 < missing < 30 if waiting else missing == 0


def test_error_of_a_background_video_is_raised_at_close(tmp_path):
    video = BackgroundVideo(tmp_path / "video.mp4")

    def fail() -> np.ndarray:
        raise ValueError("no such encoding")

    video.add_image(0, fail)
    video.add_image(PERIOD, lambda: picture(1))
    with pytest.raises(ValueError, match="no such encoding"):
        video.close()
