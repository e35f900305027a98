# SPDX-License-Identifier: Apache-2.0
"""Layouts of published data sets on disk: one class each, which loads `VideoSequence`s.

Boxes of 1-based data sets are moved by -1, so that pixel 1 of their files is our interval [0, 1) (see
`dimp_ros.geometry.box`); widths and heights stay.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from dimp_ros.datasets.got10k import read_got10k_boxes, read_got10k_meta
from dimp_ros.datasets.lasot import FLAGS, read_lasot_boxes
from dimp_ros.datasets.video import read_boxes
from dimp_ros.evaluation.layouts.clips import ClipsLayout
from dimp_ros.evaluation.layouts.uav import UavLayout
from dimp_ros.evaluation.metrics import annotated
from dimp_ros.evaluation.sequences import VideoSequence
from dimp_ros.files.inputs import read_utf8
from dimp_ros.files.json_file import read_object
from dimp_ros.images.files import list_images


class Layout(Protocol):
    """A data set's layout on disk."""

    name: str
    expects: str

    def load(self, root: Path) -> list[VideoSequence]:
        """Return the sequences under `root` in order of name; an empty list for another layout."""
        ...

    def incomplete(self, root: Path) -> dict[str, str]:
        """Return the folders below `root` that have part of a sequence only: their names, and what they lack."""
        ...


def _folders(root: Path, depth: int) -> Iterator[Path]:
    """Yield `root` and the folders below it, down to `depth` levels, in order of name."""
    yield root
    if depth:
        for child in sorted(path for path in root.iterdir() if path.is_dir()):
            yield from _folders(child, depth - 1)


def _incomplete(found: Iterable[tuple[Path, Mapping[str, bool]]]) -> dict[str, str]:
    """Return those of some folders that have some of their parts and lack others; see `Layout.incomplete`."""
    texts = {}
    for folder, parts in found:
        lacking = [part for part, there in parts.items() if not there]
        if 0 < len(lacking) < len(parts):
            texts[folder.name] = f"{folder} has no {' and no '.join(lacking)}"
    return texts


class FolderLayout:
    """A folder per sequence: ``img/*`` in order of name, ``groundtruth.txt`` and, optionally, ``meta.json``.

    A line of ``groundtruth.txt`` is ``x,y,w,h`` (commas, spaces or tabs), `nan` where the target is absent; 0-based.
    """

    name = "folder"
    expects = "NAME/img/*.jpg|png|webp and NAME/groundtruth.txt"

    def load(self, root: Path) -> list[VideoSequence]:
        """Load `root` itself if it is a sequence, else the sequences directly in it."""
        return [self._sequence(folder) for folder in _folders(root, 1) if all(self._parts(folder).values())]

    def incomplete(self, root: Path) -> dict[str, str]:
        """Return the folders that have only images, or only boxes."""
        return _incomplete((folder, self._parts(folder)) for folder in _folders(root, 1) if folder != root)

    @staticmethod
    def _parts(folder: Path) -> dict[str, bool]:
        return {"img/": (folder / "img").is_dir(), "groundtruth.txt": (folder / "groundtruth.txt").is_file()}

    @staticmethod
    def _sequence(folder: Path) -> VideoSequence:
        meta_file = folder / "meta.json"
        return VideoSequence(
            name=folder.resolve().name,
            frames=tuple(list_images(folder / "img")),
            boxes=read_boxes(folder / "groundtruth.txt"),
            meta=read_object(meta_file) if meta_file.is_file() else {},
        )


OTB_RANGES = {
    "david": (300, 770),
    "diving": (1, 215),
    "football1": (1, 74),
    "freeman3": (1, 460),
    "freeman4": (1, 283),
}
"""First and last annotated image, counted from 1, of partly annotated videos (names in lower case)."""


class OtbLayout:
    """OTB-100: ``NAME/img/*.jpg`` and ``NAME/groundtruth_rect.txt``, or ``groundtruth_rect.1.txt`` and ``.2.txt``.

    Several targets in one video become NAME-1, NAME-2. Boxes are 1-based. Partly annotated videos are in `OTB_RANGES`.
    """

    name = "otb"
    expects = "NAME/img/*.jpg and NAME/groundtruth_rect.txt"

    def load(self, root: Path) -> list[VideoSequence]:
        """Load `root` itself if it is a sequence, else the sequences directly in it."""
        return [sequence for folder in _folders(root, 1) for sequence in self._sequences(folder)]

    def incomplete(self, root: Path) -> dict[str, str]:
        """Return the folders that have only images, or only boxes."""
        folders = (folder for folder in _folders(root, 1) if folder != root)
        return _incomplete(
            (folder, {"img/": (folder / "img").is_dir(), "boxes in groundtruth_rect.txt": bool(self._files(folder))})
            for folder in folders
        )

    @staticmethod
    def _files(folder: Path) -> list[Path]:
        """Return the files of boxes; empty ones are skipped: Human4 has one."""
        return [file for file in sorted(folder.glob("groundtruth_rect*.txt")) if read_utf8(file).strip()]

    def _sequences(self, folder: Path) -> Iterator[VideoSequence]:
        if not (folder / "img").is_dir():
            return
        name = folder.resolve().name
        files = self._files(folder)
        for file in files:
            number = file.name.removeprefix("groundtruth_rect").removesuffix(".txt").strip(".")
            boxes = read_boxes(file) - (1, 1, 0, 0)
            images = list_images(folder / "img")
            if len(images) > len(boxes) and name.lower() in OTB_RANGES:
                first, last = OTB_RANGES[name.lower()]
                images = images[first - 1 : last]
            yield VideoSequence(
                name=f"{name}-{number}" if len(files) > 1 else name,
                frames=tuple(images),
                boxes=boxes,
                meta={"dataset": "OTB"},
                origin=1,
            )


