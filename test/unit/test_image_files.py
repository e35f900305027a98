# SPDX-License-Identifier: Apache-2.0
"""Image files of a folder that are much longer than their pixels, and large ones that are whole."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import cv2
import numpy as np
import pytest

from dimp_ros.images.files import read_image


def read_within(path: Path, limit: int) -> np.ndarray:
    """Return the image of a file whose reading takes at most ``limit`` bytes of Python's and numpy's memory."""
    tracemalloc.start()
    try:
        return read_image(path)
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < limit


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".bmp", ".tif", ".ppm"])
@pytest.mark.parametrize("size", [2**27, 2**29 - 5, 2**30])
def test_file_much_longer_than_its_pixels_is_refused_unread(tmp_path, suffix, size):
    path = tmp_path / f"1{suffix}"
    cv2.imwrite(str(path), np.zeros((64, 64, 3), np.uint8))
    with path.open("r+b") as file:  # a sparse file with an end at its end
        file.seek(size - 2)
        file.write(b"\xff\xd9")
    with pytest.raises(ValueError, match=rf"has {size} bytes, and may have"):
        read_within(path, 2**20)


def test_photograph_with_a_film_behind_it_is_read_once(tmp_path):
    path = tmp_path / "1.jpg"
    cv2.imwrite(str(path), np.full((64, 64, 3), 9, np.uint8))
    path.write_bytes(path.read_bytes() + bytes(10_000_000))
    assert read_within(path, 14_000_000).mean() == pytest.approx(9, abs=1)


def test_large_tiff_with_its_directory_at_the_end_is_read(tmp_path):
    path = tmp_path / "1.tif"
    cv2.imwrite(str(path), np.zeros((2900, 4000, 3), np.uint16), [cv2.IMWRITE_TIFF_COMPRESSION, 1])
    assert path.stat().st_size > 2**26
    assert read_image(path).shape == (2900, 4000, 3)
