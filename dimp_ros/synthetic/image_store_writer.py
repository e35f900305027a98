# SPDX-License-Identifier: Apache-2.0
"""Build an image store: decode, reduce, and cut out objects with masks."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import BinaryIO, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from dimp_ros.datasets.base import Clip, Image, Instance, Still, data_digest
from dimp_ros.datasets.registry import WeightedDataSet
from dimp_ros.files.outputs import OutputFile, write_text
from dimp_ros.files.shared_folder import SharedFolder
from dimp_ros.geometry.box import Box
from dimp_ros.synthetic.image_store import (
    CANVAS,
    CELLS,
    HULL,
    MARGIN,
    MAX_ASPECT,
    SHORTEST,
    TABLES,
    ClipEntry,
    ImageEntry,
    Shape,
    Tables,
    TargetEntry,
    read_tables,
)


def outline(mask: NDArray[np.uint8]) -> Shape | None:
    """Return the outline of a mask that fills its array, None where it is empty."""
    rows, columns = np.nonzero(mask)
    if not len(rows):
        return None
    points = cv2.convexHull(np.stack((columns, rows), 1).astype(np.int32))[:, 0].astype(np.float64)
    corners = np.concatenate([points + step for step in ((0, 0), (1, 0), (0, 1), (1, 1))])
    # The extreme points in HULL directions: under any transform the box is exact to cos(pi / HULL).
    angles = np.arange(HULL) * 2 * np.pi / HULL
    extreme = corners[(corners @ np.stack((np.cos(angles), np.sin(angles)))).argmax(0)]
    size = np.array(mask.shape[::-1], np.float64)
    cells = cv2.resize(mask.astype(np.float32), (CELLS, CELLS), interpolation=cv2.INTER_AREA)
    return Shape((extreme / size).astype(np.float32), cells)


def to_canvas(image: Image, alpha: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Resample an object that fills its arrays to a canvas ``[4, CANVAS, CANVAS]``: premultiplied RGB, and alpha."""
    inner = CANVAS - 2 * MARGIN
    way = cv2.INTER_AREA if max(alpha.shape) > inner else cv2.INTER_LINEAR
    opacity = cv2.resize(alpha, (inner, inner), interpolation=way)
    colour = cv2.resize(image[..., 2::-1].astype(np.float32) * alpha[..., None], (inner, inner), interpolation=way)
    canvas = np.zeros((4, CANVAS, CANVAS), np.float32)
    canvas[:3, MARGIN:-MARGIN, MARGIN:-MARGIN] = colour.transpose(2, 0, 1)
    canvas[3, MARGIN:-MARGIN, MARGIN:-MARGIN] = opacity * 255
    return np.rint(canvas).clip(0, 255).astype(np.uint8)


class _Prepared(NamedTuple):
    """The contribution of one image to a store."""

    image: Image | None
    targets: list[tuple[Instance, Shape | None, NDArray[np.uint8] | None]]


def _cut(image: Image, instance: Instance, alpha: NDArray[np.float32] | None) -> _Prepared | None:
    """Compute outline and canvas of an instance; None if it is too small, too thin or nearly without mask."""
    if alpha is None:
        box = instance.box
        usable = min(box.w, box.h) >= SHORTEST and max(box.w / box.h, box.h / box.w) <= MAX_ASPECT
        return _Prepared(None, [(instance, None, None)]) if usable else None
    solid = (alpha > 0.5).astype(np.uint8)
    x, y, w, h = cv2.boundingRect(solid)
    if min(w, h) < SHORTEST or max(w / h, h / w) > MAX_ASPECT:
        return None
    part = solid[y : y + h, x : x + w]
    shape = outline(part)
    soft = cv2.GaussianBlur(alpha, (3, 3), 0)[y : y + h, x : x + w]
    placed = Instance(Box(float(x), float(y), float(w), float(h)), instance.category)
    return _Prepared(None, [(placed, shape, to_canvas(image[y : y + h, x : x + w], soft))])


