# SPDX-License-Identifier: Apache-2.0
"""Small bags for the tests: a bright box that moves 4 px per image, recorded in every format."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

pytest.importorskip("rosbags", reason="rosbags is not installed: pip install rosbags")
from rosbags.rosbag1 import Writer as Writer1
from rosbags.rosbag2 import StoragePlugin, Writer

from dimp_ros.apps.bags.types import COMPRESSED_IMAGE, IMAGE, ros1_types, ros2_types

WIDTH, HEIGHT, COUNT = 96, 64, 10
START = (10.0, 20.0, 16.0, 12.0)
TOPIC = "/camera/image_raw"
BEGIN = 1_700_000_000_000_000_000
STEP = 100_000_000
DELAY = 7_000_000
"""Time from an image's stamp to its recording, nanoseconds."""


def picture(index: int) -> np.ndarray:
    """Return image ``index``: a bright box that moves 4 px to the right per image."""
    image = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    x, y, w, h = (int(value) for value in START)
    image[y : y + h, x + 4 * index : x + 4 * index + w] = (255, 200, 100)
    return image


@dataclass(frozen=True)
class Shot:
    """An image to be recorded; ``data`` overrides its pixels, ``raw`` the whole message."""

    picture: np.ndarray
    stamp: int
    time: int
    data: bytes | None = None
    raw: bytes | None = None


def shots(count: int = COUNT) -> list[Shot]:
    """Return valid images."""
    return [Shot(picture(i), BEGIN + i * STEP, BEGIN + i * STEP + DELAY) for i in range(count)]


def changed(index: int, **what: Any) -> list[Shot]:
    """Return valid images except one."""
    made = shots()
    made[index] = replace(made[index], **what)
    return made


def message(types: Any, kind: str, shot: Shot, encoding: str = "bgr8") -> Any:
    """Return an image message, of ROS 1 or 2 as the type store is."""
    make = types.types
    stamp = make["builtin_interfaces/msg/Time"](*divmod(shot.stamp, 10**9))
    number = {"seq": 5} if types is ros1_types() else {}
    header = make["std_msgs/msg/Header"](**number, stamp=stamp, frame_id="camera_optical")
    if kind == COMPRESSED_IMAGE:
        data = np.frombuffer(shot.data or cv2.imencode(".png", shot.picture)[1].tobytes(), np.uint8)
        return make[kind](header, "bgr8; png compressed bgr8", data)
    pixels = shot.picture[..., ::-1] if encoding == "rgb8" else shot.picture
    height, width = pixels.shape[:2]
    data = np.frombuffer(shot.data if shot.data is not None else pixels.tobytes(), np.uint8)
    return make[kind](header, height, width, encoding, 0, 3 * width, data)


def write_ros2(
    path: Path, images: Iterable[Shot], storage: str = "mcap", kind: str = IMAGE, topics: Sequence[str] = (TOPIC,)
) -> Path:
    """Write a rosbag2 of the images on each topic; return its folder."""
    types = ros2_types()
    with Writer(path, version=8, storage_plugin=StoragePlugin[storage.upper()]) as writer:
        connections = [writer.add_connection(topic, kind, typestore=types) for topic in topics]
        for shot in images:
            for connection in connections:
                raw = shot.raw if shot.raw is not None else types.serialize_cdr(message(types, kind, shot), kind)
                writer.write(connection, shot.time, raw)
    return path


def write_ros1(path: Path, images: Iterable[Shot], kind: str = IMAGE, encoding: str = "bgr8") -> Path:
    """Write a bag of ROS 1."""
    types = ros1_types()
    with Writer1(path) as writer:
        connection = writer.add_connection(TOPIC, kind, typestore=types)
        for shot in images:
            writer.write(connection, shot.time, types.serialize_ros1(message(types, kind, shot, encoding), kind))
    return path
