# SPDX-License-Identifier: Apache-2.0
"""Re-encodes data sets, smaller, into the form that `dimp_ros.datasets.packed` reads."""

from __future__ import annotations

import json
import math
import os
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from dimp_ros.datasets.base import Clip, DataSet, Image, Instance, Still
from dimp_ros.datasets.compact import Record
from dimp_ros.datasets.rle import encode_mask
from dimp_ros.geometry.box import Box

RUNGS = 49
SAMPLE = 300
CAUTION = 1.02
"""What estimates are multiplied with: a sample is a few per cent off, and to encode everything twice takes long."""

MIB = 2**20


class Level(NamedTuple):
    """How small pictures are made: their longer side in pixels at most, and the quality of WebP."""

    side: int
    quality: int

    @classmethod
    def number(cls, number: int) -> Level:
        """Return one of `RUNGS`, from 480 pixels at quality 80 to 392 at 36 and on to 288 at 36.

        Quality goes first: at equal bytes 416 pixels at 32 keep more of the pictures' edges than 320 at 55 (Laplacians
        correlate with the original's by 0.64 and 0.58, at equal PSNR). Below, WebP begins to look painted.
        """
        return cls(480 - 4 * number, max(80 - 2 * number, 36))


class Encoded(NamedTuple):
    """A picture as WebP, and its line of annotations without ``blob``."""

    blob: bytes
    record: Record


@dataclass(frozen=True)
class Item:
    """A picture to be encoded: a still, or a frame of a clip.

    :param annotate: gives its annotations for a change of its size; see `Scale`.
    """

    read: Callable[[], Image]
    annotate: Callable[[Scale], Record]

    def encode(self, rung: Level) -> Encoded:
        """Read, shrink and encode the picture with its annotations; the same every time."""
        image = self.read()
        scale = Scale.to_side(image.shape[1], image.shape[0], rung.side)
        if scale.changes:
            image = cv2.resize(image, (scale.width, scale.height), interpolation=cv2.INTER_AREA)
        done, data = cv2.imencode(".webp", image, [cv2.IMWRITE_WEBP_QUALITY, rung.quality])
        if not done:
            raise OSError("this OpenCV cannot write WebP; install the opencv-python of PyPI to make packs")
        return Encoded(data.tobytes(), self.annotate(scale))


