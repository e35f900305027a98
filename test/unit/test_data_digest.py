# SPDX-License-Identifier: Apache-2.0
"""The hash of a data set tells other and changed data, whatever their layout."""

import json
import os
import pickle

import pytest
from test_compact import write_set
from test_dataset_clips import line, write_film
from test_dataset_video import write_frames, write_got10k, write_lasot, write_trackingnet

from dimp_ros.datasets.base import data_digest
from dimp_ros.datasets.registry import open_data_set


def write_clips(root):
    root.mkdir()
    write_film(root / "a.avi", 5)
    tracks = [{"id": name, "boxes": [[1, 2, 9, 9 + i] for i in range(5)]} for name in "01"]
    (root / "clips.jsonl").write_text(line("a.avi", tracks, split="train", kind="mask") + "\n")


def write_coco(root):
    write_frames(root / "train2017", ["9.jpg"])
    (root / "annotations").mkdir()
    item = {"id": 1, "image_id": 9, "category_id": 3, "bbox": [4, 5, 20, 10], "segmentation": [[4, 5, 14, 5, 14, 15]]}
    content = {
        "images": [{"id": 9, "file_name": "9.jpg", "width": 48, "height": 36}],
        "annotations": [item],
        "categories": [{"id": 3, "name": "car"}],
    }
    (root / "annotations" / "instances_train2017.json").write_text(json.dumps(content))


def write_split_lasot(root):
    write_lasot(root)
    (root / "testing_set.txt").write_text("coin-10\n")


SETS = {
    "compact": (write_set, "annotations.jsonl", "40.25", "41.25"),
    "clips": (write_clips, "clips.jsonl", "[1, 2, 9, 9]", "[1, 2, 9, 8]"),
    "coco": (write_coco, "annotations/instances_train2017.json", "20, 10]", "20, 11]"),
    "got10k": (write_got10k, "train/GOT-10k_Train_000002/groundtruth.txt", "12.0", "13.0"),
    "lasot": (write_split_lasot, "coin/coin-1/groundtruth.txt", "10,12", "10,13"),
    "trackingnet": (write_trackingnet, "TRAIN_3/anno/cc_2.txt", "20.0", "21.0"),
}


@pytest.mark.parametrize("options", [{}, {"max_stills": 9, "max_clips": 9, "max_frames": 2}], ids=["all", "part"])
@pytest.mark.parametrize("kind", SETS)
def test_changed_boxes_and_images_change_the_hash(tmp_path, kind, options):
    write, annotations, value, other = SETS[kind]
    write(tmp_path / "old")
    before = open_data_set(kind, tmp_path / "old", **options).digest()
    root = (tmp_path / "old").rename(tmp_path / "data")

    def digest():
        return open_data_set(kind, root, **options).digest()

    assert digest() == before, "the folder moved"
    seen = set()
    files = [path for path in root.rglob("*") if path.suffix in (".jpg", ".webp", ".avi")]
    for path in files:
        status = path.stat()
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns + 10**9))
        seen.add(digest())
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
        content = path.read_bytes()
        path.write_bytes(content + b"\0")
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
        seen.add(digest())
        path.write_bytes(content)
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert digest() == before
    read = open_data_set(kind, root, **options)
    used = {still.file for still in read.stills()} | {clip.file(i) for clip in read.clips() for i in range(len(clip))}
    assert used <= set(files) and len(seen - {before}) == 2 * len(used)
    text = (root / annotations).read_text()
    (root / annotations).write_text(text.replace(value, other))
    assert (root / annotations).read_text() != text and digest() != before


def test_files_of_a_part_can_be_pickled(tmp_path):
    write_got10k(tmp_path)
    clip = open_data_set("got10k", tmp_path, max_frames=2).clips()[0]
    again = pickle.loads(pickle.dumps(clip))
    assert [again.file(i).name for i in range(2)] == ["00000001.jpg", "00000003.jpg"]


def test_hash_of_several_sets_depends_on_their_order(tmp_path):
    write_clips(tmp_path / "clips")
    write_set(tmp_path / "stills")
    clips, stills = open_data_set("clips", tmp_path / "clips"), open_data_set("compact", tmp_path / "stills")
    digests = {data_digest(sets) for sets in ([clips], [clips, stills], [stills, clips], [clips, clips])}
    assert len(digests) == 4


def test_missing_image_is_left_to_its_reader(tmp_path):
    write_set(tmp_path / "stills")
    before = open_data_set("compact", tmp_path / "stills").digest()
    (tmp_path / "stills" / "images" / "s1.webp").unlink()
    assert open_data_set("compact", tmp_path / "stills").digest() != before
