# SPDX-License-Identifier: Apache-2.0
"""Views of synthetic scenes for the box refiner: the boxes are those of what is drawn."""

from dataclasses import replace
from functools import partial
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from helpers.image_fixtures import write_images

from dimp_ros.geometry.box import iou
from dimp_ros.images.closer_window import CloserWindow
from dimp_ros.model.sizes import CLOSER_SIZE
from dimp_ros.training.box_pairs import PairSampler, by_source
from dimp_ros.training.frame_store import StoredVideo
from dimp_ros.training.scene_pairs import SCENES, SceneViews, scene_store
from dimp_ros.training.window_changes import Look

ALONE = replace(SCENES, distractors=0, occluder=0.0, part=0.0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("scenes")
    return scene_store(write_images(root / "images"), root / "store")


def overlap(image, box):
    """Return the IoU of ``box`` (x, y, w, h) with what is red and connected to the box's centre."""
    pixels = image.astype(int)
    red = (pixels[..., 2] - pixels[..., :2].max(-1) > 90).astype(np.uint8)
    _, labels, stats, _ = cv2.connectedComponentsWithStats(red)
    number = labels[int(box[1] + box[3] / 2), int(box[0] + box[2] / 2)]
    return float(iou(stats[number, :4].astype(float), np.asarray(box, float))) if number else 0.0


def test_boxes_of_scenes_are_where_the_target_is_drawn(folder, monkeypatch):
    for name in ("common", "changed"):
        monkeypatch.setattr(Look, name, lambda self, crop, *rest: np.ascontiguousarray(crop))
    store = SimpleNamespace(videos=[])
    batch = PairSampler(store, 2, scenes=SceneViews(folder, ALONE), scene_share=1.0).batch(12)
    first = [overlap(image, box) for image, box in zip(batch.references, batch.boxes, strict=True)]
    later = [
        overlap(image, (*edges[:2], *(edges[2:] - edges[:2])))
        for image, edges in zip(batch.searches, batch.edges * CLOSER_SIZE, strict=True)
        if edges.min() > 0 and edges.max() < CLOSER_SIZE
    ]
    assert len(later) >= 8
    # Some backgrounds have a red ellipse of their own, which may touch the target.
    assert np.median(first) > 0.9 and np.median(later) > 0.9


def test_the_target_is_in_the_first_frame_and_seen_in_all_others(folder):
    views = SceneViews(folder, replace(ALONE, mix=(1.0, 0.0, 0.0), vanish=1.0))  # absent wherever it may be

    def drawn(count):
        rng = np.random.default_rng(1)
        windows_of = partial(map, lambda box: CloserWindow.around(box, 2.0, 96))
        return sum(views.draw(rng, count, windows_of) is not None for _ in range(20))

    assert drawn(1) > 10
    assert drawn(2) == 0


def test_a_draw_without_windows_is_unusable(folder):
    assert SceneViews(folder).draw(np.random.default_rng(0), 2, lambda boxes: []) is None


def test_a_source_is_drawn_as_often_as_its_weight_says():
    videos = [StoredVideo(name, name, [0, 1], [[None, None]]) for name in ("a", "b", "c")]
    members, shares = by_source(videos, {"a": 0.0, "c": 3.0})
    assert [group[0].source for group in members] == ["a", "b", "c"]
    np.testing.assert_allclose(shares, [0, 0.25, 0.75])


def test_a_small_target_is_coarse_in_all_windows_of_an_example():
    look = Look(np.random.default_rng(0))
    look.side, look.quality, look.grey, look.offset = 24, 0, False, 0.0
    look.gain = np.ones(3)
    noise = np.random.default_rng(1).integers(0, 255, (CLOSER_SIZE, CLOSER_SIZE, 3), dtype=np.uint8)
    seen = look.common(noise)
    assert seen.shape == noise.shape
    assert (
        np.abs(np.diff(seen.astype(float), axis=0)).mean() < 0.1 * np.abs(np.diff(noise.astype(float), axis=0)).mean()
    )
    look.side, look.quality = 0, 30
    assert 1 < np.abs(look.common(noise).astype(float) - noise).mean() < 60
