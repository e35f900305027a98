# SPDX-License-Identifier: Apache-2.0
"""Annotated sequences on disk: one class per published layout, all giving the same `Sequence`."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from dimp_ros.evaluation.metrics import annotated
from dimp_ros.geometry import Box

IMAGE_SUFFIXES = frozenset({".bmp", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp"})


def list_images(folder: Path) -> list[Path]:
    """Return the pictures directly in `folder`, sorted by name."""
    return sorted(path for path in folder.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES)


def read_image(path: Path) -> NDArray[np.uint8]:
    """Read a picture as HxWx3 uint8 BGR; raise ValueError if it cannot be read."""
    image = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if image is None:
        raise ValueError(f"cannot read the picture {path}: missing, damaged, or a format this OpenCV lacks")
    return np.asarray(image, dtype=np.uint8)


@dataclass(frozen=True)
class Sequence:
    """A video with a box per frame.

    `frames`: N picture files in order. `boxes`: (N, 4) float64 ``x, y, w, h`` in pixels, all `nan` in a frame where the
    target is absent. The first frame always has a box. `meta`: what the data set says about itself.
    """

    name: str
    frames: tuple[Path, ...]
    boxes: NDArray[np.float64] = field(repr=False)
    meta: dict[str, Any] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        if self.boxes.shape != (len(self.frames), 4):
            raise ValueError(
                f"sequence {self.name}: {len(self.frames)} pictures need boxes of shape ({len(self.frames)}, 4), "
                f"got {self.boxes.shape}; one line `x,y,w,h` per picture, nan where the target is absent"
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
        return read_image(self.frames[index])


class Layout(Protocol):
    """How a data set is laid out on disk."""

    name: str

    def load(self, root: Path) -> list[Sequence]:
        """Return the sequences under `root`, in order of name; an empty list if `root` has another layout."""
        ...


class FolderLayout:
    """A folder per sequence: ``img/*`` in order of name, ``groundtruth.txt`` and, optionally, ``meta.json``.

    A line of ``groundtruth.txt`` is ``x,y,w,h`` (commas, spaces or tabs), `nan` where the target is absent.
    """

    name = "folder"

    def load(self, root: Path) -> list[Sequence]:
        """Load `root` itself if it is a sequence, else the sequences directly in it."""
        folders = [root] if self._matches(root) else sorted(path for path in root.iterdir() if self._matches(path))
        return [self._sequence(folder) for folder in folders]

    @staticmethod
    def _matches(folder: Path) -> bool:
        return (folder / "img").is_dir() and (folder / "groundtruth.txt").is_file()

    @staticmethod
    def _sequence(folder: Path) -> Sequence:
        meta_file = folder / "meta.json"
        return Sequence(
            name=folder.resolve().name,
            frames=tuple(list_images(folder / "img")),
            boxes=read_boxes(folder / "groundtruth.txt"),
            meta=json.loads(meta_file.read_text(encoding="utf-8")) if meta_file.is_file() else {},
        )


LAYOUTS: tuple[Layout, ...] = (FolderLayout(),)
"""The layouts that `load_sequences` tries, in this order."""


def read_boxes(path: Path) -> NDArray[np.float64]:
    """Read a file of one box a line as (N, 4) float64; a line with any `nan` becomes all `nan`."""
    rows: list[list[float]] = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        if not line.strip():
            continue
        try:
            row = [float(value) for value in line.replace(",", " ").split()]
        except ValueError as error:
            raise ValueError(f"{path}, line {number}: expected x,y,w,h as numbers or nan, got {line!r}") from error
        if len(row) != 4:
            raise ValueError(f"{path}, line {number}: expected 4 numbers x,y,w,h, got {len(row)}")
        rows.append(row)
    boxes = np.array(rows, dtype=np.float64).reshape(-1, 4)
    boxes[np.isnan(boxes).any(axis=1)] = np.nan
    return boxes


def load_sequences(root: str | Path, names: Iterable[str] | None = None) -> list[Sequence]:
    """Load the sequences under `root`, all or those called `names`, in whichever layout it has.

    Raise ValueError if there are none, or if a name is unknown.
    """
    root = Path(root)
    if not root.is_dir():
        raise ValueError(f"no folder {root}; give the folder that holds the sequences")
    found = next((sequences for layout in LAYOUTS if (sequences := layout.load(root))), [])
    if not found:
        raise ValueError(f"no sequence in {root}; expected NAME/img/*.jpg|png|webp and NAME/groundtruth.txt")
    if names is None:
        return found
    by_name = {sequence.name: sequence for sequence in found}
    wanted = list(names)
    if unknown := [name for name in wanted if name not in by_name]:
        raise ValueError(f"no sequence {', '.join(unknown)} in {root}; there are: {', '.join(by_name)}")
    return [by_name[name] for name in wanted]
