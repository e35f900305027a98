# SPDX-License-Identifier: Apache-2.0
"""What the console knows: which picture is shown with which boxes, and what is said of what is missing."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from dimp_ros.apps.console.state import MAX_BYTES, MAX_FRAMES, ConsoleState, TrackerStatus, update_fields
from dimp_ros.geometry.box import Box
from dimp_ros.tracker.result import TargetEstimate, TargetState

MS = 1_000_000


class Clock:
    """A clock that is set."""

    now = 50.0

    def __call__(self) -> float:
        """Tell the time."""
        return self.now


@pytest.fixture
def clock() -> Clock:
    """Return a clock at 50 s."""
    return Clock()


@pytest.fixture
def board(clock: Clock) -> ConsoleState:
    """Return a board that holds pictures back for 0.5 s and calls those stale that are 1 s old."""
    return ConsoleState(pair_seconds=0.5, stale_after=1.0, clock=clock)


def show(board: ConsoleState, *stamps: int, size: int = 1000) -> None:
    """Let images come, with these stamps in milliseconds."""
    for stamp in stamps:
        board.on_image(stamp * MS, size, lambda: np.zeros((4, 4, 3), np.uint8))


def target(name: str = "cup", state: TargetState = TargetState.TRACKING) -> TargetEstimate:
    """Return a target with a box."""
    return TargetEstimate(name, state, Box(1.0, 2.0, 3.0, 4.0), 0.5, age=0.1)


def shown(board: ConsoleState) -> tuple[int, bool]:
    """Return the stamp of the picture to show, in milliseconds, and whether its own boxes are known."""
    frame, news = board.shown()
    return frame.stamp // MS, news is not None


def test_a_picture_is_shown_with_the_boxes_that_were_found_in_it(board):
    show(board, 100, 133, 166, 200)
    board.on_targets(133 * MS, [target()])
    assert shown(board) == (133, True)
    board.on_targets(200 * MS, [target()])
    assert shown(board) == (200, True)
    show(board, 233)
    assert shown(board) == (200, True), "the next picture waits for its boxes"


def test_a_tracker_that_is_too_slow_does_not_hold_the_video_back(board):
    show(board, *range(100, 800, 100))
    board.on_targets(100 * MS, [target()])
    assert shown(board) == (700, False)
    board.on_targets(300 * MS, [target()])
    assert shown(board) == (300, True)


def test_newest_image_is_shown_without_a_tracker(board):
    assert board.shown() is None
    show(board, 100, 133)
    assert shown(board) == (133, False)


def test_boxes_of_a_missing_image_are_not_drawn_on_another(board):
    show(board, 100, 200)
    board.on_targets(150 * MS, [target()])
    assert shown(board) == (200, False)


def test_a_stamp_that_goes_back_starts_anew(board):
    show(board, 90_000, 90_033)
    board.on_targets(90_033 * MS, [target()])
    show(board, 100)
    assert shown(board) == (100, False)


def test_what_is_held_is_bounded_in_number_and_bytes(board):
    show(board, *range(1, 3 * MAX_FRAMES))
    assert len(board._frames) <= MAX_FRAMES
    show(board, *range(1000, 1040), size=MAX_BYTES // 10)
    assert sum(frame.size for frame in board._frames) <= MAX_BYTES
    show(board, 1041, size=2 * MAX_BYTES)
    assert shown(board) == (1041, False), "the newest is always held"


def test_frames_before_the_news_are_let_go(board):
    show(board, 100, 133, 166, 200)
    board.on_targets(166 * MS, [])
    assert [frame.stamp // MS for frame in board._frames] == [166, 200]


def test_the_video_is_live_then_stale_and_never_more_than_that(board, clock):
    board.set_silence("nobody publishes on /image")
    video = board.status()["video"]
    assert (video["state"], video["age"], video["reason"]) == ("none", None, "nobody publishes on /image")
    show(board, 100)
    assert board.status()["video"]["reason"] == "", "what was said of silence is over with the first picture"
    board.set_silence("")
    clock.now += 0.9
    assert board.status()["video"]["state"] == "live"
    clock.now += 2.0
    video = board.status()["video"]
    assert (video["state"], video["age"]) == ("stale", 2.9)
    show(board, 200)
    assert board.status()["video"]["state"] == "live"
    board.on_bad_image("encoding '64FC9' is unknown")
    assert board.status()["video"] == {"state": "bad", "age": 0.0, "reason": "encoding '64FC9' is unknown"}
    board.forget_images()
    assert board.status()["video"]["state"] == "none"


def test_what_is_known_of_targets_grows_old(board, clock):
    assert board.status()["targets"] is None
    board.on_targets(1_500 * MS, [target(), replace(target("pen", TargetState.LOST), box=None)])
    clock.now += 0.25
    targets = board.status()["targets"]
    assert targets["age"] == 0.25 and targets["stamp"] == [1, 500 * MS]
    assert [one["id"] for one in targets["list"]] == ["cup", "pen"]
    assert targets["list"][0]["box"] == [1.0, 2.0, 3.0, 4.0] and targets["list"][1]["box"] is None
    board.on_targets(1_500 * MS, [])
    assert board.status()["targets"]["number"] == targets["number"] + 1
    assert update_fields(None, clock.now) is None


def test_whoever_listens_hears_of_changes_and_only_of_those(board):
    heard = []
    board.listen(lambda: heard.append(1))
    show(board, 100)
    board.on_targets(100 * MS, [])
    assert len(heard) == 2
    for _ in range(3):
        board.set_tracker(TrackerStatus(True, True, ""))
        board.set_silence("")
        board.on_bad_image("")
    assert len(heard) == 3


def test_numbers_that_are_not_finite_become_zeros_in_json():
    board = ConsoleState(0.5, 1.0)
    board.on_targets(MS, [TargetEstimate("cup", confidence=float("nan"), age=float("inf"))])
    (told,) = board.status()["targets"]["list"]
    assert (told["confidence"], told["age"], told["box"], told["state"]) == (0.0, 0.0, None, "UNINITIALIZED")
