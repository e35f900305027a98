# SPDX-License-Identifier: Apache-2.0
"""COCO's instance annotations as flat arrays, kept in a cache: its JSON takes half a minute and 5 GB to read."""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from dimp_ros.datasets.rle import decode_counts
from dimp_ros.files.outputs import OutputFile

VERSION = 1
POLYGON, RUNS = 0, 1


class CocoTable(NamedTuple):
    """Pictures, instances sorted by picture, and parts (polygons or run lengths) sorted by instance.

    ``starts`` arrays have one more entry than what they index: item i has what is in ``starts[i]:starts[i + 1]``.
    """

    files: NDArray[np.str_]  # [P] file names
    sizes: NDArray[np.int32]  # [P, 2] width, height
    licences: NDArray[np.str_]  # [P]
    instance_starts: NDArray[np.int64]  # [P + 1]
    boxes: NDArray[np.float32]  # [I, 4] x, y, w, h
    categories: NDArray[np.str_]  # [I]
    part_starts: NDArray[np.int64]  # [I + 1]
    kinds: NDArray[np.uint8]  # [parts] POLYGON or RUNS
    number_starts: NDArray[np.int64]  # [parts + 1]
    numbers: NDArray[np.float32]  # x, y of corners one after the other, or run lengths (exact below 2 ** 24)


def load_table(path: Path, cache: Path | None) -> CocoTable:
    """Read an annotation file, or what was kept of it in the folder ``cache`` (None: keep nothing).

    :raises OSError: if it is missing; :raises ValueError: if it is no file of COCO instances.
    """
    try:
        state = path.stat()
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{path} is missing; unpack COCO's annotations there") from error
    key = hashlib.sha256(repr((VERSION, str(path.resolve()), state.st_size, state.st_mtime_ns)).encode()).hexdigest()
    kept = None if cache is None else cache / f"coco-{key[:24]}.npz"
    if kept is not None and kept.is_file():
        try:
            with np.load(kept, allow_pickle=False) as arrays:
                return CocoTable(**arrays)
        except (ValueError, TypeError, KeyError, OSError, EOFError, zipfile.BadZipFile):
            pass  # cut off, say by a full disk: made and written again
    try:
        table = _table(json.loads(path.read_bytes()))
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise ValueError(
            f"{path} is no file of COCO instances ({type(error).__name__}: {error}); expected images, annotations and "
            "categories as in instances_train2017.json: fetch it again"
        ) from error
    if kept is not None:
        _keep(table, kept)
    return table


def _keep(table: CocoTable, path: Path) -> None:
    """Write the table as a whole or not at all; a cache that cannot be written is done without."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with OutputFile(path) as partial, partial.open("wb") as file:
            np.savez(file, **table._asdict())
    except OSError:
        return


def _table(content: dict[str, Any]) -> CocoTable:
    """Make the table of a file's content; crowds and empty boxes are left out."""
    images = sorted(content["images"], key=lambda image: image["id"])
    rows = {image["id"]: row for row, image in enumerate(images)}
    licences = {item["id"]: item.get("name") or item.get("url", "") for item in content.get("licenses", ())}
    names = {category["id"]: category["name"] for category in content["categories"]}
    found = [
        item
        for item in content["annotations"]
        if not item.get("iscrowd") and item["bbox"][2] > 0 and item["bbox"][3] > 0
    ]
    found.sort(key=lambda item: (rows[item["image_id"]], item["id"]))
    parts = [_parts(item.get("segmentation")) for item in found]
    flat = [part for instance in parts for part in instance]
    return CocoTable(
        files=np.array([image["file_name"] for image in images], np.str_),
        sizes=np.array([(image["width"], image["height"]) for image in images], np.int32).reshape(-1, 2),
        licences=np.array([licences.get(image.get("license"), "") for image in images], np.str_),
        instance_starts=np.searchsorted([rows[item["image_id"]] for item in found], np.arange(len(images) + 1)),
        boxes=np.array([item["bbox"] for item in found], np.float32).reshape(-1, 4),
        categories=np.array([names[item["category_id"]] for item in found], np.str_),
        part_starts=_starts(map(len, parts)),
        kinds=np.array([kind for kind, _ in flat], np.uint8),
        number_starts=_starts(len(numbers) for _, numbers in flat),
        numbers=np.concatenate([np.asarray(numbers, np.float32) for _, numbers in flat] or [np.zeros(0, np.float32)]),
    )


def _starts(lengths: Iterable[int]) -> NDArray[np.int64]:
    """Return where items of these lengths begin, and where the last ends."""
    return np.concatenate([[0], np.cumsum(np.fromiter(lengths, np.int64))]).astype(np.int64)


def _parts(segmentation: Any) -> list[tuple[int, Any]]:
    """Return the polygons of three corners or more, or the run lengths, of an instance; none where it has no mask."""
    if not segmentation:
        return []
    if isinstance(segmentation, dict):
        counts = segmentation["counts"]
        return [(RUNS, decode_counts(counts) if isinstance(counts, str) else counts)]
    return [(POLYGON, polygon) for polygon in segmentation if len(polygon) >= 6 and len(polygon) % 2 == 0]
