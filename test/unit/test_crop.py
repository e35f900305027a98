# SPDX-License-Identifier: Apache-2.0
"""The search window: source of its pixels, at the border and for large windows."""

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dimp_ros.geometry.box import Box
from dimp_ros.tracker.crop import SearchWindow, crop


def test_a_window_of_the_crops_size_is_a_copy():
    image = np.random.default_rng(0).integers(0, 255, (300, 400, 3), dtype=np.uint8)
    assert np.array_equal(crop(image, SearchWindow(37, 21, 96, 96)), image[21 : 21 + 96, 37 : 37 + 96])


@pytest.mark.parametrize("side", [50.0, 96.0, 180.0, 400.0, 1000.0])
def test_a_crop_pixel_shows_the_place_that_the_window_says(side):
    """An image whose grey is its coordinate is resampled to one whose grey is the mapped coordinate."""
    xs = np.tile(np.linspace(0, 255, 2000, dtype=np.float32), (1500, 1))
    window = SearchWindow(300.4, 200.7, side, 96)
    seen = crop(xs.astype(np.uint8), window).astype(float)
    centres = window.x + (np.arange(96) + 0.5) * window.scale - 0.5
    np.testing.assert_allclose(seen.mean(0), centres / 1999 * 255 - 0.5, atol=1)  # OpenCV 5 rounds otherwise than 4


@given(st.floats(-3000, 3000), st.floats(-3000, 3000), st.floats(1, 5000))
@settings(deadline=None, max_examples=60)
def test_outside_the_image_its_border_is_repeated(x, y, side):
    image = np.full((60, 80, 3), 77, np.uint8)
    seen = crop(image, SearchWindow(x, y, side, 96))
    assert seen.shape == (96, 96, 3)
    assert (seen == 77).all()


def test_a_large_window_is_averaged_and_does_not_alias():
    stripes = np.zeros((1200, 1200), np.uint8)
    stripes[:, ::2] = 255
    seen = crop(stripes, SearchWindow(100, 100, 960, 96))
    assert abs(seen.astype(float) - 127.5).max() < 2


@pytest.mark.parametrize("factor", [2, 4])
def test_a_crop_pixel_is_the_mean_of_its_block(factor):
    image = np.random.default_rng(0).integers(0, 256, (480, 640, 3), dtype=np.uint8)
    blocks = image[50 : 50 + 96 * factor, 70 : 70 + 96 * factor].reshape(96, factor, 96, factor, 3)
    seen = crop(image, SearchWindow(70, 50, 96 * factor, 96))
    np.testing.assert_allclose(seen, blocks.mean((1, 3)), rtol=0, atol=1)


@given(
    st.builds(SearchWindow, st.floats(-100, 500), st.floats(-100, 500), st.floats(10, 1000), st.just(288)),
    st.builds(Box, st.floats(-100, 500), st.floats(-100, 500), st.floats(1, 300), st.floats(1, 300)),
)
def test_a_box_comes_back_from_the_crop(window, box):
    assert window.box_to_image(window.box_to_crop(box)) == pytest.approx(box, abs=1e-6)


def test_the_middle_of_the_window_is_the_middle_of_the_crop():
    window = SearchWindow.around((120.5, 80.25), 200, 288)
    assert window.box_to_crop(Box.from_center(120.5, 80.25, 40, 20)).center == pytest.approx((144, 144))


def test_an_object_is_found_where_the_box_says_after_resampling():
    image = np.zeros((480, 640), np.uint8)
    cv2.rectangle(image, (200, 150), (259, 189), 255, -1)  # the box (200, 150, 60, 40)
    window = SearchWindow.around((230, 170), 245, 288)
    ys, xs = np.nonzero(crop(image, window) > 127)
    box = window.box_to_crop(Box(200, 150, 60, 40))
    assert (xs.min(), ys.min()) == pytest.approx((box.x, box.y), abs=1)
    assert (xs.max() + 1, ys.max() + 1) == pytest.approx((box.x + box.w, box.y + box.h), abs=1)


@given(st.floats(-300, 300), st.floats(-300, 300), st.floats(1, 500), st.sampled_from([(1, 1), (1, 9), (9, 1), (2, 2)]))
def test_tiny_image_fills_the_window(x, y, side, shape):
    for image in (np.full(shape, 77, np.uint8), np.full((*shape, 3), 77, np.uint8)):
        seen = crop(image, SearchWindow(x, y, side, 32))
        assert seen.shape == (32, 32, *image.shape[2:])
        assert (seen == 77).all()
