# SPDX-License-Identifier: Apache-2.0
"""The window of box refinement."""

import cv2
import numpy as np
import pytest

from dimp_ros.geometry.box import Box
from dimp_ros.images.closer_window import CloserWindow, crop_window


def image_with(box, size=(400, 300)):
    """Draw a white box, whose sides are whole pixels, on black."""
    image = np.zeros((size[1], size[0], 3), np.uint8)
    x, y, w, h = map(int, box)
    image[y : y + h, x : x + w] = 255
    return image


def extent(crop):
    """Return the box of what is white; grey border pixels count by their share."""
    share = crop[..., 0] / 255.0
    columns, rows = share.max(0), share.max(1)
    x, y = columns.argmax(), rows.argmax()
    x, y = np.flatnonzero(columns > 0.02)[0], np.flatnonzero(rows > 0.02)[0]
    inner_x, inner_y = np.flatnonzero(columns > 0.98), np.flatnonzero(rows > 0.98)
    left = inner_x[0] - columns[x : inner_x[0]].sum()
    top = inner_y[0] - rows[y : inner_y[0]].sum()
    return Box(float(left), float(top), float(columns.sum()), float(rows.sum()))


@pytest.mark.parametrize(
    "box", [Box(150, 100, 60, 40), Box(40, 90, 120, 30), Box(180, 30, 20, 80), Box(100, 80, 160, 120)]
)
def test_a_box_is_where_the_window_says(box):
    window = CloserWindow.around(
        Box.from_center(box.center[0] + 3.3, box.center[1] - 2.1, box.w * 1.1, box.h), 2.0, 144
    )
    found = extent(crop_window(image_with(box), window))
    np.testing.assert_allclose(found, window.box_to_window(box), atol=0.6)


def test_the_window_is_twice_the_target_and_half_as_long():
    square = CloserWindow.around(Box(10, 20, 30, 30), 2.0, 144)
    assert (square.w, square.h) == (60, 60)
    assert square.box_to_window(Box(10, 20, 30, 30)) == (36, 36, 72, 72)
    long = CloserWindow.around(Box(0, 0, 160, 10), 2.0, 144)  # 16 : 1
    assert long.w / long.h == pytest.approx(4)
    assert long.w * long.h == pytest.approx(4 * 1600)


def test_edges_lead_back_to_the_box():
    box = Box(33.0, 21.5, 40.0, 90.0)
    window = CloserWindow.around(Box(30, 20, 50, 80), 2.0, 144)
    x, y, w, h = (value / 144 for value in window.box_to_window(box))
    assert window.edges_to_image((x, y, x + w, y + h)) == pytest.approx(box)


def test_beside_the_image_the_border_is_repeated():
    image = np.full((60, 80, 3), 10, np.uint8)
    image[:, 79] = 200
    assert (crop_window(image, CloserWindow(90, 10, 20, 20, 16)) == 200).all()
    assert (crop_window(image, CloserWindow(500, 500, 20, 20, 16)) == 200).all()
    assert crop_window(image[..., 0], CloserWindow(-5, -5, 20, 20, 16)).shape == (16, 16, 3)


def test_a_large_window_is_averaged():
    fine = (np.indices((480, 480)).sum(0) % 2 * 255).astype(np.uint8)  # a checkerboard of pixels
    crop = crop_window(cv2.cvtColor(fine, cv2.COLOR_GRAY2BGR), CloserWindow(0, 0, 480, 480, 96))
    assert abs(crop.astype(int) - 127).max() <= 30
