# SPDX-License-Identifier: Apache-2.0
"""LaSOT in its published layout.

``<category>/<category>-<n>/`` (or without the folder of the category) with ``img/00000001.jpg ...``,
``groundtruth.txt`` (a box a line), ``full_occlusion.txt`` and ``out_of_view.txt`` (0 or 1 a frame).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dimp_ros.datasets.base import Clip
from dimp_ros.datasets.video import (
    NumberedFrames,
    VideoDataSet,
    clip_of,
    need_folder,
    read_boxes,
    read_flags,
    read_names,
)

SPLIT_REMEDY = (
    "which sequences are for testing? put the testing_set.txt of LaSOT's evaluation toolkit (280 names) into the "
    "folder of the data set, or name the sequences to train on in a text file: split=FILE"
)

NAME = r"[^,;/\\#]+-\d+"
"""Of a sequence, ``<category>-<n>``."""

FLAGS = ("full_occlusion.txt", "out_of_view.txt")


def read_lasot_boxes(folder: Path) -> NDArray[np.float64]:
    """Read a sequence's boxes as in its files, 1-based: ``float64 [N, 4]``, nan where it is occluded or out of view."""
    boxes = read_boxes(folder / "groundtruth.txt")
    for file in FLAGS:
        if (folder / file).is_file():
            boxes[read_flags(folder / file, len(boxes)) == 1] = np.nan
    return boxes


class LasotDataSet(VideoDataSet):
    """The sequences of LaSOT that may be trained on.

    :param root: the folder of the categories.
    :param split: text file with the names to take, one a line; by default all but those in ``root/testing_set.txt``.
    :raises OSError: if neither is there, or no sequence is found.
    :raises ValueError: if a name of ``split`` is not there, or a list names nothing, or something else than sequences.
    """

    def __init__(self, root: Path | str, split: Path | str | None = None, name: str = "LaSOT") -> None:
        root = need_folder(root, "<category>/<category>-<n>/img")
        found = {
            file.parent.name: file.parent
            for pattern in ("*/groundtruth.txt", "*/*/groundtruth.txt")
            for file in root.glob(pattern)
        }
        if not found:
            raise FileNotFoundError(
                f"no <category>/<category>-<n>/groundtruth.txt in {str(root)!r}; unpack LaSOT there"
            )
        if split is not None:
            remedy = "give a text file with the names of sequences, one a line"
            wanted = read_names(Path(split).expanduser(), remedy, NAME, found)
            if missing := sorted(set(wanted) - found.keys()):
                raise ValueError(
                    f"{split} names {len(missing)} sequences that are not in {str(root)!r}, first {missing[0]!r}; "
                    "unpack them there or take them off the list"
                )
            names = sorted(set(wanted))
        else:
            names = sorted(found.keys() - set(read_names(root / "testing_set.txt", SPLIT_REMEDY, NAME, found)))
        super().__init__(name, [found[item] for item in names])

    def clip(self, item: Path) -> Clip:
        """Read a sequence; where it is fully occluded or out of view, its target is absent."""
        return clip_of(
            NumberedFrames(item / "img", "{:08d}.jpg", first=1),
            item.name,
            read_lasot_boxes(item),
            category=item.name.rpartition("-")[0],
            source="LaSOT",
            licence="LaSOT: videos from YouTube, rights with their authors; for research",
        )
