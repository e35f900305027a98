# SPDX-License-Identifier: Apache-2.0
"""Headers of BMP and PNM, which are read from folders only; `dimp_ros.images.file_headers` reads those of topics."""

from __future__ import annotations

import re
from struct import Struct, error

from dimp_ros.images.encodings import BadImage
from dimp_ros.images.file_headers import FileHeader, check_length

_BMP_CORE, _BMP_SIZE, _BMP_CORE_SIZE = 12, Struct("<Iii"), Struct("<IHH")
_GAP = rb"(?:\s|#[^\r\n]*[\r\n])"
_PNM = re.compile(rb"P[1-6]\s" + _GAP + rb"*(\d{1,9})" + _GAP + rb"+(\d{1,9})(?!\d)")
_LONGEST_PNM_HEADER = 2**16
_BYTES, _SECONDS, _SECONDS_OF_BYTE = 10, 15e-9, 5e-9
"""What decoding takes for a pixel, and for a byte of the file, at most."""


def read_plain_header(data: memoryview) -> FileHeader:
    """Return what the header of a BMP or PNM file says.

    :raises BadImage: for any other file, for a header that is cut off, and a file much longer than its pixels.
    """
    start = bytes(data[:2])
    if start == b"BM":
        name = "BMP"
        try:
            core, width, height = _BMP_SIZE.unpack_from(data, 14)
            if core == _BMP_CORE:
                core, width, height = _BMP_CORE_SIZE.unpack_from(data, 14)
        except error as failure:
            raise BadImage(f"the BMP file of {len(data)} bytes ends in its header; it was cut off") from failure
    elif found := _PNM.match(bytes(data[:_LONGEST_PNM_HEADER])):
        name, width, height = "PNM", int(found[1]), int(found[2])
    else:
        raise BadImage(
            f"it is damaged, or no image file that is read here: it begins with {start.hex(' ')}; convert it to PNG"
        )
    check_length(name, len(data), abs(width), abs(height))
    pixels = abs(width) * abs(height)  # a negative height says that the first row is at the top
    seconds = pixels * _SECONDS + len(data) * _SECONDS_OF_BYTE
    return FileHeader(name, abs(width), abs(height), pixels * _BYTES, seconds)
