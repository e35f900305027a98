# SPDX-License-Identifier: Apache-2.0
"""Training pictures in the compact format: WebP files and one JSON line a picture with boxes and masks."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from dimp_ros.geometry import Box


@dataclass(frozen=True)
class Instance:
    """One annotated object: its box in the picture's pixels, its mask as compressed COCO RLE where there is one."""

    box: Box
    rle: dict[str, Any] | None
    category: str

    def mask(self) -> NDArray[np.uint8] | None:
        """Return the mask ``[H, W]`` of 0 and 1, or None."""
        if self.rle is None:
            return None
        from pycocotools import mask as coco_mask

        return coco_mask.decode({"size": self.rle["size"], "counts": self.rle["counts"].encode()})


@dataclass(frozen=True)
class Picture:
    """One training picture: where its file is and what is known about it."""

    path: Path
    width: int
    height: int
    kind: str
    source: str
    licence: str
    clip: str | None
    frame: int
    instances: tuple[Instance, ...]

    def load(self) -> NDArray[np.uint8]:
        """Read the picture as BGR ``[H, W, 3]``, or BGRA ``[H, W, 4]`` for a cut-out."""
        image = cv2.imread(str(self.path), cv2.IMREAD_UNCHANGED if self.kind == "cutout" else cv2.IMREAD_COLOR)
        if image is None:
            raise OSError(f"cannot read picture {str(self.path)!r}")
        return image


class PictureSet:
    """All pictures of a folder with ``annotations.jsonl`` and ``images/``."""

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        annotations = self.folder / "annotations.jsonl"
        if not annotations.is_file():
            raise FileNotFoundError(f"no annotations.jsonl in {str(self.folder)!r}; give the folder that holds it")
        with annotations.open(encoding="utf-8") as lines:
            self.pictures = [_picture(self.folder, json.loads(line)) for line in lines]

    def summary(self) -> str:
        """Say in a line what the set consists of."""
        kinds = Counter(picture.kind for picture in self.pictures)
        counts = ", ".join(f"{number} {kind}" for kind, number in sorted(kinds.items()))
        sources = sorted({picture.source for picture in self.pictures})
        return f"{len(self.pictures)} pictures ({counts}) from {len(sources)} sources: {'; '.join(sources)}"

    def of_kind(self, *kinds: str) -> list[Picture]:
        """Return the pictures of these kinds (still, clip, cutout, background)."""
        return [picture for picture in self.pictures if picture.kind in kinds]

    def clips(self) -> dict[str, list[Picture]]:
        """Return the clips by name, frames in order."""
        clips: dict[str, list[Picture]] = defaultdict(list)
        for picture in self.of_kind("clip"):
            clips[picture.clip or ""].append(picture)
        return {name: sorted(frames, key=lambda p: p.frame) for name, frames in sorted(clips.items())}

    def targets(self, *kinds: str) -> Iterator[tuple[Picture, Instance]]:
        """Iterate over all instances of pictures of these kinds."""
        for picture in self.of_kind(*kinds):
            for instance in picture.instances:
                yield picture, instance


def _picture(folder: Path, record: dict[str, Any]) -> Picture:
    """Make a `Picture` of one annotation line; crowds are left out."""
    instances = tuple(
        Instance(Box(*map(float, item["bbox"])), item.get("mask"), item.get("category") or "")
        for item in record["instances"]
        if not item.get("crowd")
    )
    return Picture(
        folder / "images" / f"{record['id']}.webp",
        record["width"],
        record["height"],
        record["kind"],
        record["source"],
        record.get("licence", ""),
        record.get("clip"),
        record.get("frame", 0),
        instances,
    )