def _reduced(name: str, image: Image, instances: Sequence[Instance], longest_side: int) -> tuple[Image, list[Instance]]:
    """Reduce an image, with its boxes and masks, to ``longest_side`` pixels."""
    height, width = image.shape[:2]
    factor = longest_side / max(height, width)
    if factor >= 1:
        return image, list(instances)
    size = (max(round(width * factor), 1), max(round(height * factor), 1))
    x, y = size[0] / width, size[1] / height
    smaller = []
    for instance in instances:
        mask, box = _mask_on(name, image, instance), instance.box
        small = None if mask is None else cv2.resize(mask, size, interpolation=cv2.INTER_AREA)
        decode = None if small is None else partial(_as_read, small)
        smaller.append(Instance(Box(box.x * x, box.y * y, box.w * x, box.h * y), instance.category, decode))
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA), smaller


def _mask_on(name: str, image: Image, instance: Instance) -> NDArray[np.uint8] | None:
    """Return an instance's mask, if known.

    :raises ValueError: for one of another size than the image, whose annotation says a wrong size.
    """
    mask = instance.mask()
    if mask is not None and mask.shape != image.shape[:2]:
        sizes = f"{list(mask.shape)}, and the image {list(image.shape[:2])}"
        raise ValueError(f"{name}: a mask has [height, width] {sizes}; correct the size in its annotation")
    return mask


