# SPDX-License-Identifier: Apache-2.0
"""Images of every encoding are converted region by region; invalid ones are refused."""

from __future__ import annotations

import array
import tracemalloc
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from harness.message_strategies import examine, good_messages, raw_message, raw_messages
from hypothesis import given, settings
from hypothesis import strategies as st

from dimp_ros.images.contrast import Contrast
from dimp_ros.images.conversion import SUPPORTED_ENCODINGS, BadImage, to_bgr, to_picture
from dimp_ros.images.encodings import ENCODINGS, Kind

CHANNELS = {"bgr8": 3, "rgb8": 3, "mono8": 1, "bgra8": 4, "rgba8": 4, "8UC1": 1, "8UC3": 3, "8UC4": 4}
ORDER = {
    "bgr8": [0, 1, 2],
    "rgb8": [2, 1, 0],
    "mono8": [0, 0, 0],
    "bgra8": [0, 1, 2],
    "rgba8": [2, 1, 0],
    "8UC1": [0, 0, 0],
    "8UC3": [0, 1, 2],
    "8UC4": [0, 1, 2],
}
COLOR = np.array([30, 90, 200], np.uint8)
"""Blue, green and red of the flat images below."""


def message(pixels: np.ndarray, encoding: str, padding: int = 0, big: int = 0) -> SimpleNamespace:
    """Return ``pixels`` [H, W, C] as an image message whose rows end with ``padding`` bytes."""
    height, width = pixels.shape[:2]
    pixels = pixels.astype(pixels.dtype.newbyteorder(">" if big else "<"))
    rows = np.frombuffer(pixels.tobytes(), np.uint8).reshape(height, -1)
    rows = np.pad(rows, ((0, 0), (0, padding)), constant_values=255)
    image = raw_message(encoding, width, height, array.array("B", rows.tobytes()), padding, big)
    assert image.step == rows.shape[1]
    return image


@given(
    encoding=st.sampled_from(sorted(CHANNELS)),
    width=st.integers(1, 40),
    height=st.integers(1, 30),
    padding=st.integers(0, 9),
    big=st.integers(0, 1),
    seed=st.integers(0, 99),
)
def test_8_bit_pixels_keep_their_colour(encoding, width, height, padding, big, seed):
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, CHANNELS[encoding]), np.uint8)
    picture = to_bgr(message(pixels, encoding, padding, big))
    assert picture.dtype == np.uint8
    np.testing.assert_array_equal(picture, pixels[:, :, ORDER[encoding]])


@pytest.mark.parametrize("big", [0, 1])
@pytest.mark.parametrize("padding", [0, 3])
@pytest.mark.parametrize("encoding", ["bgr16", "rgb16", "bgra16", "rgba16", "16UC3", "16UC4"])
def test_16_bit_colour_is_scaled_in_either_byte_order(encoding, padding, big):
    order = [2, 1, 0] if encoding.startswith("rgb") else [0, 1, 2]
    pixels = np.random.default_rng(1).integers(0, 65536, (7, 9, ENCODINGS[encoding].channels), np.uint16)
    pixels[0, :2] = [[0], [65535]]
    expected = np.rint(pixels[:, :, order] / 257)
    np.testing.assert_array_equal(to_bgr(message(pixels, encoding, padding, big)), expected)


@pytest.mark.parametrize("full", [1, 255])
@pytest.mark.parametrize("encoding", ["32FC3", "32FC4", "64FC3", "64FC4"])
@pytest.mark.parametrize("big", [0, 1])
def test_float_colour_is_read_from_0_to_1_or_to_255(encoding, full, big):
    pixels = np.random.default_rng(2).random((30, 40, ENCODINGS[encoding].channels)).astype(ENCODINGS[encoding].dtype)
    expected = np.rint(pixels[:, :, :3] * 255)
    seen = to_bgr(message(pixels * pixels.dtype.type(full), encoding, 5, big))
    np.testing.assert_allclose(seen, expected, atol=1)


@pytest.mark.parametrize("encoding", [name for name, entry in ENCODINGS.items() if entry.kind is Kind.GREY])
@pytest.mark.parametrize("big", [0, 1])
def test_grey_ramp_of_any_type_spans_black_to_white(encoding, big):
    ramp = np.tile(np.linspace(-100, 120, 221), (40, 1))
    dtype = ENCODINGS[encoding].dtype
    if dtype.kind == "u":
        ramp += 1000
    seen = to_picture(message(ramp.astype(dtype), encoding, 1, big)).region(0, 0, 221, 40)
    assert seen.shape == (40, 221)
    np.testing.assert_allclose(seen[20], np.linspace(0, 255, 221), atol=3)


