# SPDX-License-Identifier: Apache-2.0
"""TrackingNet as published: ``TRAIN_0`` to ``TRAIN_11`` with ``anno/<id>.txt`` and ``frames/<id>/0.jpg``."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from dimp_ros.datasets.base import Clip
from dimp_ros.datasets.video import NumberedFrames, VideoDataSet, clip_of, need_folder, read_boxes

PARTS = 12


class TrackingNetDataSet(VideoDataSet):
    """The training clips of TrackingNet, which have neither categories nor occlusion labels.

    :param root: the folder that holds ``TRAIN_0`` and so on.
    :param parts: which to take, e.g. ``[0, 1, 2, 3]``; by default all that exist.
    :raises OSError: if a part, or the frames of any of its annotations, are missing.
    :raises ValueError: if a part is not of 0..11.
    """

    def __init__(self, root: Path | str, parts: Sequence[int] | None = None, name: str = "TrackingNet") -> None:
        root = need_folder(root, "TRAIN_0/anno and TRAIN_0/frames")
        if parts is None:
            parts = [part for part in range(PARTS) if (root / f"TRAIN_{part}").is_dir()]
        if not parts or not set(parts) <= set(range(PARTS)):
            raise ValueError(
                f"parts {list(parts)} of TrackingNet in {str(root)!r}: at least one of 0..11 must be there"
            )
        items: list[Path] = []
        for part in parts:
            folder = root / f"TRAIN_{part}"
            if not (folder / "anno").is_dir() or not (folder / "frames").is_dir():
                raise FileNotFoundError(f"{folder} lacks anno/ or frames/; unpack this part, or leave it out of parts")
            annotated = sorted(file[:-4] for file in os.listdir(folder / "anno") if file.endswith(".txt"))
            if missing := sorted(set(annotated) - set(os.listdir(folder / "frames"))):
                raise FileNotFoundError(
                    f"{folder / 'frames'} lacks {len(missing)} of {len(annotated)} clips, the first is {missing[0]!r}; "
                    "unpack them, or remove their files from anno/"
                )
            items += [folder / "anno" / f"{item}.txt" for item in annotated]
        super().__init__(name, items)

    def clip(self, item: Path) -> Clip:
        """Read a clip, given its annotation file."""
        return clip_of(
            NumberedFrames(item.parents[1] / "frames" / item.stem, "{}.jpg", first=0),
            item.stem,
            read_boxes(item),
            source="TrackingNet",
            licence="TrackingNet: videos from YouTube, rights with their authors",
        )
