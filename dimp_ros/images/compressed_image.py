# SPDX-License-Identifier: Apache-2.0
"""sensor_msgs/CompressedImage to images: the header is checked at once, pixels are decoded on first use."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from dimp_ros.images.contrast import Contrast
from dimp_ros.images.conversion import image_bytes
from dimp_ros.images.decoder import MAX_MEGAPIXELS, check_file, decode_file
from dimp_ros.images.encodings import ENCODINGS, BadImage, Encoding, Kind
from dimp_ros.images.file_headers import FileHeader
from dimp_ros.images.picture import Picture, WholePicture
from dimp_ros.images.raw_image import picture_of

if TYPE_CHECKING:
    from sensor_msgs.msg import CompressedImage


def compressed_picture(
    message: CompressedImage, contrast: Contrast | None = None, max_megapixels: float = MAX_MEGAPIXELS
) -> Picture:
    """Return the image in a message: JPEG, PNG or TIFF of 8 or 16 bits, TIFF of floating point, or WebP.

    The size is read from the file's header at once; the pixels are decoded once, when a region is requested. The file's
    signature gives the compression; of ``format`` only image_transport's description of the pixels is used.

    :param message: anything with the fields of sensor_msgs/CompressedImage.
    :param contrast: of the stream that the image belongs to; by default the image has its own.
    :param max_megapixels: larger images are refused before memory is allocated.
    :raises BadImage: for other files, truncated ones and images that are too large; `Picture.region` raises it if
        decoding finds damage.
    """
    try:
        description, data = message.format, message.data
    except AttributeError as error:
        raise BadImage(f"this is no sensor_msgs/CompressedImage but {type(message).__name__}: {error}") from error
    if not isinstance(description, str):
        raise BadImage(f"format must be a text such as 'jpeg', got {type(description).__name__}")
    if "compresseddepth" in description.lower():
        raise BadImage(
            f"format {description[:60]!r} is a depth image, not a camera's image; "
            "remap to the colour or infrared image's topic"
        )
    content = image_bytes(data)
    header = check_file(content, max_megapixels)
    return CompressedPicture(content, header, description, contrast or Contrast())


class CompressedPicture(WholePicture):
    """An image file that is decoded when its pixels are requested for the first time."""

    def __init__(self, content: NDArray[np.uint8], header: FileHeader, description: str, contrast: Contrast) -> None:
        self.width, self.height = header.width, header.height
        self._content = content
        self._header = header
        self._description = description
        self._contrast = contrast
        self._decoded: Picture | None = None

    def region(self, x0: int, y0: int, x1: int, y1: int) -> NDArray[np.uint8]:
        """Return the region in BGR or grey.

        :raises BadImage: for a file that cannot be decoded.
        """
        if self._decoded is None:
            pixels = decode_file(self._content, self._header)
            self._decoded = picture_of(pixels, file_encoding(pixels, self._description), self._contrast)
        return self._decoded.region(x0, y0, x1, y1)


def file_encoding(pixels: NDArray[Any], description: str = "") -> Encoding:
    """Return the encoding of decoded pixels, from their type and image_transport's ``<raw encoding>; <file's>``.

    :raises BadImage: for a type that no encoding has.
    """
    camera, semicolon, file = description.partition(";")
    camera = camera.strip()
    known = ENCODINGS.get(camera) if semicolon else None
    if pixels.ndim == 2:
        if known is not None and known.kind is Kind.BAYER and known.dtype == pixels.dtype:
            return known
        names = {"uint8": "8UC1", "uint16": "16UC1", "int16": "16SC1", "int32": "32SC1", "float32": "32FC1"}
    elif camera.startswith(("rgb", "bgr")) and known is not None and "compressed bgr" not in file:
        # image_transport takes the first channel of such a file as red, whatever the file's format
        names = {"uint8": "rgb8", "uint16": "rgb16"}
    else:
        names = {"uint8": "8UC3", "uint16": "16UC3", "float32": "32FC3"}
    names["float64"] = f"64FC{1 if pixels.ndim == 2 else pixels.shape[2]}"
    encoding = ENCODINGS.get(names.get(pixels.dtype.name, ""))
    if encoding is None or (pixels.ndim == 3 and pixels.shape[2] != encoding.channels):
        raise BadImage(f"the file holds {pixels.dtype} {list(pixels.shape)}; send 8 or 16 bits, grey or colour")
    return encoding
