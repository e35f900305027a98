# SPDX-License-Identifier: Apache-2.0
"""GOT-10k in its published layout.

``train/list.txt`` names the folders in ``train/``; each has ``00000001.jpg ...``, ``groundtruth.txt`` (a box a line),
``absence.label`` (1: absent), ``cover.label`` (0..8: visible eighths) and ``meta_info.ini``.
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


class Got10kDataSet(VideoDataSet):
    """The sequences of GOT-10k's training part.

    :param root: the folder that holds ``train/``, or ``train/`` itself.
    :param exclude: text file with names to leave out, one a line, such as the known mislabelled ones.
    :raises OSError: if ``list.txt`` is missing; :raises ValueError: if ``exclude`` names nothing that is there, or a
        list has something else than names.
    """

    def __init__(self, root: Path | str, exclude: Path | str | None = None, name: str = "GOT-10k") -> None:
        root = need_folder(root, "train/list.txt")
        folder = root / "train" if (root / "train").is_dir() else root
        names = read_names(folder / "list.txt", "unpack the training part of GOT-10k there, its list.txt included")
        if exclude is not None:
            remedy = "give a text file with names of sequences, one a line"
            bad = set(read_names(Path(exclude).expanduser(), remedy, known=names))
            if not bad & set(names):
                raise ValueError(
                    f"{exclude} names no sequence of {folder / 'list.txt'}; it needs names like {names[:1]}, one a line"
                )
            names = [item for item in names if item not in bad]
        super().__init__(name, [folder / item for item in names])

    def clip(self, item: Path) -> Clip:
        """Read a sequence; an occluded target keeps its box, an absent one has none."""
        boxes, visible = read_got10k_boxes(item)
        return clip_of(
            NumberedFrames(item, "{:08d}.jpg", first=1),
            item.name,
            boxes,
            visible=visible,
            category=read_got10k_meta(item).get("object_class", ""),
            source="GOT-10k",
            licence="CC-BY-NC-SA-4.0 (GOT-10k)",
        )


def read_got10k_boxes(folder: Path) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Read a sequence's boxes as in its files, 1-based, and the visible share of the target.

    :return: ``float64 [N, 4]``, nan where ``absence.label`` is 1; ``float64 [N]`` of 0..1, from ``cover.label``. A file
        that is missing marks nothing.
    """
    boxes = read_boxes(folder / "groundtruth.txt")
    if (folder / "absence.label").is_file():
        boxes[read_flags(folder / "absence.label", len(boxes)) == 1] = np.nan
    cover = folder / "cover.label"
    visible = np.clip(read_flags(cover, len(boxes)) / 8, 0, 1) if cover.is_file() else np.ones(len(boxes))
    return boxes, visible


def read_got10k_meta(folder: Path) -> dict[str, str]:
    """Read the lines ``key: value`` of ``meta_info.ini``, where there is one."""
    path = folder / "meta_info.ini"
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines() if path.is_file() else []
    pairs = (line.partition(": ") for line in lines if ": " in line)
    return {key.strip(): value.strip() for key, _, value in pairs}