def _as_read(mask: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return a decoded mask."""
    return mask


def _prepare(name: str, image: Image, instances: Iterable[Instance], kind: str) -> _Prepared:
    """Compute the contribution of an image."""
    if kind == "cutout":
        alpha = (image[..., 3] / np.float32(255)).astype(np.float32) if image.shape[-1] == 4 else None
        instance = next(iter(instances), Instance(Box(0.0, 0.0, float(image.shape[1]), float(image.shape[0]))))
        made = None if alpha is None else _cut(image, instance, alpha)
        return _Prepared(None, made.targets if made else [])
    targets = []
    for instance in instances:
        mask = _mask_on(name, image, instance)
        made = _cut(image, instance, None if mask is None else mask.astype(np.float32))
        targets += made.targets if made else []
    return _Prepared(image[..., :3], targets)


class StoreWriter:
    """Collects the content of a store.

    :param pixels: file that the images' pixels are written to. :param canvases: that of the objects' canvases.
    """

    def __init__(self, pixels: BinaryIO, canvases: BinaryIO) -> None:
        self._pixels, self._canvas_file = pixels, canvases
        self.tables = Tables()
        self._hulls: list[NDArray[np.float32]] = []
        self._cells: list[NDArray[np.float32]] = []
        self._canvases = 0
        self._offsets: dict[bytes, int] = {}

    def add(self, made: _Prepared, kind: str, source: str) -> tuple[int, list[int]]:
        """Add an image and its targets; return their numbers (-1 for an image that is not stored)."""
        number = -1
        if made.image is not None:
            number = len(self.tables.images)
            height, width = made.image.shape[:2]
            self.tables.images.append(ImageEntry(self._offset(made.image), width, height, kind))
        targets = []
        for instance, shape, canvas in made.targets:
            targets.append(len(self.tables.targets))
            shape_number = canvas_number = -1
            if shape is not None and canvas is not None:
                shape_number, canvas_number = len(self._hulls), self._canvases
                self._hulls.append(shape.hull)
                self._cells.append(shape.cells)
                self._canvas_file.write(canvas.tobytes())
                self._canvases += 1
            entry = TargetEntry(number, instance.box, shape_number, canvas_number, instance.category, source)
            self.tables.targets.append(entry)
        return number, targets

    def _offset(self, image: Image) -> int:
        """Return where the pixels of an image are; the same image, as of two tracks of a film, is written once."""
        pixels = np.ascontiguousarray(image[..., ::-1].transpose(2, 0, 1)).tobytes()
        end = self._pixels.tell()
        offset = self._offsets.setdefault(hashlib.blake2b(pixels, digest_size=16).digest(), end)
        if offset == end:
            self._pixels.write(pixels)
        return offset

    def write_shapes(self, path: Path) -> None:
        """Write the outlines."""
        np.savez(
            path,
            hulls=np.array(self._hulls, np.float32).reshape(-1, HULL, 2),
            cells=np.array(self._cells, np.float32).reshape(-1, CELLS, CELLS),
        )

    def plain_tables(self) -> dict[str, object]:
        """Return the tables as plain values."""
        return {
            "weights": self.tables.weights,
            "pictures": [list(vars(item).values()) for item in self.tables.images],
            "targets": [list(vars(item).values()) for item in self.tables.targets],
            "clips": [list(vars(item).values()) for item in self.tables.clips],
        }


def build_store(
    folder: Path,
    data_sets: Sequence[WeightedDataSet],
    keep: Callable[[str], bool] | None = None,
    *,
    clip_frames: int = 0,
    longest_side: int = 480,
    threads: int = 4,
) -> SharedFolder:
    """Build a store of all stills and clips of ``data_sets`` in ``folder``, or keep a complete one of the same data.

    Another run does not replace it while the result lives.

    :param keep: tells by name which stills and clips to take; None takes all.
    :param clip_frames: frames to take of a longer clip, evenly from its middle; 0 takes all.
    :param longest_side: larger images are reduced to this, pixels.
    :raises ValueError: if another run holds a store of other data there.
    """
    summary = "; ".join(data_set.data.summary() for data_set in data_sets)
    summary += f" (clip_frames {clip_frames}, longest side {longest_side})"
    digest = f"{data_digest(data_set.data for data_set in data_sets)} {[data_set.weight for data_set in data_sets]}"
    about = {"summary": summary, "digest": digest}

    def current() -> bool:
        stored = read_tables(folder) if (folder / TABLES).is_file() else {}
        return {name: stored.get(name) for name in about} == about

    def make() -> None:
        with ExitStack() as outputs:
            names = ("pixels.bin", "canvases.bin", "shapes.npz")
            pixels, canvases, shapes = (outputs.enter_context(OutputFile(folder / name)) for name in names)
            with pixels.open("wb") as pixel_file, canvases.open("wb") as canvas_file:
                writer = StoreWriter(pixel_file, canvas_file)
                _fill(writer, data_sets, keep, clip_frames, longest_side, threads)
            writer.write_shapes(shapes)
            (folder / TABLES).unlink(missing_ok=True)  # from here to the new ones the store is not whole
        write_text(folder / TABLES, json.dumps({**about, **writer.plain_tables()}))

    return SharedFolder(folder, current, make)


def _fill(
    writer: StoreWriter,
    data_sets: Sequence[WeightedDataSet],
    keep: Callable[[str], bool] | None,
    clip_frames: int,
    longest_side: int,
    threads: int,
) -> None:
    """Add the chosen stills and clips."""

    def still(item: Still) -> tuple[Still, _Prepared]:
        image, instances = _reduced(item.name, item.read(), item.instances, longest_side)
        return item, _prepare(item.name, image, instances, item.kind)

    with ThreadPoolExecutor(threads) as pool:
        for data_set, weight in data_sets:
            sources = {item.source for item in data_set.stills()} | {item.source for item in data_set.clips()}
            writer.tables.weights.update({source: weight for source in sources if weight != 1})
            chosen = (item for item in data_set.stills() if keep is None or keep(item.name))
            for item, made in pool.map(still, chosen):
                writer.add(made, item.kind, item.source)
            for clip in data_set.clips():
                if keep is None or keep(clip.name):
                    _add_clip(writer, clip, pool, clip_frames, longest_side)


def chosen_frames(length: int, limit: int, reach: int = 60) -> range:
    """Choose at most ``limit`` frames (0: all) of a clip, evenly within the middle ``reach`` frames."""
    if not limit or length <= limit:
        return range(length)
    step = max(1, min(reach, length) // limit)
    first = (length - limit * step) // 2
    return range(first, first + limit * step, step)


def _add_clip(writer: StoreWriter, clip: Clip, pool: ThreadPoolExecutor, limit: int, longest_side: int) -> None:
    """Add frames of a clip."""

    def frame(index: int) -> _Prepared:
        instance = clip.instances[index] if clip.instances else None
        if instance is None and np.isfinite(clip.boxes[index]).all():
            instance = Instance(Box(*(float(v) for v in clip.boxes[index])), clip.category)
        instances = [] if instance is None else [instance]
        name = f"{clip.name}, frame {index}"
        return _prepare(name, *_reduced(name, clip.read(index), instances, longest_side), "clip")

    images, targets = [], []
    for made in pool.map(frame, chosen_frames(len(clip), limit)):
        number, found = writer.add(made, "clip", clip.source)
        images.append(number)
        targets.append(found[0] if found else -1)
    writer.tables.clips.append(ClipEntry(tuple(images), tuple(targets), clip.source))
