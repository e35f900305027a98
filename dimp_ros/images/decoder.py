# SPDX-License-Identifier: Apache-2.0
"""Image files to pixels; memory and time are bounded before a decoder is called."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from dimp_ros.images.encodings import BadImage
from dimp_ros.images.file_headers import FileHeader, check_png_data, read_header

MAX_MEGAPIXELS = 50.0
"""Admits 8K (8192 x 4320 is 35)."""
MAX_MEMORY = 2**29
MAX_SECONDS = 1.0
"""Limits for decoding an image of `MAX_MEGAPIXELS`, bytes and seconds of one core; a larger limit raises them."""

AS_CAMERA_SEES = cv2.IMREAD_ANYDEPTH | cv2.IMREAD_ANYCOLOR | cv2.IMREAD_IGNORE_ORIENTATION
"""Without EXIF rotation, so that camera_info fits. Alpha is dropped."""


def check_file(content: NDArray[np.uint8], max_megapixels: float = MAX_MEGAPIXELS) -> FileHeader:
    """Return the header of an image file that can be decoded within the limits.

    :raises BadImage: for a file that is no JPEG, PNG, WebP or TIFF, is truncated, or exceeds a limit.
    """
    return check_cost(read_header(content.data), max_megapixels)


def check_cost(header: FileHeader, max_megapixels: float = MAX_MEGAPIXELS) -> FileHeader:
    """Return the header of a file that can be decoded within bounds; raise BadImage for another."""
    name, width, height, memory, seconds = header
    if width * height > max_megapixels * 1e6:
        raise BadImage(
            f"the {name} file is {width} x {height} pixels, {width * height / 1e6:.1f} megapixels, and max_megapixels "
            f"is {max_megapixels:g}; raise it, or publish smaller images"
        )
    larger = max(1.0, max_megapixels / MAX_MEGAPIXELS)
    if memory > larger * MAX_MEMORY or seconds > larger * MAX_SECONDS:
        raise BadImage(
            f"the {name} file of {width} x {height} pixels would take about {memory / 2**20:.0f} MiB and {seconds:.1f} "
            f"s to decode, and may take {larger * MAX_MEMORY / 2**20:.0f} MiB and {larger * MAX_SECONDS:g} s; publish "
            "smaller images, of 8 bits, PNG as JPEG, and JPEG with fewer scans, or raise max_megapixels above "
            f"{MAX_MEGAPIXELS:g}, which raises these limits in proportion"
        )
    return header


def decode_file(content: NDArray[np.uint8], header: FileHeader, *, flags: int = AS_CAMERA_SEES) -> NDArray[Any]:
    """Return the pixels of a file, ``[H, W, 3]`` BGR or ``[H, W]`` grey, in the file's bit depth.

    :param header: of `check_file`. :param flags: of cv2.imdecode, by default any depth and colour, not rotated.
    :raises BadImage: for a damaged file.
    """
    name, size = header.format, (header.height, header.width)
    turned = flags != cv2.IMREAD_UNCHANGED and not flags & cv2.IMREAD_IGNORE_ORIENTATION
    if name == "PNG":
        check_png_data(content.data, header.seconds)
    try:
        pixels = cv2.imdecode(content, flags)
    except (cv2.error, MemoryError) as error:
        raise BadImage(f"the {name} file cannot be decoded: {error}; send it undamaged") from error
    if pixels is None:
        raise BadImage(f"the {name} file of {content.size} bytes is damaged, or of a kind unknown here")
    found = pixels.shape[:2]
    if found not in (size, size[::-1] if turned else size):
        raise BadImage(
            f"the {name} file says that it is {size[1]} x {size[0]} pixels, but holds {found[1]} x {found[0]}; "
            "send it undamaged"
        )
    return pixels