class Scale(NamedTuple):
    """A picture's size before and after, in pixels."""

    old_width: int
    old_height: int
    width: int
    height: int

    @classmethod
    def to_side(cls, width: int, height: int, side: int) -> Scale:
        """Make the longer side ``side``; a smaller picture stays as it is."""
        factor = min(1.0, side / max(width, height))
        return cls(width, height, max(1, round(width * factor)), max(1, round(height * factor)))

    @property
    def changes(self) -> bool:
        """Whether the two sizes differ."""
        return (self.width, self.height) != (self.old_width, self.old_height)

    def box(self, box: Iterable[float]) -> list[float]:
        """Scale a box x, y, w, h; to a hundredth of a pixel."""
        fx, fy = self.width / self.old_width, self.height / self.old_height
        return [round(value * factor, 2) for value, factor in zip(box, (fx, fy, fx, fy), strict=True)]

    def mask(self, mask: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Scale a mask ``uint8 [old_height, old_width]``."""
        if not self.changes:
            return mask
        share = cv2.resize(mask * np.uint8(255), (self.width, self.height), interpolation=cv2.INTER_AREA)
        return (share > 127).astype(np.uint8)


def items_of(data: DataSet, keep: Callable[[str], bool]) -> Iterator[Item]:
    """Iterate over the pictures of the stills and clips whose name is to be kept, stills first."""
    for still in data.stills():
        if keep(still.name):
            yield Item(still.read, partial(_still_record, still))
    for clip in data.clips():
        if keep(clip.name):
            for index in range(len(clip)):
                yield Item(partial(clip.read, index), partial(_frame_record, clip, index))


def _still_record(still: Still, scale: Scale) -> Record:
    """Make the annotations of a still."""
    _check(still.name, scale, still.width, still.height)
    return {
        "id": still.name,
        "kind": still.kind,
        "width": scale.width,
        "height": scale.height,
        "source": still.source,
        "licence": still.licence,
        "exhaustive": still.exhaustive,
        "instances": [_instance(instance, instance.category, scale) for instance in still.instances],
    }


def _check(name: str, scale: Scale, width: int, height: int) -> None:
    """Refuse a picture whose size is not the one that its boxes were made for."""
    if (scale.old_width, scale.old_height) != (width, height):
        raise ValueError(
            f"picture {name!r} is {scale.old_width} x {scale.old_height}, its annotations are for {width} x {height}; "
            "picture and annotations are of different versions: fetch both again"
        )


def _frame_record(clip: Clip, index: int, scale: Scale) -> Record:
    """Make the annotations of a clip's frame."""
    box = clip.boxes[index]
    instances = []
    if np.isfinite(box).all():
        instance = (clip.instances[index] if clip.instances else None) or Instance(Box(*box.tolist()))
        visible = round(float(clip.visible[index]), 3)
        instances = [_instance(instance, clip.category, scale) | ({} if visible == 1 else {"visible": visible})]
    return {
        "id": f"{clip.name}/{index:05d}",
        "kind": "clip",
        "clip": clip.name,
        "frame": index,
        "width": scale.width,
        "height": scale.height,
        "source": clip.source,
        "licence": clip.licence,
        "instances": instances,
    }


def _instance(instance: Instance, category: str, scale: Scale) -> dict[str, Any]:
    """Make the annotation of an instance; a mask that has vanished is left out."""
    made: dict[str, Any] = {"bbox": scale.box(instance.box), "category": category}
    mask = instance.mask()
    if mask is not None and (small := scale.mask(mask)).any():
        made["mask"] = {"size": list(small.shape), "counts": encode_mask(small)}
    return made


def encode(items: Sequence[Item], rung: Level) -> list[Encoded]:
    """Encode pictures on all cores, in order."""
    threads = os.cpu_count() or 1
    results: list[Encoded] = []
    with ThreadPoolExecutor(threads) as pool:
        waiting = iter(items)
        for batch in iter(lambda: list(islice(waiting, 64 * threads)), []):  # pictures read ahead take memory
            results += pool.map(partial(Item.encode, rung=rung), batch)
    return results


def annotation_lines(encoded: Iterable[Encoded]) -> bytes:
    """Return the annotations with the places of their pictures, if these follow one another in ``pictures.bin``."""
    lines, offset = [], 0
    for blob, record in encoded:
        lines.append(json.dumps(record | {"blob": [offset, len(blob)]}, separators=(",", ":"), ensure_ascii=False))
        offset += len(blob)
    return "".join(line + "\n" for line in lines).encode()


def encoded_bytes(encoded: Sequence[Encoded]) -> int:
    """Return how many bytes pictures and compressed annotations take."""
    return sum(len(blob) for blob, _ in encoded) + len(zlib.compress(annotation_lines(encoded), 9))


def expected_bytes(items: Sequence[Item], rung: Level) -> int:
    """Estimate from a sample how many bytes pictures and compressed annotations will take."""
    count = min(len(items), SAMPLE)
    sample = [items[int((i + 0.5) * len(items) / count)] for i in range(count)]
    return math.ceil(encoded_bytes(encode(sample, rung)) * len(items) / max(count, 1))


class Fit:
    """Finds the largest rung at which pictures and annotations fit into ``budget`` bytes, and encodes them so.

    :raises ValueError: if they do not fit at the smallest one, with what would.
    """

    def __init__(self, items: Sequence[Item], budget: int) -> None:
        self.items, self.budget = items, budget
        self._expected: dict[int, float] = {}
        self._correction = CAUTION

    def _fits(self, number: int) -> bool:
        if number not in self._expected:
            self._expected[number] = expected_bytes(self.items, Level.number(number))
        return self._expected[number] * self._correction <= self.budget

    def _choose(self) -> int:
        """Return the first rung expected to fit, by bisection."""
        if self._fits(0):
            return 0
        low, high = 1, RUNGS - 1
        if not self._fits(high):
            need, have = self._expected[high] * self._correction / MIB, self.budget / MIB
            raise ValueError(
                f"{len(self.items)} pictures take {need:.1f} MiB even at {Level.number(high).side} pixels, and "
                f"{have:.1f} MiB are left for them: take about {max(0, have / need):.0%} of them with max_stills, "
                "max_clips and max_frames in the configuration's data sets, or raise the limit"
            )
        while low < high:
            middle = (low + high) // 2
            if self._fits(middle):
                high = middle
            else:
                low = middle + 1
        return low

    def encode(self) -> tuple[Level, list[Encoded]]:
        """Return the rung and all pictures; where a sample promised too much, the estimates are corrected by it."""
        while self.items:
            number = self._choose()
            encoded = encode(self.items, Level.number(number))
            size = encoded_bytes(encoded)
            if size <= self.budget:
                return Level.number(number), encoded
            self._correction = size / self._expected[number]  # now this rung does not fit, so the next is smaller
        return Level.number(0), []
