# SPDX-License-Identifier: Apache-2.0
"""Shared by readers of published video data sets: text files, and clips that are read on first access."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dimp_ros.datasets.base import Clip, DataSet, Image, Still
from dimp_ros.datasets.film import Film
from dimp_ros.datasets.lazy import Lazy
from dimp_ros.files.inputs import read_utf8
from dimp_ros.images.files import read_image

LARGEST_COORDINATE = 1e6
"""No image has as many pixels in a row or column."""


class VideoDataSet(DataSet):
    """A data set of clips only; subclasses read the clip of a folder or a file."""

    def __init__(self, name: str, items: Iterable[Path]) -> None:
        self.name = name
        self.items = tuple(items)
        self._clips = Lazy(len(self.items), self._make)

    def stills(self) -> Sequence[Still]:
        """Return none: there are only clips."""
        return ()

    def clips(self) -> Sequence[Clip]:
        """Return the clips; annotations are read on first access."""
        return self._clips

    def _make(self, index: int) -> Clip:
        return self.clip(self.items[index])

    def clip(self, item: Path) -> Clip:
        """Read the annotations of one clip; implemented by each reader.

        :raises OSError: if a file is missing; :raises ValueError: if one is damaged.
        """
        raise NotImplementedError


class NumberedFrames:
    """Reads frame i from ``folder / pattern.format(i + first)``; can be pickled."""

    def __init__(self, folder: Path, pattern: str, first: int) -> None:
        self.folder, self.pattern, self.first = folder, pattern, first

    def __call__(self, index: int) -> Image:
        """Read frame ``index``."""
        return read_image(self.file(index))

    def file(self, index: int) -> Path:
        """Return the file of a frame."""
        return self.folder / self.pattern.format(index + self.first)


def _read(path: Path) -> str:
    try:
        return read_utf8(path)
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{path} is missing; fetch this sequence of the data set again") from error


def read_boxes(path: Path) -> NDArray[np.float64]:
    """Read a file of boxes, one ``x, y, w, h`` a line, separated by commas, blanks or tabs.

    A line with one side below 0 and one above, or a number beyond `LARGEST_COORDINATE`, is damaged, not an absence.

    :return: ``float64 [N, 4]`` as in the file; all nan where a number is not finite or a side is not positive.
    :raises OSError: if it is missing. :raises ValueError: naming the line that is damaged.
    """
    lines = list(enumerate(_read(path).rstrip().splitlines(), 1))
    if not lines:
        raise ValueError(f"{path} holds no box; fetch it again")
    rows = [line.replace(",", " ").split() for _, line in lines]
    for (number, line), row in zip(lines, rows, strict=True):
        if len(row) != 4:
            raise ValueError(f"{path}, line {number}: expected 4 numbers x,y,w,h, got {line!r}; fetch it again")
    try:
        boxes = np.array(rows, np.float64).reshape(-1, 4)
    except ValueError as error:
        raise ValueError(f"{path}: expected x,y,w,h as numbers or nan a line ({error}); fetch it again") from error
    finite = np.isfinite(boxes).all(1)
    far = (np.abs(np.nan_to_num(boxes, posinf=0.0, neginf=0.0)) > LARGEST_COORDINATE).any(1)
    damaged = np.flatnonzero(far | (finite & (boxes[:, 2:].min(1) < 0) & (boxes[:, 2:].max(1) > 0)))
    if damaged.size:
        number, line = lines[damaged[0]]
        limit = f"sides above 0 and numbers within {LARGEST_COORDINATE:g}, or nan where the target is absent"
        raise ValueError(f"{path}, line {number}: expected {limit}, got {line!r}; fetch it again")
    boxes[~(np.isfinite(boxes).all(1) & (boxes[:, 2:] > 0).all(1))] = np.nan
    return boxes


def read_flags(path: Path, frames: int) -> NDArray[np.int64]:
    """Read whole numbers, one a frame, separated by anything: ``int64 [frames]``; further ones are ignored.

    :raises OSError: if it is missing. :raises ValueError: if it holds fewer, or something else.
    """
    try:
        flags = np.array(_read(path).replace(",", " ").split(), np.int64)
    except ValueError as error:
        raise ValueError(f"{path}: expected whole numbers, one a frame ({error}); fetch it again") from error
    if len(flags) < frames:
        raise ValueError(f"{path} holds {len(flags)} flags for {frames} boxes; fetch this sequence again")
    return flags[:frames]


def read_names(path: Path, remedy: str, form: str = r"[^,;/\\#]+", known: Iterable[str] = ()) -> list[str]:
    """Return the names in a text file, one a line.

    :param form: of a name. :param known: names of sequences, which the list may name, in their own case only.
    :raises FileNotFoundError: if it is missing, with the ``remedy``.
    :raises ValueError: if it names nothing, or naming the line with something else than a name.
    """
    try:
        lines = read_utf8(path).splitlines()
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{path} is missing; {remedy}") from error
    names, own = [], set(known)
    cases = {name.casefold(): name for name in own}
    for number, line in enumerate(lines, 1):
        for name in line.split():
            meant = cases.get(name.casefold(), name)
            if not re.fullmatch(form, name) or (name not in own and meant != name):
                hint = f"; {meant!r} is there" if meant != name else ""
                raise ValueError(f"{path}, line {number}: expected the name of a sequence, got {line!r:.200}{hint}")
            names.append(name)
    if not names:
        raise ValueError(f"{path} names nothing; {remedy}")
    return names


def need_folder(root: Path | str, layout: str) -> Path:
    """Return ``root`` as a path if it is a folder.

    :raises FileNotFoundError: if not, with the ``layout`` that is expected there.
    """
    root = Path(root).expanduser()
    if not root.is_dir():
        raise FileNotFoundError(f"no folder {str(root)!r}; give the one that holds {layout}")
    return root


def clip_of(frames: NumberedFrames | Film, name: str, boxes: NDArray[np.float64], **more: Any) -> Clip:
    """Return a `Clip` that is visible where it has a box; ``more`` are further fields, such as ``visible``."""
    present = np.isfinite(boxes).all(1)
    visible = np.where(present, more.pop("visible", 1.0), 0.0)
    return Clip(name=name, read=frames, file=frames.file, boxes=boxes, visible=visible, **more)
