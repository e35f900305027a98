# SPDX-License-Identifier: Apache-2.0
"""Take a target out of real images: its place is covered with another part of the same image.

Few annotated sequences have frames without the target. Where every frame has a true box, the target can be hidden: what
covers it is real texture of the same frame, chosen so that it goes with what surrounds the target, matched in colour
and blended in over a margin outside the box. The same source is kept from frame to frame as long as it fits.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from dimp_ros.evaluation.metrics import annotated
from dimp_ros.evaluation.sequences import VideoSequence
from dimp_ros.geometry.box import Box

VERSION = 1
"""Version of the hiding, part of a hidden sequence's name."""

VISIBLE_FRAMES = 30
HIDDEN_FRAMES = (10, 20, 40)
LEAST_RETURN = 10
"""The target is hidden after 30 visible frames, for 10, 20 and 40 frames in turn, if 10 more frames follow."""

MARGIN = 0.3
"""Width of the covered strip around the box, in target sizes sqrt(w * h), for shadows and loose boxes."""

LARGEST_SHARE = 0.4
"""Largest share of the image that can be hidden by the rest of it."""

ENLARGEMENTS = (1.0, 1.5, 2.0, 3.0, 4.0)
GOOD_COST = 15.0**2
"""Squared difference of colours at which no larger enlargement is tried."""

LIKENESS = 0.5
"""Correlation with the target above which a patch may show a similar object and is not used."""

LARGEST_CHANGE = 25.0
"""Largest change of a patch's colours to match its surroundings, of 255."""

COMPARED_SIDE = 32
"""Side of the covered region in the search, pixels."""

REACH = 4
"""Distance from the region in which patches are searched, in its longer sides."""

CONTINUATION = 0.4
"""Weight of the expected continuation inside the region, relative to the ring around it."""

Rectangle = tuple[int, int, int, int]
Floats = NDArray[np.float32]
Image = NDArray[np.uint8]


class CoverPatch(NamedTuple):
    """The part of the image that covers a target: its centre relative to the region's in pixels, and its enlargement.

    ``cost``: mean squared difference between its surroundings and the region's when it was chosen.
    """

    dx: float
    dy: float
    enlargement: float
    cost: float = 0.0


def covered(box: Box, width: int, height: int) -> Rectangle:
    """Return the rectangle ``(x0, y0, x1, y1)`` that is covered to hide the target in ``box``: box and margin."""
    margin = max(MARGIN * math.sqrt(box.area), 3.0)
    x0, y0 = max(math.floor(box.x - margin), 0), max(math.floor(box.y - margin), 0)
    x1, y1 = min(math.ceil(box.x + box.w + margin), width), min(math.ceil(box.y + box.h + margin), height)
    return x0, y0, x1, y1


def find_cover_patch(image: Image, box: Box, kept: CoverPatch | None = None) -> CoverPatch | None:
    """Choose the part of the image that best matches the target's surroundings; None if there is none.

    :param kept: the patch of the previous frame, which is kept while it matches.
    """
    height, width = image.shape[:2]
    region = covered(box, width, height)
    x0, y0, x1, y1 = region
    if x1 - x0 < 2 or y1 - y0 < 2 or (x1 - x0) * (y1 - y0) > LARGEST_SHARE * width * height:
        return None
    if kept is not None and _usable(kept, region, image.shape[:2]):
        if _cost(image, region, kept) < 1.5 * max(kept.cost, GOOD_COST):
            return kept
    best: CoverPatch | None = None
    for enlargement in ENLARGEMENTS:
        candidate = _best_at(image, box, region, enlargement)
        # Enlarged texture is softer than its surroundings, so it must match better.
        if candidate is not None and (best is None or candidate.cost * enlargement < best.cost * best.enlargement):
            best = candidate
        if best is not None and best.cost * best.enlargement < GOOD_COST:
            break
    return best


