# SPDX-License-Identifier: Apache-2.0
"""Data sets as `dimp_ros.training.bundle` re-encodes them: all pictures in one file, for a machine that has nothing.

``annotations.jsonl`` is that of the compact format, with ``blob`` (where the picture's file begins in ``pictures.bin``,
and its length in bytes) in each line. Masks may be smaller than their pictures and are brought to their size.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import cv2
import numpy as np

from dimp_ros.datasets.base import Image
from dimp_ros.datasets.compact import Record, RecordSet

ANNOTATIONS, PICTURES = "annotations.jsonl", "pictures.bin"


class PackedDataSet(RecordSet):
    """A folder with ``annotations.jsonl`` and ``pictures.bin``.

    :raises OSError: if one is missing; :raises ValueError: if a line is damaged or the pictures are cut off.
    """

    def __init__(self, root: Path | str, name: str = "packed") -> None:
        root = Path(root)
        for file in (ANNOTATIONS, PICTURES):
            if not (root / file).is_file():
                raise FileNotFoundError(f"no {file} in {str(root)!r}; give a folder data/<n> of an unpacked pack")
        self.pictures = root / PICTURES
        self.size = self.pictures.stat().st_size
        super().__init__(name, root / ANNOTATIONS, self._opener)

    def _opener(self, record: Record) -> Callable[[], Image]:
        """Return what reads the picture of a line."""
        offset, length = map(int, record["blob"])
        if offset < 0 or length <= 0 or offset + length > self.size:
            raise ValueError(f"{self.pictures} has {self.size} bytes, but {record['id']!r} is at {offset}+{length}")
        return partial(read_blob, self.pictures, offset, length, record["kind"] == "cutout")


def read_blob(path: Path, offset: int, length: int, alpha: bool) -> Image:
    """Read a picture from a part of a file as uint8 BGR, or BGRA with ``alpha``.

    The file is opened anew each time: an open one could not be shared between processes.

    :raises OSError: if it cannot be decoded.
    """
    with path.open("rb") as file:
        file.seek(offset)
        data = np.frombuffer(file.read(length), np.uint8)
    image = cv2.imdecode(data, cv2.IMREAD_UNCHANGED if alpha else cv2.IMREAD_COLOR) if len(data) else None
    if image is None:
        raise OSError(f"cannot decode the picture at {offset}+{length} of {path}: damaged; unpack the pack again")
    return image
