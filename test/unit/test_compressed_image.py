# SPDX-License-Identifier: Apache-2.0
"""Compressed images: decoded once on first use, as image_transport defines them, or refused with a reason."""

from __future__ import annotations

import struct
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from harness.message_strategies import FILES, compressed_messages, examine
from hypothesis import given, settings

from dimp_ros.images import decoder
from dimp_ros.images.compressed_image import compressed_picture
from dimp_ros.images.conversion import to_bgr
from dimp_ros.images.encodings import BadImage

WIDTH, HEIGHT = 64, 48


def scene(channels: int = 3) -> np.ndarray:
    """Return a smooth image that JPEG keeps: blue grows to the right, green downwards, red is half."""
    blue, green = np.meshgrid(np.linspace(0, 255, WIDTH), np.linspace(0, 255, HEIGHT))
    picture = np.dstack([blue, green, np.full_like(blue, 128), np.full_like(blue, 255)]).astype(np.uint8)
    return picture[:, :, :channels] if channels > 1 else picture[:, :, 0]


def message(extension: str, pixels: np.ndarray, description: str = "", *options: int) -> SimpleNamespace:
    return SimpleNamespace(format=description, data=cv2.imencode(extension, pixels, options)[1].tobytes())


@pytest.mark.parametrize("extension", [".jpg", ".png", ".webp", ".tiff"])
@pytest.mark.parametrize("description", ["", "jpeg", "png", "bgr8; jpeg compressed bgr8", "rgb8; png compressed bgr8"])
def test_file_is_read_by_its_signature_whatever_format_says(extension, description):
    picture = compressed_picture(message(extension, scene(), description))
    assert (picture.width, picture.height) == (WIDTH, HEIGHT)
    np.testing.assert_allclose(to_bgr(picture), scene(), atol=12 if extension == ".jpg" else 0)
    np.testing.assert_array_equal(picture.region(5, 7, 20, 9), to_bgr(picture)[7:9, 5:20])


@pytest.mark.parametrize("options", [(cv2.IMWRITE_JPEG_PROGRESSIVE, 1), (cv2.IMWRITE_JPEG_RST_INTERVAL, 2)])
def test_progressive_jpeg_and_restart_markers_are_read(options):
    picture = compressed_picture(message(".jpg", scene(), "jpeg", *options))
    np.testing.assert_allclose(to_bgr(picture), scene(), atol=12)


def test_size_of_lossy_webp_is_read():
    picture = compressed_picture(message(".webp", scene(), "webp", cv2.IMWRITE_WEBP_QUALITY, 50))
    assert (picture.width, picture.height) == (WIDTH, HEIGHT) == to_bgr(picture).shape[1::-1]


@pytest.mark.parametrize("extension", [".jpg", ".png", ".tiff"])
def test_grey_file_stays_grey(extension):
    region = compressed_picture(message(extension, scene(1))).region(0, 0, WIDTH, HEIGHT)
    assert region.shape == (HEIGHT, WIDTH)
    np.testing.assert_allclose(region, scene(1), atol=12 if extension == ".jpg" else 0)


def test_alpha_is_dropped():
    np.testing.assert_array_equal(to_bgr(compressed_picture(message(".png", scene(4)))), scene())


@pytest.mark.parametrize("description", ["mono16; png compressed ", "16UC1; png compressed ", "png"])
def test_16_bit_grey_is_scaled_between_its_limits(description):
    pixels = np.tile(np.linspace(7000, 7200, WIDTH), (HEIGHT, 1)).astype(np.uint16)
    seen = compressed_picture(message(".png", pixels, description)).region(0, 0, WIDTH, HEIGHT)
    np.testing.assert_allclose(seen[3], np.linspace(0, 255, WIDTH), atol=4)


def test_16_bit_colour_is_scaled_by_its_full_range():
    pixels = scene().astype(np.uint16) * 257
    np.testing.assert_array_equal(to_bgr(compressed_picture(message(".png", pixels, "png"))), scene())


@pytest.mark.parametrize("camera", ["rgb8", "bgr8", "rgba8"])
def test_rgb_file_of_image_transport_has_red_first(camera):
    picture = compressed_picture(message(".png", scene(), f"{camera}; png compressed "))
    np.testing.assert_array_equal(to_bgr(picture), scene()[:, :, ::-1])


def test_compressed_mosaic_is_demosaiced():
    mosaic = np.tile(np.array([[200, 90], [90, 30]], np.uint8), (6, 8))
    seen = to_bgr(compressed_picture(message(".png", mosaic, "bayer_rggb8; png compressed ")))
    np.testing.assert_array_equal(seen, np.broadcast_to(np.uint8([30, 90, 200]), (12, 16, 3)))