def test_images_of_one_stream_share_their_contrast():
    levels = Contrast()
    dark, bright = (np.tile(np.linspace(low, low + 100, 101), (40, 1)).astype(np.uint16) for low in (1000, 1030))
    first = to_picture(message(dark, "mono16"), levels).region(0, 0, 101, 40)
    shared = to_picture(message(bright, "mono16"), levels).region(0, 0, 101, 40)
    alone = to_picture(message(bright, "mono16")).region(0, 0, 101, 40)
    middle = [int(picture[0, 50]) for picture in (first, shared, alone)]
    assert middle == pytest.approx([128, 205, 128], abs=6)


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("pattern", ["rggb", "bggr", "gbrg", "grbg"])
@pytest.mark.parametrize("size", [(12, 10), (9, 7), (3, 3), (2, 5), (5, 2), (2, 2)])
def test_a_mosaic_of_one_colour_is_that_colour_up_to_the_border(pattern, bits, size):
    width, height = size
    value = dict(zip("bgr", COLOR, strict=True))
    tile = np.array([value[letter] for letter in pattern], np.uint16).reshape(2, 2)
    mosaic = np.tile(tile, (5, 6))[:height, :width] * (257 if bits == 16 else 1)
    mosaic = mosaic.astype(np.uint16 if bits == 16 else np.uint8)
    for big in (0, 1):
        seen = to_bgr(message(mosaic, f"bayer_{pattern}{bits}", 1, big))
        np.testing.assert_array_equal(seen, np.broadcast_to(COLOR, (height, width, 3)))


def yuv(color: np.ndarray) -> np.ndarray:
    """Return Y, U and V of ITU-R BT.601, limited range, of blue, green and red."""
    blue, green, red = color.astype(float) / 255
    luma = 0.299 * red + 0.587 * green + 0.114 * blue
    return np.rint([16 + 219 * luma, 128 + 224 * (blue - luma) / 1.772, 128 + 224 * (red - luma) / 1.402])


def yuv_bytes(encoding: str, width: int, height: int, left: np.ndarray, right: np.ndarray) -> bytes:
    """Return an image whose left half (an even number of columns) has one colour and whose right half another."""
    half = width // 4 * 2
    planes = [
        np.tile(np.where(np.arange(width + width % 2) < half, a, b), (height, 1))
        for a, b in zip(left, right, strict=True)
    ]
    luma, u, v = (plane.astype(np.uint8) for plane in planes)
    pair = {"nv12": (u, v), "nv16": (u, v), "nv24": (u, v)}.get(encoding, (v, u))
    if encoding.startswith("nv"):
        columns, rows = ENCODINGS[encoding].chroma
        wide = width + width % columns
        chroma = np.stack([plane[::rows, :wide:columns] for plane in pair], axis=2)
        return luma[:, :wide].tobytes() + chroma.tobytes()
    chroma = np.where(np.arange(luma.shape[1]) % 2, v, u)
    packed = (chroma, luma) if encoding in ("uyvy", "yuv422") else (luma, chroma)
    return np.stack(packed, axis=2).tobytes()


@pytest.mark.parametrize("size", [(12, 8), (9, 7), (8, 3)])
@pytest.mark.parametrize("encoding", [name for name, entry in ENCODINGS.items() if entry.kind.name[0] == "P"])
def test_yuv_of_two_colours_becomes_them(encoding, size):
    width, height = size
    other = np.array([220, 180, 20], np.uint8)
    data = yuv_bytes(encoding, width, height, yuv(COLOR), yuv(other))
    seen = to_bgr(raw_message(encoding, width, height, data))
    half = width // 4 * 2
    assert seen.shape == (height, width, 3)
    np.testing.assert_allclose(seen[:, :half], np.broadcast_to(COLOR, (height, half, 3)), atol=3)
    np.testing.assert_allclose(seen[:, half:], np.broadcast_to(other, (height, width - half, 3)), atol=3)


@pytest.mark.parametrize(
    "encoding", ["bgr8", "rgb8", "bgra8", "rgba8", "mono8", "bayer_rggb8", "bayer_bggr8", "bayer_gbrg8"]
)
def test_conversions_equal_those_of_cv_bridge(encoding):
    bridge = pytest.importorskip("cv_bridge", reason="cv_bridge is not installed", exc_type=ImportError)
    image = raw_message(encoding, 20, 15, np.random.default_rng(3))
    np.testing.assert_array_equal(to_bgr(image), bridge.CvBridge().imgmsg_to_cv2(image, "bgr8"))


@given(good_messages(), st.data())
@settings(max_examples=400)
def test_region_equals_the_part_of_the_whole_image(image, data):
    picture = to_picture(image)
    whole = to_picture(image).region(0, 0, picture.width, picture.height)
    x0, y0 = data.draw(st.integers(0, picture.width - 1)), data.draw(st.integers(0, picture.height - 1))
    x1, y1 = data.draw(st.integers(x0 + 1, picture.width)), data.draw(st.integers(y0 + 1, picture.height))
    np.testing.assert_array_equal(picture.region(x0, y0, x1, y1), whole[y0:y1, x0:x1])