def hide(image: Image, box: Box, source: CoverPatch) -> Image:
    """Return a copy of the image in which the target's box and its margin are covered by ``source``."""
    height, width = image.shape[:2]
    x0, y0, x1, y1 = region = covered(box, width, height)
    border = _ring(region)
    patch = _patch(image, region, source, border)
    inner = (slice(border, -border), slice(border, -border))
    known = np.zeros(patch.shape[:2], np.float32)
    around = np.zeros_like(patch)
    outside = (max(border - y0, 0), max(border - x0, 0), max(y1 + border - height, 0), max(x1 + border - width, 0))
    here = (slice(outside[0], known.shape[0] - outside[2]), slice(outside[1], known.shape[1] - outside[3]))
    known[here] = 1
    around[here] = image[max(y0 - border, 0) : y1 + border, max(x0 - border, 0) : x1 + border]
    known[inner] = 0
    light = np.clip(_diffuse((around - patch) * known[..., None], known), -LARGEST_CHANGE, LARGEST_CHANGE)
    painted = (patch + light)[inner]
    weight = _feather(region, box, (height, width))[..., None]
    result = image.copy()
    target = result[y0:y1, x0:x1]
    target[:] = np.clip(np.rint(weight * painted + (1 - weight) * target), 0, 255).astype(np.uint8)
    return result


def _feather(region: Rectangle, box: Box, size: tuple[int, ...]) -> Floats:
    """Return the opacity of the patch: 1 over the box, falling to 0 at the region's border; 1 at the image border."""
    x0, y0, x1, y1 = region

    def ramp(low: int, high: int, start: float, end: float, limit: int) -> Floats:
        at = np.arange(low, high) + 0.5
        rise = (at - low) / max(start - low, 1) if low > 0 else np.ones_like(at)
        fall = (high - at) / max(high - end, 1) if high < limit else np.ones_like(at)
        # Opaque over the inner two thirds of the margin.
        return np.clip(3 * np.minimum(rise, fall), 0, 1).astype(np.float32)

    rows = ramp(y0, y1, box.y, box.y + box.h, size[0])
    columns = ramp(x0, x1, box.x, box.x + box.w, size[1])
    return np.asarray(rows[:, None] * columns[None, :], dtype=np.float32)


def _diffuse(values: Floats, known: Floats) -> Floats:
    """Continue ``values [H, W, 3]``, zero where unknown, smoothly to where ``known [H, W]`` is 0."""
    height, width = known.shape
    small = (max(min(width, 48), 2), max(min(height, 48), 2))
    value = cv2.resize(values, small, interpolation=cv2.INTER_AREA)
    weight = cv2.resize(known, small, interpolation=cv2.INTER_AREA)
    result = np.zeros_like(value)
    filled = np.zeros_like(weight)
    for sigma in (4.0, 8.0, 16.0, 32.0):  # nearby values first, then farther ones
        blurred_weight = cv2.GaussianBlur(weight, (0, 0), sigma, borderType=cv2.BORDER_CONSTANT)
        blurred = cv2.GaussianBlur(value, (0, 0), sigma, borderType=cv2.BORDER_CONSTANT)
        share = np.clip(blurred_weight * 8, 0, 1) * (1 - filled)
        result += (share / np.maximum(blurred_weight, 1e-6))[..., None] * blurred
        filled += share
    result /= np.maximum(filled, 1e-6)[..., None]
    return np.asarray(cv2.resize(result, (width, height), interpolation=cv2.INTER_CUBIC), dtype=np.float32)


def _rectangle(region: Rectangle, source: CoverPatch) -> tuple[float, float, float, float]:
    """Return the patch's rectangle ``(x0, y0, x1, y1)`` in the image."""
    x0, y0, x1, y1 = region
    cx, cy = (x0 + x1) / 2 + source.dx, (y0 + y1) / 2 + source.dy
    w, h = (x1 - x0) / source.enlargement / 2, (y1 - y0) / source.enlargement / 2
    return cx - w, cy - h, cx + w, cy + h


def _usable(source: CoverPatch, region: Rectangle, size: tuple[int, ...]) -> bool:
    """Tell whether a patch lies in the image and outside the region."""
    x0, y0, x1, y1 = _rectangle(region, source)
    inside = x0 >= 0 and y0 >= 0 and x1 <= size[1] and y1 <= size[0]
    return bool(inside and (x1 <= region[0] or x0 >= region[2] or y1 <= region[1] or y0 >= region[3]))


