# SPDX-License-Identifier: Apache-2.0
"""The tracker node's images over real DDS: encodings, damaged images, a failing tracker, the debug image."""

from __future__ import annotations

import array

import cv2
import numpy as np
import pytest
from harness.ros_harness import (
    HEIGHT,
    RELIABLE,
    WIDTH,
    Client,
    Image,
    ScriptedTracker,
    State,
    context,
    is_zero,
    numbered_image,
    running,
    spinning,
    start_target,
    tracker_node,
    wait_until,
)
from sensor_msgs.msg import CompressedImage


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


def test_tracker_exception_loses_the_target_in_that_image(capfd):
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


def test_debug_image_is_drawn_only_for_subscribers():
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


def test_stream_may_change_resolution_and_encoding():
    tracker = ScriptedTracker()
    with running(tracker) as client:
        start_target(client)
        others = [
            numbered_image(2, width=128, height=96),
            numbered_image(3, encoding="rgb8"),
            numbered_image(4, width=3, height=2, encoding="mono8"),
            numbered_image(5),
        ]
        for image in others:
            assert client.show(image).state == State.TRACKING
        assert tracker.updates == [2, 3, 4, 5]


def thermal_image(number: int) -> Image:
    """Return a big-endian mono16 image that gets brighter from left to right, with padded rows."""
    pixels = np.zeros((HEIGHT, WIDTH + 5), ">u2")
    pixels[:, :WIDTH] = 20_000 + np.arange(WIDTH) * 10
    image = Image(header=numbered_image(number).header, width=WIDTH, height=HEIGHT, encoding="mono16")
    image.is_bigendian, image.step = 1, 2 * (WIDTH + 5)
    image.data = array.array("B", pixels.tobytes())
    return image


def test_thermal_image_uses_the_whole_range_of_grey():
    seen = []

    class Looking(ScriptedTracker):
        def init(self, image, box, *, target_id="0"):
            seen.append(np.asarray(image).copy())
            return super().init(image, box, target_id=target_id)

    with running(Looking()) as client:
        client.show(thermal_image(1))
        assert client.init().success
    row = seen[0][HEIGHT // 2, :, 0].astype(int)
    assert row.min() < 10 and row.max() > 245 and (np.diff(row) >= 0).all()


def compressed(number: int, grey: int = 0) -> CompressedImage:
    """Return `numbered_image` as a PNG file."""
    _, file = cv2.imencode(".png", np.full((HEIGHT, WIDTH, 3), grey or number, np.uint8))
    message = CompressedImage(header=numbered_image(number).header, format="bgr8; png compressed bgr8")
    message.data = array.array("B", file.tobytes())
    return message


def test_damaged_compressed_image_is_lost_in_that_image_only(capfd):
    tracker = ScriptedTracker()
    with context():
        node = tracker_node(tracker, image_transport="compressed", max_megapixels=1.0)
        client = Client()
        client.images = client.node.create_publisher(CompressedImage, "image/compressed", RELIABLE)
        with spinning(node, client.node):
            client.wait_for(node)
            client.show(compressed(1))
            answer = client.init((0.25, 0.25, 0.5, 0.5), normalized=True, target_id="cup")
            assert answer.success and tracker.inits == [(1, (16.0, 12.0, 32.0, 24.0), "cup")]
            assert client.show(compressed(2)).state == State.TRACKING
            damaged = compressed(3)
            damaged.data = damaged.data[:60]
            state = client.show(damaged)
            assert state.state == State.LOST and is_zero(state.bbox)
            huge = compressed(4)
            huge.data[16:24] = array.array("B", (30_000).to_bytes(4, "big") * 2)  # width and height in PNG's header
            assert client.show(huge).state == State.LOST
            refused = client.init(stamp=huge.header.stamp)
            assert not refused.success and "max_megapixels" in refused.message
            assert client.show(compressed(5)).state == State.TRACKING
            assert tracker.updates == [2, 5]
    assert "image is not used" in capfd.readouterr().err


def test_damaged_file_opened_by_debug_image_is_a_bad_image(capfd):
    damaged = compressed(2)
    damaged.data = damaged.data[:50] + array.array("B", bytes(len(damaged.data) - 66)) + damaged.data[-16:]
    tracker = ScriptedTracker()
    with context():
        node = tracker_node(tracker, image_transport="compressed")
        client = Client()
        client.images = client.node.create_publisher(CompressedImage, "image/compressed", RELIABLE)
        seen: list[Image] = []
        client.node.create_subscription(Image, "debug_image", seen.append, RELIABLE)
        with spinning(node, client.node):
            client.wait_for(node)
            wait_until(lambda: client.show(compressed(1)) and seen, "a debug image")
            client.show(damaged)
            client.show(compressed(3))
            assert client.init().success and client.show(compressed(4)).state == State.TRACKING
            figures = node._statistics.snapshot()
            assert figures.total["bad"] >= 1 and figures.total["failed"] == 0
    log = capfd.readouterr().err
    assert "image is not used" in log and "tracking failed" not in log
