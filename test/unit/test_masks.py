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
    [
        encode_runs(np.ones((5, 6), np.uint8)),
        "T",
        "\u00e90",
        "p1",
        "`" * 20 + "0",
        "",
        "o" * 9999,
        [10, 10],
        [10, 15],
        [],
        [-1, 25],
        [2**32, 24 - 2**32],
        [24.0],
        [[24]],
        24,
    ],
    ids=[
        "other image",
        "cut off",
        "not ASCII",
        "other characters",
        "too large",
        "empty",
        "too long",
        "short",
        "long",
        "no runs",
        "negative",
        "wrapped",
        "floats",
        "nested",
        "no list",
    ],
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
    assert fill_polygons([], 40, 60).shape == (40, 60)


def test_masks_larger_than_any_image_are_refused_undecoded():
    for size in ((30_000, 30_000), (0, 5), (-5, -5), (2**40, 1)):
        with pytest.raises(ValueError, match="megapixels"):
            decode_runs([size[0] * size[1]], *size)
        with pytest.raises(ValueError, match="megapixels"):
            fill_polygons([[1, 1, 20, 1, 20, 20]], *size)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e9, -1e9, 121, -61])
@pytest.mark.parametrize("place", [0, 4])
def test_corners_not_finite_or_far_from_the_image_are_refused(value, place):
    polygon = [1.0, 1.0, 20.0, 1.0, 20.0, 20.0]
    polygon[place] = value
    with pytest.raises(ValueError, match="60 x 40; corners must be finite and near the image"):
        fill_polygons([[1, 1, 5, 1, 5, 5], polygon], 40, 60)


def test_polygons_that_cost_too_much_are_refused():
    zigzag = np.stack([np.tile([0, 60], 5000), np.linspace(0, 40, 10_000)], 1).ravel()
    with pytest.raises(ValueError, match="outlines of 6000"):
        fill_polygons([zigzag], 40, 60)
    assert fill_polygons([zigzag[:8000]], 40, 60).any()
    with pytest.raises(ValueError, match="200000 polygons, and it may have 1000"):
        fill_polygons([[1, 1, 20, 1, 20, 20]] * 200_000, 40, 60)
    for corners in ([1, 1, 20, 1], [1, 1, 20, 1, 20], [[1, 1], [20, 1], [20, 20]]):
        with pytest.raises(ValueError, match="at least 3 corners"):
            fill_polygons([corners], 40, 60)
