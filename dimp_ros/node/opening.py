# SPDX-License-Identifier: Apache-2.0
"""From an image message of either transport to a picture."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dimp_ros.node.image_conversion import to_bgr
from dimp_ros.tracker.images import ArrayPicture, Picture

if TYPE_CHECKING:
    from dimp_ros.node.history import StampedImage


def open_image(message: StampedImage, max_megapixels: float) -> Picture:
    """Return the picture of a message.

    :param max_megapixels: compressed pictures beyond this are refused.
    :raises BadImage: if it cannot be used, with the reason and the remedy.
    """
    return ArrayPicture(to_bgr(message))
