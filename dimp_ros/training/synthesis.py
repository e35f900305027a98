# SPDX-License-Identifier: Apache-2.0
"""Sequences made from pictures: a target moving through a scene, with its box in every frame.

Three kinds. *Pasted*: a masked object drawn over another picture, which a moving camera sees. *Native*: an object where
it was photographed, the whole picture moving. *Clip*: frames of a real video. The first two get distractors, preferably
of the target's category, and occluders. Every frame is composed in full before windows are cut from it.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from dimp_ros.geometry import Box
from dimp_ros.training.photometric import Image, relight
from dimp_ros.training.pictures import Instance, Picture, PictureSet

Matrix = NDArray[np.float64]
MAX_ASPECT = 5.0


@dataclass(frozen=True)
class Frame:
    """One frame of a made sequence: BGR image, the target's box clipped to it, the share of the target in sight."""

    image: Image
    box: Box
    visible: float


@dataclass(frozen=True)
class Cutout:
    """An object cut from its picture: ``image`` BGR ``[h, w, 3]`` and soft ``alpha`` ``[h, w]`` of 0..1."""

    image: Image
    alpha: NDArray[Any]

    @property
    def size(self) -> float:
        """Square root of the area of the box, pixels."""
        return float(np.sqrt(self.alpha.size))

    def deformed(self, rng: np.random.Generator, strength: float) -> Cutout:
        """Bend the object by a smooth random field of up to ``strength`` of its size."""
        height, width = self.alpha.shape
        amplitude = strength * self.size
        field = rng.uniform(-amplitude, amplitude, (4, 4, 2)).astype(np.float32)
        field = cv2.resize(field, (width, height), interpolation=cv2.INTER_CUBIC)
        columns, rows = np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32))
        maps = (columns + field[..., 0], rows + field[..., 1])
        return Cutout(
            cv2.remap(self.image, *maps, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE),
            cv2.remap(self.alpha, *maps, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT),
        )


@dataclass(frozen=True)
class Motion:
    """A smooth random change over a sequence: the value at time t in 0..1 of each of several quantities."""

    coefficients: NDArray[np.float64]  # [3, quantities]: at t = 0, 1/2, 1

    @classmethod
    def random(cls, rng: np.random.Generator, spread: tuple[float, ...]) -> Motion:
        """Draw a motion in which each quantity moves within about plus or minus its ``spread``."""
        return cls(rng.uniform(-1, 1, (3, len(spread))) * np.asarray(spread))

    def at(self, t: float) -> NDArray[np.float64]:
        """Interpolate through the three knots (a parabola)."""
        weights = np.array([2 * (t - 0.5) * (t - 1), -4 * t * (t - 1), 2 * t * (t - 0.5)])
        return weights @ self.coefficients


def similarity(
    center: NDArray[np.float64], origin: NDArray[np.float64], scale: float, degrees: float, aspect: float
) -> Matrix:
    """Return the 2x3 transform that scales (x by ``aspect`` more), turns, and moves ``origin`` to ``center``."""
    angle = np.deg2rad(degrees)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    linear = turn @ np.diag([scale * np.sqrt(aspect), scale / np.sqrt(aspect)])
    return np.hstack((linear, (center - linear @ origin)[:, None]))


def cut_out(picture: Image, mask: NDArray[np.uint8], margin: int = 2) -> Cutout | None:
    """Cut the object under ``mask`` from its picture with a soft edge; None where the mask is nearly empty."""
    x, y, w, h = cv2.boundingRect(mask)
    if w < 12 or h < 12 or max(w / h, h / w) > MAX_ASPECT:
        return None
    y0, y1 = max(y - margin, 0), y + h + margin
    x0, x1 = max(x - margin, 0), x + w + margin
    alpha = cv2.GaussianBlur(mask[y0:y1, x0:x1].astype(np.float32), (3, 3), 0)
    return Cutout(picture[y0:y1, x0:x1, :3].copy(), alpha)


