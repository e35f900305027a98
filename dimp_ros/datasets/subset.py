# SPDX-License-Identifier: Apache-2.0
"""A part of a data set: fewer stills, clips, or frames per clip."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Generic, TypeVar

import numpy as np

from dimp_ros.datasets.base import Clip, DataSet, Still
from dimp_ros.datasets.lazy import Lazy

T = TypeVar("T")


class Subset(DataSet):
    """Evenly spaced stills, clips, and frames of clips of another data set.

    :param stills, clips, frames: largest number to take; None takes all.
    :raises ValueError: if one is negative, or frames is 0.
    """

    def __init__(
        self, data: DataSet, stills: int | None = None, clips: int | None = None, frames: int | None = None
    ) -> None:
        for what, number, least in (("stills", stills, 0), ("clips", clips, 0), ("frames", frames, 1)):
            if number is not None and number < least:
                raise ValueError(f"max_{what} is {number}; it must be at least {least}, or left out to take all")
        self.name, self.annotations = data.name, data.annotations
        self.frames = frames
        self._all = data
        self._still_rows = _spread(len(data.stills()), stills)
        self._clip_rows = _spread(len(data.clips()), clips)
        self._stills = Lazy(len(self._still_rows), self._still)
        self._clips = Lazy(len(self._clip_rows), self._clip)

    def stills(self) -> Sequence[Still]:
        """Return the chosen stills in their order."""
        return self._stills

    def clips(self) -> Sequence[Clip]:
        """Return the chosen clips in their order, with the chosen frames."""
        return self._clips

    def _still(self, index: int) -> Still:
        return self._all.stills()[self._still_rows[index]]

    def _clip(self, index: int) -> Clip:
        clip = self._all.clips()[self._clip_rows[index]]
        rows = _spread(len(clip), self.frames)
        if len(rows) == len(clip):
            return clip
        instances = tuple(clip.instances[row] for row in rows) if clip.instances else ()
        read = _Chosen(clip.read, rows)
        file = _Chosen(clip.file, rows) if clip.file else None
        return replace(
            clip, read=read, file=file, boxes=clip.boxes[rows], visible=clip.visible[rows], instances=instances
        )


class _Chosen(Generic[T]):
    """Calls a function of a frame with frame i of the chosen frames; can be pickled."""

    def __init__(self, of_frame: Callable[[int], T], rows: list[int]) -> None:
        self.of_frame, self.rows = of_frame, rows

    def __call__(self, index: int) -> T:
        return self.of_frame(self.rows[index])


def _spread(length: int, most: int | None) -> list[int]:
    """Return at most ``most`` of ``range(length)``, evenly spaced, the first and the last among them."""
    if most is None or most >= length:
        return list(range(length))
    return [int(row) for row in np.linspace(0, length - 1, most).round()]
