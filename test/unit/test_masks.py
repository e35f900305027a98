# SPDX-License-Identifier: Apache-2.0
"""Masks in COCO's formats."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from dimp_ros.datasets.masks import decode_runs, encode_runs, fill_polygons

MASKS = arrays(np.uint8, array_shapes(min_dims=2, max_dims=2, max_side=40), elements=st.integers(0, 1))


@given(MASKS)
def test_masks_survive_compression(mask):
    assert np.array_equal(decode_runs(encode_runs(mask), *mask.shape), mask)


@given(MASKS)
def test_run_lengths_alternate_down_the_columns(mask):
    runs, value = [0], 0
    for pixel in mask.T.ravel().tolist():  # brute force: a pixel at a time
        if pixel != value:
            runs.append(0)
            value = pixel
        runs[-1] += 1
    assert np.array_equal(decode_runs(runs, *mask.shape), mask)


@pytest.mark.parametrize(
    "counts",
    [encode_runs(np.ones((5, 6), np.uint8)), "T", "\u00e90", "p1", "`" * 20 + "0", "", [10, 10], [10, 15], []],
    ids=["other image", "cut off", "not ASCII", "other characters", "too large", "empty", "short", "long", "no runs"],
)
def test_damaged_run_lengths_are_refused(counts):
    with pytest.raises(ValueError, match="do not cover its 6 x 4 image; the annotation is damaged"):
        decode_runs(counts, 4, 6)


def test_overlapping_polygons_leave_no_hole():
    square = np.array([5, 5, 25, 5, 25, 25, 5, 25], np.float32)
    mask = fill_polygons([square, square + 5], 40, 60)
    assert mask[12:24, 12:24].all()


def test_a_polygon_outside_the_image_is_cut_off():
    mask = fill_polygons([[-10, -10, 5, -10, 5, 5, -10, 5.0]], 40, 60)
    assert mask.sum() == mask[:5, :5].sum() == 25
    assert not fill_polygons([[-10, 0, -5, 0, -5, 5.0]], 40, 60).any()
