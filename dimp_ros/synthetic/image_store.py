# SPDX-License-Identifier: Apache-2.0
"""Image store: pixels as tensors for the renderer, tables for planning scenes.

A store is built once from data sets and kept as files that all processes of a run map; `Pixels` copies them to a GPU as
a whole. Three tables: *images* of any size, *objects* (each resampled to a square canvas with premultiplied alpha), and
*targets* (what can be followed in its own image).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dimp_ros.files.json_file import named_errors, read_object

TABLES = "tables.json"
"""The file that completes a store."""

CANVAS = 128
"""Side of an object's canvas in pixels."""

MARGIN = 8
"""Pixels of the canvas around the object's box, for soft edges."""

CELLS = 32
"""Side of the coarse mask for computing visibility."""

HULL = 48
"""Points of an object's hull, for computing its box under any transform."""

SHORTEST, MAX_ASPECT = 12, 5.0

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class ImageEntry:
    """An image of the store: offset of its pixels, size, and kind (``still``, ``background``, ``clip``)."""

    offset: int
    width: int
    height: int
    kind: str


@dataclass(frozen=True)
class TargetEntry:
    """A possible target at ``box`` in its image.

    :param image: number of its image, -1 for a cut-out. :param shape: number of its outline, -1 for none.
    :param canvas: number of its canvas, -1 without a mask.
    """

    image: int
    box: tuple[float, float, float, float]
    shape: int
    canvas: int
    category: str
    source: str


@dataclass(frozen=True)
class ClipEntry:
    """A real video: its images in order, and the target in each, -1 where it is absent."""

    images: tuple[int, ...]
    targets: tuple[int, ...]
    source: str


class Shape(NamedTuple):
    """An outline in units of its box: ``hull`` ``[HULL, 2]``, and coarse mask ``cells`` ``[CELLS, CELLS]`` of 0..1."""

    hull: NDArray[np.float32]
    cells: NDArray[np.float32]


FULL_SHAPE = Shape(
    np.array([[0, 0], [1, 0], [0, 1], [1, 1]] * (HULL // 4), np.float32), np.ones((CELLS, CELLS), np.float32)
)
"""The outline of a target without a mask."""


@dataclass
class Tables:
    """Tables for planning, without pixels.

    :param weights: sampling weights of sources, 1 by default.
    """

    images: list[ImageEntry] = field(default_factory=list)
    targets: list[TargetEntry] = field(default_factory=list)
    clips: list[ClipEntry] = field(default_factory=list)
    weights: dict[str, float] = field(default_factory=dict)
    summary: str = ""
    hulls: NDArray[np.float32] = field(default_factory=lambda: np.zeros((0, HULL, 2), np.float32))
    cells: NDArray[np.float32] = field(default_factory=lambda: np.zeros((0, CELLS, CELLS), np.float32))

    def shape(self, target: TargetEntry) -> Shape:
        """Return a target's outline."""
        return FULL_SHAPE if target.shape < 0 else Shape(self.hulls[target.shape], self.cells[target.shape])


def read_tables(folder: Path) -> dict[str, Any]:
    """Read the JSON part of a store."""
    return read_object(folder / TABLES)


def open_tables(folder: Path) -> Tables:
    """Open a store's tables."""
    raw = read_tables(folder)
    with np.load(folder / "shapes.npz") as shapes:
        hulls, cells = shapes["hulls"], shapes["cells"]
    with named_errors(folder / TABLES, "delete the store, and it is made again"):
        return Tables(
            [ImageEntry(*item) for item in raw["pictures"]],
            [TargetEntry(item[0], tuple(item[1]), *item[2:]) for item in raw["targets"]],
            [ClipEntry(tuple(item[0]), tuple(item[1]), item[2]) for item in raw["clips"]],
            raw["weights"],
            raw["summary"],
            hulls,
            cells,
        )


class Pixels:
    """The pixels of a store on a device: memory-mapped on a CPU, copied once to a GPU.

    :raises ValueError: if they were cut off.
    """

    def __init__(self, folder: Path, tables: Tables, device: torch.device | str = "cpu") -> None:
        self.tables = tables
        self.device = torch.device(device)
        self._flat = _mapped(folder / "pixels.bin").to(self.device)
        needed = max((entry.offset + 3 * entry.height * entry.width for entry in tables.images), default=0)
        if len(self._flat) < needed:
            found = f"{len(self._flat)} bytes of {needed}"
            raise ValueError(f"{folder / 'pixels.bin'} has {found}: delete the store, and it is made again")
        self.canvases = _mapped(folder / "canvases.bin").view(-1, 4, CANVAS, CANVAS).to(self.device)

    def image(self, number: int) -> Tensor:
        """Return an image as ``uint8 [3, H, W]`` RGB."""
        entry = self.tables.images[number]
        end = entry.offset + 3 * entry.height * entry.width
        return self._flat[entry.offset : end].view(3, entry.height, entry.width)


def _mapped(path: Path) -> Tensor:
    """Map a file of bytes as a tensor (an empty file has no map)."""
    size = path.stat().st_size
    return (
        torch.from_file(str(path), shared=False, size=size, dtype=torch.uint8)
        if size
        else torch.empty(0, dtype=torch.uint8)
    )


def by_source(tables: Tables, numbers: Iterable[int]) -> tuple[list[list[int]], Floats]:
    """Group targets by source, with a probability for each source: its weight times the square root of its size."""
    groups: dict[str, list[int]] = {}
    for number in numbers:
        groups.setdefault(tables.targets[number].source, []).append(number)
    members = [groups[source] for source in sorted(groups)]
    weights = np.array([tables.weights.get(source, 1.0) for source in sorted(groups)])
    shares = weights * np.sqrt([len(group) for group in members])
    return members, shares / max(shares.sum(), 1e-9)
