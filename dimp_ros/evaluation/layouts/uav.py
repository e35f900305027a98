# SPDX-License-Identifier: Apache-2.0
"""The layout of UAV123 and its variants, in which several sequences share a folder of images."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

from dimp_ros.datasets.video import read_boxes
from dimp_ros.evaluation.sequences import VideoSequence
from dimp_ros.images.files import list_images

STARTS = {
    "bird1": (1, 775, 1573),
    "car1": (1, 751, 1627),
    "car6": (1, 487, 1807, 2953, 3925),
    "car8": (1, 1357),
    "car16": (1, 415),
    "group1": (1, 1333, 2515, 3925),
    "group2": (1, 907, 1771),
    "group3": (1, 1567, 2827, 4369),
    "person2": (1, 1189),
    "person4": (1, 1501),
    "person5": (1, 877),
    "person7": (1, 1249),
    "person8": (1, 1075),
    "person12": (1, 601),
    "person14": (1, 847, 1813),
    "person17": (1, 1501),
    "person19": (1, 1243, 2791),
    "truck4": (1, 577),
    "uav1": (1, 1555, 2473),
}
"""Folder -> number, from 1, of the first image of its parts NAME_1, NAME_2 ... in UAV123 at 30 Hz. Lengths are
the numbers of annotated frames. The published configSeqs.m is preferred if present."""


class _Part(NamedTuple):
    folder: str
    start: int


class UavLayout:
    """UAV123: ``data_seq/UAV123/FOLDER/000001.jpg ...`` and ``anno/UAV123/NAME.txt``; also UAV123_10fps and UAV20L.

    A sequence has the images of the folder of its name or, for a name like bird1_2, part of folder bird1. Absent frames
    are `nan`. Boxes are 1-based, as in OTB's toolkit.
    """

    def __init__(self, subset: str) -> None:
        self.name = subset.lower()
        self.expects = f"anno/{subset}/NAME.txt and data_seq/{'UAV123' if subset == 'UAV20L' else subset}/FOLDER/*.jpg"
        self._subset = subset

    def load(self, root: Path) -> list[VideoSequence]:
        """Load the sequences of this subset."""
        images = next((path for name in (self._subset, "UAV123") if (path := root / "data_seq" / name).is_dir()), None)
        annotations = root / "anno" / self._subset
        if images is None or not annotations.is_dir():
            return []
        published = _read_config(root, self._subset)
        files = sorted(annotations.glob("*.txt"))
        return [self._sequence(file, images, published.get(file.stem)) for file in files]

    def incomplete(self, root: Path) -> dict[str, str]:
        """Return nothing: `load` refuses annotations without images, and the images are those of other subsets, too."""
        return {}

    def _sequence(self, file: Path, images: Path, published: _Part | None) -> VideoSequence:
        name = file.stem
        part = published or self._part(name, images)
        folder = images / part.folder
        if not folder.is_dir():
            raise ValueError(f"{file}: no folder {folder} with its images")
        boxes = read_boxes(file) - (1, 1, 0, 0)
        numbered = {int(path.stem): path for path in list_images(folder) if path.stem.isdecimal()}
        wanted = range(part.start, part.start + len(boxes))
        if missing := [number for number in wanted if number not in numbered]:
            raise ValueError(f"{file}: {len(boxes)} boxes from image {part.start} on, but no {missing[0]} in {folder}")
        frames = tuple(numbered[number] for number in wanted)
        return VideoSequence(name, frames, boxes, {"dataset": self._subset}, origin=1)

    def _part(self, name: str, images: Path) -> _Part:
        folder, _, number = name.rpartition("_")
        if (images / name).is_dir() or not number.isdecimal():
            return _Part(name, 1)
        starts = STARTS.get(folder, ())
        if not 1 <= int(number) <= len(starts):
            raise ValueError(f"sequence {name}: its images in {folder} are unknown; add configSeqs.m to the data set")
        start = starts[int(number) - 1]
        if self._subset == "UAV123_10fps":  # every third image, renumbered
            start = (start - 1) // 3 + 1
        return _Part(folder, start)


def _read_config(root: Path, subset: str) -> dict[str, _Part]:
    """Read name -> folder and first image from configSeqs.m in `root` or `anno`, if present."""
    file = next((path for path in (root / "configSeqs.m", root / "anno" / "configSeqs.m") if path.is_file()), None)
    if file is None:
        return {}
    text = file.read_text(encoding="utf-8", errors="replace")
    own = re.search(rf"seq{subset}\s*=\s*\{{(.*?)\}}\s*;", text, re.DOTALL)
    entries = (
        re.findall(r"'name'\s*,\s*'([^']+)'\s*,\s*'path'\s*,\s*'([^']+)'\s*,\s*'startFrame'\s*,\s*(\d+)", own[1])
        if own
        else []
    )
    return {name: _Part(re.split(r"[\\/]+", path.rstrip("\\/"))[-1], int(start)) for name, path, start in entries}
