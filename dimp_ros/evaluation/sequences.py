# SPDX-License-Identifier: Apache-2.0
"""What an annotated sequence is, and loading those in a folder, in whichever published layout they are."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

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
    target is absent. The first frame always has a box. `meta`: what the data set says about itself. `origin`: what the
    data set's own files count the first pixel as, 0 or 1; `boxes` are 0-based in any case. `withheld`: only the first
    box is published, so that nothing can be measured here.
    """

    name: str
    frames: tuple[Path, ...]
    boxes: NDArray[np.float64] = field(repr=False)
    meta: dict[str, Any] = field(default_factory=dict, repr=False)
    origin: int = 0
    withheld: bool = False

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


def load_sequences(root: str | Path, names: Iterable[str] | None = None, layout: str | None = None) -> list[Sequence]:
    """Load the sequences under `root`, all or those called `names`.

    `layout`: one of the names in `dimp_ros.evaluation.layouts`; by default the first one that fits. Raise ValueError if
    there are no sequences, if a name is unknown, or if pictures and boxes do not fit each other.
    """
    from dimp_ros.evaluation.layouts import LAYOUTS

    root = Path(root)
    if not root.is_dir():
        raise ValueError(f"no folder {root}; give the folder that holds the sequences")
    if layout is not None and layout not in LAYOUTS:
        raise ValueError(f"unknown layout {layout!r}; known: {', '.join(LAYOUTS)}")
    tried = [LAYOUTS[layout]] if layout is not None else list(LAYOUTS.values())
    found = next((sequences for candidate in tried if (sequences := candidate.load(root))), [])
    if not found:
        raise ValueError(f"no sequence in {root}; expected {' or '.join(candidate.expects for candidate in tried)}")
    if names is None:
        return found
    by_name = {sequence.name: sequence for sequence in found}
    wanted = list(names)
    if unknown := [name for name in wanted if name not in by_name]:
        raise ValueError(f"no sequence {', '.join(unknown)} in {root}; there are: {', '.join(by_name)}")
    return [by_name[name] for name in wanted]
