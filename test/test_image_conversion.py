# SPDX-License-Identifier: Apache-2.0
"""Images of every supported encoding, with and without padding, become BGR; everything else is refused."""

from __future__ import annotations

import array
import sys
from types import ModuleType, SimpleNamespace

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dimp_ros.node.image_conversion import SUPPORTED_ENCODINGS, BadImage, check_image, to_bgr

CHANNELS = {"bgr8": 3, "rgb8": 3, "mono8": 1, "bgra8": 4, "rgba8": 4}
ORDER = {"bgr8": [0, 1, 2], "rgb8": [2, 1, 0], "mono8": [0, 0, 0], "bgra8": [0, 1, 2], "rgba8": [2, 1, 0]}


def message(encoding: str, pixels: np.ndarray, padding: int = 0, big: int = 0) -> SimpleNamespace:
    """Return ``pixels`` [H, W, C] as an image message whose rows end with ``padding`` bytes."""
    height, width, channels = pixels.shape
    rows = np.full((height, width * channels + padding), 255, np.uint8)
    rows[:, : width * channels] = pixels.reshape(height, -1)
    data = array.array("B", rows.tobytes())
    return SimpleNamespace(
        width=width, height=height, encoding=encoding, step=rows.shape[1], is_bigendian=big, data=data
    )


@given(
    encoding=st.sampled_from(SUPPORTED_ENCODINGS),
    width=st.integers(1, 40),
    height=st.integers(1, 30),
    padding=st.integers(0, 9),
    big=st.integers(0, 1),
    seed=st.integers(0, 99),
)
def test_every_pixel_keeps_its_colour_whatever_encoding_padding_and_byte_order(
    encoding, width, height, padding, big, seed
):
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, CHANNELS[encoding]), np.uint8)
    picture = to_bgr(message(encoding, pixels, padding, big))
    assert picture.dtype == np.uint8
    np.testing.assert_array_equal(picture, pixels[:, :, ORDER[encoding]])


@pytest.mark.parametrize("padding", [0, 7])
def test_bgr8_is_a_view_of_the_message_and_no_copy(padding):
    image = message("bgr8", np.zeros((5, 4, 3), np.uint8), padding)
    picture = to_bgr(image)
    image.data[image.step + 3] = 99
    assert picture[1, 1, 0] == 99


def changed(**fields: object) -> SimpleNamespace:
    image = message("bgr8", np.zeros((5, 4, 3), np.uint8))
    return SimpleNamespace(**{**vars(image), **fields})


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"width": 0}, ["0 x 5"]),
        ({"height": 0}, ["4 x 0"]),
        ({"encoding": ""}, ["no encoding", "bgr8"]),
        ({"step": 11}, ["step is 11", "12"]),
        ({"step": 13}, ["60 bytes", "65"]),
        ({"data": array.array("B", bytes(59))}, ["59 bytes", "60"]),
        ({"height": 2**31}, ["60 bytes"]),
    ],
)
def test_a_message_that_contradicts_itself_is_refused_with_both_numbers(fields, words):
    image = changed(**fields)
    for examine in (check_image, to_bgr):
        with pytest.raises(BadImage) as error:
            examine(image)
        assert all(word in str(error.value) for word in words), error.value


def test_an_encoding_that_needs_cv_bridge_is_refused_without_it_and_names_the_supported_ones(monkeypatch):
    monkeypatch.setitem(sys.modules, "cv_bridge", None)
    image = changed(encoding="yuv422", step=12)
    with pytest.raises(BadImage) as error:
        to_bgr(image)
    assert "'yuv422'" in str(error.value) and "cv_bridge" in str(error.value)
    assert all(encoding in str(error.value) for encoding in SUPPORTED_ENCODINGS)


def test_other_encodings_go_through_cv_bridge_where_it_is_installed(monkeypatch):
    class CvBridge:
        def imgmsg_to_cv2(self, image: SimpleNamespace, desired_encoding: str) -> np.ndarray:
            if image.encoding == "nonsense":
                raise RuntimeError("Unrecognized image encoding")
            assert desired_encoding == "bgr8"
            return np.full((image.height, image.width, 3), 7, np.uint8)

    bridge = ModuleType("cv_bridge")
    bridge.CvBridge = CvBridge
    monkeypatch.setitem(sys.modules, "cv_bridge", bridge)
    assert to_bgr(changed(encoding="bayer_rggb8")).tolist() == np.full((5, 4, 3), 7).tolist()
    with pytest.raises(BadImage, match=r"nonsense.*Unrecognized"):
        to_bgr(changed(encoding="nonsense"))


def test_a_picture_sent_and_received_is_the_same():
    pytest.importorskip("sensor_msgs.msg", reason="ROS messages are not installed")
    from std_msgs.msg import Header

    from dimp_ros.node.image_conversion import from_bgr

    picture = np.random.default_rng(0).integers(0, 256, (11, 13, 3), np.uint8)
    for variant in (picture, picture[::2, ::3], cv2.flip(picture, 1)):
        image = from_bgr(Header(frame_id="lens"), variant)
        assert image.header.frame_id == "lens" and image.step == 3 * variant.shape[1]
        np.testing.assert_array_equal(to_bgr(image), variant)