class LasotLayout:
    """LaSOT: ``CATEGORY/NAME/img/*.jpg``, ``groundtruth.txt``, ``full_occlusion.txt`` and ``out_of_view.txt``.

    Frames flagged in either file are absent. Boxes are 1-based. Of monkey-17 only the first 2,260 images are annotated.
    """

    name = "lasot"
    expects = "CATEGORY/NAME/img/*.jpg, groundtruth.txt, full_occlusion.txt and out_of_view.txt"

    def load(self, root: Path) -> list[VideoSequence]:
        """Load what is in `root`: one sequence, a category, or all of them."""
        return [self._sequence(folder) for folder in _folders(root, 2) if all(self._parts(folder).values())]

    def incomplete(self, root: Path) -> dict[str, str]:
        """Return the folders that lack images, boxes or flags."""
        return _incomplete((folder, self._parts(folder)) for folder in _folders(root, 2) if folder != root)

    @staticmethod
    def _parts(folder: Path) -> dict[str, bool]:
        return FolderLayout._parts(folder) | {" or ".join(FLAGS): any((folder / name).is_file() for name in FLAGS)}

    def _sequence(self, folder: Path) -> VideoSequence:
        boxes = read_lasot_boxes(folder) - (1, 1, 0, 0)
        name = folder.resolve().name
        images = list_images(folder / "img")
        if name == "monkey-17":
            images = images[: len(boxes)]
        return VideoSequence(
            name=name,
            frames=tuple(images),
            boxes=boxes,
            meta={"dataset": "LaSOT"},
            origin=1,
        )


class Got10kLayout:
    """GOT-10k: ``val/NAME/*.jpg``, ``groundtruth.txt``, ``absence.label``, ``cover.label``, ``meta_info.ini``.

    Give the data set's folder (then ``val`` is read) or that of a split; ``list.txt`` names its sequences. Frames with
    ``absence`` 1 or ``cover`` 0 are absent. Boxes are 1-based. Sequences of the test split are `withheld`.
    """

    name = "got10k"
    expects = "val/NAME/*.jpg and val/NAME/groundtruth.txt (GOT-10k)"

    def load(self, root: Path) -> list[VideoSequence]:
        """Load a split, or one sequence."""
        if all(self._parts(root).values()):
            return [self._sequence(root)]
        return [self._sequence(folder) for folder in self._folders(root) if all(self._parts(folder).values())]

    def incomplete(self, root: Path) -> dict[str, str]:
        """Return the folders that have only images, or only boxes."""
        alone = all(self._parts(root).values())
        return {} if alone else _incomplete((folder, self._parts(folder)) for folder in self._folders(root))

    @staticmethod
    def _folders(root: Path) -> list[Path]:
        split = root / "val" if (root / "val").is_dir() else root
        listing = split / "list.txt"
        if listing.is_file():
            folders = [split / name for name in read_utf8(listing).split()]
            return [folder for folder in folders if folder.is_dir()]  # part of the data set is enough
        return sorted(path for path in split.iterdir() if path.is_dir())

    @staticmethod
    def _parts(folder: Path) -> dict[str, bool]:
        return {"images": bool(list_images(folder)), "groundtruth.txt": (folder / "groundtruth.txt").is_file()}

    @staticmethod
    def _sequence(folder: Path) -> VideoSequence:
        images = list_images(folder)
        boxes, visible = read_got10k_boxes(folder)
        boxes = np.where(visible[:, None] > 0, boxes - (1, 1, 0, 0), np.nan)
        withheld = len(boxes) == 1 and len(images) > 1
        if withheld:
            _check_numbers(images)  # no number of boxes tells that one is missing
            boxes = np.concatenate([boxes, np.full((len(images) - 1, 4), np.nan)])
        return VideoSequence(
            name=folder.resolve().name,
            frames=tuple(images),
            boxes=boxes,
            meta={"dataset": "GOT-10k", **read_got10k_meta(folder)},
            origin=1,
            withheld=withheld,
        )


def _check_numbers(images: Sequence[Path]) -> None:
    """Refuse numbered images of which one is missing.

    :raises ValueError: naming it.
    """
    numbers = [int(image.stem) for image in images if image.stem.isdecimal()]
    for before, after in pairwise(numbers):
        if after != before + 1:
            raise ValueError(
                f"{images[0].parent}: there is no image {before + 1} between {before} and {after}; fetch it again"
            )


