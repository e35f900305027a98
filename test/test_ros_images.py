# SPDX-License-Identifier: Apache-2.0
"""The tracker node and its images over real DDS: encodings, broken ones, a tracker that fails, the debug image."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # the harness lies beside its tests
from ros_harness import (
    HEIGHT,
    RELIABLE,
    WIDTH,
    Image,
    ScriptedTracker,
    State,
    is_zero,
    numbered_image,
    running,
    start_target,
    wait_until,
)


def broken(what: str) -> Image:
    """Return an image that says something wrong about itself."""
    image = numbered_image(2)
    if what == "short":
        image.data = image.data[:-1]
    elif what == "narrow step":
        image.step = WIDTH
        image.data = image.data[: WIDTH * HEIGHT]
    elif what == "unknown encoding":
        image.encoding = "sixteen_shades"
    elif what == "no pixels":
        image = Image(header=image.header, encoding="bgr8")
    return image


@pytest.mark.parametrize("what", ["short", "narrow step", "unknown encoding", "no pixels"])
def test_a_bad_image_loses_the_target_for_that_image_only(what, capfd):
    tracker = ScriptedTracker()
    with running(tracker) as client:
        start_target(client)
        image = broken(what)
        state = client.show(image)
        assert state.state == State.LOST and is_zero(state.bbox)
        assert client.detections_of(image).detections == []
        refused = client.init()
        assert not refused.success and len(refused.message) > 20
        assert client.show(numbered_image(3)).state == State.TRACKING
        assert tracker.updates == [3] and len(tracker.inits) == 1
    assert "image is not used" in capfd.readouterr().err


def test_an_exception_in_the_tracker_loses_the_target_for_that_image_and_is_logged(capfd):
    tracker = ScriptedTracker()
    with running(tracker) as client:
        start_target(client)
        tracker.failure = RuntimeError("CUDA out of memory")
        state = client.show(numbered_image(2))
        assert state.state == State.LOST and is_zero(state.bbox)
        tracker.failure = None
        assert client.show(numbered_image(3)).state == State.TRACKING
    assert "CUDA out of memory" in capfd.readouterr().err


@pytest.mark.parametrize("encoding", ["rgb8", "mono8", "bgra8", "rgba8"])
def test_images_in_other_encodings_are_followed(encoding):
    tracker = ScriptedTracker()
    with running(tracker) as client:
        client.show(numbered_image(7, encoding=encoding))
        assert client.init().success and tracker.inits[0][0] == 7


def test_the_debug_image_is_made_only_while_somebody_looks():
    with running(ScriptedTracker()) as client:
        start_target(client)
        seen: list[Image] = []
        subscription = client.node.create_subscription(Image, "debug_image", seen.append, RELIABLE)
        wait_until(lambda: client.node.count_publishers("debug_image"), "debug_image")
        number = iter(range(2, 200))
        wait_until(lambda: client.show(numbered_image(next(number))) and seen, "a debug image")
        assert seen[0].encoding == "bgr8" and (seen[0].width, seen[0].height) == (WIDTH, HEIGHT)
        drawn, shown = (
            bytes(seen[0].data),
            (seen[0].header.stamp.sec - 1000) * 10 + seen[0].header.stamp.nanosec // 10**8,
        )
        assert drawn != bytes(numbered_image(shown).data), "nothing is drawn on it"
        client.node.destroy_subscription(subscription)
