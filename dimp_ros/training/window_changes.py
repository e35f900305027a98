# SPDX-License-Identifier: Apache-2.0
"""What makes the windows of the box refiner's training differ: wrong boxes, covered targets, light, blur, noise."""

from __future__ import annotations

import math

import cv2
import numpy as np
from numpy.typing import NDArray

from dimp_ros.geometry.box import Box
from dimp_ros.model.sizes import CLOSER_SIZE

SHORTEST = 8.0
LARGEST_ASPECT = 6.0


def perturbed(rng: np.random.Generator, box: Box) -> Box:
    """Return a box that is wrong as the tracker's are: displaced, and its sides off by factors of 0.5 to 2."""
    kind = rng.random()
    if kind < 0.45:
        size = rng.normal(0, 0.12, 2) + rng.normal(0, 0.1)
        shift = rng.normal(0, 0.07, 2)
    elif kind < 0.8:
        size = rng.normal(0, 0.22, 2) + rng.normal(0, 0.2)
        shift = rng.normal(0, 0.13, 2)
    else:
        size = rng.uniform(-math.log(2), math.log(2), 2)
        shift = rng.uniform(-0.25, 0.25, 2)
    w, h = box.w * math.exp(np.clip(size[0], -0.75, 0.75)), box.h * math.exp(np.clip(size[1], -0.75, 0.75))
    cx, cy = box.center
    return Box.from_center(cx + shift[0] * box.w, cy + shift[1] * box.h, max(w, 4.0), max(h, 4.0))


def overlapping(a: Box, b: Box) -> bool:
    """Tell whether two boxes share a pixel."""
    return a.x < b.x + b.w and b.x < a.x + a.w and a.y < b.y + b.h and b.y < a.y + a.h


def hidden(rng: np.random.Generator, image: NDArray[np.uint8], box: Box) -> NDArray[np.uint8]:
    """Return an image in which another part of it covers ``box``, with a soft border."""
    height, width = image.shape[:2]
    margin = 0.15 * math.sqrt(box.area)
    x0, y0 = max(int(box.x - margin), 0), max(int(box.y - margin), 0)
    w, h = min(int(box.x + box.w + margin) + 1, width) - x0, min(int(box.y + box.h + margin) + 1, height) - y0
    if w < 1 or h < 1:
        return image
    share = rng.uniform(0.3, 1.0)  # of the region: a smaller part is enlarged
    pw, ph = max(int(w * share), 1), max(int(h * share), 1)
    for _ in range(10):
        px, py = int(rng.integers(width - pw + 1)), int(rng.integers(height - ph + 1))
        if not overlapping(Box(px, py, pw, ph), box):
            break
    part = cv2.resize(image[py : py + ph, px : px + pw], (w, h), interpolation=cv2.INTER_LINEAR)
    if rng.random() < 0.3:  # a plain surface
        part = np.broadcast_to(part.mean((0, 1)), part.shape)
    opaque = np.zeros((h, w), np.float32)
    half = margin / 2
    left, top = max(int(box.x - half) - x0, 0), max(int(box.y - half) - y0, 0)
    opaque[top : int(box.y + box.h + half) + 2 - y0, left : int(box.x + box.w + half) + 2 - x0] = 1
    edge = 2 * int(half / 2) + 1
    opaque = cv2.blur(opaque, (edge, edge), borderType=cv2.BORDER_REPLICATE)[..., None]
    result = image.copy()
    region = result[y0 : y0 + h, x0 : x0 + w]
    region[:] = np.clip(opaque * part + (1 - opaque) * region, 0, 255).astype(np.uint8)
    return result


