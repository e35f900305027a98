# SPDX-License-Identifier: Apache-2.0
"""The interface of training data sets: stills with annotated objects, and clips with a target's box per frame."""

from __future__ import annotations

import hashlib
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dimp_ros.geometry.box import Box

Image = NDArray[Any]  # uint8 [H, W, 3] BGR, or [H, W, 4] BGRA; cv2's stubs do not say so


HELD_OUT_SHARE = 0.05
"""Share of the images that no training uses; the confidence is fitted on synthetic sequences of them."""


def held_out(name: str) -> bool:
    """Tell whether the still or clip of this name is held out of training; a fixed function of the name.

    The targets of one video, clips called ``video#track``, are held out together.
    """
    digest = hashlib.sha256(name.partition("#")[0].encode()).digest()
    return int.from_bytes(digest[:8], "big") < HELD_OUT_SHARE * 2**64


def read_box(values: Sequence[float]) -> Box | None:
    """Return the box of x, y, w, h; None for one of no size, or with a value that is not finite."""
    box = Box(*map(float, values))
    return box if all(map(math.isfinite, box)) and box.w > 0 and box.h > 0 else None


@dataclass(frozen=True)
class Instance:
    """One annotated object: its box in pixels, its category ('' if unknown), and its mask if known.

    :param decode: returns the mask, ``uint8 [H, W]`` of 0 and 1; None without a mask.
    """

    box: Box
    category: str = ""
    decode: Callable[[], NDArray[np.uint8]] | None = field(default=None, repr=False, compare=False)

    @property
    def has_mask(self) -> bool:
        """Whether a mask is known."""
        return self.decode is not None

    def mask(self) -> NDArray[np.uint8] | None:
        """Return the mask ``uint8 [H, W]`` of 0 and 1, or None."""
        return None if self.decode is None else self.decode()


@dataclass(frozen=True)
class Still:
    """A single image.

    :param read: returns the image as BGR, or BGRA for a cut-out.
    :param kind: ``still`` (objects in their own surroundings), ``cutout`` (one object with alpha) or ``background``.
    :param source: origin, by which draws are balanced.
    :param exhaustive: whether *every* object is annotated.
    """

    name: str
    read: Callable[[], Image] = field(repr=False, compare=False)
    width: int
    height: int
    instances: tuple[Instance, ...] = ()
    kind: str = "still"
    source: str = ""
    licence: str = ""
    exhaustive: bool = False


@dataclass(frozen=True)
class Clip:
    """A video with one target: ``boxes`` ``float64 [N, 4]`` as x, y, w, h, all nan where the target is absent.

    :param read: returns frame i of ``range(len(clip))`` as BGR.
    :param visible: ``float64 [N]``, visible share of the target.
    :param instances: the annotated object of each frame, if the data set has masks; else empty.
    :param distractors: boxes of the video's other targets, each ``float64 [N, 4]``, nan where unknown.
    """

    name: str
    read: Callable[[int], Image] = field(repr=False, compare=False)
    boxes: NDArray[np.float64] = field(repr=False, compare=False)
    visible: NDArray[np.float64] = field(repr=False, compare=False)
    category: str = ""
    source: str = ""
    licence: str = ""
    instances: tuple[Instance | None, ...] = field(default=(), repr=False)
    distractors: tuple[NDArray[np.float64], ...] = field(default=(), repr=False)

    def __len__(self) -> int:
        return len(self.boxes)


class DataSet(ABC):
    """A source of training images. Opening one reads annotations only."""

    name: str

    @abstractmethod
    def stills(self) -> Sequence[Still]:
        """Return all single images, in a fixed order."""

    @abstractmethod
    def clips(self) -> Sequence[Clip]:
        """Return all clips, in a fixed order."""

    def summary(self) -> str:
        """Return a line with the number of stills, clips and frames, and their sources."""
        stills, clips = self.stills(), self.clips()
        sources = sorted({still.source for still in stills} | {clip.source for clip in clips})
        frames = sum(map(len, clips))
        return f"{self.name}: {len(stills)} stills, {len(clips)} clips of {frames} frames, from: {'; '.join(sources)}"
