# SPDX-License-Identifier: Apache-2.0
"""Damaged JSON is reported with its file, by every reader of JSON files."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from pathlib import Path

import cv2
import numpy as np
import pytest

from dimp_ros.datasets.clips import read_films
from dimp_ros.datasets.coco import CocoDataSet
from dimp_ros.datasets.compact import CompactDataSet
from dimp_ros.evaluation.layouts.registry import load_sequences
from dimp_ros.evaluation.runner import SequenceResult
from dimp_ros.synthetic.image_store import open_tables
from dimp_ros.training.frame_store import FrameStore


def _sequences(folder: Path) -> None:
    (folder / "a" / "img").mkdir(parents=True, exist_ok=True)
    (folder / "a" / "groundtruth.txt").write_text("1,1,4,4\n")
    cv2.imwrite(str(folder / "a" / "img" / "1.png"), np.zeros((16, 16, 3), np.uint8))
    load_sequences(folder)


READERS: dict[str, Callable[[Path], object]] = {
    "annotations.jsonl": CompactDataSet,
    "clips.jsonl": lambda folder: list(read_films(folder)),
    "annotations/instances_train2017.json": CocoDataSet,
    "a/meta.json": _sequences,
    "a.json": lambda folder: SequenceResult.load(folder / "a.json"),
    "tables.json": open_tables,
    "frames.json": FrameStore,
}
DAMAGE = {
    "deep": b"[" * 100_000,
    "long number": b'{"a": ' + b"9" * 9000 + b"}",
    "cut off": b'{"a": 1, "b',
    "no text": b"\xff\xfe{}",
    "list": b"[]",
    "number": b"3",
    "empty object": b"{}",
    "wrong types": b'{"kind": 2, "file": 3, "frames": "x", "boxes": 4, "tracks": 5, "images": 6, "pictures": 8}',
}


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        pair
        for pair in product(READERS, DAMAGE)
        if pair not in product(["a/meta.json"], ["empty object", "wrong types"])
    ],
)
def test_damaged_json_is_reported_with_its_file(tmp_path: Path, name: str, damage: str) -> None:
    path = tmp_path / name
    for folder in (path.parent, tmp_path / "images", tmp_path / "train2017"):
        folder.mkdir(parents=True, exist_ok=True)
    path.write_bytes(DAMAGE[damage])
    np.savez(tmp_path / "shapes.npz", hulls=np.zeros(0), cells=np.zeros(0))
    with pytest.raises(ValueError, match=str(path)) as caught:
        READERS[name](tmp_path)
    assert len(str(caught.value)) < 1000 and "\n" not in str(caught.value)
