# SPDX-License-Identifier: Apache-2.0
"""Bag files: MCAP, sqlite3 and ROS 1 with bytes changed, or with other messages in them."""

from __future__ import annotations

import shutil
import sqlite3
import struct
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random

import cv2
import numpy as np
from harness.bag_fixtures import Shot, message, write_ros1, write_ros2

from dimp_ros.apps.bags.reader import ImageBag
from dimp_ros.apps.bags.types import COMPRESSED_IMAGE, IMAGE, ros2_types
from dimp_ros.images.frame_source import Span
from fuzz.draw import mutated, odd_int, odd_text
from fuzz.run import Attempt

COUNT = 4
STEP = 100_000_000
BEGIN = 1_700_000_000_000_000_000


@contextmanager
def bags() -> Iterator[Attempt]:
    """Read bags: up to the damage, or refused with a remedy."""
    cv2.setNumThreads(1)
    with tempfile.TemporaryDirectory(prefix="fuzz") as folder:
        valid = Path(folder) / "valid"
        valid.mkdir()
        good = {
            "bag.mcap": (write_ros2(valid / "mcap", _shots()) / "mcap.mcap").read_bytes(),
            "bag.db3": (write_ros2(valid / "db3", _shots(), "sqlite3") / "db3.db3").read_bytes(),
            "bag.bag": write_ros1(valid / "bag.bag", _shots()).read_bytes(),
        }
        yield lambda draw: _attempt(draw, Path(folder) / "bag", good)


def _shots() -> list[Shot]:
    """Return a few small images of noise, which compression does not shrink to nothing."""
    pixels = np.random.default_rng(0).integers(0, 256, (6, 8, 3), np.uint8)
    return [Shot(pixels, BEGIN + index * STEP, BEGIN + index * STEP) for index in range(COUNT)]


def _attempt(draw: Random, folder: Path, good: dict[str, bytes]) -> bool:
    """Write a bag and read it; return whether it gave an image."""
    shutil.rmtree(folder, ignore_errors=True)
    kind = draw.randrange(5)
    if kind == 0:
        path = _other_messages(draw, folder)
    elif kind == 1 and draw.random() < 0.5:
        path = _other_rows(draw, folder, good["bag.db3"])
    else:
        folder.mkdir()
        name = draw.choice(list(good))
        path = folder / name
        content = good[name]
        end = len(content) if draw.random() < 0.8 else draw.randrange(len(content))
        begin = draw.choice((0, 0, len(content) // 2))
        path.write_bytes(mutated(draw, content[:end], begin) if draw.random() < 0.9 else content[:end])
        if draw.random() < 0.2:
            (folder / "metadata.yaml").write_bytes(mutated(draw, _METADATA))
            path = folder
    return read_bag(draw, path)


def read_bag(draw: Random, path: Path) -> bool:
    """Read a bag; return whether it gave an image."""
    span = Span() if draw.random() < 0.8 else Span(stamp=BEGIN + draw.choice((0, STEP, 7)))
    pictures = 0
    try:
        with ImageBag(str(path), draw.choice((None, None, None, "/camera/image_raw", odd_text(draw)))) as bag:
            str(bag.topics()).encode("utf-8", "backslashreplace")
            for frame in bag.frames(span):
                if frame.image is None:
                    assert frame.problem
                else:
                    assert frame.image.dtype == np.uint8 and frame.image.ndim == 3
                    pictures += 1
            assert isinstance(bag.damage, str) and list(bag.qos) is not None
    except ValueError as error:
        assert 10 < len(str(error)) < 200_000, f"no reason: {error!r}"
    return pictures > 0


_METADATA = b"""rosbag2_bagfile_information:
  version: 8
  storage_identifier: sqlite3
  relative_file_paths: [bag.db3]
  duration: {nanoseconds: 300000000}
  starting_time: {nanoseconds_since_epoch: 1700000000000000000}
  message_count: 4
  compression_format: ''
  compression_mode: ''
  topics_with_message_count: []
  files: []
  custom_data: {}
  ros_distro: humble
"""


def _other_messages(draw: Random, folder: Path) -> Path:
    """Write a bag in which one message does not match its type, or has an unexpected time."""
    kind = draw.choice((IMAGE, COMPRESSED_IMAGE))
    shots = _shots()
    at = draw.randrange(COUNT)
    shot = shots[at]
    types = ros2_types()
    raw = bytes(types.serialize_cdr(message(types, kind, shot), kind))
    raw = mutated(draw, raw, draw.choice((0, 4, 12))) if draw.random() < 0.9 else draw.randbytes(draw.randrange(99))
    time = odd_int(draw, 0, 2**63 - 1) if draw.random() < 0.2 else shot.time
    shots[at] = Shot(shot.picture, shot.stamp, time, raw=raw)
    return write_ros2(folder, shots, draw.choice(("mcap", "sqlite3")), kind)


def _other_rows(draw: Random, folder: Path, content: bytes) -> Path:
    """Write a database with intact pages and unexpected rows."""
    folder.mkdir()
    path = folder / "bag.db3"
    path.write_bytes(content)
    value = draw.choice((None, -1, 2**63 - 1, 0.5, odd_text(draw), b"\xff\0", struct.pack("<d", float("nan"))))
    changes = ("messages.data", "messages.timestamp", "messages.topic_id", "topics.name", "topics.type", "topics.id")
    changes = (*changes, "topics.serialization_format", "topics.offered_qos_profiles", "schema.schema_version")
    table, column = draw.choice(changes).split(".")
    database = sqlite3.connect(path)
    try:
        if draw.random() < 0.2:
            database.execute(f"DROP TABLE {table}")
        elif draw.random() < 0.2:
            database.execute(f"DELETE FROM {table} WHERE rowid % 2")
        else:
            database.execute(f"UPDATE {table} SET {column} = ? WHERE rowid >= ?", (value, draw.randint(0, COUNT)))
        database.commit()
    except sqlite3.Error:  # this column takes no such value
        database.rollback()
    finally:
        database.close()
    return path
