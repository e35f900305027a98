# SPDX-License-Identifier: Apache-2.0
"""sensor_msgs/Image to pixel arrays, as views where possible; invalid messages are refused."""

from __future__ import annotations

from numbers import Integral
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from dimp_ros.images.contrast import Contrast
from dimp_ros.images.encodings import SUPPORTED_ENCODINGS, BadImage, Encoding, Kind, find_encoding
from dimp_ros.images.picture import Picture, to_color
from dimp_ros.images.raw_image import PackedPicture, PlanarPicture, picture_of

if TYPE_CHECKING:
    from sensor_msgs.msg import Image

__all__ = ["SUPPORTED_ENCODINGS", "BadImage", "image_bytes", "to_bgr", "to_picture"]


class _Pixels(NamedTuple):
    """The checked fields of an image message."""

    width: int
    height: int
    step: int
    encoding: Encoding
    big_endian: bool
    data: NDArray[np.uint8]


def to_picture(image: Image, contrast: Contrast | None = None) -> Picture:
    """Return the image in a message; a region is converted when it is requested.

    Nothing is copied: the result refers to the message's data. docs/images.md lists the conversion of each encoding.

    :param image: anything with the fields of sensor_msgs/Image; ``data`` may be anything with a buffer.
    :param contrast: of the stream that the image belongs to; by default the image has its own.
    :raises BadImage: for an inconsistent message, and for an encoding that is neither grey nor colour.
    """
    width, height, step, encoding, big_endian, data = _checked(image)
    if encoding.kind is Kind.PLANAR:
        columns, rows = encoding.chroma
        luma = _view(data, (height, width), (step, 1))
        pairs = (-(-height // rows), -(-width // columns), 2)
        chroma = _view(data[height * step :], pairs, (step * (3 - columns), 2, 1))
        return PlanarPicture(luma, chroma, encoding)
    if encoding.kind is Kind.PACKED:
        assert encoding.code is not None
        return PackedPicture(_view(data, (height, width + width % 2, 2), (step, 2, 1)), width, encoding.code)
    size, channels = encoding.dtype.itemsize, encoding.channels
    dtype = encoding.dtype.newbyteorder(">" if big_endian else "<")
    shape, strides = (height, width, channels), (step, channels * size, size)
    flat = 3 if channels > 1 else 2
    return picture_of(_view(data, shape[:flat], strides[:flat], dtype), encoding, contrast or Contrast())


def to_bgr(image: Image | Picture) -> NDArray[np.uint8]:
    """Return a whole image as an ``[H, W, 3]`` uint8 BGR array, not to be written to.

    For bgr8 the array is a view of the message's data, padding between rows included in its strides.

    :raises BadImage: as `to_picture` does.
    """
    picture = image if isinstance(image, Picture) else to_picture(image)
    return to_color(picture.region(0, 0, picture.width, picture.height))


def image_bytes(data: Any) -> NDArray[np.uint8]:
    """Return a message's data as bytes ``[N]``, without a copy.

    :raises BadImage: for data without a contiguous buffer, such as a list.
    """
    try:
        with memoryview(data) as view:
            empty = view.nbytes == 0
        return np.empty(0, np.uint8) if empty else np.frombuffer(data, dtype=np.uint8)
    except (TypeError, ValueError, BufferError) as error:
        raise BadImage(
            f"data is {type(data).__name__}, whose bytes cannot be read ({error}); make it bytes, array.array or numpy"
        ) from error


def _checked(image: Image) -> _Pixels:
    """Return the fields of a message if they are consistent; allocates nothing."""
    try:
        sizes = (image.width, image.height, image.step, image.is_bigendian)
        name, data = image.encoding, image.data
    except AttributeError as error:
        raise BadImage(f"this is no sensor_msgs/Image but {type(image).__name__}: {error}") from error
    if not all(isinstance(size, Integral) for size in sizes):
        raise BadImage(f"width, height, step and is_bigendian must be whole numbers, got {', '.join(map(str, sizes))}")
    width, height, step, big_endian = (int(size) for size in sizes)
    if width < 1 or height < 1:
        raise BadImage(f"image is {width} x {height} pixels; both sides must be at least 1")
    encoding = find_encoding(name)
    if step < encoding.row_bytes(width):
        raise BadImage(
            f"step is {step} bytes, but a row of {width} pixels in {name} needs at least "
            f"{encoding.row_bytes(width)}; the publisher must set step to the full row length in bytes"
        )
    pixels = image_bytes(data)
    rows = encoding.data_rows(height)
    if pixels.size != step * rows:
        chroma = f" and {rows - height} of chroma" if rows != height else ""
        raise BadImage(
            f"data has {pixels.size} bytes, but step {step} x height {height}{chroma} is "
            f"{step * rows}; the publisher must send whole rows"
        )
    return _Pixels(width, height, step, encoding, bool(big_endian), pixels)


def _view(
    data: NDArray[np.uint8], shape: tuple[int, ...], strides: tuple[int, ...], dtype: Any = np.uint8
) -> NDArray[Any]:
    """Return a view of bytes as an array with strides in bytes; numpy checks its bounds."""
    return np.ndarray(shape, dtype, buffer=data, strides=strides)