class NfsLayout:
    """Need for Speed at 30 Hz: ``NAME/30/NAME/*.jpg`` (or ``NAME/30/*.jpg``) and ``NAME/30/NAME.txt``.

    The text is VATIC's: track, x1, y1, x2, y2, frame, lost, occluded, generated, label; 0-based corners. Of annotations
    at 240 Hz every eighth is taken; one line or image too many at the end is dropped. `lost` frames are absent.
    """

    name = "nfs"
    expects = "NAME/30/NAME/*.jpg and NAME/30/NAME.txt (NFS)"

    def load(self, root: Path) -> list[VideoSequence]:
        """Load the sequences in `root`."""
        folders = sorted(path for path in root.iterdir() if (path / "30").is_dir())
        found = ((folder, self._annotation(folder)) for folder in folders)
        return [self._sequence(folder, file) for folder, file in found if file is not None]

    def incomplete(self, root: Path) -> dict[str, str]:
        """Return the folders that have only images, or only boxes."""
        folders = sorted(path for path in root.iterdir() if path.is_dir())
        return _incomplete(
            (folder, {"30/": (folder / "30").is_dir(), f"{folder.name}.txt": self._annotation(folder) is not None})
            for folder in folders
        )

    @staticmethod
    def _annotation(folder: Path) -> Path | None:
        places = (folder / "30", folder, folder.parent)
        candidates = [place / f"{folder.name}.txt" for place in places] + sorted((folder / "30").glob("*.txt"))
        return next((file for file in candidates if file.is_file()), None)

    @staticmethod
    def _sequence(folder: Path, file: Path) -> VideoSequence:
        images = next((found for place in _folders(folder / "30", 1) if (found := list_images(place))), [])
        boxes = read_vatic(file)
        if images and abs(len(boxes) / len(images) - 8) < 1:
            boxes = boxes[::8]
        if abs(len(boxes) - len(images)) == 1:
            count = min(len(boxes), len(images))
            boxes, images = boxes[:count], images[:count]
        return VideoSequence(folder.resolve().name, tuple(images), boxes, {"dataset": "NFS"})


def read_vatic(path: Path) -> NDArray[np.float64]:
    """Read VATIC's text of one target as (N, 4) boxes x, y, w, h in order of frames, `nan` where it is lost."""
    rows = []
    for number, line in enumerate(read_utf8(path).splitlines(), start=1):
        if not line.strip():
            continue
        try:
            _, x1, y1, x2, y2, frame, lost = (float(value) for value in line.split()[:7])
        except ValueError as error:
            raise ValueError(
                f"{path}, line {number}: expected 10 columns as VATIC writes them, got {line!r}"
            ) from error
        rows.append((frame, *((np.nan,) * 4 if lost else (x1, y1, x2 - x1, y2 - y1))))
    boxes = np.array(sorted(rows, key=lambda row: row[0]), np.float64).reshape(-1, 5)[:, 1:]
    boxes[~annotated(boxes)] = np.nan
    return boxes


LAYOUTS: dict[str, Layout] = {
    layout.name: layout
    for layout in (
        OtbLayout(),
        LasotLayout(),  # before `folder`, which its sequences would fit too
        FolderLayout(),
        ClipsLayout(),
        UavLayout("UAV123"),
        UavLayout("UAV123_10fps"),
        UavLayout("UAV20L"),
        Got10kLayout(),
        NfsLayout(),
    )
}
"""The layouts by name, in the order in which `load_sequences` tries them."""


def load_sequences(
    root: str | Path, names: Iterable[str] | None = None, layout: str | None = None
) -> list[VideoSequence]:
    """Load the sequences under `root`, all or those called `names`.

    `layout`: one of the names in `LAYOUTS`; by default the first one that fits. Raise ValueError if there are no
    sequences, if a name is unknown, if images and boxes do not fit each other, or one of them is missing.
    """
    root = Path(root)
    if not root.is_dir():
        raise ValueError(f"no folder {root}; give the folder that holds the sequences")
    if layout is not None and layout not in LAYOUTS:
        raise ValueError(f"unknown layout {layout!r}; known: {', '.join(LAYOUTS)}")
    tried = [LAYOUTS[layout]] if layout is not None else list(LAYOUTS.values())
    fits = ((candidate, sequences) for candidate in tried if (sequences := candidate.load(root)))
    fitting, found = next(fits, (None, []))
    if fitting is None:
        raise ValueError(f"no sequence in {root}; expected {' or '.join(candidate.expects for candidate in tried)}")
    wanted = None if names is None else list(names)
    incomplete = fitting.incomplete(root)
    if texts := [text for name, text in incomplete.items() if wanted is None or name in wanted]:
        raise ValueError(f"{'; '.join(texts)}: fetch it again, or leave it out with --only")
    if wanted is None:
        return found
    by_name = {sequence.name: sequence for sequence in found}
    if unknown := [name for name in wanted if name not in by_name]:
        raise ValueError(f"no sequence {', '.join(unknown)} in {root}; there are: {', '.join(by_name)}")
    return [by_name[name] for name in wanted]
