# SPDX-License-Identifier: Apache-2.0
"""What the readers of published video data sets share: text files read quickly, and clips when they are asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dimp_ros.datasets.base import Clip, DataSet, Image, Still, read_picture
from dimp_ros.datasets.lazy import Lazy


class VideoDataSet(DataSet):
    """A data set of clips only; a reader says how the clip of a folder or a file is made."""

    def __init__(self, name: str, items: Iterable[Path]) -> None:
        self.name = name
        self.items = tuple(items)
        self._clips = Lazy(len(self.items), self._make)

    def stills(self) -> Sequence[Still]:
        """Return none: there are only clips."""
        return ()

    def clips(self) -> Sequence[Clip]:
        """Return the clips, whose annotations are read when they are asked for."""
        return self._clips

    def _make(self, index: int) -> Clip:
        return self.clip(self.items[index])

    def clip(self, item: Path) -> Clip:
        """Read the annotations of one clip; every reader has its own.

        :raises OSError: if a file is missing; :raises ValueError: if one is damaged.
        """
        raise NotImplementedError


class NumberedFrames:
    """Reads frame i from ``folder / pattern.format(i + first)``; a class, so that it can be sent to another process."""

    def __init__(self, folder: Path, pattern: str, first: int) -> None:
        self.folder, self.pattern, self.first = folder, pattern, first

    def __call__(self, index: int) -> Image:
        """Read frame ``index``."""
        return read_picture(self.folder / self.pattern.format(index + self.first))


def read_numbers(path: Path) -> NDArray[np.float64]:
    """Return all numbers of a text file, ``float64 [N]``, whether commas, blanks or line ends are between them.

    :raises OSError: if it is missing; :raises ValueError: if it holds anything else.
    """
    try:
        return np.array(path.read_text(encoding="ascii").replace(",", " ").split(), dtype=np.float64)
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{path} is missing; fetch this sequence of the data set again") from error
    except ValueError as error:
        raise ValueError(f"{path} is damaged ({error}); fetch this sequence of the data set again") from error


def read_boxes(path: Path) -> NDArray[np.float64]:
    """Return a file of boxes, one ``x, y, w, h`` a line, as ``float64 [N, 4]``; all nan where a side is not positive.

    :raises OSError: if it is missing; :raises ValueError: if it is empty or not of four numbers a line.
    """
    numbers = read_numbers(path)
    if not len(numbers) or len(numbers) % 4:
        raise ValueError(f"{path} holds {len(numbers)} numbers, expected four (x, y, w, h) a line; fetch it again")
    boxes = numbers.reshape(-1, 4)
    boxes[~(np.isfinite(boxes).all(1) & (boxes[:, 2:] > 0).all(1))] = np.nan
    return boxes


def read_flags(path: Path, frames: int) -> NDArray[np.float64]:
    """Return a file of one number a frame as ``float64 [frames]``.

    :raises OSError: if it is missing; :raises ValueError: if it holds another number of them.
    """
    flags = read_numbers(path)
    if len(flags) != frames:
        raise ValueError(f"{path} holds {len(flags)} numbers for {frames} frames; fetch this sequence again")
    return flags


def read_names(path: Path | str, remedy: str) -> list[str]:
    """Return the names in a text file, one a line.

    :raises FileNotFoundError: if it is missing, with the ``remedy``.
    """
    try:
        return Path(path).read_text(encoding="utf-8").split()
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{path} is missing; {remedy}") from error


def need_folder(root: Path | str, layout: str) -> Path:
    """Return ``root`` as a path if it is a folder.

    :raises FileNotFoundError: if not, with the ``layout`` that is expected there.
    """
    root = Path(root).expanduser()
    if not root.is_dir():
        raise FileNotFoundError(f"no folder {str(root)!r}; give the one that holds {layout}")
    return root


def clip_of(frames: Callable[[int], Image], name: str, boxes: NDArray[np.float64], **more: Any) -> Clip:
    """Make a `Clip` in sight wherever it has a box; ``more`` are further fields, ``visible`` among them."""
    present = np.isfinite(boxes).all(1)
    visible = np.where(present, more.pop("visible", 1.0), 0.0)
    return Clip(name=name, read=frames, boxes=boxes, visible=visible, **more)
