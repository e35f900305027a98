# SPDX-License-Identifier: Apache-2.0
"""The base of trackers for tests: the whole `Tracker` protocol without a network."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np

from dimp_ros.geometry.box import Box, check_box, check_point
from dimp_ros.images.picture import Picture
from dimp_ros.tracker.config import TrackerConfig
from dimp_ros.tracker.result import TargetState, TrackResult


class TrackerDouble:
    """Checks boxes like `DimpTracker`, keeps them, and finds every target where it was. Subclasses change `find`."""

    confidence = 0.75

    def __init__(self) -> None:
        self.config = TrackerConfig()
        self.boxes: dict[str, Box] = {}
        self.objects: list[Box] = []
        """What `find_box` knows."""
        self.device = "cpu"

    def init(self, image: Picture, box: Sequence[float], *, target_id: str = "0") -> TrackResult:
        """Start a target in ``box``."""
        self.boxes[target_id] = check_box(box, image.width, image.height, min_side=self.config.min_target_side)
        return self.result(target_id)

    def find_box(self, image: Picture, point: tuple[float, float]) -> Box:
        """Return the object at a point."""
        check_point(point, image.width, image.height)
        for box in self.objects:
            if box.x <= point[0] <= box.x + box.w and box.y <= point[1] <= box.y + box.h:
                return box
        raise ValueError(f"no object stands out at point ({point[0]:g}, {point[1]:g}); draw a box instead")

    def update_all(self, image: Picture, only: Collection[str] | None = None) -> dict[str, TrackResult]:
        """Find targets in the next image."""
        return {name: self.find(image, name) for name in (list(self.boxes) if only is None else only)}

    def find(self, image: Picture, name: str) -> TrackResult:
        """Return the result for one target in an image."""
        return self.result(name)

    def result(
        self,
        name: str,
        state: TargetState = TargetState.TRACKING,
        box: Box | None = None,
        *,
        confidence: float | None = None,
        peak: float = 0.5,
        distractor_ratio: float = 0.25,
    ) -> TrackResult:
        """Return a result; its box is ``box``, or the one that is kept, in every state.

        That the box of a LOST target is not published is for the user of the tracker to ensure.
        """
        place = self.boxes[name] if box is None else box
        sure = self.confidence if confidence is None else confidence
        return TrackResult(name, state, place, place, sure, peak, distractor_ratio, place)

    def drop(self, target_id: str | None = None) -> None:
        """Drop a target, or all."""
        if target_id is None:
            self.boxes.clear()
        else:
            del self.boxes[target_id]

    def warm_up(self) -> None:
        """Nothing to warm up."""

    def to(self, device: str) -> None:
        """There is one device."""

    def device_bytes(self) -> int | None:
        """Return None: the CPU's memory is not measured."""
        return None


class BrightestTracker(TrackerDouble):
    """The first target is the bright one, lost where nothing is bright; all others stand still."""

    confidence = 0.9

    def find_box(self, image: Picture, point: tuple[float, float]) -> Box:
        """Return the box of what is bright, if it is at the point."""
        rows, columns = np.nonzero(image.region(0, 0, image.width, image.height)[..., 1] > 128)
        x, y = float(columns.min()), float(rows.min())
        self.objects = [Box(x, y, float(columns.max()) + 1 - x, float(rows.max()) + 1 - y)]
        return super().find_box(image, point)

    def find(self, image: Picture, name: str) -> TrackResult:
        """Find the left top corner of the first target."""
        if name != next(iter(self.boxes)):
            return self.result(name)
        rows, columns = np.nonzero(image.region(0, 0, image.width, image.height)[..., 1] > 128)
        if not len(rows):
            return self.result(name, TargetState.LOST, confidence=0.0, peak=float("nan"))
        self.boxes[name] = self.boxes[name]._replace(x=float(columns.min()), y=float(rows.min()))
        return self.result(name)
