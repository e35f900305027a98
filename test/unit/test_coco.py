# SPDX-License-Identifier: Apache-2.0
"""COCO in its published layout, in miniature."""

import json
import os
import pickle

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dimp_ros.datasets.coco import CocoDataSet, fill_polygons
from dimp_ros.datasets.rle import encode_mask, mask_to_runs
from dimp_ros.geometry.box import Box

WIDTH, HEIGHT = 60, 40


def overlap(a, b):
    return (a & b).sum() / max((a | b).sum(), 1)


@pytest.fixture
def root(tmp_path):
    """Write three pictures: one with a polygon of two parts and a crowd, one with run lengths, one without anything."""
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
    runs = {"size": [HEIGHT, WIDTH], "counts": mask_to_runs(mask).tolist()}
    text = {"size": [HEIGHT, WIDTH], "counts": encode_mask(mask)}
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
    data = CocoDataSet(root, cache="")
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


def test_the_cache_gives_the_same_until_the_annotations_change(root, tmp_path):
    cache = tmp_path / "cache"
    fresh = CocoDataSet(root, cache=cache)
    (kept,) = cache.iterdir()
    before = kept.stat().st_mtime_ns
    again = CocoDataSet(root, cache=cache)
    assert kept.stat().st_mtime_ns == before
    assert list(again.stills()) == list(fresh.stills())
    assert np.array_equal(again.stills()[0].instances[0].mask(), fresh.stills()[0].instances[0].mask())
    kept.write_bytes(kept.read_bytes()[:1000])  # a full disk: read anew, not trusted
    assert len(CocoDataSet(root, cache=cache).stills()[0].instances) == 2
    file = root / "annotations" / "instances_train2017.json"
    content = json.loads(file.read_text())
    content["annotations"] = content["annotations"][:1]
    file.write_text(json.dumps(content))
    os.utime(file, (1, 1))
    assert CocoDataSet(root, cache=cache).stills()[0].instances == ()
    assert CocoDataSet(root, cache=file).stills()[0].instances == ()  # no folder can be made there: done without


def test_what_is_missing_or_damaged_is_named(root, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nowhere.*instances_train2017"):
        CocoDataSet(tmp_path / "nowhere", cache="")
    with pytest.raises(FileNotFoundError, match="val2017"):
        CocoDataSet(root, split="val2017", cache="")
    file = root / "annotations" / "instances_train2017.json"
    file.write_text('{"images": []}')
    with pytest.raises(ValueError, match=r"instances_train2017\.json is no file of COCO instances.*fetch it again"):
        CocoDataSet(root, cache="")
    file.write_text('{"images": [')
    with pytest.raises(ValueError, match="is no file of COCO instances"):
        CocoDataSet(root, cache="")
    file.unlink()
    with pytest.raises(FileNotFoundError, match=r"instances_train2017\.json is missing"):
        CocoDataSet(root, cache="")


def test_overlapping_polygons_leave_no_hole():
    square = np.array([5, 5, 25, 5, 25, 25, 5, 25], np.float32)
    mask = fill_polygons([square, square + 5], HEIGHT, WIDTH)
    assert mask[12:24, 12:24].all()


def polygon(center, radii):
    angles = np.linspace(0, 2 * np.pi, len(radii), endpoint=False)
    return np.stack([np.cos(angles), np.sin(angles)], -1) * np.array(radii)[:, None] + center


STARS = st.lists(st.floats(8, 17), min_size=4, max_size=12)


@given(st.tuples(st.floats(20, 40), st.floats(18, 22)), STARS)
def test_a_pixel_is_filled_if_its_centre_is_inside(center, radii):
    corners = polygon(center, radii)
    ours = fill_polygons([corners.ravel()], HEIGHT, WIDTH)
    for y in range(HEIGHT):
        for x in range(WIDTH):
            depth = cv2.pointPolygonTest(corners.astype(np.float32), (x + 0.5, y + 0.5), True)
            assert abs(depth) < 0.75 or ours[y, x] == (depth > 0)


def test_polygons_are_filled_much_as_pycocotools_does():
    reference = pytest.importorskip("pycocotools.mask")
    corners = polygon((30, 20), [18, 17, 16, 17, 15, 18, 17, 16, 14]).ravel()
    theirs = reference.decode(reference.merge(reference.frPyObjects([corners.tolist()], HEIGHT, WIDTH)))
    assert overlap(fill_polygons([corners], HEIGHT, WIDTH), theirs) > 0.93


def test_a_polygon_outside_of_the_picture_is_cut_off():
    mask = fill_polygons([np.array([-10, -10, 5, -10, 5, 5, -10, 5.0])], HEIGHT, WIDTH)
    assert mask.sum() == mask[:5, :5].sum() == 25
    assert not fill_polygons([np.array([-10, 0, -5, 0, -5, 5.0])], HEIGHT, WIDTH).any()