def _patch(image: Image, region: Rectangle, source: CoverPatch, border: int) -> Floats:
    """Return the patch at the size of the region, with ``border`` more pixels on each side."""
    x0, y0, x1, y1 = region
    width, height = x1 - x0 + 2 * border, y1 - y0 + 2 * border
    left, top, _, _ = _rectangle(region, source)
    step = 1 / source.enlargement
    transform = np.array([[step, 0, left - border * step], [0, step, top - border * step]])
    transform[:, 2] += step / 2 - 0.5  # pixel i's centre is at i + 0.5
    flags = cv2.WARP_INVERSE_MAP | (cv2.INTER_LINEAR if source.enlargement > 1 else cv2.INTER_NEAREST)
    patch = cv2.warpAffine(image, transform, (width, height), flags=flags, borderMode=cv2.BORDER_REFLECT_101)
    return np.asarray(patch, dtype=np.float32)


def _cost(image: Image, region: Rectangle, source: CoverPatch) -> float:
    """Return the mean squared difference between the surroundings of patch and target."""
    border = _ring(region)
    x0, y0, x1, y1 = region
    padded = cv2.copyMakeBorder(image, border, border, border, border, cv2.BORDER_REFLECT_101)
    difference = padded[y0 : y1 + 2 * border, x0 : x1 + 2 * border] - _patch(image, region, source, border)
    ring = np.ones(difference.shape[:2], bool)
    ring[border:-border, border:-border] = False
    return float(np.square(difference[ring]).mean())


