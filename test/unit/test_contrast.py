# SPDX-License-Identifier: Apache-2.0
"""Contrast of a stream: robust, steady, and reset after a change of gain."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from dimp_ros.images.contrast import FOLLOW, PERCENTILES, Contrast, Limits, to_uint8


def thermal(offset: float = 0, seed: int = 0) -> np.ndarray:
    """Return an image of 3000 to 3100, as a thermal camera's, and ``offset``."""
    return (np.random.default_rng(seed).uniform(3000, 3100, (240, 320)) + offset).astype(np.uint16)


def test_first_image_has_its_own_percentiles_as_limits():
    limits = Contrast().grey(thermal())
    assert limits == pytest.approx(np.percentile(thermal(), PERCENTILES), abs=1)


def test_dead_pixels_and_nan_do_not_move_the_limits():
    picture = thermal().astype(np.float32)
    plain = Contrast().grey(picture)
    picture[::16, ::16] = np.nan
    picture[5, 5:20] = np.inf
    picture[7, 7:9] = -np.inf
    picture[100, 100] = 1e9
    assert Contrast().grey(picture) == pytest.approx(plain, abs=0.5)


def test_hot_object_does_not_change_how_the_rest_looks():
    levels = Contrast()
    before = to_uint8(thermal(), levels.grey(thermal()))
    picture = thermal()
    picture[:120, :150] = 4000  # a quarter of the image
    after = to_uint8(picture, levels.grey(picture))
    jump = to_uint8(picture, Contrast().grey(picture))
    rest = np.s_[120:, 150:]
    assert np.abs(after[rest].astype(int) - before[rest]).mean() < 50 < before[rest].std()
    assert jump[rest].std() < 0.3 * after[rest].std()


def test_limits_follow_a_drift_slowly():
    levels = Contrast()
    first = levels.grey(thermal())
    then = levels.grey(thermal(20))
    assert then.low - first.low == pytest.approx(20 * FOLLOW, abs=0.2)
    for _ in range(200):
        then = levels.grey(thermal(20))
    assert then.low - first.low == pytest.approx(20, abs=0.5)


def test_limits_start_over_if_most_of_an_image_lies_outside():
    levels = Contrast()
    levels.grey(thermal())
    assert levels.grey(thermal(500)) == Contrast().grey(thermal(500))


def test_each_sample_type_has_its_own_limits():
    levels = Contrast()
    first = levels.grey(thermal())
    levels.grey(thermal().astype(np.float32) / 1000)
    assert levels.grey(thermal()) == pytest.approx(first)


@pytest.mark.parametrize("value", [0, 7, 65535])
def test_constant_image_is_black(value):
    picture = np.full((20, 30), value, np.uint16)
    with np.errstate(all="raise"):
        assert not to_uint8(picture, Contrast().grey(picture)).any()


def test_image_of_nan_is_black():
    picture = np.full((20, 30), np.nan, np.float32)
    assert not to_uint8(picture, Contrast().grey(picture)).any()


def test_values_beyond_the_limits_are_black_and_white():
    values = np.array([[-np.inf, -5, 10, 15, 20, 300, np.inf, np.nan]])
    assert to_uint8(values, Limits(10, 20)).tolist() == [[0, 0, 0, 128, 255, 255, 255, 0]]


@given(
    arrays.arrays(
        st.sampled_from([np.int8, np.uint16, np.int16, np.int32, np.float32, np.float64]),
        arrays.array_shapes(min_dims=2, max_dims=2, max_side=20),
    )
)
def test_conversion_is_monotonic(picture):
    seen = to_uint8(picture, Contrast().grey(picture))
    assert seen.dtype == np.uint8
    finite = ~np.isnan(picture) if picture.dtype.kind == "f" else np.ones(picture.shape, bool)
    order = np.argsort(picture[finite], kind="stable")
    assert (np.diff(seen[finite][order].astype(int)) >= 0).all()


def test_float_colour_ranges_to_1_until_an_image_exceeds_it():
    levels = Contrast()
    unit = np.random.default_rng(0).random((30, 40, 3)).astype(np.float32)
    assert levels.color(unit) == 1.0
    assert levels.color(unit * 200) == 255.0
    assert levels.color(unit) == 255.0  # a dark image of the same stream


@pytest.mark.parametrize(
    ("largest", "scale"), [(138, 1023), (1023, 1023), (1024, 4095), (4095, 4095), (16_383, 16_383), (16_384, 65_535)]
)
def test_16_bit_colour_is_scaled_by_the_smallest_depth_that_fits(largest: int, scale: int) -> None:
    colour = np.full((20, 30, 3), largest, np.uint16)
    contrast = Contrast()
    assert contrast.color(colour) == scale
    assert contrast.color(colour // 100) == scale  # a dark image of the same stream
