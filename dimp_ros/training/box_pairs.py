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

import numpy as np
from numpy.typing import NDArray

from dimp_ros.geometry.box import Box
from dimp_ros.images.closer_window import CloserWindow, crop_window, resample, turned_box
from dimp_ros.model.sizes import CLOSER_CONTEXT, CLOSER_SIZE
from dimp_ros.training.frame_store import FrameStore, StoredVideo
from dimp_ros.training.scene_pairs import SceneViews
from dimp_ros.training.window_changes import (
    SHORTEST,
    Look,
    any_rectangle,
    hidden,
    overlapping,
    perturbed,
    usable,
)

Floats = NDArray[np.float64]
NOWHERE: Floats = np.full(4, np.nan)
"""Edges of a target that a window does not show."""


class PairBatch(NamedTuple):
    """``references`` and ``searches`` ``uint8 [B, S, S, 3]`` BGR, ``boxes`` ``float32 [B, 4]`` in reference window
    pixels, ``edges`` ``float32 [B * R, 4]`` in search window sides, nan where the window does not show the
    target; R search windows for each reference, in order.
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
    :param absent: share of the search windows of videos and stills that do not show the target.
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
        absent: float = 0.25,
    ) -> None:
        self.store, self.clips, self.searches, self.absent = store, clips, searches, absent
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
            video = self._video(still=bool(self.rng.random() >= self.clips))
            if video is not None and (example := self._of_video(video)) is not None:
                return example

    def _video(self, still: bool) -> StoredVideo | None:
        """Draw a video or a still, sources by their weight; None if there is none."""
        members, shares = self._groups[still]
        if not members:
            return None
        group = members[self.rng.choice(len(members), p=shares)]
        return group[self.rng.integers(len(group))]

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
        searches: list[tuple[NDArray[np.uint8], Floats]] = []
        for _ in range(self.searches):
            if rng.random() < self.absent:
                later = self._other(known, at)
                search = self._without(video, later, box if later == at else _box(track[later]))
                if search is not None:
                    searches.append((search, NOWHERE))
                    continue
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

    def _without(self, video: StoredVideo, at: int, own: Box) -> NDArray[np.uint8] | None:
        """Return a search window without the target: it is covered, or the window shows another object or background.

        None if the draw is unusable.

        :param at: the frame. :param own: the target's box there.
        """
        rng, kind = self.rng, self.rng.random()
        image = self.store.image(video.frames[at])
        if kind < 0.35:
            window = CloserWindow.around(perturbed(rng, own), CLOSER_CONTEXT, CLOSER_SIZE)
            return crop_window(hidden(rng, image, own), window)
        others = [_box(track[at]) for track in video.tracks if track[at] is not None]
        others = [other for other in others if usable(other) and not overlapping(other, own)]
        if kind < 0.6 and others:
            start = others[rng.integers(len(others))]
        elif kind < 0.8:
            another = self._video(still=bool(rng.random() < 0.5))
            if another is None or another is video or (another.source == video.source and len(another.frames) > 1):
                return None  # videos of one source may show the same object
            at, track = int(rng.integers(len(another.frames))), another.tracks[rng.integers(len(another.tracks))]
            if track[at] is None or not usable(start := _box(track[at])):
                return None
            image, own = self.store.image(another.frames[at]), Box(-1e6, 0, 1, 1)
        else:
            size = np.array((own.w, own.h)) * np.exp(rng.normal(0, 0.3, 2))
            start = Box.from_center(*(rng.uniform(0, side) for side in image.shape[1::-1]), *size)
        window = CloserWindow.around(perturbed(rng, start), CLOSER_CONTEXT, CLOSER_SIZE)
        if overlapping(Box(window.x, window.y, window.w, window.h), own):
            image = hidden(rng, image, own)
        return crop_window(image, window)

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
