# SPDX-License-Identifier: Apache-2.0
"""Box refinement: starting boxes, ascent, choice."""

import dataclasses

import pytest
import torch

from dimp_ros.geometry.box import Box
from dimp_ros.model.iou_net import overlap_and_gradient
from dimp_ros.tracker.box_refinement import ascend, average_best, starting_boxes
from dimp_ros.tracker.config import TrackerConfig

CONFIG = TrackerConfig()
BOX = Box(100.0, 110.0, 60.0, 40.0)


def test_first_proposal_is_the_predicted_box_others_are_near():
    boxes = starting_boxes(BOX, CONFIG, torch.Generator().manual_seed(0))
    assert boxes.shape == (10, 4)
    assert boxes[0].tolist() == list(BOX)
    size = (60 * 40) ** 0.5
    centre = boxes[:, :2] + boxes[:, 2:] / 2
    assert (centre - torch.tensor(BOX.center)).abs().max() <= 0.05 * size + 1e-3
    assert (boxes[:, 2:] - torch.tensor([60.0, 40])).abs().max() <= 0.25 * size + 1e-3
    assert len({tuple(box.tolist()) for box in boxes}) == 10


def test_starting_boxes_keep_a_third_of_the_shorter_side():
    config = dataclasses.replace(CONFIG, jitter_size=1.0)
    boxes = starting_boxes(Box(0, 0, 90, 9), config, torch.Generator().manual_seed(0))
    assert boxes[:, 3].min() >= 3 - 1e-4


class Hill:
    """Stands in for the overlap network: highest, with 1, at a given box."""

    def __init__(self, top):
        self.top = torch.tensor(top)

    def __call__(self, boxes):
        """Fall off with the squared distance from the top."""
        return 1 - ((boxes - self.top) / 100).square().sum(-1)

    def value_and_gradient(self, boxes):
        """Differentiate by autograd."""
        return overlap_and_gradient(lambda _, __, boxes: self(boxes), None, None, boxes)


def test_ascent_goes_uphill_by_gradient_times_size():
    hill = Hill([110.0, 100.0, 70.0, 50.0])
    start = torch.tensor([[list(BOX)]])
    moved, value = ascend(hill, start, 1, 1.0)
    gradient = 2 * (hill.top - start) / 100**2
    torch.testing.assert_close(moved, start + gradient * torch.tensor([60.0, 40, 60, 40]))
    assert float(value) == float(hill(start)) < float(hill(moved))
    _, before_the_last = ascend(hill, start, 2, 1.0)
    assert float(before_the_last) == float(hill(moved))
    assert torch.equal(ascend(hill, start, 0, 1.0)[1], hill(start))
    far, _ = ascend(hill, start, 2000, 1.0)
    torch.testing.assert_close(far[0, 0], hill.top, rtol=0, atol=0.5)


def test_the_best_boxes_are_averaged():
    boxes = torch.tensor([[0.0, 0, 10, 10], [1, 1, 10, 10], [2, 2, 10, 10], [50, 50, 10, 10]])
    config = dataclasses.replace(CONFIG, best_boxes=3)
    assert average_best(boxes, torch.tensor([0.5, 0.6, 0.7, 0.1]), config) == pytest.approx((1, 1, 10, 10))


def test_boxes_of_absurd_shape_or_value_are_dropped():
    boxes = torch.tensor([[0.0, 0, 70, 10], [5, 5, 20, 10], [0, 0, 10, 70], [float("nan"), 0, 10, 10]])
    assert average_best(boxes, torch.tensor([0.9, 0.1, 0.9, 0.9]), CONFIG) == (5, 5, 20, 10)
    assert average_best(boxes[:1], torch.tensor([0.9]), CONFIG) is None
