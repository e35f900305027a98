# SPDX-License-Identifier: Apache-2.0
"""Synthetic sequences in which the target disappears and returns elsewhere, or never, or the camera jumps.

A cut-out object moves over a mosaic of photographs, seen by a shaking camera, among other objects of its category.
While it is absent none of its pixels are drawn. All images come from a held-out store, see
`dimp_ros.synthetic.image_store`.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from dimp_ros.geometry.box import Box
from dimp_ros.synthetic.image_store import CANVAS, MARGIN, Pixels, Tables, open_tables

SEED = 2_000_003
"""First part of each sequence's seed; differs from those of training and calibration."""

SCENARIOS = ("elsewhere", "border", "camera_jump", "replaced", "behind")
"""Absent, then elsewhere; out over one border and in over another; the view jumps with the target; absent for good
while others of its category appear; slowly covered, then elsewhere."""

SIZES = ((640, 480), (1280, 720))
"""Width and height of the images, in turn."""

VISIBLE, ABSENT, AFTER = 20, 30, 30
"""Frames before the disappearance, without the target, and after its return."""

CAMERA_JUMPS = (20, 40, 60)
COVERING = 16
"""Frames in which a cover slides over the target until nothing of it is visible."""

COVER = 2.2
"""Sides of a cover, in sides of the target."""

SIDES = (24.0, 110.0)
"""Smallest and largest size of a target, sqrt(w * h), pixels."""

CELL = (480, 360)
SHAKE = 6.0
ROOM = 700
"""Margin of the mosaic around the image for camera motion, pixels."""

Floats = NDArray[np.float64]
Image = NDArray[np.uint8]


class DisappearanceFrame(NamedTuple):
    """A frame: BGR ``uint8 [H, W, 3]``, and the target's box, clipped to the image; None where it is absent."""

    image: Image
    box: Box | None


@dataclass(frozen=True)
class Disappearance:
    """A sequence; ``returns`` are the frames in which the target reappears at another place."""

    name: str
    scenario: str
    frames: tuple[DisappearanceFrame, ...]
    returns: tuple[int, ...]


class _Mover(NamedTuple):
    """An object: premultiplied RGBA canvas, centre and size ``[K, 4]`` (cx, cy, w, h), and whether it is drawn."""

    canvas: NDArray[np.float32]
    places: Floats
    shown: NDArray[np.bool_]


