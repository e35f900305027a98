# SPDX-License-Identifier: Apache-2.0
"""The views of the first frame."""

import dataclasses

import numpy as np
import pytest

from dimp_ros.geometry.box import Box
from dimp_ros.tracker.augment import first_frame_views
from dimp_ros.tracker.config import TrackerConfig

CONFIG = TrackerConfig()
BOX = Box(114, 119, 60, 50)


@pytest.fixture(scope="module")
def large():
    """Make a crop of twice the size, noise with a white target in the middle."""
    image = np.random.default_rng(0).integers(0, 100, (576, 576, 3), dtype=np.uint8)
    image[144 + 119 : 144 + 169, 144 + 114 : 144 + 174] = 255
    return image


def test_there_are_thirteen_views_and_the_plain_one_is_first(large):
    views = first_frame_views(large, BOX, CONFIG, np.random.default_rng(0))
    assert len(views) == 13
    assert CONFIG.first_samples == 15
    assert np.array_equal(views[0].image, large[144:432, 144:432])
    assert views[0].box == BOX


def test_in_every_view_the_box_is_round_the_target(large):
    for view in first_frame_views(large, BOX, CONFIG, np.random.default_rng(1)):
        assert view.image.shape == (288, 288, 3)
        x, y = (int(v) for v in view.box.center)
        inside = view.image[max(y - 8, 0) : y + 8, max(x - 8, 0) : x + 8]
        assert inside.size and inside.min() > 150


def test_the_four_shifted_views_are_shifted_by_the_setting(large):
    views = first_frame_views(large, BOX, CONFIG, np.random.default_rng(0))
    shifts = {(view.box.x - BOX.x, view.box.y - BOX.y) for view in views[1:5]}
    assert shifts == {(sx * 86, sy * 86) for sx in (-1, 1) for sy in (-1, 1)}


def test_random_shifts_follow_the_seed_and_stay_in_range(large):
    first, again, other = (
        [view.box for view in first_frame_views(large, BOX, CONFIG, np.random.default_rng(seed))] for seed in (3, 3, 4)
    )
    assert first == again != other
    for box in first[5:]:
        assert abs(box.x - BOX.x) <= 48 and abs(box.y - BOX.y) <= 48


def test_augmentation_can_be_switched_off(large):
    config = dataclasses.replace(CONFIG, augment=False, dropout_copies=0)
    assert len(first_frame_views(large, BOX, config, np.random.default_rng(0))) == 1
    assert config.first_samples == 1


def test_there_is_a_blurred_view_for_every_pair_of_sigmas(large):
    config = dataclasses.replace(CONFIG, augment_blurs=[1.0, 6.0], augment_rotations=(), augment_flip=False)
    assert config.first_samples == 1 + 4 + 1 + 2
    blurred = first_frame_views(large, BOX, config, np.random.default_rng(0))[-1].image

    def roughness(axis):
        return np.abs(np.diff(blurred.astype(float), axis=axis)).mean()

    assert roughness(0) < 0.5 * roughness(1)  # the larger sigma is the second one, y: smooth from row to row
    for wrong in ((1.0, 6.0, 2.0), (0.0, 1.0), (1.0, float("nan"))):
        with pytest.raises(ValueError, match="augment_blurs"):
            dataclasses.replace(CONFIG, augment_blurs=wrong)
    with pytest.raises(ValueError, match="augment_rotations"):
        dataclasses.replace(CONFIG, augment_rotations=(10.0, 200.0))
