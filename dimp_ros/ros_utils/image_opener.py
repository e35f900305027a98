# SPDX-License-Identifier: Apache-2.0
"""From an image message of either transport to a picture."""

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
    """Makes the messages of one stream pictures; keeps what its pictures have in common, such as their grey levels."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._levels = Contrast()

    def __call__(self, message: StampedImage) -> Picture:
        """Return the picture of a message.

        :raises BadImage: if it cannot be used, with the reason and the remedy.
        """
        if hasattr(message, "format"):
            return compressed_picture(message, self._levels, self._settings["max_megapixels"])
        return to_picture(message, self._levels)
