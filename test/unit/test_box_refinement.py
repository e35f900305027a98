# SPDX-License-Identifier: Apache-2.0
"""Box refinement: starting boxes and choice."""

import dataclasses

import numpy as np
import pytest

from dimp_ros.geometry.box import Box
from dimp_ros.tracker.box_refinement import average_best, starting_boxes
from dimp_ros.tracker.config import TrackerConfig
from dimp_ros.tracker.random_numbers import UniformNumbers

CONFIG = TrackerConfig()
BOX = Box(100.0, 110.0, 60.0, 40.0)


def test_first_proposal_is_the_predicted_box_others_are_near():
    boxes = starting_boxes(BOX, CONFIG, UniformNumbers(0))
    assert boxes.shape == (10, 4)
    assert boxes[0].tolist() == list(BOX)
    size = (60 * 40) ** 0.5
    centre = boxes[:, :2] + boxes[:, 2:] / 2
    assert np.abs(centre - np.array(BOX.center)).max() <= 0.05 * size + 1e-3
    assert np.abs(boxes[:, 2:] - np.array([60.0, 40])).max() <= 0.25 * size + 1e-3
    assert len({tuple(box.tolist()) for box in boxes}) == 10


def test_starting_boxes_keep_a_third_of_the_shorter_side():
    config = dataclasses.replace(CONFIG, jitter_size=1.0)
    boxes = starting_boxes(Box(0, 0, 90, 9), config, UniformNumbers(0))
    assert boxes[:, 3].min() >= 3 - 1e-4


def test_the_best_boxes_are_averaged():
    boxes = np.array([[0.0, 0, 10, 10], [1, 1, 10, 10], [2, 2, 10, 10], [50, 50, 10, 10]])
    config = dataclasses.replace(CONFIG, best_boxes=3)
    assert average_best(boxes, np.array([0.5, 0.6, 0.7, 0.1]), config) == pytest.approx((1, 1, 10, 10))


def test_boxes_of_absurd_shape_or_value_are_dropped():
    boxes = np.array([[0.0, 0, 70, 10], [5, 5, 20, 10], [0, 0, 10, 70], [float("nan"), 0, 10, 10]])
    assert average_best(boxes, np.array([0.9, 0.1, 0.9, 0.9]), CONFIG) == (5, 5, 20, 10)
    assert average_best(boxes[:1], np.array([0.9]), CONFIG) is None