class DisappearanceGenerator:
    """Generates sequences from a store's images; the same number gives the same sequence."""

    def __init__(self, store: Path) -> None:
        self.tables: Tables = open_tables(store)
        self._pixels = Pixels(store, self.tables)
        self._kinds: dict[str, list[int]] = defaultdict(list)
        for target in self.tables.targets:
            if target.canvas >= 0 and target.box[2] * target.box[3] > 400:
                self._kinds[target.category].append(target.canvas)
        if not self._kinds:
            raise ValueError(f"the store {store} holds no object with a mask, which this needs; add images with masks")
        self._aspects = {t.canvas: t.box[2] / t.box[3] for t in self.tables.targets if t.canvas >= 0}

    def make(self, number: int) -> Disappearance:
        """Generate a sequence; scenarios and image sizes alternate by number."""
        rng = np.random.default_rng((SEED, number))
        scenario = SCENARIOS[number % len(SCENARIOS)]
        size = SIZES[number // len(SCENARIOS) % len(SIZES)]
        count = VISIBLE + ABSENT + AFTER
        side = float(np.exp(rng.uniform(*np.log(SIDES))))
        kind = self._kind(rng, least=3 if scenario == "replaced" else 1)
        camera = np.cumsum(rng.normal(0, SHAKE / 3, (count, 2)), 0).clip(-ROOM / 10, ROOM / 10)
        target, returns = self._target(rng, scenario, kind, side, size, count)
        movers = self._others(rng, scenario, kind, side, size, target)
        cover = [self._cover(rng, target)] if scenario == "behind" else []
        if scenario == "camera_jump":
            jumps = _jumps(rng, count, side, target.places, size)
            camera = camera + jumps
            target, *movers = (m._replace(places=_shifted(m.places, jumps)) for m in (target, *movers))
        ground = self._mosaic(rng, size)
        frames = tuple(self._frame(k, ground, camera[k], size, movers, target, cover) for k in range(count))
        return Disappearance(f"{scenario}_{number:04d}", scenario, frames, returns)

    def _kind(self, rng: np.random.Generator, least: int) -> str:
        """Draw a category with at least ``least`` objects, or else the largest one."""
        names = sorted(name for name, members in self._kinds.items() if len(members) >= least)
        return names[rng.integers(len(names))] if names else max(sorted(self._kinds), key=lambda n: len(self._kinds[n]))

    def _object(self, rng: np.random.Generator, kind: str, unlike: int = -1) -> int:
        """Draw an object of a category other than ``unlike`` if possible; else of any category."""
        members = [canvas for canvas in self._kinds[kind] if canvas != unlike]
        if not members:
            members = [c for name in sorted(self._kinds) for c in self._kinds[name] if c != unlike] or self._kinds[kind]
        return int(members[rng.integers(len(members))])

    def _mover(self, canvas: int, places: Floats, side: float, shown: NDArray[np.bool_]) -> _Mover:
        """Return an object of size ``side``, sqrt(w * h)."""
        aspect = np.sqrt(np.clip(self._aspects[canvas], 1 / 3, 3))
        size = np.broadcast_to(np.array([side * aspect, side / aspect]), places.shape)
        image = self._pixels.canvases[canvas].permute(1, 2, 0).numpy().astype(np.float32)
        return _Mover(image, np.concatenate((places, size), 1), shown)

    def _target(
        self, rng: np.random.Generator, scenario: str, kind: str, side: float, size: tuple[int, int], count: int
    ) -> tuple[_Mover, tuple[int, ...]]:
        """Plan the target; return it and the frames in which it returns."""
        extent = np.array(size, np.float64)
        back = VISIBLE + ABSENT
        gone = (np.arange(count) >= VISIBLE) & (np.arange(count) < back)
        start = rng.uniform(0.2, 0.8, 2) * extent
        places = _walk(rng, start, count, side, extent)
        returns: tuple[int, ...] = (back,)
        if scenario in ("elsewhere", "behind"):
            for _ in range(100):
                again = rng.uniform(0.1, 0.9, 2) * extent
                if np.hypot(*(again - places[VISIBLE])) > 3 * side:
                    break
            places[back:] = _walk(rng, again, AFTER, side, extent)
        elif scenario == "border":
            borders = rng.permutation(4)[:2]
            beyond = [_beyond(rng, border, side, extent) for border in borders]
            # Accelerates towards the border; comes in by half a target size per frame.
            ease = np.linspace(0, 1, VISIBLE + 1)[:, None] ** 2
            places[: VISIBLE + 1] = start + (beyond[0] - start) * ease
            inward = rng.uniform(0.3, 0.7, 2) * extent - beyond[1]
            reach = np.minimum(np.arange(1, AFTER + 1) * side / 4, np.hypot(*inward))
            places[back:] = beyond[1] + inward / np.hypot(*inward) * reach[:, None]
        elif scenario == "replaced":
            gone = np.arange(count) >= VISIBLE
            returns = ()
        else:
            gone[:] = False
            returns = CAMERA_JUMPS
        mover = self._mover(self._object(rng, kind), places, side, ~gone)
        if scenario == "border":  # it is back when half of it is in the image
            inside = [k for k in range(back, count) if _inside_share(mover.places[k], size) >= 0.5]
            returns = tuple(inside[:1])
        return mover, returns

    def _others(
        self, rng: np.random.Generator, scenario: str, kind: str, side: float, size: tuple[int, int], target: _Mover
    ) -> list[_Mover]:
        """Plan other objects, mostly of the target's category; ``replaced`` has three that come when it goes."""
        own = next(c for c in self._kinds[kind] if np.array_equal(self._canvas(c), target.canvas))
        count, extent = len(target.places), np.array(size, np.float64)
        movers = []
        for _ in range(3 if scenario == "replaced" else int(rng.integers(0, 4))):
            shown = np.ones(count, bool)
            if scenario == "replaced":
                shown[: VISIBLE + int(rng.integers(0, ABSENT))] = False
            other = self._object(rng, kind if scenario == "replaced" or rng.random() < 0.6 else self._kind(rng, 1), own)
            places = _walk(rng, rng.uniform(0.1, 0.9, 2) * extent, count, side, extent)
            movers.append(self._mover(other, places, side * float(np.exp(rng.normal(0, 0.25))), shown))
        return movers

    def _cover(self, rng: np.random.Generator, target: _Mover) -> _Mover:
        """Plan a photograph that slides over the target from one side and stays while the target is absent."""
        count, back = len(target.places), VISIBLE + ABSENT
        w, h = COVER * target.places[0, 2:]
        angle = rng.uniform(0, 2 * np.pi)
        # Starts where it does not touch the target.
        apart = (np.array([w, h]) + target.places[0, 2:]) / 2
        reach = float((apart / np.maximum(np.abs([np.cos(angle), np.sin(angle)]), 1e-6)).min())
        way = np.clip((VISIBLE - np.arange(count)) / COVERING, 0, 1)[:, None] * reach * [np.cos(angle), np.sin(angle)]
        centers = target.places[:, :2] + way
        centers[back:] = centers[back - 1]
        image = self._cell(int(rng.integers(len(self.tables.images))))[..., ::-1]
        canvas = np.zeros((CANVAS, CANVAS, 4), np.float32)
        inner = CANVAS - 2 * MARGIN
        canvas[MARGIN:-MARGIN, MARGIN:-MARGIN, :3] = cv2.resize(image, (inner, inner), interpolation=cv2.INTER_AREA)
        canvas[MARGIN:-MARGIN, MARGIN:-MARGIN, 3] = 255
        places = np.concatenate((centers, np.broadcast_to([w, h], centers.shape)), 1)
        return _Mover(canvas, places, np.ones(count, bool))

    def _canvas(self, number: int) -> NDArray[np.float32]:
        canvas: NDArray[np.float32] = self._pixels.canvases[number].permute(1, 2, 0).numpy().astype(np.float32)
        return canvas

    def _mosaic(self, rng: np.random.Generator, size: tuple[int, int]) -> Image:
        """Tile images over the frame and its margin."""
        columns, rows = (-(-(extent + 2 * ROOM) // cell) for extent, cell in zip(size, CELL, strict=True))
        chosen = rng.integers(len(self.tables.images), size=(rows, columns))
        return np.vstack([np.hstack([self._cell(int(number)) for number in row]) for row in chosen])

    def _cell(self, number: int) -> Image:
        """Return an image in BGR, scaled to fill a cell and cut to it."""
        image = np.ascontiguousarray(self._pixels.image(number).permute(1, 2, 0).numpy()[..., ::-1])
        scale = max(CELL[0] / image.shape[1], CELL[1] / image.shape[0])
        scaled = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_LINEAR)
        scaled = cv2.copyMakeBorder(scaled, 0, 2, 0, 2, cv2.BORDER_REPLICATE)
        return np.asarray(scaled[: CELL[1], : CELL[0]], dtype=np.uint8)

    @staticmethod
    def _frame(
        k: int,
        ground: Image,
        camera: Floats,
        size: tuple[int, int],
        movers: list[_Mover],
        target: _Mover,
        cover: list[_Mover],
    ) -> DisappearanceFrame:
        """Render frame k: the target over ``movers``, and ``cover`` over the target."""
        x, y = ROOM - camera
        transform = np.array([[1, 0, -x], [0, 1, -y]])
        image = cv2.warpAffine(ground, transform, size, borderMode=cv2.BORDER_REFLECT_101)
        for mover in (*movers, target, *cover):
            if mover.shown[k]:
                draw(image, mover.canvas, mover.places[k])
        seen = _inside_share(target.places[k], size) - sum(_covered_share(target.places[k], c.places[k]) for c in cover)
        present = bool(target.shown[k]) and seen > 0.1
        return DisappearanceFrame(
            image, Box.from_center(*target.places[k].tolist()).clipped(*size) if present else None
        )


def draw(image: Image, canvas: NDArray[np.float32], place: Floats) -> None:
    """Draw a canvas over an image so that the object in it fills the box ``(cx, cy, w, h)``."""
    cx, cy, w, h = (float(value) for value in place)
    inner = CANVAS - 2 * MARGIN
    reduce = int(max(min(inner / w, inner / h), 1))  # average before shrinking, against aliasing
    while CANVAS % reduce:
        reduce -= 1
    source = cv2.resize(canvas, (CANVAS // reduce,) * 2, interpolation=cv2.INTER_AREA) if reduce > 1 else canvas
    sx, sy = w / inner * reduce, h / inner * reduce
    half = np.array([w, h]) * CANVAS / inner / 2
    x0, y0 = np.floor(np.array([cx, cy]) - half).astype(int)
    x1, y1 = np.ceil(np.array([cx, cy]) + half).astype(int)
    x0, y0, x1, y1 = max(x0, 0), max(y0, 0), min(x1, image.shape[1]), min(y1, image.shape[0])
    if x0 >= x1 or y0 >= y1:
        return
    left, top = cx - half[0] - x0, cy - half[1] - y0
    transform = np.array([[sx, 0, left + sx / 2 - 0.5], [0, sy, top + sy / 2 - 0.5]])
    patch = cv2.warpAffine(source, transform, (x1 - x0, y1 - y0), flags=cv2.INTER_LINEAR)
    alpha = patch[..., 3:] / 255
    region = image[y0:y1, x0:x1]
    region[:] = np.rint(region * (1 - alpha) + patch[..., 2::-1]).clip(0, 255).astype(np.uint8)


def _walk(rng: np.random.Generator, start: Floats, count: int, side: float, extent: Floats) -> Floats:
    """Return a smooth path from ``start``, a few target sizes long, inside the image."""
    knots = np.cumsum(rng.normal(0, 1.0 * side, (4, 2)), 0)
    at = np.linspace(0, 3, count)
    way = start + np.stack([np.interp(at, np.arange(4), knots[:, axis] - knots[0, axis]) for axis in (0, 1)], 1)
    kernel = np.ones(9) / 9
    smooth = np.stack([np.convolve(np.pad(way[:, axis], 4, mode="edge"), kernel, "valid") for axis in (0, 1)], 1)
    margin = np.minimum(side * 0.6, extent / 3)
    return np.clip(smooth, margin, extent - margin)


def _beyond(rng: np.random.Generator, border: int, side: float, extent: Floats) -> Floats:
    """Return a place outside the image: left, top, right, bottom."""
    along = rng.uniform(0.2, 0.8) * extent
    outside = (-1.2 * side, -1.2 * side, extent[0] + 1.2 * side, extent[1] + 1.2 * side)[border]
    return np.array([outside, along[1]] if border % 2 == 0 else [along[0], outside])


def _jumps(rng: np.random.Generator, count: int, side: float, places: Floats, size: tuple[int, int]) -> Floats:
    """Return the camera's jumps ``[K, 2]``: 3 to 6 target sizes at once, the target staying in the image."""
    jumps = np.zeros((count, 2))
    for at in CAMERA_JUMPS:
        best = jumps[at - 1]
        for _ in range(50):
            angle, length = rng.uniform(0, 2 * np.pi), rng.uniform(3, 6) * side
            shift = jumps[at - 1] + length * np.array([np.cos(angle), np.sin(angle)])
            center = places[at, :2] + shift
            if (center > side * 0.6).all() and (center < np.array(size) - side * 0.6).all():
                best = shift
                break
        jumps[at:] = best
    return jumps


def _shifted(places: Floats, by: Floats) -> Floats:
    return np.concatenate((places[:, :2] + by, places[:, 2:]), 1)


def _inside_share(place: Floats, size: tuple[int, int]) -> float:
    """Return the share of a box ``(cx, cy, w, h)`` that lies in the image."""
    box = Box.from_center(*(float(value) for value in place))
    return box.clipped(*size).area / box.area


def _covered_share(place: Floats, cover: Floats) -> float:
    """Return the share of a box ``(cx, cy, w, h)`` that lies under another."""
    reach = np.minimum(place[:2] + place[2:] / 2, cover[:2] + cover[2:] / 2)
    shared = reach - np.maximum(place[:2] - place[2:] / 2, cover[:2] - cover[2:] / 2)
    return float(np.clip(shared, 0, None).prod() / place[2:].prod())
