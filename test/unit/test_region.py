# SPDX-License-Identifier: Apache-2.0
"""A region holds its boxes with a margin, and detects boxes that leave it."""

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from dimp_ros.model.inference.region import Region
from dimp_ros.model.precise_roi_pool import precise_roi_pool

CELLS = 18
numbers = st.floats(-100, 388, width=32)
sides = st.floats(1, 150, width=32)
boxes = st.lists(st.tuples(numbers, numbers, sides, sides), min_size=1, max_size=3)


@given(boxes)
def test_pooling_sees_nothing_outside_the_region(given_boxes):
    boxes = torch.tensor(given_boxes)
    region = Region.around(boxes.numpy(), CELLS)
    if region is None:
        return
    if region.covers(boxes.numpy(), CELLS):
        maps = torch.rand(1, 2, CELLS, CELLS, generator=torch.Generator().manual_seed(0)).double()
        part = maps[..., region.row : region.row + region.size, region.column : region.column + region.size]
        whole = precise_roi_pool(maps, boxes[None].double(), 3, 1 / 16)
        moved = boxes.double() - torch.tensor([*region.corner, 0, 0])
        torch.testing.assert_close(precise_roi_pool(part, moved[None], 3, 1 / 16), whole)


@given(
    st.floats(70, 218, width=32), st.floats(70, 218, width=32), st.floats(8, 80, width=32), st.floats(8, 80, width=32)
)
def test_boxes_lie_in_their_region_with_room_to_move(cx, cy, w, h):
    box = np.array([[cx - w / 2, cy - h / 2, w, h]])
    region = Region.around(box, CELLS)
    assert region is not None and region.size % 2 == 0
    assert 0 <= region.column <= CELLS - region.size and 0 <= region.row <= CELLS - region.size
    room = 0.1 * max(w, h)
    for dx, dy in ((-room, 0), (room, 0), (0, -room), (0, room)):
        assert region.covers(box + np.array([dx, dy, 0, 0]), CELLS)
    assert not region.covers(box + np.array([-160.0 if region.column else 160, 0, 0, 0]), CELLS)


def test_a_region_is_not_larger_than_the_window():
    assert Region.around(np.array([[10.0, 10, 270, 20]]), CELLS) is None
    assert Region.around(np.array([[float("nan"), 10, 20, 20]]), CELLS) is None
    assert Region.around(np.array([[10.0, 10, float("inf"), 20]]), CELLS) is None
    assert Region.around(np.array([[100.0, 100, 20, 20]]), CELLS, least=10).size == 10


def test_box_that_is_not_a_number_is_discarded():
    region = Region.around(np.array([[100.0, 100, 20, 20]]), CELLS)
    assert not region.covers(np.array([[float("nan"), 100, 20, 20]]), CELLS)