def draw(frame: Image, cutout: Cutout, transform: Matrix) -> NDArray[np.float32]:
    """Draw the cut-out on the frame in place; return its coverage of the frame ``[H, W]``, 0..1."""
    size = (frame.shape[1], frame.shape[0])
    coverage = np.zeros(frame.shape[:2], np.float32)
    corners = np.array([[0, 0], [1, 0], [0, 1], [1, 1]]) * cutout.alpha.shape[::-1]
    placed = corners @ transform[:, :2].T + transform[:, 2]
    x0, y0 = np.clip(np.floor(placed.min(0)).astype(int) - 1, 0, size)
    x1, y1 = np.clip(np.ceil(placed.max(0)).astype(int) + 2, 0, size)
    if x1 <= x0 or y1 <= y0:
        return coverage
    local = transform - np.array([[0, 0, x0], [0, 0, y0]])
    extent = (int(x1 - x0), int(y1 - y0))
    # Shrink first where the object becomes much smaller, so that it does not alias.
    scale = float(np.sqrt(abs(np.linalg.det(transform[:, :2]))))
    image, alpha = cutout.image, cutout.alpha
    if scale < 0.6:
        reduced = (max(int(alpha.shape[1] * scale), 1), max(int(alpha.shape[0] * scale), 1))
        local = local @ np.vstack(
            (np.diag([alpha.shape[1] / reduced[0], alpha.shape[0] / reduced[1], 1.0])[:2], [[0, 0, 1.0]])
        )
        image = cv2.resize(image, reduced, interpolation=cv2.INTER_AREA)
        alpha = cv2.resize(alpha, reduced, interpolation=cv2.INTER_AREA)
    drawn = cv2.warpAffine(image, local, extent, borderMode=cv2.BORDER_REPLICATE)
    opacity = cv2.warpAffine(alpha, local, extent, borderMode=cv2.BORDER_CONSTANT)
    region = frame[y0:y1, x0:x1]
    region[:] = np.rint(region + (drawn.astype(np.float32) - region) * opacity[..., None]).astype(np.uint8)
    coverage[y0:y1, x0:x1] = opacity
    return coverage