def _ring(region: Rectangle) -> int:
    """Return the width of the compared ring around a region, pixels."""
    return max(min(region[2] - region[0], region[3] - region[1]) // 6, 2)


def _best_at(image: Image, box: Box, region: Rectangle, enlargement: float) -> CoverPatch | None:
    """Return the best patch at one enlargement, searched at reduced size."""
    height, width = image.shape[:2]
    x0, y0, x1, y1 = region
    border = _ring(region)
    reach = REACH * max(x1 - x0, y1 - y0)
    sx0, sy0 = max(x0 - reach, 0), max(y0 - reach, 0)
    area = image[sy0 : min(y1 + reach, height), sx0 : min(x1 + reach, width)]
    reduce = min(1.0, COMPARED_SIDE / max(x1 - x0, y1 - y0))
    small = cv2.resize(area, None, fx=reduce, fy=reduce, interpolation=cv2.INTER_AREA).astype(np.float32)
    rx, ry = small.shape[1] / area.shape[1], small.shape[0] / area.shape[0]

    padded = cv2.copyMakeBorder(image, border, border, border, border, cv2.BORDER_REFLECT_101)
    template = padded[y0 : y1 + 2 * border, x0 : x1 + 2 * border].astype(np.float32)
    w = max(round((x1 - x0) / enlargement * rx), 2)
    h = max(round((y1 - y0) / enlargement * ry), 2)
    b = max(round(border / enlargement * min(rx, ry)), 1)
    template = cv2.resize(template, (w + 2 * b, h + 2 * b), interpolation=cv2.INTER_AREA)
    if small.shape[0] < template.shape[0] or small.shape[1] < template.shape[1]:
        return None
    # Prefer the smooth continuation of the surroundings to another object.
    ring = np.ones(template.shape[:2], np.float32)
    ring[b:-b, b:-b] = 0
    expected = np.where(ring[..., None] > 0, template, _diffuse(template * ring[..., None], ring))
    weight = np.repeat(np.maximum(ring, CONTINUATION)[..., None], 3, axis=2)
    cost = cv2.matchTemplate(small, expected, cv2.TM_SQDIFF, mask=weight) / float(np.square(weight).sum())
    left, top = (max(round((at - edge) / enlargement * r), 0) for at, edge, r in ((box.x, x0, rx), (box.y, y0, ry)))
    target = template[b + top : -b - top or None, b + left : -b - left or None].copy()
    if 0 in target.shape:  # too small to compare
        return None
    alike = cv2.matchTemplate(small, target, cv2.TM_CCOEFF_NORMED)[b + top :, b + left :]
    cost[alike[: cost.shape[0], : cost.shape[1]] > LIKENESS] = np.inf
    # Exclude positions whose inner rectangle would overlap the region.
    left, right = math.floor((x0 - sx0) * rx) - b - w - 1, math.ceil((x1 - sx0) * rx) - b + 1
    top, bottom = math.floor((y0 - sy0) * ry) - b - h - 1, math.ceil((y1 - sy0) * ry) - b + 1
    cost[max(top + 1, 0) : max(bottom, 0), max(left + 1, 0) : max(right, 0)] = np.inf
    row, column = (int(i) for i in np.unravel_index(int(np.argmin(cost)), cost.shape))
    if not np.isfinite(cost[row, column]):
        return None
    # Rounding at the reduced size must not move the patch over the edge.
    half_w, half_h = (x1 - x0) / enlargement / 2, (y1 - y0) / enlargement / 2
    cx = min(max(sx0 + (column + b + w / 2) / rx, half_w), width - half_w)
    cy = min(max(sy0 + (row + b + h / 2) / ry, half_h), height - half_h)
    source = CoverPatch(round(cx - (x0 + x1) / 2, 3), round(cy - (y0 + y1) / 2, 3), enlargement)
    if not _usable(source, region, (height, width)):
        return None
    return source._replace(cost=round(_cost(image, region, source), 3))


@dataclass(frozen=True)
class HiddenSequence(VideoSequence):
    """A sequence whose target is hidden in some frames; ``boxes`` are nan there.

    `covers`: for each of those frames the target's true box and its cover.
    """

    covers: dict[int, tuple[Box, CoverPatch]] = field(default_factory=dict, repr=False)

    def image(self, index: int) -> Image:
        """Read frame `index`, with the target hidden in the frames of `covers`."""
        image = super().image(index)
        return hide(image, *self.covers[index]) if index in self.covers else image


def intervals(length: int) -> tuple[tuple[int, int], ...]:
    """Return the intervals ``(first, end)`` in which the target of a sequence of ``length`` frames is hidden."""
    result: list[tuple[int, int]] = []
    start = VISIBLE_FRAMES
    while start + (hidden := HIDDEN_FRAMES[len(result) % len(HIDDEN_FRAMES)]) + LEAST_RETURN <= length:
        result.append((start, start + hidden))
        start += hidden + VISIBLE_FRAMES
    return tuple(result)


def with_absences(sequence: VideoSequence) -> VideoSequence | None:
    """Return a sequence with absences: itself if it has some, else one with the target hidden.

    None if it cannot be hidden: the sequence is too short, its boxes are withheld, or the target is too large. Of a
    sequence with frames of which nothing is known, the part before the first of them is taken.
    """
    if sequence.withheld:
        return None
    if sequence.gaps_unknown:
        end = int(np.append(annotated(sequence.boxes), False).argmin())
        sequence = replace(sequence, frames=sequence.frames[:end], boxes=sequence.boxes[:end])
    if not annotated(sequence.boxes).all():
        return sequence
    boxes = sequence.boxes.copy()
    covers: dict[int, tuple[Box, CoverPatch]] = {}
    for first, end in intervals(len(sequence)):
        found = _cover(sequence, first, end)
        if found is not None:
            covers.update(found)
            boxes[first:end] = np.nan
    if not covers:
        return None
    plan = hashlib.sha256(repr((VERSION, sorted(covers.items()))).encode()).hexdigest()[:6]
    name = f"{sequence.name}.hidden-{plan}"
    return HiddenSequence(name, sequence.frames, boxes, sequence.meta, film=sequence.film, covers=covers)


def _cover(sequence: VideoSequence, first: int, end: int) -> dict[int, tuple[Box, CoverPatch]] | None:
    """Choose the covers in frames ``first`` to ``end``; None if there is none in one of them."""
    covers: dict[int, tuple[Box, CoverPatch]] = {}
    source = None
    for index in range(first, end):
        box = Box(*(float(value) for value in sequence.boxes[index]))
        source = find_cover_patch(sequence.image(index), box, source)
        if source is None:
            return None
        covers[index] = (box, source)
    return covers


def hidden_sequences(sequences: Iterable[VideoSequence]) -> tuple[list[VideoSequence], list[str]]:
    """Return `with_absences` of each sequence, and the names of those that cannot be hidden."""
    made: list[VideoSequence] = []
    left_out: list[str] = []
    for sequence in sequences:
        result = with_absences(sequence)
        if result is None:
            left_out.append(sequence.name)
        else:
            made.append(result)
    return made, left_out
