# SPDX-License-Identifier: Apache-2.0
"""Boxes: conversions, overlap and refusals."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dimp_ros.geometry.box import Box, check_box, iou

sides = st.floats(0.5, 500)
places = st.floats(-200, 800)
boxes = st.builds(Box, places, places, sides, sides)


@given(boxes)
def test_a_box_comes_back_from_its_centre_and_size(box):
    again = Box.from_center(*box.center, box.w, box.h)
    assert again == pytest.approx(box, abs=1e-9)


@given(boxes, boxes)
def test_overlap_is_symmetric_and_between_nothing_and_all(a, b):
    value = float(iou(np.array(a), np.array(b)))
    assert value == pytest.approx(float(iou(np.array(b), np.array(a))))
    assert 0 <= value <= 1 + 1e-12


@given(boxes)
def test_a_box_overlaps_itself_fully(box):
    assert float(iou(np.array(box), np.array(box))) == pytest.approx(1)


def test_overlap_of_a_worked_case():
    assert float(iou(np.array([0, 0, 4, 2]), np.array([2, 0, 4, 2]))) == pytest.approx(4 / 12)
    assert float(iou(np.array([0, 0, 0, 0]), np.array([0, 0, 0, 0]))) == 0
    assert np.isnan(iou(np.array([np.nan] * 4), np.array([0, 0, 1, 1])))


@given(boxes, st.integers(1, 1000), st.integers(1, 1000))
def test_a_clipped_box_lies_inside_and_is_never_larger(box, width, height):
    inside = box.clipped(width, height)
    assert 0 <= inside.x <= inside.x + inside.w <= width + 1e-9
    assert 0 <= inside.y <= inside.y + inside.h <= height + 1e-9
    assert inside.w <= box.w + 1e-9 and inside.h <= box.h + 1e-9


@pytest.mark.parametrize(
    ("box", "words"),
    [
        ((1, 2, 3), "4 numbers"),
        ((1, 2, float("nan"), 4), "not finite"),
        ((1, 2, float("inf"), 4), "not finite"),
        ((10, 10, 3, 20), "at least 4 px"),
        ((10, 10, -20, 20), "at least 4 px"),
        ((700, 10, 20, 20), "0% of its area inside the 640 x 480 image"),
        ((639, 470, 100, 100), "inside the 640 x 480 image"),
    ],
)
def test_unusable_box_is_refused_with_the_reason(box, words):
    with pytest.raises(ValueError, match=words):
        check_box(box, 640, 480, min_side=4)


def test_a_box_over_the_border_is_accepted_as_it_is():
    assert check_box((-10, -10, 40, 40), 640, 480, min_side=4) == Box(-10, -10, 40, 40)
