# SPDX-License-Identifier: Apache-2.0
"""Gradient ascent of boxes on the predicted overlap."""

import torch

from dimp_ros.model.inference.ascent import ascend
from dimp_ros.model.iou_net import overlap_and_gradient

BOX = [100.0, 110.0, 60.0, 40.0]


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
    start = torch.tensor([[BOX]])
    moved, value = ascend(hill, start, 1, 1.0)
    gradient = 2 * (hill.top - start) / 100**2
    torch.testing.assert_close(moved, start + gradient * torch.tensor([60.0, 40, 60, 40]))
    assert float(value) == float(hill(start)) < float(hill(moved))
    _, before_the_last = ascend(hill, start, 2, 1.0)
    assert float(before_the_last) == float(hill(moved))
    assert torch.equal(ascend(hill, start, 0, 1.0)[1], hill(start))
    far, _ = ascend(hill, start, 2000, 1.0)
    torch.testing.assert_close(far[0, 0], hill.top, rtol=0, atol=0.5)
