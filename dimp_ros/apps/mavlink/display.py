# SPDX-License-Identifier: Apache-2.0
"""Which image was on the operator's screen: stamps of recent images against the delay of the video."""

from __future__ import annotations

from collections import deque

from dimp_ros.images.stamps import NANOSECONDS

MAX_STAMPS = 4096
PLAUSIBLE_AGE_SECONDS = 5.0
"""An image whose stamp is further from the node's clock than this was stamped by another clock."""


class DisplayedImage:
    """Finds the stamp of the image that is displayed ``delay`` seconds after it was taken. Not thread-safe."""

    def __init__(self) -> None:
        self._stamps: deque[int] = deque(maxlen=MAX_STAMPS)
        self._newest_taken = 0.0

    def on_image(self, stamp: int, clock: int, steady: float) -> None:
        """Take the stamp of an image.

        :param stamp: nanoseconds. :param clock: the node's clock, nanoseconds. :param steady: a steady clock, seconds.
        """
        if stamp <= 0:
            return
        if self._stamps and stamp < self._stamps[-1]:  # the clock was set back, or a recording starts over
            self._stamps.clear()
        age = (clock - stamp) / NANOSECONDS
        self._stamps.append(stamp)
        self._newest_taken = steady - (age if 0.0 <= age <= PLAUSIBLE_AGE_SECONDS else 0.0)

    @property
    def newest(self) -> int:
        """Stamp of the newest image, nanoseconds; 0 without images."""
        return self._stamps[-1] if self._stamps else 0

    def stamp(self, delay: float, steady: float) -> int:
        """Return the stamp (nanoseconds) of the image on display; 0 for the newest: without delay, or without images.

        :param delay: from the image to its display, seconds. :param steady: now, seconds of the steady clock.
        """
        if delay <= 0.0 or not self._stamps:
            return 0
        since_newest = steady - self._newest_taken
        wanted = self._stamps[-1] + round((since_newest - delay) * NANOSECONDS)
        return min(self._stamps, key=lambda stamp: abs(stamp - wanted))
