# SPDX-License-Identifier: Apache-2.0
"""The interface of training data sets: stills with annotated objects, and clips with a target's box per frame."""

from __future__ import annotations

import hashlib
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
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
    :param exhaustive: whether *every* object is annotated. :param file: that of the image, where it has one.
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
    file: Path | None = None


@dataclass(frozen=True)
class Clip:
    """A video with one target: ``boxes`` ``float64 [N, 4]`` as x, y, w, h, all nan where the target is absent.

    :param read: returns frame i of ``range(len(clip))`` as BGR.
    :param visible: ``float64 [N]``, visible share of the target.
    :param instances: the annotated object of each frame, if the data set has masks; else empty.
    :param distractors: boxes of the video's other targets, each ``float64 [N, 4]``, nan where unknown.
    :param file: returns the file of frame i, or of the whole film.
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
    file: Callable[[int], Path] | None = field(default=None, repr=False, compare=False)

    def __len__(self) -> int:
        return len(self.boxes)


class DataSet(ABC):
    """A source of training images. Opening one reads annotations only."""

    name: str
    annotations: Sequence[Path] = ()
    """Files with what `digest` does not see otherwise, such as masks."""

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

    def digest(self) -> str:
        """Return a hash of all names, boxes and categories, and of the size and the time of change of every file.

        Other data have another one, as have data that were changed or copied; data that were moved keep theirs.
        """
        digest = hashlib.blake2b(digest_size=16)

        def add(*values: object) -> None:
            digest.update(repr(values).encode(errors="surrogateescape"))

        add([_version(path) for path in self.annotations])
        for still in self.stills():
            objects = [(tuple(one.box), one.category, one.has_mask) for one in still.instances]
            add(still.name, still.kind, still.source, still.width, still.height, objects, _version(still.file))
        for clip in self.clips():
            files = dict.fromkeys(map(clip.file, range(len(clip)))) if clip.file else ()
            add(clip.name, clip.source, clip.category, [one and one.has_mask for one in clip.instances])
            add([_version(path) for path in files])
            for values in (clip.boxes, clip.visible, *clip.distractors):
                digest.update(np.ascontiguousarray(values, np.float64).data)
        return digest.hexdigest()


def data_digest(data_sets: Iterable[DataSet]) -> str:
    """Return a hash of several data sets, see `DataSet.digest`."""
    return hashlib.blake2b(" ".join(data.digest() for data in data_sets).encode(), digest_size=16).hexdigest()


def _version(path: Path | None) -> tuple[int, int] | None:
    """Return size and time of change of a file; None for one that is missing, which is reported when it is read."""
    try:
        status = path.stat() if path is not None else None
    except OSError:
        return None
    return (status.st_size, status.st_mtime_ns) if status else None
