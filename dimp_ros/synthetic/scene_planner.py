# SPDX-License-Identifier: Apache-2.0
"""Plan synthetic sequences: background views, object motion, and the target's box and visibility.

Three kinds. *Pasted*: a masked object drawn over another image, seen by a moving camera. *Native*: an object in its own
image, which moves as a whole. *Clip*: frames of a real video. All get distractors, preferably of the target's category,
and occluders. A plan is a few hundred numbers; `SceneRenderer` renders many at once. Transforms are 2x3 matrices; an
object's own coordinates are units of its box, (0, 0) to (1, 1).
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

import numpy as np

from dimp_ros.synthetic.image_store import Shape, Tables, TargetEntry, by_source
from dimp_ros.synthetic.motion import (
    KNOTS,
    Floats,
    apply,
    bent,
    bounding_boxes,
    clip_boxes,
    compose,
    covered,
    parabola,
    similarity,
    smooth,
)
from dimp_ros.synthetic.scene import Layer, PlannedScene
from dimp_ros.synthetic.shapes import part_of, visibility

HIDING_OVERLAP = 0.1
"""A distractor that would cover a larger share of a native target is left out of that frame."""

SMALLEST_WHOLE = 50
"""Smallest size, sqrt(w * h) in pixels, of an object of which a part may be the target."""

WHOLE_OVER_PART = 2.0
"""Enlargement of an object whose part is the target."""

ALIKE = 4.0
"""Largest ratio of areas between the target and others in its crowd."""

LARGEST_NATIVE = 0.16
"""Largest share of its image that a native target covers."""

MOST_DISTRACTORS = 100


@dataclass(frozen=True)
class SceneConfig:
    """Content of synthetic sequences: shares and probabilities.

    :param mix: shares of pasted, native and clip sequences. :param distractors: largest number of other objects.
    :param same_category: a distractor is of the target's category, if possible. :param near: it stays near the target.
    :param occluder: an object may cover the target. :param vanish: a pasted target is absent in a frame.
    :param bend: a pasted target deforms. :param clip_span: frames between the first and the last of a clip.
    :param part: the target is a part of a large enough object; not in clips.
    :param camera: simulate a camera's resolution, see `photometric.simulate_camera`. :param coarse: a coarse camera.
    :param crowd: a native target is chosen among others of its category in the same image.
    :param inside: a scene whose windows lie mostly outside its frames is drawn again; not a clip.
    """

    mix: tuple[float, float, float] = (0.45, 0.35, 0.2)
    distractors: int = 3
    same_category: float = 0.6
    near: float = 0.6
    occluder: float = 0.4
    vanish: float = 0.05
    bend: float = 0.6
    clip_span: int = 30
    part: float = 0.0
    camera: bool = False
    coarse: float = 0.5
    crowd: float = 0.0
    inside: float = 0.0

    def __post_init__(self) -> None:
        """Check what would be drawn from for ever, or not at all.

        :raises ValueError: naming the entry, its value and what it must be.
        """
        if len(self.mix) != 3 or not all(_is_number(share, 1e6) for share in self.mix) or not any(self.mix):
            raise ValueError(f"mix is {list(self.mix)}; it must be three shares from 0 on, and not all of them 0")
        for name in ("same_category", "near", "occluder", "vanish", "bend", "part", "coarse", "crowd", "inside"):
            if not _is_number(getattr(self, name), 1):
                raise ValueError(f"{name} is {getattr(self, name)}; it must be a probability, 0 to 1")
        if not 0 <= self.distractors <= MOST_DISTRACTORS:
            raise ValueError(f"distractors is {self.distractors}; it must be 0 to {MOST_DISTRACTORS}")
        if self.clip_span < 0:
            raise ValueError(f"clip_span is {self.clip_span}; it must be at least 0")


def _is_number(value: object, most: float) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value <= most


class ScenePlanner:
    """Draws plans; the same generator gives the same plan."""

    def __init__(self, tables: Tables, config: SceneConfig | None = None) -> None:
        self.tables = tables
        self.config = config or SceneConfig()
        everything = range(len(tables.targets))
        in_clips = {target for clip in tables.clips for target in clip.targets}
        self._masked = by_source(tables, (n for n in everything if tables.targets[n].canvas >= 0))
        self.native = by_source(tables, (n for n in everything if n not in in_clips and self._followable(n)))
        self.crowded = by_source(tables, self._in_crowds(in_clips))
        self._clips = [clip for clip in tables.clips if sum(t >= 0 for t in clip.targets) >= 2]
        self._categories: dict[str, list[int]] = defaultdict(list)
        for number, target in enumerate(tables.targets):
            large = target.box[2] * target.box[3] > 400
            if target.canvas >= 0 and target.category and large and number not in in_clips:
                self._categories[target.category].append(number)
        possible = (self._masked[0] and tables.images, self.native[0], self._clips)
        mix = np.array([share if able else 0.0 for share, able in zip(self.config.mix, possible, strict=True)])
        if not mix.sum():
            raise ValueError(
                f"these images allow no sequence with the mix {self.config.mix}: masks give pasted sequences, "
                "boxes native ones, clips of at least two frames with a target clip ones"
            )
        self._mix = mix / mix.sum()

    def _followable(self, number: int) -> bool:
        """Tell whether a target is small enough to move in its own image."""
        target = self.tables.targets[number]
        if target.image < 0:
            return False
        image = self.tables.images[target.image]
        return target.box[2] * target.box[3] < LARGEST_NATIVE * image.width * image.height

    def _in_crowds(self, in_clips: set[int]) -> list[int]:
        """Find targets beside others of their category and of similar size."""
        images: dict[tuple[int, str], list[int]] = defaultdict(list)
        for number, target in enumerate(self.tables.targets):
            if number not in in_clips and target.category:
                images[target.image, target.category].append(number)
        crowded = []
        for members in images.values():
            areas = np.array([np.prod(self.tables.targets[n].box[2:]) for n in members])
            alike = np.abs(np.log(areas[:, None] / areas)) < np.log(ALIKE)
            beside = alike.sum(1) > 1
            crowded += [n for n, crowd in zip(members, beside, strict=True) if crowd and self._followable(n)]
        return crowded

    def plan(self, rng: np.random.Generator, times: Floats, clean: int) -> PlannedScene | None:
        """Plan frames at ``times`` (0..1); None if the draw is unusable.

        :param clean: number of first frames in which nothing hides the target.
        """
        kind = int(rng.choice(3, p=self._mix))
        if kind == 0:
            return self._pasted(rng, times, clean)
        stage = self._native_stage(rng, times) if kind == 1 else self._clip_stage(rng, times)
        return None if stage is None else self._photographed(rng, times, clean, *stage)

    def _pasted(self, rng: np.random.Generator, times: Floats, clean: int) -> PlannedScene:
        """Plan an object drawn over another image."""
        config, count = self.config, len(times)
        target = self.tables.targets[_draw(self._masked, rng)]
        image = int(rng.integers(len(self.tables.images)))
        size = self._size(image)
        extent = np.array(size, np.float64)
        views = self._camera(rng, times, extent, zoom=rng.uniform(1.0, 1.6), turn=8.0)
        own = np.array(target.box[2:])
        side = float(np.exp(rng.uniform(np.log(20), np.log(min(130, 0.33 * extent.min())))))
        path = smooth(rng, times, (0.3, 0.3, 0.3, 15.0, 0.15))
        centers = (rng.uniform(0.25, 0.75, 2) + path[:, :2]) * extent
        part = self.draw_part(rng, target)
        shape = part or self.tables.shape(target)
        scale = (WHOLE_OVER_PART if part else 1) * side / np.sqrt(own.prod()) * np.exp(path[:, 2])
        transforms = _placed(own, centers, scale, path[:, 3], path[:, 4])
        if part:  # the part moves along the path, not the object's centre
            transforms[..., 2] += centers - apply(transforms, part.hull.mean(0, keepdims=True, dtype=np.float64))[:, 0]
        bend = self._bend(rng, times) if rng.random() < config.bend else None
        boxes = bounding_boxes(apply(transforms, bent(shape.hull.astype(np.float64), bend)))
        others = self._distractors(rng, times, target, side, boxes, extent)
        gone = (np.arange(count) >= clean) & (rng.random(count) < config.vanish)
        drawn = Layer(target.canvas, transforms, ~gone, _gains(rng, count), bend)
        covers = self._occluder(rng, boxes, clean)
        visible = visibility(shape, transforms, size, covers) * ~gone
        layers = (*(layer for _, layer in others), drawn, *(layer for _, layer in covers))
        return PlannedScene(*size, np.full(count, image), views, layers, clip_boxes(boxes, size), visible)

    def _native_stage(self, rng: np.random.Generator, times: Floats) -> tuple[list[int], Floats]:
        """Choose a native target and move the camera over its image."""
        crowd = self.config.crowd and self.crowded[0] and rng.random() < self.config.crowd
        number = _draw(self.crowded if crowd else self.native, rng)
        target = self.tables.targets[number]
        extent = np.array(self._size(target.image), np.float64)
        # Without an outline, a rotated target would no longer fit its box.
        turn = 8.0 if target.canvas >= 0 else 2.0
        return [number] * len(times), self._camera(rng, times, extent, zoom=rng.uniform(1.0, 1.2), turn=turn)

    def _clip_stage(self, rng: np.random.Generator, times: Floats) -> tuple[list[int], Floats] | None:
        """Choose frames of a real clip, with little camera motion."""
        clip = self._clips[rng.integers(len(self._clips))]
        span = min(self.config.clip_span, len(clip.images) - 1)
        first = int(rng.integers(0, len(clip.images) - span))
        numbers = [clip.targets[first + round(t * span)] for t in times]
        if min(numbers) < 0:
            return None
        extent = np.array(self._size(self.tables.targets[numbers[0]].image), np.float64)
        turn, log_aspect = rng.uniform(-5, 5), rng.uniform(-0.1, 0.1)
        steady = np.ones(len(times))
        zoom = rng.uniform(1.0, 1.15)
        return numbers, similarity(
            extent / 2 * np.ones((len(times), 1)), extent / 2, zoom * steady, turn * steady, log_aspect * steady
        )

    def _photographed(
        self, rng: np.random.Generator, times: Floats, clean: int, numbers: list[int], views: Floats
    ) -> PlannedScene:
        """Plan a scene whose target is part of its images."""
        targets = [self.tables.targets[number] for number in numbers]
        size = self._size(targets[0].image)
        places = np.array([[[t.box[2], 0, t.box[0]], [0, t.box[3], t.box[1]]] for t in targets])
        transforms = compose(views, places)
        part = self.draw_part(rng, targets[0]) if len(set(numbers)) == 1 else None  # in a clip the whole may rotate
        shapes = [part or self.tables.shape(target) for target in targets]
        boxes = bounding_boxes(apply(transforms, np.stack([shape.hull for shape in shapes]).astype(np.float64)))
        side = float(np.sqrt(np.median(boxes[:, 2] * boxes[:, 3])))
        others = []
        for shape, layer in self._distractors(rng, times, targets[0], side, boxes, np.array(size, np.float64)):
            corners = np.array([[0.0, 0], [1, 0], [0, 1], [1, 1]])
            own = bounding_boxes(apply(layer.transforms, corners))
            free = covered(boxes, own) < HIDING_OVERLAP
            others.append((shape, Layer(layer.canvas, layer.transforms, free, layer.gain)))
        covers = self._occluder(rng, boxes, clean)
        visible = np.array(
            [
                visibility(shape, transforms[k : k + 1], size, [(s, _frame(layer, k)) for s, layer in covers])[0]
                for k, shape in enumerate(shapes)
            ]
        )
        images = np.array([target.image for target in targets])
        layers = tuple(layer for _, layer in (*others, *covers))
        return PlannedScene(*size, images, views, layers, clip_boxes(boxes, size), visible)

    def draw_part(self, rng: np.random.Generator, target: TargetEntry) -> Shape | None:
        """Draw a part of the object as target; None for the whole."""
        large = target.box[2] * target.box[3] >= SMALLEST_WHOLE**2
        if not self.config.part or not large or rng.random() >= self.config.part:
            return None
        return part_of(self.tables.shape(target), rng)

    def _size(self, image: int) -> tuple[int, int]:
        """Return width and height of an image."""
        entry = self.tables.images[image]
        return entry.width, entry.height

    @staticmethod
    def _camera(rng: np.random.Generator, times: Floats, extent: Floats, zoom: float, turn: float) -> Floats:
        """Draw a camera's motion over an image."""
        moved = smooth(rng, times, (0.06, 0.06, 0.08, turn, 0.08))
        center = extent / 2
        return similarity(center + moved[:, :2] * extent, center, zoom * np.exp(moved[:, 2]), moved[:, 3], moved[:, 4])

    @staticmethod
    def _bend(rng: np.random.Generator, times: Floats) -> Floats:
        """Draw a bending field that changes over time."""
        strength = rng.uniform(0.01, 0.06)
        knots = rng.uniform(-strength, strength, (3, KNOTS * KNOTS * 2))
        field: Floats = (parabola(times) @ knots).reshape(len(times), KNOTS, KNOTS, 2)
        return field

    def _distractors(
        self, rng: np.random.Generator, times: Floats, target: TargetEntry, side: float, boxes: Floats, extent: Floats
    ) -> list[tuple[Shape, Layer]]:
        """Place other objects of about the target's size, many of them of its category and near it."""
        others: list[tuple[Shape, Layer]] = []
        if not self._masked[0]:
            return others
        centers = boxes[:, :2] + boxes[:, 2:] / 2
        for _ in range(int(rng.integers(0, self.config.distractors + 1))):
            same = self._categories.get(target.category, [])
            alike = len(same) > 1 and rng.random() < self.config.same_category
            other = self.tables.targets[same[rng.integers(len(same))] if alike else _draw(self._masked, rng)]
            path = smooth(rng, times, (0.3, 0.3, 0.2, 10.0, 0.1))
            if rng.random() < self.config.near:
                angle, distance = rng.uniform(0, 2 * np.pi), rng.uniform(0.7, 2.5) * side
                start = centers[0] + distance * np.array([np.cos(angle), np.sin(angle)])
                way = start + path[:, :2] * 3 * side
            else:
                way = (rng.uniform(0, 1, 2) + path[:, :2]) * extent
            own = np.array(other.box[2:])
            scale = side * np.exp(rng.normal(0, 0.4) + path[:, 2]) / np.sqrt(own.prod())
            transforms = _placed(own, way, scale, path[:, 3], path[:, 4])
            shown = np.ones(len(times), bool)
            others.append((self.tables.shape(other), Layer(other.canvas, transforms, shown, _gains(rng, len(times)))))
        return others

    def _occluder(self, rng: np.random.Generator, boxes: Floats, clean: int) -> list[tuple[Shape, Layer]]:
        """Place an object over the target in about half of the frames after the first ``clean``."""
        count = len(boxes)
        if not self._masked[0] or rng.random() >= self.config.occluder:
            return []
        cover = self.tables.targets[_draw(self._masked, rng)]
        shown = (np.arange(count) >= clean) & (rng.random(count) < 0.5)
        own = np.array(cover.box[2:])
        centers = boxes[:, :2] + boxes[:, 2:] / 2 + rng.normal(0, 0.4, (count, 2)) * boxes[:, 2:]
        scale = rng.uniform(0.5, 1.6, count) * np.sqrt(np.maximum(boxes[:, 2:].prod(1), 1)) / np.sqrt(own.prod())
        still = np.zeros(count)
        layer = Layer(cover.canvas, _placed(own, centers, scale, still, still), shown, _gains(rng, count))
        return [(self.tables.shape(cover), layer)]


def _placed(size: Floats, centers: Floats, scale: Floats, degrees: Floats, log_aspect: Floats) -> Floats:
    """Return the transforms, units to frame, of an object of ``size`` pixels, scaled and rotated around ``centers``."""
    own = similarity(centers, size / 2, scale, degrees, log_aspect)
    units = np.array([[[size[0], 0, 0], [0, size[1], 0]]])
    return compose(own, units)


def _gains(rng: np.random.Generator, count: int) -> Floats:
    """Draw an object's gain: a constant difference from the scene's, and small changes between frames."""
    steady = 1 + rng.uniform(-0.15, 0.15) + rng.uniform(-0.06, 0.06, 3)
    return steady * (1 + rng.normal(0, 0.05, (count, 1)))


def _frame(layer: Layer, k: int) -> Layer:
    """Return one frame of a layer."""
    part = slice(k, k + 1)
    return Layer(layer.canvas, layer.transforms[part], layer.shown[part], layer.gain[part])


def _draw(groups: tuple[list[list[int]], Floats], rng: np.random.Generator) -> int:
    """Draw a source, then one of its targets."""
    members, shares = groups
    group = members[int(rng.choice(len(members), p=shares))]
    return group[int(rng.integers(len(group)))]
