# SPDX-License-Identifier: Apache-2.0
"""sensor_msgs/Image to BGR arrays and back: views where possible, clear refusals where not."""

from __future__ import annotations

import array
from typing import TYPE_CHECKING, NamedTuple, cast

import cv2
import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from sensor_msgs.msg import Image
    from std_msgs.msg import Header


class _Layout(NamedTuple):
    channels: int
    to_bgr: int | None  # cv2's conversion code, None where the pixels are BGR already


_LAYOUTS = {
    "bgr8": _Layout(3, None),
    "rgb8": _Layout(3, cv2.COLOR_RGB2BGR),
    "mono8": _Layout(1, cv2.COLOR_GRAY2BGR),
    "bgra8": _Layout(4, cv2.COLOR_BGRA2BGR),
    "rgba8": _Layout(4, cv2.COLOR_RGBA2BGR),
}
SUPPORTED_ENCODINGS = tuple(_LAYOUTS)


class BadImage(ValueError):
    """An image message that cannot be understood; the text says why and what to do."""


def check_image(image: Image) -> None:
    """Check size, step and amount of data of ``image`` against its encoding, without touching its pixels.

    :raises BadImage: with the value received and the one expected.
    """
    if image.width == 0 or image.height == 0:
        raise BadImage(f"image is {image.width} x {image.height} pixels; both sides must be at least 1")
    if not image.encoding:
        raise BadImage(f"image has no encoding; the publisher must set one of {', '.join(SUPPORTED_ENCODINGS)}")
    layout = _LAYOUTS.get(image.encoding)
    if layout is not None and image.step < image.width * layout.channels:
        raise BadImage(
            f"step is {image.step} bytes, but a row of {image.width} pixels in {image.encoding} needs at least "
            f"{image.width * layout.channels}; the publisher must set step to the full row length in bytes"
        )
    if len(image.data) != image.step * image.height:
        raise BadImage(
            f"data has {len(image.data)} bytes, but step {image.step} x height {image.height} is "
            f"{image.step * image.height}; the publisher must send whole rows"
        )


def to_bgr(image: Image) -> NDArray[np.uint8]:
    """Return the picture of ``image`` as a HxWx3 uint8 BGR array.

    For bgr8 the array is a view of the message's data, padding between rows included in its strides; bgr8, rgb8,
    mono8, bgra8 and rgba8 need numpy and OpenCV alone, every other encoding is left to cv_bridge. 8-bit channels
    have no byte order: ``is_bigendian`` is of no account for them.

    :raises BadImage: for an inconsistent message, and for an encoding that cannot be converted here.
    """
    check_image(image)
    layout = _LAYOUTS.get(image.encoding)
    if layout is None:
        return _through_cv_bridge(image)
    rows = np.frombuffer(image.data, dtype=np.uint8).reshape(image.height, image.step)
    used = rows[:, : image.width * layout.channels]
    if layout.to_bgr is None:
        return used.reshape(image.height, image.width, layout.channels)
    pixels = used if layout.channels == 1 else used.reshape(image.height, image.width, layout.channels)
    return cast("NDArray[np.uint8]", cv2.cvtColor(pixels, layout.to_bgr))


def _through_cv_bridge(image: Image) -> NDArray[np.uint8]:
    """Convert an encoding that is not in the table with cv_bridge, which need not be installed."""
    supported = ", ".join(SUPPORTED_ENCODINGS)
    try:
        from cv_bridge import CvBridge
    except Exception as error:  # cv_bridge built for another numpy fails with more than ImportError
        raise BadImage(
            f"encoding {image.encoding!r} needs cv_bridge, which does not load here ({type(error).__name__}: {error}); "
            f"install it, or publish one of {supported}"
        ) from error
    try:
        return cast("NDArray[np.uint8]", CvBridge().imgmsg_to_cv2(image, desired_encoding="bgr8"))
    except Exception as error:  # CvBridgeError, cv2.error, KeyError: as many as there are implementations
        raise BadImage(
            f"encoding {image.encoding!r} cannot be made BGR by cv_bridge ({error}); publish one of {supported}"
        ) from error


def from_bgr(header: Header, picture: NDArray[np.uint8]) -> Image:
    """Return a HxWx3 uint8 BGR ``picture`` as a bgr8 message under ``header``.

    The data is set as an `array.array`: given a numpy array, rclpy checks every byte in Python.
    """
    from sensor_msgs.msg import Image

    height, width = picture.shape[:2]
    message = Image(header=header, height=height, width=width, encoding="bgr8", is_bigendian=0, step=3 * width)
    message.data = array.array("B", picture.tobytes())
    return message
