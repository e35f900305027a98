# SPDX-License-Identifier: Apache-2.0
"""Decodes image messages of either transport."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dimp_ros.images.compressed_image import compressed_picture
from dimp_ros.images.contrast import Contrast
from dimp_ros.images.conversion import to_picture
from dimp_ros.images.picture import Picture

if TYPE_CHECKING:
    from dimp_ros.images.stamps import StampedImage
    from dimp_ros.ros_utils.parameters import Settings


class ImageDecoder:
    """Decodes the image messages of one stream; keeps their common contrast range."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._contrast = Contrast()

    def __call__(self, message: StampedImage) -> Picture:
        """Return the image of a message.

        :raises BadImage: if it cannot be used, with the reason and the remedy.
        """
        if hasattr(message, "format"):
            return compressed_picture(message, self._contrast, self._settings["max_megapixels"])
        return to_picture(message, self._contrast)