def with_orientation(file: bytes, orientation: int) -> bytes:
    """Return a JPEG whose EXIF says that it is to be turned."""
    tags = b"II*\0\x08\0\0\0" + struct.pack("<HHHIHHI", 1, 0x0112, 3, 1, orientation, 0, 0)
    exif = b"Exif\0\0" + tags
    return file[:2] + b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif + file[2:]


def test_exif_orientation_is_ignored():
    plain = message(".jpg", scene())
    turned = SimpleNamespace(format="jpeg", data=with_orientation(plain.data, 6))
    assert cv2.imdecode(np.frombuffer(turned.data, np.uint8), cv2.IMREAD_COLOR).shape[:2] == (WIDTH, HEIGHT)
    np.testing.assert_array_equal(to_bgr(compressed_picture(turned)), to_bgr(compressed_picture(plain)))


def test_file_is_decoded_once_when_it_is_first_read(monkeypatch):
    calls = []
    monkeypatch.setattr(decoder.cv2, "imdecode", lambda *arguments: calls.append(1) or scene())
    picture = compressed_picture(message(".jpg", scene()))
    assert (picture.width, calls) == (WIDTH, [])
    for _ in range(3):
        picture.region(0, 0, 5, 5)
    assert calls == [1]


@pytest.mark.parametrize("file", FILES, ids=lambda file: f"{file[:4]!r} {len(file)}")
def test_file_cut_off_anywhere_is_refused(file):
    for length in range(0, len(file) - 3, 7):
        with pytest.raises(BadImage) as error:
            to_bgr(compressed_picture(SimpleNamespace(format="", data=file[:length])))
        assert len(str(error.value)) > 20


def png_that_says(width: int, height: int) -> bytes:
    file = bytearray(message(".png", scene()).data)
    file[16:24] = struct.pack(">II", width, height)
    return bytes(file)


def jpeg_that_says(width: int, height: int) -> bytes:
    file = message(".jpg", scene()).data
    at = file.index(b"\xff\xc0") + 5
    return file[:at] + struct.pack(">HH", height, width) + file[at + 4 :]


@pytest.mark.parametrize("file", [png_that_says(60_000, 60_000), jpeg_that_says(60_000, 60_000)])
def test_small_file_of_an_immense_image_is_refused_undecoded(file, monkeypatch):
    monkeypatch.setattr(decoder.cv2, "imdecode", lambda *_: pytest.fail("it was decoded"))
    with pytest.raises(BadImage, match=r"60000 x 60000 pixels, 3600.0 megapixels, and max_megapixels is 50; raise it"):
        compressed_picture(SimpleNamespace(format="", data=file))


def test_png_chunk_of_an_immense_length_is_refused_undecoded(monkeypatch):
    monkeypatch.setattr(decoder.cv2, "imdecode", lambda *_: pytest.fail("it was decoded"))
    file = bytearray(message(".png", scene()).data)
    at = file.index(b"IDAT") - 4
    file[at : at + 4] = struct.pack(">I", 2**31 - 1)
    with pytest.raises(BadImage, match="no end"):
        compressed_picture(SimpleNamespace(format="png", data=bytes(file)))


@pytest.mark.parametrize("size", [(7680, 4320), (8192, 4320)])
def test_8k_is_accepted(size):
    assert compressed_picture(SimpleNamespace(format="", data=jpeg_that_says(*size))).width == size[0]


def test_max_megapixels_is_obeyed():
    image = message(".png", scene())
    with pytest.raises(BadImage, match="max_megapixels"):
        compressed_picture(image, max_megapixels=0.003)
    assert compressed_picture(image, max_megapixels=0.0031).width == WIDTH


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"format": "16UC1; compressedDepth png"}, ["depth image", "remap"]),
        ({"format": None}, ["NoneType", "jpeg"]),
        ({"data": b""}, ["nothing", "JPEG"]),
        ({"data": b"\0\0\0\1h264"}, ["00 00 00 01", "JPEG, PNG, WebP or TIFF"]),
        ({"data": [255, 216]}, ["list", "bytes"]),
        ({"data": b"\xff\xd8\xff\xd9"}, ["no frame header"]),
        ({"data": png_that_says(0, 5)}, ["0 x 5"]),
    ],
)
def test_invalid_message_is_refused_with_the_reason(fields, words):
    image = SimpleNamespace(**{**vars(message(".png", scene())), **fields})
    with pytest.raises(BadImage) as error:
        compressed_picture(image)
    assert all(word in str(error.value) for word in words), error.value


def test_file_damaged_inside_is_refused_when_read():
    with pytest.raises(BadImage, match=r"damaged|cannot be decoded"):
        to_bgr(compressed_picture(SimpleNamespace(format="png", data=png_that_says(65, 48))))


@given(compressed_messages())
@settings(max_examples=300, deadline=2000)
def test_any_message_is_decoded_or_refused_with_a_reason(image):
    examine(image)
