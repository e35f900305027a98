# SPDX-License-Identifier: Apache-2.0
"""What every training data set gives: stills with annotated objects, and clips with a target's box in every frame."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dimp_ros.geometry.box import Box

Image = NDArray[Any]  # uint8 [H, W, 3] BGR, or [H, W, 4] BGRA; cv2's stubs do not say so


HELD_OUT_SHARE = 0.05
"""Share of the images that no training sees: the confidence is fitted and checked on sequences made of them."""


def held_out(name: str) -> bool:
    """Tell whether the still or the clip of this name is left out of training; always the same for the same name.

    All frames of a clip share their clip's fate, so ask with the clip's name. So do the targets of one video, which
    are clips called ``video#track``.
    """
    digest = hashlib.sha256(name.partition("#")[0].encode()).digest()
    return int.from_bytes(digest[:8], "big") < HELD_OUT_SHARE * 2**64


@dataclass(frozen=True)
class Instance:
    """One annotated object: its box in the image's pixels, its category ('' if unknown), its mask where there is one.

    :param decode: gives the mask, ``uint8 [H, W]`` of 0 and 1, when it is asked for; None where there is no mask.
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

    :param read: gives the image as BGR, or BGRA for a cut-out, when it is asked for.
    :param kind: ``still`` (objects where they were photographed), ``cutout`` (one object with alpha) or ``background``.
    :param source: where it comes from; draws are balanced by it.
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

    :param read: gives frame i of ``range(len(clip))`` as BGR.
    :param visible: ``float64 [N]``, share of the target in sight.
    :param instances: for each frame the annotated object with its mask, where the data set has masks; else empty.
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
    """A source of training images. Opening one reads annotations, never images."""

    name: str

    @abstractmethod
    def stills(self) -> Sequence[Still]:
        """Return all single images, in a fixed order."""

    @abstractmethod
    def clips(self) -> Sequence[Clip]:
        """Return all clips, in a fixed order."""

    def summary(self) -> str:
        """Say in a line what the set consists of and where it comes from."""
        stills, clips = self.stills(), self.clips()
        sources = sorted({still.source for still in stills} | {clip.source for clip in clips})
        frames = sum(map(len, clips))
        return f"{self.name}: {len(stills)} stills, {len(clips)} clips of {frames} frames, from: {'; '.join(sources)}"