def outline(mask: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Return the points of the convex hull of a mask, ``[P, 2]`` in continuous pixel coordinates."""
    rows, columns = np.nonzero(mask)
    points = np.stack((columns, rows), 1).astype(np.int32)
    hull = cv2.convexHull(points)[:, 0].astype(np.float64)
    return np.concatenate([hull + offset for offset in ((0, 0), (1, 0), (0, 1), (1, 1))])


def bounding_box(points: NDArray[np.float64], transform: Matrix) -> Box:
    """Return the box round transformed points ``[P, 2]``."""
    placed = points @ transform[:, :2].T + transform[:, 2]
    low, high = placed.min(0), placed.max(0)
    return Box(low[0], low[1], high[0] - low[0], high[1] - low[1])


class SequenceMaker:
    """Make sequences of frames with a target, reproducibly: the same generator gives the same sequence.

    :param pictures: what to make them of. :param mix: shares of pasted, native and clip sequences.
    """

    def __init__(self, pictures: PictureSet, mix: tuple[float, float, float] = (0.5, 0.35, 0.15)) -> None:
        self.mix = np.asarray(mix) / sum(mix)
        self.masked = _by_source(pictures, "still", "cutout", "clip", masked=True)
        self.native = _by_source(pictures, "still", masked=False)
        self.scenes = pictures.of_kind("still", "background", "clip")
        self.clips = list(pictures.clips().values())
        self.categories: dict[str, list[tuple[Picture, Instance]]] = defaultdict(list)
        for picture, instance in pictures.targets("still", "cutout"):
            if instance.rle is not None and instance.box.area > 400:
                self.categories[instance.category].append((picture, instance))

    def make(self, rng: np.random.Generator, times: NDArray[np.float64], clean: int) -> list[Frame] | None:
        """Make the frames of one sequence at ``times`` (0..1); None where the draw turned out unusable.

        :param clean: in this many first frames nothing hides the target.
        """
        kind = rng.choice(3, p=self.mix)
        if kind == 2:
            return self._clip(rng, times)
        return self._composed(rng, times, clean, pasted=kind == 0)

    def _composed(
        self, rng: np.random.Generator, times: NDArray[np.float64], clean: int, *, pasted: bool
    ) -> list[Frame] | None:
        """Compose a sequence in one picture, its target pasted or native."""
        if pasted:
            target_picture, target = _draw(self.masked, rng)
            cutout = self._cutout(target_picture, target)
            scene = self.scenes[rng.integers(len(self.scenes))].load()[..., :3]
            points = None
        else:
            target_picture, target = _draw(self.native, rng)
            scene, cutout = target_picture.load(), None
            mask = target.mask()
            points = outline(mask) if mask is not None and mask.any() else _corners(target.box)
        if pasted and cutout is None:
            return None
        height, width = scene.shape[:2]
        extent = np.array([width, height], dtype=np.float64)
        boxes_only = not pasted and target.rle is None
        camera = Motion.random(rng, (0.06, 0.06, 0.08, 2.0 if boxes_only else 8.0, 0.08))
        zoom = rng.uniform(1.0, 1.6 if pasted else 1.2)
        center = extent / 2
        path = Motion.random(rng, (0.3, 0.3, 0.3, 15.0, 0.15))
        place = rng.uniform(0.25, 0.75, 2)
        size = float(np.exp(rng.uniform(np.log(20), np.log(min(160, 0.45 * extent.min())))))
        target_size = size if pasted else float(np.sqrt(target.box.area))
        others = self._distractors(rng, target, target_size)
        occluder = self._any_cutout(rng) if rng.random() < 0.4 else None
        bend = rng.uniform(0, 0.06) if rng.random() < 0.6 else 0.0
        frames = []
        for index, t in enumerate(times):
            moved = camera.at(t)
            view = similarity(center + moved[:2] * extent, center, zoom * np.exp(moved[2]), moved[3], np.exp(moved[4]))
            frame = cv2.warpAffine(scene, view, (width, height), borderMode=cv2.BORDER_REFLECT_101)
            for other, other_path, other_place, other_scale in others:
                step = other_path.at(t)
                draw(frame, other, _placement(other, (other_place + step[:2]) * extent, other_scale, step))
            if cutout is not None:
                step = path.at(t)
                shape = cutout.deformed(rng, bend) if bend else cutout
                placement = _placement(shape, (place + step[:2]) * extent, size / cutout.size, step)
                if rng.random() < 0.5:
                    shape = Cutout(relight(shape.image, rng, 0.12), shape.alpha)
                coverage = draw(frame, shape, placement)
                solid = (shape.alpha > 0.5).astype(np.uint8)
                if not solid.any():
                    return None
                full = bounding_box(outline(solid), placement)
                area = float(solid.sum() * abs(np.linalg.det(placement[:, :2])))
            else:
                assert points is not None
                full = bounding_box(points, view)
                coverage = np.zeros((height, width), np.float32)
                inside = full.clipped(width, height)
                coverage[int(inside.y) : int(inside.y + inside.h) + 1, int(inside.x) : int(inside.x + inside.w) + 1] = 1
                area = full.area
            if occluder is not None and index >= clean and rng.random() < 0.5:
                middle = np.array(full.center) + rng.normal(0, 0.4, 2) * (full.w, full.h)
                scale = rng.uniform(0.5, 1.4) * np.sqrt(max(full.area, 1)) / occluder.size
                hidden = draw(frame, occluder, _placement(occluder, middle, scale, np.zeros(5)))
                coverage = coverage * (1 - hidden)
            frames.append(Frame(frame, full.clipped(width, height), min(float(coverage.sum()) / max(area, 1.0), 1.0)))
        return frames

    def _clip(self, rng: np.random.Generator, times: NDArray[np.float64]) -> list[Frame] | None:
        """Take frames of a real clip, at most 30 kept frames apart."""
        clip = self.clips[rng.integers(len(self.clips))]
        span = min(30, len(clip) - 1)
        first = int(rng.integers(0, len(clip) - span))
        frames = []
        for t in times:
            picture = clip[first + round(t * span)]
            if not picture.instances:
                return None
            image = picture.load()
            box = picture.instances[0].box
            frames.append(Frame(image, box.clipped(picture.width, picture.height), 1.0))
        return frames

    def _distractors(
        self, rng: np.random.Generator, target: Instance, size: float
    ) -> list[tuple[Cutout, Motion, NDArray[np.float64], float]]:
        """Draw up to three other objects about as large as the target, half of them of its category."""
        others = []
        for _ in range(int(rng.integers(0, 4))):
            same = self.categories.get(target.category, [])
            if same and rng.random() < 0.5:
                cutout = self._cutout(*same[rng.integers(len(same))])
            else:
                cutout = self._any_cutout(rng)
            if cutout is not None:
                scale = size * np.exp(rng.normal(0, 0.4)) / cutout.size
                others.append((cutout, Motion.random(rng, (0.3, 0.3, 0.2, 10.0, 0.1)), rng.uniform(0, 1, 2), scale))
        return others

    def _any_cutout(self, rng: np.random.Generator) -> Cutout | None:
        """Cut out some object."""
        return self._cutout(*_draw(self.masked, rng))

    @staticmethod
    def _cutout(picture: Picture, instance: Instance) -> Cutout | None:
        """Cut an annotated object from its picture, None where that is not possible."""
        image = picture.load()
        if picture.kind == "cutout" and image.shape[-1] == 4:
            return cut_out(image, (image[..., 3] > 127).astype(np.uint8))
        mask = instance.mask()
        return None if mask is None else cut_out(image, mask)


def _placement(cutout: Cutout, center: NDArray[np.float64], scale: float, step: NDArray[np.float64]) -> Matrix:
    """Return where a cut-out is drawn; ``step`` holds x, y, log-scale, degrees, log-aspect."""
    origin = np.array(cutout.alpha.shape[::-1]) / 2
    return similarity(center, origin, scale * float(np.exp(step[2])), float(step[3]), float(np.exp(step[4])))


def _corners(box: Box) -> NDArray[np.float64]:
    """Return the corners of a box, ``[4, 2]``."""
    return np.array([[box.x, box.y], [box.x + box.w, box.y], [box.x, box.y + box.h], [box.x + box.w, box.y + box.h]])


Sources = list[list[tuple[Picture, Instance]]]


def _by_source(pictures: PictureSet, *kinds: str, masked: bool) -> tuple[Sources, NDArray[np.float64]]:
    """Group usable targets by source, with a probability for each that grows as the square root of its size."""
    groups: dict[str, list[tuple[Picture, Instance]]] = defaultdict(list)
    for picture, instance in pictures.targets(*kinds):
        box = instance.box
        usable = min(box.w, box.h) >= 12 and max(box.w / box.h, box.h / box.w) <= MAX_ASPECT
        if masked:
            usable = usable and (instance.rle is not None or picture.kind == "cutout")
        else:
            usable = usable and box.area < 0.25 * picture.width * picture.height
        if usable:
            groups[picture.source].append((picture, instance))
    sources = [group for _, group in sorted(groups.items())]
    shares = np.sqrt([len(group) for group in sources])
    return sources, shares / shares.sum()


def _draw(groups: tuple[Sources, NDArray[np.float64]], rng: np.random.Generator) -> tuple[Picture, Instance]:
    """Draw a source, then one of its targets."""
    sources, shares = groups
    group = sources[rng.choice(len(sources), p=shares)]
    return group[rng.integers(len(group))]
