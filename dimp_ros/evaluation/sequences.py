# SPDX-License-Identifier: Apache-2.0
"""An annotated sequence."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dimp_ros.datasets.film import Film
from dimp_ros.evaluation.metrics import annotated
from dimp_ros.geometry.box import Box
from dimp_ros.images.files import read_image

_SAMPLED_FILES, _SAMPLED_BYTES = 16, 1 << 20
"""Files whose content goes into `VideoSequence.digest`, and how much of the beginning and of the end of each."""


@dataclass(frozen=True)
class VideoSequence:
    """A video with a box per frame.

    `frames`: N image files in order. `boxes`: (N, 4) float64 ``x, y, w, h`` in pixels, all `nan` in a frame where the
    target is absent. The first frame always has a box. `meta`: information from the data set. `origin`: index of
    the first pixel in the data set's files, 0 or 1; `boxes` are always 0-based. `withheld`: only the first box is
    published. `film`: the video file that has the frames, if any. `look_alikes`: (K, N, 4) boxes of the other targets
    of the video in the same frames, `nan` where unknown; K is 0 unless one of them is of the target's kind.
    `gaps_unknown`: in frames without a box the target may be visible.
    """

    name: str
    frames: tuple[Path, ...]
    boxes: NDArray[np.float64] = field(repr=False)
    meta: dict[str, Any] = field(default_factory=dict, repr=False)
    origin: int = 0
    withheld: bool = False
    film: Film | None = field(default=None, repr=False, compare=False)
    look_alikes: NDArray[np.float64] = field(default_factory=lambda: np.empty((0, 0, 4)), repr=False, compare=False)
    gaps_unknown: bool = False

    def __post_init__(self) -> None:
        if self.boxes.shape != (len(self.frames), 4):
            raise ValueError(
                f"sequence {self.name}: {len(self.frames)} images need boxes of shape ({len(self.frames)}, 4), "
                f"got {self.boxes.shape}; one line `x,y,w,h` per image, nan where the target is absent"
            )
        if not len(self.frames) or not annotated(self.boxes)[0]:
            raise ValueError(f"sequence {self.name}: the first frame must exist and have a box to start from")

    def __len__(self) -> int:
        return len(self.frames)

    @property
    def init_box(self) -> Box:
        """The true box of the first frame."""
        return Box(*(float(value) for value in self.boxes[0]))

    def image(self, index: int) -> NDArray[np.uint8]:
        """Read frame `index` as HxWx3 uint8 BGR."""
        return read_image(self.frames[index]) if self.film is None else self.film(index)

    def digest(self) -> str:
        """Return a hash of the images: names and sizes of all files, and the content of some, spread over them.

        A copy on another machine has the same one: folders and times do not count.
        """
        files = list(dict.fromkeys(self.frames if self.film is None else (self.film.path,)))
        digest = hashlib.blake2b(digest_size=16)
        names = [path.name for path in self.frames], self.film and self.film.first
        digest.update(repr((names, [_size(path) for path in files])).encode(errors="surrogateescape"))
        for path in files[:: -(-len(files) // _SAMPLED_FILES)]:
            digest.update(_ends(path))
        return digest.hexdigest()


def _size(path: Path) -> int:
    """Return the size of a file, -1 for one that is missing: that is reported when it is read."""
    try:
        return path.stat().st_size
    except OSError:
        return -1


def _ends(path: Path) -> bytes:
    """Return the hash of the beginning and the end of a file, or of nothing where it cannot be read."""
    try:
        with path.open("rb") as file:
            head = file.read(_SAMPLED_BYTES)
            file.seek(max(0, os.fstat(file.fileno()).st_size - _SAMPLED_BYTES))
            return hashlib.blake2b(head + file.read(_SAMPLED_BYTES), digest_size=16).digest()
    except OSError:
        return b""