@pytest.mark.parametrize("encoding", SUPPORTED_ENCODINGS)
def test_wide_regions_equal_the_part_of_the_whole_image(encoding):
    """Wide enough for OpenCV's vector instructions and the rest of a row after them."""
    picture = to_picture(raw_message(encoding, 641, 101, np.random.default_rng(4)))
    whole = picture.region(0, 0, 641, 101)
    for x0, y0, x1, y1 in [(0, 0, 640, 100), (1, 1, 641, 101), (101, 33, 390, 98), (333, 50, 334, 51)]:
        np.testing.assert_array_equal(picture.region(x0, y0, x1, y1), whole[y0:y1, x0:x1])


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview, lambda data: np.frombuffer(data, np.uint8)])
@pytest.mark.parametrize("encoding", ["bgr8", "rgb8", "mono16", "nv12", "yuyv", "bayer_rggb8"])
def test_data_may_be_anything_that_has_bytes(encoding, kind):
    image = raw_message(encoding, 8, 6, np.random.default_rng(5))
    other = SimpleNamespace(**{**vars(image), "data": kind(image.data.tobytes())})
    np.testing.assert_array_equal(to_bgr(other), to_bgr(image))


@pytest.mark.parametrize("padding", [0, 7])
def test_bgr8_is_a_view_of_the_message_and_no_copy(padding):
    image = message(np.zeros((5, 4, 3), np.uint8), "bgr8", padding)
    picture = to_bgr(image)
    image.data[image.step + 3] = 99
    assert picture[1, 1, 0] == 99


@pytest.mark.parametrize("encoding", ["rgb8", "mono8", "mono16", "nv12"])
def test_image_converts_to_an_array(encoding):
    image = raw_message(encoding, 8, 6, np.random.default_rng(6))
    array_of_it = np.asarray(to_picture(image))
    assert array_of_it.shape == (6, 8, 3) and array_of_it.dtype == np.uint8
    np.testing.assert_array_equal(array_of_it, to_bgr(to_picture(image)))
    np.testing.assert_array_equal(np.asarray(to_picture(image), np.float32), array_of_it)


def changed(**fields: object) -> SimpleNamespace:
    image = message(np.zeros((5, 4, 3), np.uint8), "bgr8")
    return SimpleNamespace(**{**vars(image), **fields})


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"width": 0}, ["0 x 5"]),
        ({"height": 0}, ["4 x 0"]),
        ({"height": -5}, ["4 x -5"]),
        ({"width": 4.0}, ["whole numbers", "4.0"]),
        ({"encoding": ""}, ["no encoding", "bgr8"]),
        ({"encoding": "8UC2"}, ["'8UC2'", "bgr8"]),
        ({"step": 11}, ["step is 11", "12"]),
        ({"step": 13}, ["60 bytes", "65"]),
        ({"data": array.array("B", bytes(59))}, ["59 bytes", "60"]),
        ({"data": [0] * 60}, ["list", "bytes"]),
        ({"height": 2**31}, ["60 bytes"]),
        ({"encoding": "nv12"}, ["60 bytes", "3 of chroma", "96"]),
        ({"encoding": "yuyv", "width": 7, "step": 14}, ["step is 14", "16"]),
    ],
)
def test_contradictory_message_is_refused_with_both_numbers(fields, words):
    image = changed(**fields)
    for examine_it in (to_bgr, to_picture):
        with pytest.raises(BadImage) as error:
            examine_it(image)
        assert all(word in str(error.value) for word in words), error.value


@pytest.mark.parametrize("encoding", SUPPORTED_ENCODINGS)
def test_huge_size_with_little_data_is_refused_unallocated(encoding):
    step = 2 * ENCODINGS[encoding].row_bytes(100_000)
    image = changed(width=100_000, height=100_000, step=step, encoding=encoding)
    tracemalloc.start()
    try:
        with pytest.raises(BadImage, match="60 bytes"):
            to_picture(image)
        assert tracemalloc.get_traced_memory()[1] < 100_000
    finally:
        tracemalloc.stop()


@given(raw_messages())
@settings(max_examples=300, deadline=2000)
def test_any_image_message_is_decoded_or_refused(image):
    examine(image)


def test_image_sent_and_received_is_the_same():
    pytest.importorskip("sensor_msgs.msg", reason="ROS messages are not installed")
    from std_msgs.msg import Header

    from dimp_ros.ros_utils.messages import from_bgr

    picture = np.random.default_rng(0).integers(0, 256, (11, 13, 3), np.uint8)
    for variant in (picture, picture[::2, ::3], cv2.flip(picture, 1)):
        image = from_bgr(Header(frame_id="lens"), variant)
        assert image.header.frame_id == "lens" and image.step == 3 * variant.shape[1]
        np.testing.assert_array_equal(to_bgr(image), variant)
