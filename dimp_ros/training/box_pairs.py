# SPDX-License-Identifier: Apache-2.0
"""Examples for the box refiner: a reference window with the target's box, and search windows of the same target.

Search windows lie round a box that is wrong as the tracker's are. Those of videos are frames of the whole clip; others
are the reference image again, turned, stretched and mirrored by known amounts, with any rectangle as the target, or
synthetic scenes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from dimp_ros.geometry.box import Box
from dimp_ros.images.closer_window import CloserWindow, crop_window, resample, turned_box
from dimp_ros.model.sizes import CLOSER_CONTEXT, CLOSER_SIZE
from dimp_ros.training.frame_store import FrameStore, StoredVideo
from dimp_ros.training.scene_pairs import SceneViews

Floats = NDArray[np.float64]
SHORTEST = 8.0
LARGEST_ASPECT = 6.0


class PairBatch(NamedTuple):
    """``references`` and ``searches`` ``uint8 [B, S, S, 3]`` BGR, ``boxes`` ``float32 [B, 4]`` in reference window
    pixels, ``edges`` ``float32 [B * R, 4]`` in search window sides; R search windows for each reference, in order.
    """

    references: NDArray[np.uint8]
    boxes: NDArray[np.float32]
    searches: NDArray[np.uint8]
    edges: NDArray[np.float32]


class PairSampler:
    """Draws examples from a store.

    :param clips: share of the draws that are from videos. :param searches: search windows for each reference.
    :param scenes: synthetic scenes, which get ``scene_share`` of the draws.
    :param weights: how often a source is drawn, 1 by default.
    """

    def __init__(
        self,
        store: FrameStore,
        seed: int,
        clips: float = 0.7,
        searches: int = 2,
        scenes: SceneViews | None = None,
        scene_share: float = 0.3,
        weights: Mapping[str, float] | None = None,
    ) -> None:
        self.store, self.clips, self.searches = store, clips, searches
        self.rng = np.random.default_rng(seed)
        self._scenes, self._scene_share = scenes, scene_share if scenes else 0.0
        videos = [video for video in store.videos if len(video.frames) > 1]
        stills = [video for video in store.videos if len(video.frames) == 1]
        self._groups = [by_source(group, weights) for group in (videos, stills)]

    def batch(self, count: int) -> PairBatch:
        """Draw ``count`` references, each with its search windows."""
        drawn = [self._example() for _ in range(count)]
        return PairBatch(
            np.stack([item[0] for item in drawn]),
            np.stack([item[1] for item in drawn]).astype(np.float32),
            np.concatenate([item[2] for item in drawn]),
            np.concatenate([item[3] for item in drawn]).astype(np.float32),
        )

    def _example(self) -> tuple[NDArray[np.uint8], Floats, NDArray[np.uint8], Floats]:
        while True:
            if self.rng.random() < self._scene_share:
                if (example := self._of_scene()) is not None:
                    return example
                continue
            still = self.rng.random() >= self.clips
            members, shares = self._groups[still]
            if not members:
                continue
            group = members[self.rng.choice(len(members), p=shares)]
            video = group[self.rng.integers(len(group))]
            example = self._of_video(video)
            if example is not None:
                return example

    def _of_video(self, video: StoredVideo) -> tuple[NDArray[np.uint8], Floats, NDArray[np.uint8], Floats] | None:
        rng = self.rng
        track = video.tracks[rng.integers(len(video.tracks))]
        known = [i for i, box in enumerate(track) if box is not None and usable(Box(*box))]
        if not known:
            return None
        at = known[rng.integers(len(known))]
        image = self.store.image(video.frames[at])
        box = _box(track[at])
        if rng.random() < 0.15:
            box, known = any_rectangle(rng, box, image.shape), [at]
        window = CloserWindow.around(box, CLOSER_CONTEXT, CLOSER_SIZE)
        matrix, corner = _map_of(window)
        reference = resample(image, matrix, corner, CLOSER_SIZE)
        searches = []
        for _ in range(self.searches):
            if len(known) > 1 and rng.random() < 0.8:
                searches.append(self._real(video, track, self._other(known, at)))
            else:
                searches.append(self._transformed(image, box))
        return self._seen(reference, window.box_to_window(box), searches)

    def _of_scene(self) -> tuple[NDArray[np.uint8], Floats, NDArray[np.uint8], Floats] | None:
        def windows_of(boxes: Sequence[Box]) -> list[CloserWindow]:
            if not all(usable(box) for box in boxes):
                return []
            starts = [boxes[0], *(perturbed(self.rng, box) for box in boxes[1:])]
            return [CloserWindow.around(start, CLOSER_CONTEXT, CLOSER_SIZE) for start in starts]

        assert self._scenes is not None
        drawn = self._scenes.draw(self.rng, 1 + self.searches, windows_of)
        if drawn is None:
            return None
        crops, boxes, windows = drawn
        searches = [(c, w.edges(b)) for c, w, b in zip(crops[1:], windows[1:], boxes[1:], strict=True)]
        return self._seen(crops[0], windows[0].box_to_window(boxes[0]), searches)

    def _seen(
        self, reference: NDArray[np.uint8], box: Box, searches: Sequence[tuple[NDArray[np.uint8], Floats]]
    ) -> tuple[NDArray[np.uint8], Floats, NDArray[np.uint8], Floats]:
        """Return an example as a camera sees it, mirrored half of the time."""
        look = Look(self.rng)
        own = np.array(box)
        crops = [look.changed(crop, self.rng) for crop, _ in searches]
        edges = np.stack([edge for _, edge in searches])
        if self.rng.random() < 0.5:
            reference, own[0] = reference[:, ::-1], CLOSER_SIZE - own[0] - own[2]
            crops = [crop[:, ::-1] for crop in crops]
            edges = np.column_stack((1 - edges[:, 2], edges[:, 1], 1 - edges[:, 0], edges[:, 3]))
        return look.common(reference), own, np.stack([look.common(crop) for crop in crops]), edges

    def _other(self, known: list[int], at: int) -> int:
        """Draw a frame, from the whole clip or near the reference."""
        if self.rng.random() < 0.3:
            near = [i for i in known if abs(i - at) <= 10]
            return near[self.rng.integers(len(near))]
        return known[self.rng.integers(len(known))]

    def _real(self, video: StoredVideo, track: list[list[float] | None], at: int) -> tuple[NDArray[np.uint8], Floats]:
        """Return a search window in another frame, half of the time round the box of a neighbouring frame."""
        rng, truth = self.rng, _box(track[at])
        start = truth
        if rng.random() < 0.5:
            last = track[min(max(at + int(rng.integers(-4, 5)), 0), len(track) - 1)]
            if last is not None:
                size = Box(*last)
                start = Box.from_center(*truth.center, max(size.w, SHORTEST), max(size.h, SHORTEST))
        window = CloserWindow.around(perturbed(rng, start), CLOSER_CONTEXT, CLOSER_SIZE)
        matrix, corner = _map_of(window)
        crop = resample(self.store.image(video.frames[at]), matrix, corner, CLOSER_SIZE)
        return crop, window.edges(truth)

    def _transformed(self, image: NDArray[np.uint8], box: Box) -> tuple[NDArray[np.uint8], Floats]:
        """Return a search window in the same image, as if it had been turned and stretched about the target."""
        rng = self.rng
        plain = rng.random() < 0.4
        angle = 0.0 if plain else math.radians(rng.normal(0, 8))
        stretch = np.ones(2) if plain else np.exp(rng.normal(0, 0.12, 2))
        turn = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
        forward = np.diag(stretch) @ turn
        truth = turned_box(box, forward)
        window = CloserWindow.around(perturbed(rng, truth), CLOSER_CONTEXT, CLOSER_SIZE)
        return crop_window(image, window, forward, box.center), window.edges(truth)


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


def by_source(
    videos: list[StoredVideo], weights: Mapping[str, float] | None = None
) -> tuple[list[list[StoredVideo]], Floats]:
    """Group videos by source, with a probability for each: its weight times the square root of its number of boxes."""
    groups: dict[str, list[StoredVideo]] = {}
    for video in videos:
        groups.setdefault(video.source, []).append(video)
    members = [groups[source] for source in sorted(groups)]
    shares = np.array(
        [
            (weights or {}).get(group[0].source, 1.0)
            * math.sqrt(sum(len(video.frames) * len(video.tracks) for video in group))
            for group in members
        ]
    )
    return members, shares / max(shares.sum(), 1e-9)


def _box(values: list[float] | None) -> Box:
    assert values is not None
    return Box(*values)


def _map_of(window: CloserWindow) -> tuple[Floats, Floats]:
    """Return scale ``[2, 2]`` and corner ``[2]`` that lead from window to image pixels."""
    return np.diag([window.w / window.size, window.h / window.size]), np.array([window.x, window.y])
