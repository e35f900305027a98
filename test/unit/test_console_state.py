# SPDX-License-Identifier: Apache-2.0
"""State of the console: which image is shown with which boxes, and what is reported as missing."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from dimp_ros.apps.console.state import MAX_BYTES, MAX_FRAMES, ConsoleState, TrackerStatus, update_fields
from dimp_ros.geometry.box import Box
from dimp_ros.tracker.result import TargetEstimate, TargetState

MS = 1_000_000


class Clock:
    """A clock that the test sets."""

    now = 50.0

    def __call__(self) -> float:
        """Return the time."""
        return self.now


@pytest.fixture
def clock() -> Clock:
    """Return a clock at 50 s."""
    return Clock()


@pytest.fixture
def state(clock: Clock) -> ConsoleState:
    """Return a state that waits up to 0.5 s for boxes and marks images stale after 1 s."""
    return ConsoleState(pair_seconds=0.5, stale_after=1.0, clock=clock)


def show(state: ConsoleState, *stamps: int, size: int = 1000) -> None:
    """Add images with these stamps in milliseconds."""
    for stamp in stamps:
        state.on_image(stamp * MS, size, lambda: np.zeros((4, 4, 3), np.uint8))


def target(name: str = "cup", state: TargetState = TargetState.TRACKING) -> TargetEstimate:
    """Return a target with a box."""
    return TargetEstimate(name, state, Box(1.0, 2.0, 3.0, 4.0), 0.5, age=0.1)


def shown(state: ConsoleState) -> tuple[int, bool]:
    """Return the stamp of the image to show, in milliseconds, and whether its own boxes are known."""
    frame, update = state.shown()
    return frame.stamp // MS, update is not None


def test_image_is_shown_with_its_own_boxes(state):
    show(state, 100, 133, 166, 200)
    state.on_targets(133 * MS, [target()])
    assert shown(state) == (133, True)
    state.on_targets(200 * MS, [target()])
    assert shown(state) == (200, True)
    show(state, 233)
    assert shown(state) == (200, True), "the next image waits for its boxes"


def test_a_tracker_that_is_too_slow_does_not_hold_the_video_back(state):
    show(state, *range(100, 800, 100))
    state.on_targets(100 * MS, [target()])
    assert shown(state) == (700, False)
    state.on_targets(300 * MS, [target()])
    assert shown(state) == (300, True)


def test_newest_image_is_shown_without_a_tracker(state):
    assert state.shown() is None
    show(state, 100, 133)
    assert shown(state) == (133, False)


def test_boxes_of_a_missing_image_are_not_drawn_on_another(state):
    show(state, 100, 200)
    state.on_targets(150 * MS, [target()])
    assert shown(state) == (200, False)


def test_a_stamp_that_goes_back_starts_anew(state):
    show(state, 90_000, 90_033)
    state.on_targets(90_033 * MS, [target()])
    show(state, 100)
    assert shown(state) == (100, False)


def test_what_is_held_is_bounded_in_number_and_bytes(state):
    show(state, *range(1, 3 * MAX_FRAMES))
    assert len(state._frames) <= MAX_FRAMES
    show(state, *range(1000, 1040), size=MAX_BYTES // 10)
    assert sum(frame.size for frame in state._frames) <= MAX_BYTES
    show(state, 1041, size=2 * MAX_BYTES)
    assert shown(state) == (1041, False), "the newest is always held"


def test_frames_before_the_last_update_are_discarded(state):
    show(state, 100, 133, 166, 200)
    state.on_targets(166 * MS, [])
    assert [frame.stamp // MS for frame in state._frames] == [166, 200]


def test_the_video_is_live_then_stale_and_never_more_than_that(state, clock):
    state.set_silence("nobody publishes on /image")
    video = state.status()["video"]
    assert (video["state"], video["age"], video["reason"]) == ("none", None, "nobody publishes on /image")
    show(state, 100)
    assert state.status()["video"]["reason"] == "", "the reason is cleared by the first image"
    state.set_silence("")
    clock.now += 0.9
    assert state.status()["video"]["state"] == "live"
    clock.now += 2.0
    video = state.status()["video"]
    assert (video["state"], video["age"]) == ("stale", 2.9)
    show(state, 200)
    assert state.status()["video"]["state"] == "live"
    state.on_bad_image("encoding '64FC9' is unknown")
    assert state.status()["video"] == {"state": "bad", "age": 0.0, "reason": "encoding '64FC9' is unknown"}
    state.forget_images()
    assert state.status()["video"]["state"] == "none"


def test_what_is_known_of_targets_grows_old(state, clock):
    assert state.status()["targets"] is None
    state.on_targets(1_500 * MS, [target(), replace(target("pen", TargetState.LOST), box=None)])
    clock.now += 0.25
    targets = state.status()["targets"]
    assert targets["age"] == 0.25 and targets["stamp"] == [1, 500 * MS]
    assert [one["id"] for one in targets["list"]] == ["cup", "pen"]
    assert targets["list"][0]["box"] == [1.0, 2.0, 3.0, 4.0] and targets["list"][1]["box"] is None
    state.on_targets(1_500 * MS, [])
    assert state.status()["targets"]["number"] == targets["number"] + 1
    assert update_fields(None, clock.now) is None


def test_listener_is_called_for_changes_only(state):
    heard = []
    state.listen(lambda: heard.append(1))
    show(state, 100)
    state.on_targets(100 * MS, [])
    assert len(heard) == 2
    for _ in range(3):
        state.set_tracker(TrackerStatus(True, True, ""))
        state.set_silence("")
        state.on_bad_image("")
    assert len(heard) == 3


def test_numbers_that_are_not_finite_become_zeros_in_json():
    state = ConsoleState(0.5, 1.0)
    state.on_targets(MS, [TargetEstimate("cup", confidence=float("nan"), age=float("inf"))])
    (fields,) = state.status()["targets"]["list"]
    assert (fields["confidence"], fields["age"], fields["box"], fields["state"]) == (0.0, 0.0, None, "UNINITIALIZED")
