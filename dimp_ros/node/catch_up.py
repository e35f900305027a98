# SPDX-License-Identifier: Apache-2.0
"""Targets that were set in a past image and catch up through the buffered images."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from dimp_ros.node.image_buffer import ImageBuffer

if TYPE_CHECKING:
    from dimp_ros.images.stamps import StampedImage


class PendingReplay:
    """Progress of a target that catches up.

    :param reached: stamp of the last image that it was followed in, nanoseconds. :param images: how many that took.
    """

    def __init__(self, target_id: str, reached: int) -> None:
        self.target_id = target_id
        self.reached = reached
        self.images = 0
        self.arrived = threading.Event()
        """Set when the target is up to date, or dropped."""


class CatchUp:
    """Targets that catch up, in the order of their requests, and the next image of each.

    Where the stream is processed in every n-th image only, so is the replay: otherwise a target would never catch up
    with a camera that is faster than the tracker.
    """

    def __init__(self, history: ImageBuffer) -> None:
        self._history = history
        self._late: dict[str, PendingReplay] = {}

    @property
    def ids(self) -> tuple[str, ...]:
        """Names of the late targets."""
        return tuple(self._late)

    def add(self, target_id: str, stamp: int) -> PendingReplay:
        """Add a target that was set in the image of ``stamp``, nanoseconds."""
        self.discard(target_id)
        late = self._late[target_id] = PendingReplay(target_id, stamp)
        return late

    def discard(self, target_id: str) -> None:
        """Remove a target, up to date or not; an unknown one is ignored."""
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
        """Record that a target was replayed in the image of ``stamp``; return whether it is up to date now."""
        late.reached = stamp
        late.images += 1
        arrived = stamp >= newest
        if arrived:
            self.discard(late.target_id)
        return arrived
