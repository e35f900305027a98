# SPDX-License-Identifier: Apache-2.0
"""COCO in a small copy of its published layout."""

import json
import pickle

import cv2
import numpy as np
import pytest

from dimp_ros.datasets.coco import CocoDataSet
from dimp_ros.datasets.masks import encode_runs
from dimp_ros.datasets.registry import WeightedDataSet
from dimp_ros.geometry.box import Box
from dimp_ros.synthetic.image_store_writer import build_store

WIDTH, HEIGHT = 60, 40


@pytest.fixture
def root(tmp_path):
    """Write three images: one with a polygon of two parts and a crowd, one with run lengths, one without anything."""
    root = tmp_path / "coco"
    (root / "annotations").mkdir(parents=True)
    (root / "train2017").mkdir()
    images = []
    for number, licence in ((9, 1), (25, 2), (30, 1)):
        file = f"{number:012d}.jpg"
        cv2.imwrite(str(root / "train2017" / file), np.full((HEIGHT, WIDTH, 3), number * 5, np.uint8))
        images.append({"id": number, "file_name": file, "width": WIDTH, "height": HEIGHT, "license": licence})
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    mask[10:20, 30:45] = 1
    runs = {"size": [HEIGHT, WIDTH], "counts": [30 * 40 + 10, *(15 - 1) * [10, 30], 10, 15 * 40 + 20]}
    text = {"size": [HEIGHT, WIDTH], "counts": encode_runs(mask)}
    square, other = [4, 5, 14, 5, 14, 15, 4, 15], [20, 5, 30, 5, 30.0, 15.0, 20, 15]
    annotations = [
        {"id": 4, "image_id": 25, "category_id": 7, "bbox": [30, 10, 15, 10], "segmentation": runs},
        {"id": 5, "image_id": 25, "category_id": 7, "bbox": [30, 10, 15, 10], "segmentation": text, "iscrowd": 0},
        {"id": 1, "image_id": 9, "category_id": 3, "bbox": [4, 5, 26, 10], "segmentation": [square, other]},
        {"id": 2, "image_id": 9, "category_id": 3, "bbox": [0, 0, 50, 30], "segmentation": runs, "iscrowd": 1},
        {"id": 3, "image_id": 9, "category_id": 7, "bbox": [1, 2, 3.5, 4], "segmentation": []},
        {"id": 6, "image_id": 9, "category_id": 7, "bbox": [1, 2, 0, 4], "segmentation": [square]},
    ]
    content = {
        "images": images[::-1],
        "annotations": annotations,
        "categories": [{"id": 3, "name": "car"}, {"id": 7, "name": "kite"}],
        "licenses": [{"id": 1, "name": "Attribution License"}, {"id": 2, "name": "No known copyright restrictions"}],
    }
    (root / "annotations" / "instances_train2017.json").write_text(json.dumps(content))
    return root


def test_stills_have_boxes_masks_and_licences(root):
    data = CocoDataSet(root)
    first, second, third = data.stills()
    assert (first.name, first.width, first.height, first.exhaustive) == ("coco_000000000009", WIDTH, HEIGHT, True)
    assert "Attribution License" in first.licence
    assert "No known" in second.licence
    assert [(i.category, i.box) for i in first.instances] == [("car", Box(4, 5, 26, 10)), ("kite", Box(1, 2, 3.5, 4))]
    expected = np.zeros((HEIGHT, WIDTH), np.uint8)
    expected[5:15, 4:14] = expected[5:15, 20:30] = 1
    assert np.array_equal(first.instances[0].mask(), expected)
    assert not first.instances[1].has_mask
    for instance in second.instances:  # run lengths as numbers, and as text
        assert instance.mask().sum() == 150
        assert instance.mask()[10:20, 30:45].all()
    assert third.instances == ()
    assert second.read().mean() == pytest.approx(125, abs=3)
    assert data.clips() == ()
    assert pickle.loads(pickle.dumps(data.stills()[0])).instances[0].mask().sum() > 190


def test_what_is_missing_or_damaged_is_named(root, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nowhere.*instances_train2017"):
        CocoDataSet(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match="val2017"):
        CocoDataSet(root, split="val2017")
    file = root / "annotations" / "instances_train2017.json"
    file.write_text('{"images": []}')
    with pytest.raises(ValueError, match=r"instances_train2017\.json is no file of COCO instances.*fetch it again"):
        CocoDataSet(root)
    file.write_text('{"images": [')
    with pytest.raises(ValueError, match="is no file of COCO instances"):
        CocoDataSet(root)
    file.unlink()
    with pytest.raises(FileNotFoundError, match=r"instances_train2017\.json is missing"):
        CocoDataSet(root)


WRONG = {
    "not finite": ([[1, 1, float("nan"), 1, 20, 20]], "corners must be finite"),
    "far": ([[1, 1, 1e9, 1, 1e9, 1e9]], "corners must be finite"),
    "integer of 400 digits": ([[1, 1, 10**400, 1, 20, 20]], "OverflowError"),
    "other size": ({"size": [WIDTH, HEIGHT], "counts": [WIDTH * HEIGHT]}, "its image has"),
    "no runs": ({"size": [HEIGHT, WIDTH]}, "KeyError"),
    "text": ([[1, 1, "x", 1, 20, 20]], "ValueError"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_mask_names_its_file_and_annotation(root, name):
    file = root / "annotations" / "instances_train2017.json"
    content = json.loads(file.read_text())
    content["annotations"][2]["segmentation"], reason = WRONG[name]
    file.write_text(json.dumps(content))
    first, second, _ = CocoDataSet(root).stills()
    with pytest.raises(ValueError, match=rf"instances_train2017\.json, annotation 1: .*{reason}.*correct or remove it"):
        first.instances[0].mask()
    assert second.instances[0].mask().any()


def test_an_image_of_another_size_than_its_annotation_is_refused(root, tmp_path):
    file = root / "train2017" / "000000000025.jpg"
    for size in ((HEIGHT, WIDTH - 1, 3), (1000, 2000, 3)):  # the latter is reduced
        cv2.imwrite(str(file), np.zeros(size, np.uint8))
        with pytest.raises(ValueError, match=r"coco_000000000025: a mask has \[height, width\] \[40, 60\]"):
            build_store(tmp_path / "store", [WeightedDataSet(CocoDataSet(root), 1.0)])


def test_boxes_with_values_not_finite_are_left_out(root):
    file = root / "annotations" / "instances_train2017.json"
    for number, value in enumerate((float("nan"), float("inf"))):
        content = json.loads(file.read_text())
        content["annotations"][number]["bbox"][number] = value
        file.write_text(json.dumps(content))
        assert len(CocoDataSet(root).stills()[1].instances) == 1 - number
