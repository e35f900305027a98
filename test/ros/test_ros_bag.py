# SPDX-License-Identifier: Apache-2.0
"""Bags written without ROS are read with rclpy, and the reverse."""

from __future__ import annotations

import array
import json
from pathlib import Path

import cv2
import numpy as np
import pytest

pytest.importorskip("rclpy", reason="rclpy is not installed: ROS tests need a ROS home")
pytest.importorskip("dimp_ros.msg", reason="the interfaces are not built: ROS tests need `make setup` or colcon")
pytest.importorskip("rosbags", reason="rosbags is not installed: pip install rosbags")
from ament_index_python.packages import get_package_share_directory
from harness.bag_fixtures import shots, write_ros2
from harness.tracker_double import BrightestTracker
from hypothesis import given
from hypothesis import strategies as st
from rclpy.serialization import deserialize_message, serialize_message
from rosbags.rosbag2 import Reader, StoragePlugin, Writer
from sensor_msgs.msg import CompressedImage, Image
from vision_msgs.msg import Detection2DArray

from dimp_ros.apps.bags.reader import ImageBag
from dimp_ros.apps.bags.types import DEFINITIONS, DETECTIONS, IMAGE, TARGET, TARGETS, ros2_types
from dimp_ros.apps.bags.writer import TARGET_CLASS, BagMessages
from dimp_ros.apps.track import cli as track
from dimp_ros.geometry.box import Box
from dimp_ros.images.frame_source import Span
from dimp_ros.msg import TargetState, TargetStateArray
from dimp_ros.ros_utils import messages
from dimp_ros.tracker.result import TargetEstimate
from dimp_ros.tracker.result import TargetState as State

WIDTH, HEIGHT = 64, 48


def numbered_image(number: int, encoding: str = "bgr8") -> Image:
    """Return image ``number``: its stamp is 1000 s and ``number`` x 0.1 s, its pixels all say ``number``."""
    step = WIDTH * {"mono8": 1, "bgra8": 4}.get(encoding, 3)
    image = Image(width=WIDTH, height=HEIGHT, encoding=encoding, step=step)
    image.header.frame_id, image.header.stamp.sec = "camera_optical", 1000
    image.header.stamp.nanosec = number * 100_000_000
    image.data = array.array("B", bytes([number]) * (step * HEIGHT))
    return image


NUMBER = st.floats(-1e4, 1e4, width=32)
READINGS = st.builds(
    TargetEstimate,
    target_id=st.text(st.characters(min_codepoint=32, max_codepoint=0x2FFF), max_size=9),
    state=st.sampled_from(State),
    box=st.none() | st.builds(Box, NUMBER, NUMBER, NUMBER, NUMBER),
    confidence=st.floats(0, 1, width=32),
    peak=NUMBER,
    distractor_ratio=st.floats(0, 1, width=32),
    frames_since_seen=st.integers(0, 2**32 - 1),
    seconds_since_seen=st.floats(0, 1e6, width=32),
    start=st.integers(0, 2**32 - 1),
)


@given(st.lists(READINGS, max_size=3), st.integers(0, 2**31 - 1), st.integers(0, 10**9 - 1))
def test_written_messages_equal_those_of_the_node(readings: list[TargetEstimate], sec: int, nanosec: int) -> None:
    image = numbered_image(1)
    image.header.stamp.sec, image.header.stamp.nanosec = sec, nanosec
    made, types = BagMessages(), ros2_types()
    header = made.header(image.header)

    raw = types.serialize_cdr(made.detections(header, readings), DETECTIONS)
    assert deserialize_message(bytes(raw), Detection2DArray) == messages.detections(image.header, readings)

    states = [messages.target_state(image.header, reading) for reading in readings]
    raw = types.serialize_cdr(made.target_states(header, readings, 64, 48), TARGETS)
    assert deserialize_message(bytes(raw), TargetStateArray) == TargetStateArray(
        header=image.header, image_width=64, image_height=48, targets=states
    )
    for reading, state in zip(readings, states, strict=True):
        raw = types.serialize_cdr(made.target_state(header, reading), TARGET)
        assert deserialize_message(bytes(raw), TargetState) == state


def test_the_class_of_a_target_is_the_nodes() -> None:
    assert TARGET_CLASS == messages.TARGET_CLASS


@pytest.mark.parametrize("name", DEFINITIONS)
def test_type_in_a_bag_has_the_hash_of_rosidl(name: str) -> None:
    package, _, kind = name.split("/")
    file = Path(get_package_share_directory(package)) / "msg" / f"{kind}.json"
    if not file.is_file():
        pytest.skip("this distribution's rosidl writes no hashes: Humble")
    hashes = {entry["type_name"]: entry["hash_string"] for entry in json.loads(file.read_text())["type_hashes"]}
    assert ros2_types().hash_rihs01(name) == hashes[name]


@pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
def test_a_result_bag_is_read_with_the_classes_of_ros(tmp_path: Path, storage: str) -> None:
    made, out = write_ros2(tmp_path / "made", shots()), tmp_path / "out"
    arguments = ["--init=ball=10,20,16,12", "--out-bag", str(out), "--storage", storage, "--copy-images"]
    assert track.main([str(made), *arguments], lambda model, device: BrightestTracker()) == 0

    classes = {IMAGE: Image, DETECTIONS: Detection2DArray, TARGET: TargetState, TARGETS: TargetStateArray}
    with Reader(out) as reader:
        found = [(time, deserialize_message(raw, classes[c.msgtype])) for c, time, raw in reader.messages()]

    assert len(found) == 40
    images = [message for _, message in found if isinstance(message, Image)]
    states = [message for _, message in found if isinstance(message, TargetState)]
    for index, (image, state) in enumerate(zip(images, states, strict=True)):
        assert state.header == image.header and image.header.frame_id == "camera_optical"
        assert (state.id, state.state) == ("ball", TargetState.TRACKING)
        assert state.bbox.center.position.x == 18 + 4 * index
        assert bytes(image.data) == shots()[index].picture.tobytes()


@pytest.mark.parametrize("encoding", ["bgr8", "rgb8", "mono8", "bgra8"])
def test_a_bag_of_messages_that_ros_serialised_is_read_here(tmp_path: Path, encoding: str) -> None:
    with Writer(tmp_path / "made", version=8, storage_plugin=StoragePlugin.SQLITE3) as writer:
        image = writer.add_connection("/image", IMAGE, typestore=ros2_types())
        for number in range(1, 4):
            message = numbered_image(number, encoding)
            writer.write(image, number, serialize_message(message))
    with ImageBag(str(tmp_path / "made")) as bag:
        frames = list(bag.frames(Span()))
    assert [frame.time for frame in frames] == [1_000_100_000_000, 1_000_200_000_000, 1_000_300_000_000]
    for number, frame in enumerate(frames, start=1):
        assert frame.image is not None and (frame.image == number).all() and frame.image.shape == (HEIGHT, WIDTH, 3)


def test_a_compressed_image_that_ros_serialised_is_read_here(tmp_path: Path) -> None:
    message = CompressedImage(header=numbered_image(1).header, format="png")
    message.data = cv2.imencode(".png", shots(1)[0].picture)[1].tobytes()
    with Writer(tmp_path / "made", version=8, storage_plugin=StoragePlugin.MCAP) as writer:
        connection = writer.add_connection("/image", "sensor_msgs/msg/CompressedImage", typestore=ros2_types())
        writer.write(connection, 1, serialize_message(message))
    with ImageBag(str(tmp_path / "made")) as bag:
        (frame,) = bag.frames(Span())
    assert np.array_equal(frame.image, shots(1)[0].picture)
