# SPDX-License-Identifier: Apache-2.0
"""The compact format: image files, and one JSON line per image with boxes, masks, source and licence.

``annotations.jsonl`` beside ``images/<id>.webp``. A line has ``id``, ``width``, ``height``, ``kind`` (still, cutout,
background or clip), ``source``, ``licence``, ``exhaustive`` and ``instances``: each a ``bbox`` (x, y, w, h), a
``category``, perhaps a ``mask`` as compressed COCO run lengths (``size`` [h, w], ``counts``), perhaps ``crowd``. Lines
of a clip have ``clip`` and ``frame`` as well, and their instances ``track_id`` and ``visible`` where that is known.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from dimp_ros.datasets.base import Clip, DataSet, Image, Instance, Still, read_box
from dimp_ros.datasets.masks import check_mask_size, decode_runs
from dimp_ros.files.json_file import named_errors, parse_object
from dimp_ros.images.files import read_image

KINDS = ("still", "cutout", "background", "clip")
_REMEDY = (
    f"every line needs id, width, height, instances and a kind of {', '.join(KINDS)} (a clip also clip and frame); "
    "fetch it again"
)

Record = dict[str, Any]


class CompactDataSet(DataSet):
    """A folder with ``annotations.jsonl`` and ``images/``.

    :raises OSError: if the folder or the file is missing. :raises ValueError: if a line is damaged.
    """

    def __init__(self, root: Path | str, name: str = "compact") -> None:
        self.name = name
        annotations, folder = Path(root) / "annotations.jsonl", Path(root) / "images"
        self.annotations = (annotations,)
        if not annotations.is_file():
            raise FileNotFoundError(f"no annotations.jsonl in {str(root)!r}; give the folder that holds it and images/")
        self._stills: list[Still] = []
        frames: dict[str, list[Record]] = defaultdict(list)
        with annotations.open("rb") as lines:
            for number, line in enumerate(lines, 1):
                with named_errors(f"{annotations}, line {number}", _REMEDY):
                    record = parse_object(line)
                    record["place"] = f"{annotations}, line {number}"
                    _image_file(record, folder)
                    if record["kind"] == "clip":
                        frames[record["clip"]].append({**record, "instances": _instances(record)})
                    else:
                        self._stills.append(_still(record, folder))
        self._clips = [
            _clip(clip, track, sorted(records, key=lambda record: record["frame"]), folder)
            for clip, records in sorted(frames.items())
            for track in _tracks(records)
        ]

    def stills(self) -> Sequence[Still]:
        """Return images, cut-outs and backgrounds in the order of the file."""
        return self._stills

    def clips(self) -> Sequence[Clip]:
        """Return the clips in order of name, one per track."""
        return self._clips


def _read_frame(paths: Sequence[Path], index: int) -> Image:
    return read_image(paths[index])


def _instances(record: Record) -> list[tuple[Any, float, Instance]]:
    """Return track, visible share and `Instance` of each object, without crowds and boxes of no size."""
    found = []
    shape = int(record["height"]), int(record["width"])
    for item in record["instances"]:
        box = read_box(item["bbox"])
        if box is None or item.get("crowd"):
            continue
        mask = item.get("mask")
        decode = partial(_mask, mask, shape, record["place"]) if mask else None
        found.append(
            (item.get("track_id"), float(item.get("visible", 1)), Instance(box, item.get("category") or "", decode))
        )
    return found


def _mask(mask: Record, shape: tuple[int, int], place: str) -> NDArray[np.uint8]:
    """Return a mask, scaled to its image's ``shape`` (height, width); it may be stored in another size."""
    with named_errors(place, "correct or remove the mask"):
        height, width = mask["size"]
        decoded = decode_runs(mask["counts"], int(height), int(width))
        if decoded.shape == shape:
            return decoded
        check_mask_size(*shape)
        smooth = cv2.resize(decoded * np.uint8(255), shape[::-1], interpolation=cv2.INTER_LINEAR)
        return (smooth > 127).astype(np.uint8)


def _image_file(record: Record, folder: Path) -> Path:
    """Return the file of a line's image.

    :raises ValueError: if its id leads out of the folder.
    """
    parts = PurePosixPath(str(record["id"])).parts
    if not parts or parts[0] == "/" or ".." in parts:
        raise ValueError(
            f"id {str(record['id'])[:100]!r} leads out of images/: it must be a name, or folders and a name"
        )
    return folder / f"{record['id']}.webp"


def _still(record: Record, folder: Path) -> Still:
    """Convert a line to a `Still`."""
    if record["kind"] not in KINDS:
        raise ValueError(f"kind {record['kind']!r} is not known")
    file = _image_file(record, folder)
    flags = cv2.IMREAD_UNCHANGED if record["kind"] == "cutout" else cv2.IMREAD_COLOR
    return Still(
        name=str(record["id"]),
        read=partial(read_image, file, flags),
        width=int(record["width"]),
        height=int(record["height"]),
        instances=tuple(instance for *_, instance in _instances(record)),
        kind=record["kind"],
        source=record.get("source") or "",
        licence=record.get("licence") or "",
        exhaustive=bool(record.get("exhaustive", False)),
        file=file,
    )


def _tracks(records: list[Record]) -> list[Any]:
    """Return the tracks in the frames of a clip, in order of appearance."""
    return list(dict.fromkeys(track for record in records for track, *_ in record["instances"]))


def _clip(name: str, track: Any, records: list[Record], folder: Path) -> Clip:
    """Return one track as a `Clip`; its box is nan in frames without it."""
    boxes = np.full((len(records), 4), np.nan)
    visible = np.zeros(len(records))
    instances: list[Instance | None] = [None] * len(records)
    for i, record in enumerate(records):
        for found, share, instance in record["instances"]:
            if found == track:
                boxes[i], visible[i], instances[i] = instance.box, share, instance
    known = [instance for instance in instances if instance is not None]
    first = records[0]
    files = [_image_file(record, folder) for record in records]
    several = len(_tracks(records)) > 1
    return Clip(
        name=f"{name}#{track}" if several else name,
        read=partial(_read_frame, files),
        file=files.__getitem__,
        boxes=boxes,
        visible=visible,
        category=known[0].category,
        source=first.get("source") or "",
        licence=first.get("licence") or "",
        instances=tuple(instances) if any(instance.has_mask for instance in known) else (),
    )
