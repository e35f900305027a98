# SPDX-License-Identifier: Apache-2.0
"""Image files of a folder: listing, reading and writing."""

from __future__ import annotations

import re
from decimal import Decimal
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from dimp_ros.files.inputs import require_regular_file
from dimp_ros.files.outputs import write_bytes
from dimp_ros.images.compressed_image import file_encoding
from dimp_ros.images.contrast import Contrast
from dimp_ros.images.conversion import to_bgr
from dimp_ros.images.decoder import check_cost, check_file, decode_file
from dimp_ros.images.file_headers import FREE_BYTES, FileHeader, has_header
from dimp_ros.images.plain_headers import read_plain_header
from dimp_ros.images.raw_image import picture_of

IMAGE_SUFFIXES = frozenset({".bmp", ".jfif", ".jpe", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp"})
LARGEST_FILE = 2**29
"""In bytes."""


def list_images(folder: Path) -> list[Path]:
    """Return the images directly in `folder` in the order of their numbers, without hidden files.

    Names of equal length are sorted as strings (0001.png, 0002.png, hexadecimal numbers); decimal numbers by their
    value; all others by the numbers in them, so that 2.png comes before 10.png.
    """
    found = [path for path in folder.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES and path.name[0] != "."]
    if len({len(path.stem) for path in found}) <= 1:
        return sorted(found)
    if all(re.fullmatch(r"[0-9]+(\.[0-9]+)?", path.stem) for path in found):
        return sorted(found, key=lambda path: (Decimal(path.stem), path.name))
    return sorted(found, key=_natural)


def _natural(path: Path) -> tuple[list[tuple[int, str]], str]:
    """Return a key that compares the digits in a name as numbers, the rest as text."""
    parts = re.findall(r"[0-9]+|[^0-9]+", path.stem)
    return [(int(part), "") if part[0] in "0123456789" else (-1, part) for part in parts], path.name


def read_pixels(path: Path, flags: int) -> NDArray[Any]:
    """Read an image file's pixels with cv2's ``flags``.

    :raises OSError: if it cannot be opened. :raises ValueError: if it is damaged, truncated, exceeds the limits of
        `dimp_ros.images.decoder`, or is of a format that this OpenCV cannot read.
    """
    size = require_regular_file(path).stat().st_size
    if size > LARGEST_FILE:
        raise ValueError(f"it has {size} bytes, and may have {LARGEST_FILE}")
    if not size:
        raise ValueError("it is empty")
    if size > FREE_BYTES:
        _header(np.memmap(path, np.uint8, "r"))  # refuses a file much longer than its pixels before it is read
    content = np.fromfile(path, np.uint8)
    return decode_file(content, _header(content), flags=flags)


def _header(content: NDArray[np.uint8]) -> FileHeader:
    """Return the header of a file of any format that is read here; its suffix may be wrong."""
    return check_file(content) if has_header(content.data) else check_cost(read_plain_header(content.data))


def read_image(path: Path, flags: int = cv2.IMREAD_COLOR, *, contrast: Contrast | None = None) -> NDArray[np.uint8]:
    """Read an image as HxWx3 uint8 BGR, rotated by its EXIF orientation; more than 8 bits are scaled to 8.

    :param flags: of cv2.imdecode; with others than the default, its result is returned without scaling.
    :param contrast: of the stream that the image belongs to; by default the image has its own.
    :raises ValueError: if it cannot be read, with the reason.
    """
    try:
        if flags != cv2.IMREAD_COLOR:
            return np.asarray(read_pixels(path, flags), np.uint8)
        pixels = read_pixels(path, cv2.IMREAD_ANYDEPTH | cv2.IMREAD_ANYCOLOR)
        return to_bgr(picture_of(pixels, file_encoding(pixels), contrast or Contrast()))
    except (ValueError, OSError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise ValueError(f"cannot read the image {path}: {reason}") from error


def write_image(path: Path, image: NDArray[np.uint8]) -> None:
    """Write an image, HxWx3 uint8 BGR or HxW grey, in the format of its suffix; raise OSError if that fails."""
    done, data = cv2.imencode(path.suffix, image)
    if not done:
        raise OSError(f"{path}: an image of {list(image.shape)} cannot be stored as {path.suffix}")
    write_bytes(path, data.tobytes())
