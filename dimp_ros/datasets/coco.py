# SPDX-License-Identifier: Apache-2.0
"""COCO in its published layout: ``annotations/instances_train2017.json`` and ``train2017/000000000009.jpg ...``."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import partial
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from dimp_ros.datasets.base import Clip, DataSet, Instance, Still, read_picture
from dimp_ros.datasets.coco_table import POLYGON, load_table
from dimp_ros.datasets.lazy import Lazy
from dimp_ros.datasets.rle import runs_to_mask
from dimp_ros.datasets.video import need_folder
from dimp_ros.geometry.box import Box

FINER, SUBPIXEL_BITS = 4, 4


class CocoDataSet(DataSet):
    """COCO's pictures with the instances of its 80 categories; crowds are left out.

    :param root: the folder that holds ``annotations/`` and the pictures' folder. :param split: that folder's name.
    :param cache: folder where the annotations are kept in a form that is read quickly; '' keeps nothing. By default
        ``dimp_ros`` in ``$XDG_CACHE_HOME`` or ``~/.cache``; it takes about 250 MB for train2017.
    :raises OSError: if the annotations or the pictures' folder are missing; :raises ValueError: if they are damaged.
    """

    def __init__(
        self, root: Path | str, split: str = "train2017", cache: Path | str | None = None, name: str = "COCO"
    ) -> None:
        root = need_folder(root, f"annotations/instances_{split}.json and {split}/")
        self.name = name
        self.folder = need_folder(root / split, "the pictures of COCO")
        if cache is None:
            cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "dimp_ros"
        self.table = load_table(root / "annotations" / f"instances_{split}.json", Path(cache) if cache else None)
        self._stills = Lazy(len(self.table.files), self._still)

    def stills(self) -> Sequence[Still]:
        """Return the pictures by their number, those without instances included."""
        return self._stills

    def clips(self) -> Sequence[Clip]:
        """Return none: there are only single pictures."""
        return ()

    def _still(self, index: int) -> Still:
        """Make a `Still` of row ``index`` of the table."""
        table = self.table
        width, height = table.sizes[index].tolist()
        file = str(table.files[index])
        instances = range(*table.instance_starts[index : index + 2].tolist())
        return Still(
            name=f"coco_{Path(file).stem}",
            read=partial(read_picture, self.folder / file),
            width=width,
            height=height,
            instances=tuple(self._instance(i, width, height) for i in instances),
            source="COCO 2017",
            licence=f"COCO photograph from Flickr: {table.licences[index] or 'unstated'}; annotations CC-BY-4.0",
            exhaustive=True,
        )

    def _instance(self, index: int, width: int, height: int) -> Instance:
        """Make an `Instance` of row ``index``."""
        table = self.table
        first, last = table.part_starts[index : index + 2].tolist()
        bounds = table.number_starts[first : last + 1].tolist()
        parts = [table.numbers[start:end] for start, end in pairwise(bounds)]
        decode = None
        if parts:
            polygons = table.kinds[first] == POLYGON
            decode = partial(fill_polygons if polygons else _fill_runs, parts, height, width)
        return Instance(Box(*table.boxes[index].tolist()), str(table.categories[index]), decode)


def fill_polygons(polygons: Sequence[NDArray[np.floating]], height: int, width: int) -> NDArray[np.uint8]:
    """Return the union of polygons, each ``[2 * corners]`` as x, y, x, y ..., as ``uint8 [height, width]`` of 0 and 1.

    Corners are in pixels, pixel i covering [i, i + 1). A pixel belongs to a polygon that covers half of it. They are
    drawn `FINER` times as large: cv2 draws the outline too, which would make small objects half a pixel fatter.
    """
    mask = np.zeros((height, width), np.uint8)
    for polygon in polygons:  # one by one: where two overlap, a common call would leave a hole
        corners = np.asarray(polygon, np.float64).reshape(-1, 2)
        x0, y0 = np.floor(np.clip(corners.min(0), 0, (width, height))).astype(int)
        x1, y1 = np.ceil(np.clip(corners.max(0), 0, (width, height))).astype(int)
        if x1 <= x0 or y1 <= y0:
            continue
        fine = np.zeros(((y1 - y0) * FINER, (x1 - x0) * FINER), np.uint8)
        points = ((corners - (x0, y0)) * FINER - 0.5) * 2**SUBPIXEL_BITS  # cv2 counts from the pixels' centres
        cv2.fillPoly(fine, [np.rint(points).astype(np.int32)], 255, shift=SUBPIXEL_BITS)
        share = cv2.resize(fine, (int(x1 - x0), int(y1 - y0)), interpolation=cv2.INTER_AREA)
        mask[y0:y1, x0:x1] |= (share >= 128).astype(np.uint8)
    return mask


def _fill_runs(parts: Sequence[NDArray[np.floating]], height: int, width: int) -> NDArray[np.uint8]:
    """Return the mask of run lengths, of which an instance has one list."""
    return runs_to_mask(parts[0], height, width)
