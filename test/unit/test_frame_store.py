# SPDX-License-Identifier: Apache-2.0
"""The store of decoded images is that of its data, and whole whenever it is there."""

import json
import os
import shutil

import cv2
import numpy as np
import pytest
from test_dataset_clips import line, number_of

from dimp_ros.datasets.clips import ClipsDataSet
from dimp_ros.training.frame_store import DATA, INDEX, FrameStore, build_frame_store

BOX = [10, 8, 20, 16]


def write_clips(root, frames, first=0, box=BOX):
    """Write a film that is trained on, whose frame i has the brightness of number ``first`` + i, with noise."""
    root.mkdir(exist_ok=True)
    writer = cv2.VideoWriter(str(root / "a.avi"), cv2.VideoWriter_fourcc(*"MJPG"), 10, (64, 48))
    for number in range(first, first + frames):
        writer.write(np.full((48, 64, 3), 6 * number, np.uint8))
    writer.release()
    (root / "clips.jsonl").write_text(line("a.avi", [{"id": "0", "boxes": [box] * frames}], split="train") + "\n")
    return [ClipsDataSet(root)]


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_store_of_the_same_data_is_kept(tmp_path):
    data, folder = write_clips(tmp_path / "clips", 4), tmp_path / "store"
    build_frame_store(folder, data)
    before = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    assert sorted(before) == [DATA, INDEX]
    shutil.move(tmp_path / "clips", tmp_path / "moved")
    assert len(build_frame_store(folder, [ClipsDataSet(tmp_path / "moved")])) == 4
    assert {path.name: path.stat().st_mtime_ns for path in folder.iterdir()} == before


@pytest.mark.parametrize("frames", [4, 2, 9])
def test_other_films_are_decoded_and_open_stores_keep_theirs(tmp_path, frames):
    folder = tmp_path / "store"
    old = build_frame_store(folder, write_clips(tmp_path / "clips", 4))
    os.link(folder / DATA, tmp_path / DATA)
    os.link(folder / INDEX, tmp_path / INDEX)
    new = build_frame_store(folder, write_clips(tmp_path / "others", frames, first=20))
    assert [number_of(new.image(i)) for i in range(len(new))] == list(range(20, 20 + frames))
    for kept in (old, FrameStore(tmp_path)):
        assert [number_of(kept.image(i)) for i in range(4)] == [0, 1, 2, 3]


def test_corrected_boxes_are_taken_up(tmp_path):
    data, folder = write_clips(tmp_path / "clips", 3), tmp_path / "store"
    assert build_frame_store(folder, data).videos[0].tracks == [[BOX] * 3]
    data = write_clips(tmp_path / "clips", 3, box=[9, 8, 20, 16])
    assert build_frame_store(folder, data).videos[0].tracks == [[[9, 8, 20, 16]] * 3]


def test_a_store_without_a_hash_is_made_again(tmp_path):
    data, folder = write_clips(tmp_path / "clips", 3), tmp_path / "store"
    build_frame_store(folder, data)
    index = json.loads((folder / INDEX).read_text())
    (folder / INDEX).write_text(json.dumps({key: value for key, value in index.items() if key != "digest"}))
    build_frame_store(folder, data)
    assert json.loads((folder / INDEX).read_text()) == index


def test_an_interrupted_build_leaves_the_old_store_whole(tmp_path, monkeypatch):
    folder = tmp_path / "store"
    build_frame_store(folder, write_clips(tmp_path / "clips", 3))
    before = contents(folder)
    others = write_clips(tmp_path / "others", 5)

    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(cv2, "imencode", interrupted)
    with pytest.raises(KeyboardInterrupt):
        build_frame_store(folder, others)
    assert contents(folder) == before


def test_a_truncated_store_is_refused_with_the_remedy(tmp_path):
    data, folder = write_clips(tmp_path / "clips", 3), tmp_path / "store"
    build_frame_store(folder, data)
    os.truncate(folder / DATA, 100)
    with pytest.raises(ValueError, match=r"frames\.bin has 100 bytes.*delete the file"):
        build_frame_store(folder, data)
    (folder / DATA).unlink()
    assert len(build_frame_store(folder, data)) == 3
