# SPDX-License-Identifier: Apache-2.0
"""Frames with all targets drawn on them; a target out of sight is drawn where it was last seen."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from dimp_ros.geometry.box import Box
from dimp_ros.images.frame_source import Frame
from dimp_ros.images.overlay import draw_target
from dimp_ros.images.video import BgrImage
from dimp_ros.tracker.result import TargetEstimate


class Annotator:
    """Draws on copies of consecutive frames; remembers the last box of each target.

    :param names: write the targets' names, too.
    """

    def __init__(self, *, names: bool) -> None:
        self._names = names
        self._last: dict[str, Box] = {}
        self._size: tuple[int, ...] = (480, 640)

    def draw(self, frame: Frame, estimates: Sequence[TargetEstimate]) -> BgrImage:
        """Return a frame's image with the targets on it, HxWx3 uint8 BGR; black if the frame has no image."""
        image = np.zeros((*self._size, 3), np.uint8) if frame.image is None else frame.image.copy()
        self._size = image.shape[:2]
        for line, estimate in enumerate(estimates):
            self._draw(image, estimate, line, "image cannot be read" if frame.image is None else "")
        return image

    def _draw(self, image: BgrImage, estimate: TargetEstimate, line: int, note: str) -> None:
        held = estimate.box is None
        if estimate.box is not None:
            self._last[estimate.target_id] = estimate.box
        draw_target(
            image,
            estimate.state.name,
            box=self._last.get(estimate.target_id),
            confidence=None if held else estimate.confidence,
            target_id=estimate.target_id if self._names else "",
            note=note or (estimate.state.name if held else ""),
            held=held,
            line=line,
        )
