# SPDX-License-Identifier: Apache-2.0
"""Frames with all their targets drawn on them, those out of sight where they were last seen."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from dimp_ros.geometry.box import Box
from dimp_ros.images.frame_source import Frame
from dimp_ros.images.overlay import draw_target
from dimp_ros.images.video import BgrImage
from dimp_ros.tracker.result import TargetEstimate


class Annotator:
    """Draws on copies of frames, given in order; remembers where each target was.

    :param names: write the names of the targets, too.
    """

    def __init__(self, *, names: bool) -> None:
        self._names = names
        self._last: dict[str, Box] = {}
        self._size: tuple[int, ...] = (480, 640)

    def paint(self, frame: Frame, readings: Sequence[TargetEstimate]) -> BgrImage:
        """Return a frame's picture with the targets on it, HxWx3 uint8 BGR; black where the frame has none."""
        picture = np.zeros((*self._size, 3), np.uint8) if frame.picture is None else frame.picture.copy()
        self._size = picture.shape[:2]
        for line, reading in enumerate(readings):
            self._draw(picture, reading, line, "image cannot be read" if frame.picture is None else "")
        return picture

    def _draw(self, picture: BgrImage, reading: TargetEstimate, line: int, note: str) -> None:
        held = reading.box is None
        if reading.box is not None:
            self._last[reading.target_id] = reading.box
        draw_target(
            picture,
            reading.state.name,
            box=self._last.get(reading.target_id),
            confidence=None if held else reading.confidence,
            target_id=reading.target_id if self._names else "",
            note=note or (reading.state.name if held else ""),
            held=held,
            line=line,
        )
