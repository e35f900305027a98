# SPDX-License-Identifier: Apache-2.0
"""Targets that were taken from a past image, on their way through the held images to the newest one."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from dimp_ros.node.image_buffer import ImageBuffer

if TYPE_CHECKING:
    from dimp_ros.images.stamps import StampedImage


class PendingReplay:
    """How far a late target has come.

    :param reached: stamp of the last image that it was followed in, nanoseconds. :param images: how many that took.
    """

    def __init__(self, target_id: str, reached: int) -> None:
        self.target_id = target_id
        self.reached = reached
        self.images = 0
        self.arrived = threading.Event()
        """Set when the target is up to date, or given up."""


class CatchUp:
    """Pending targets in the order in which they were given, and the images that each has to see next.

    The one that was given first comes first. It takes every n-th held image where the stream, too, is followed in every
    n-th only: otherwise it would fall back for ever behind a camera that is faster than the tracker.
    """

    def __init__(self, history: ImageBuffer) -> None:
        self._history = history
        self._late: dict[str, PendingReplay] = {}

    @property
    def ids(self) -> tuple[str, ...]:
        """Names of the late targets."""
        return tuple(self._late)

    def add(self, target_id: str, stamp: int) -> PendingReplay:
        """Note a target that was taken from the image of ``stamp``, nanoseconds."""
        self.discard(target_id)
        late = self._late[target_id] = PendingReplay(target_id, stamp)
        return late

    def discard(self, target_id: str) -> None:
        """Forget a late target, up to date or not; one that is not late is left alone."""
        late = self._late.pop(target_id, None)
        if late is not None:
            late.arrived.set()

    def clear(self) -> None:
        """Forget all."""
        for target_id in self.ids:
            self.discard(target_id)

    def next(self, newest: int, stride: int) -> tuple[PendingReplay, StampedImage, int] | None:
        """Return the late target whose turn it is, the image it has to see and its stamp; None if none is late.

        Targets for which no image is left up to the one of stamp ``newest`` are up to date, and late no more.
        """
        for late in list(self._late.values()):
            found = self._history.after(late.reached, newest, stride)
            if found is not None:
                return late, found[1], found[0]
            self.discard(late.target_id)
        return None

    def advance(self, late: PendingReplay, stamp: int, newest: int) -> bool:
        """Note that a late target has seen the image of ``stamp``; return whether it is up to date now."""
        late.reached = stamp
        late.images += 1
        arrived = stamp >= newest
        if arrived:
            self.discard(late.target_id)
        return arrived
