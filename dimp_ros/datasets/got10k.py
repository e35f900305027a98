# SPDX-License-Identifier: Apache-2.0
"""GOT-10k in its published layout.

``train/list.txt`` names the folders in ``train/``; each has ``00000001.jpg ...``, ``groundtruth.txt`` (a box a line),
``absence.label`` (1: absent), ``cover.label`` (0..8: how many eighths are in sight) and ``meta_info.ini``.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

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
    :param exclude: text file with names to leave out, one a line, such as the known wrongly labelled ones.
    :raises OSError: if ``list.txt`` is missing; :raises ValueError: if ``exclude`` names nothing that is there.
    """

    def __init__(self, root: Path | str, exclude: Path | str | None = None, name: str = "GOT-10k") -> None:
        root = need_folder(root, "train/list.txt")
        folder = root / "train" if (root / "train").is_dir() else root
        names = read_names(folder / "list.txt", "unpack the training part of GOT-10k there, its list.txt included")
        if exclude is not None:
            bad = set(read_names(Path(exclude).expanduser(), "give a text file with names of sequences, one a line"))
            if not bad & set(names):
                raise ValueError(
                    f"{exclude} names no sequence of {folder / 'list.txt'}; it needs names like {names[:1]}, one a line"
                )
            names = [item for item in names if item not in bad]
        super().__init__(name, [folder / item for item in names])

    def clip(self, item: Path) -> Clip:
        """Read a sequence; an occluded target keeps its box, an absent one has none."""
        boxes = read_boxes(item / "groundtruth.txt")
        boxes[read_flags(item / "absence.label", len(boxes)) > 0] = np.nan
        return clip_of(
            NumberedFrames(item, "{:08d}.jpg", first=1),
            item.name,
            boxes,
            visible=np.clip(read_flags(item / "cover.label", len(boxes)) / 8, 0, 1),
            category=_object_class(item / "meta_info.ini"),
            source="GOT-10k",
            licence="CC-BY-NC-SA-4.0 (GOT-10k)",
        )


def _object_class(path: Path) -> str:
    """Return ``object_class`` of a sequence's description, '' where there is none."""
    if not path.is_file():
        return ""
    fields = (line.partition(":") for line in path.read_text(encoding="utf-8", errors="replace").splitlines())
    return next((value.strip() for key, _, value in fields if key.strip() == "object_class"), "")