def any_rectangle(rng: np.random.Generator, box: Box, shape: tuple[int, ...]) -> Box:
    """Return a rectangle within ``box`` or anywhere in an image of ``shape``: any box that is shown has to be drawn."""
    outer = box if rng.random() < 0.6 else Box(0.0, 0.0, float(shape[1]), float(shape[0]))
    least, most = (0.35, 0.95) if outer is box else (0.1, 0.5)
    w, h = (max(rng.uniform(least, most) * side, SHORTEST) for side in (outer.w, outer.h))
    ratio = w / h
    if not 1 / LARGEST_ASPECT < ratio < LARGEST_ASPECT:
        w = h = math.sqrt(w * h)
    x = outer.x + rng.uniform(0, max(outer.w - w, 1e-3))
    y = outer.y + rng.uniform(0, max(outer.h - h, 1e-3))
    return Box(x, y, w, h)


def usable(box: Box) -> bool:
    """Tell whether a box is neither too small nor too long to learn from."""
    return min(box.w, box.h) >= SHORTEST and 1 / LARGEST_ASPECT < box.w / box.h < LARGEST_ASPECT


class Look:
    """How a camera sees one example: what is common to its windows, and changes of a single one."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.grey = rng.random() < 0.08
        self.gain = np.exp(rng.normal(0, 0.08, 3) + rng.normal(0, 0.15)) if rng.random() < 0.4 else np.ones(3)
        self.offset = float(rng.normal(0, 8)) if rng.random() < 0.3 else 0.0
        self.side = round(CLOSER_SIZE * math.exp(rng.uniform(math.log(0.16), 0))) if rng.random() < 0.35 else 0
        self.quality = int(rng.integers(20, 75)) if rng.random() < 0.25 else 0

    def common(self, crop: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Apply what is common: light, the resolution of a small or far target, and compression."""
        crop = self._recorded(crop)
        if self.grey:
            crop = np.repeat(cv2.cvtColor(crop, cv2.COLOR_BGR2GRAY)[..., None], 3, 2).astype(np.uint8)
        if self.offset or self.gain[0] != 1:
            return np.clip(crop * self.gain + self.offset, 0, 255).astype(np.uint8)
        return np.ascontiguousarray(crop)

    def _recorded(self, crop: NDArray[np.uint8]) -> NDArray[np.uint8]:
        shape = crop.shape[1::-1]
        if self.side:
            crop = np.asarray(cv2.resize(crop, (self.side, self.side), interpolation=cv2.INTER_AREA), np.uint8)
        if self.quality:
            _, encoded = cv2.imencode(".jpg", crop, [cv2.IMWRITE_JPEG_QUALITY, self.quality])
            crop = np.asarray(cv2.imdecode(encoded, cv2.IMREAD_COLOR), np.uint8)
        return np.asarray(cv2.resize(crop, shape, interpolation=cv2.INTER_LINEAR), np.uint8) if self.side else crop

    def changed(self, crop: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
        """Apply light, blur, coarseness and noise of one window."""
        kind = rng.random(4)
        out = crop
        if kind[0] < 0.12:
            length = int(rng.integers(3, 14))
            angle = rng.uniform(0, math.pi)
            kernel = np.zeros((length, length), np.float32)
            reach = (length - 1) / 2 * np.array([math.cos(angle), math.sin(angle)])
            ends = [tuple(int(v) for v in np.rint((length - 1) / 2 + sign * reach)) for sign in (-1, 1)]
            cv2.line(kernel, ends[0], ends[1], 1.0)
            out = np.asarray(cv2.filter2D(out, -1, kernel / kernel.sum(), borderType=cv2.BORDER_REPLICATE), np.uint8)
        if kind[1] < 0.1:
            small = cv2.resize(out, None, fx=(f := rng.uniform(0.25, 0.7)), fy=f, interpolation=cv2.INTER_AREA)
            out = np.asarray(cv2.resize(small, crop.shape[1::-1], interpolation=cv2.INTER_LINEAR), np.uint8)
        if kind[2] < 0.5:
            gain = np.exp(rng.normal(0, 0.04, 3) + rng.normal(0, 0.12))
            out = np.clip(out * gain + rng.normal(0, 6), 0, 255).astype(np.uint8)
        if kind[3] < 0.1:
            out = np.clip(out + rng.normal(0, rng.uniform(2, 8), out.shape), 0, 255).astype(np.uint8)
        return out
