# SPDX-License-Identifier: Apache-2.0
"""Examples for the head that finds the box of the object at a point: features of the windows around points."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dimp_ros.files.json_file import parse_object
from dimp_ros.files.outputs import in_place
from dimp_ros.geometry.box import Box
from dimp_ros.images.closer_window import crop_window, windows_at
from dimp_ros.model.backbone import Features
from dimp_ros.model.inference.network import InferenceNet
from dimp_ros.model.point_box import CELLS
from dimp_ros.model.sizes import POINT_SIZE, POINT_WINDOWS
from dimp_ros.training.box_pairs import by_source
from dimp_ros.training.frame_store import FrameStore, StoredVideo
from dimp_ros.training.refiner_network import to_images
from dimp_ros.training.window_changes import Look, usable

HEADER_BYTES = 256
"""Before the examples of a file of features."""

MARGIN = 0.22
"""Least distance of a point from the edges of its box, in sides of the box."""

ZOOM = 0.25
"""Largest change of the logarithm of the windows' sides."""


class PointExample(NamedTuple):
    """Windows around a point, ``uint8 [L, S, S, 3]`` BGR, and the edges of its box in window sides, ``float32 [L, 4]``.

    The edges are nan where the point is on no known object.
    """

    windows: NDArray[np.uint8]
    edges: NDArray[np.float32]


class PointSampler:
    """Draws points within boxes from a store.

    :param clips: share of the draws that are from videos. :param empty: share of points outside all known boxes, in
        stills.
    """

    def __init__(self, store: FrameStore, seed: int, clips: float = 0.5, empty: float = 0.08) -> None:
        self.store, self.clips, self.empty = store, clips, empty
        self.rng = np.random.default_rng(seed)
        videos = [video for video in store.videos if len(video.frames) > 1]
        stills = [video for video in store.videos if len(video.frames) == 1]
        self._groups = [by_source(group) if group else None for group in (videos, stills)]

    def example(self) -> PointExample:
        """Draw a point and its windows."""
        rng = self.rng
        while True:
            empty = rng.random() < self.empty
            group = self._groups[empty or rng.random() >= self.clips]
            if group is None:
                continue
            members, shares = group
            videos = members[rng.choice(len(members), p=shares)]
            example = self._of(videos[rng.integers(len(videos))], empty)
            if example is not None:
                return example

    def _of(self, video: StoredVideo, empty: bool) -> PointExample | None:
        """Draw from a random frame of a video; None if there is no such point."""
        rng = self.rng
        at = int(rng.integers(len(video.frames)))
        known = [Box(*values) for track in video.tracks if (values := track[at]) is not None]
        boxes = [box for box in known if usable(box)]
        if not boxes:
            return None
        image = self.store.image(video.frames[at])
        if not empty:
            box = boxes[rng.integers(len(boxes))]
            x, y = rng.uniform(MARGIN, 1 - MARGIN, 2)
            return self._windows(image, (box.x + x * box.w, box.y + y * box.h), box)
        x, y = rng.uniform(0, 1, 2) * image.shape[1::-1]
        if any(one.x - 4 < x < one.x + one.w + 4 and one.y - 4 < y < one.y + one.h + 4 for one in known):
            return None
        return self._windows(image, (x, y), None)

    def _windows(self, image: NDArray[np.uint8], point: tuple[float, float], box: Box | None) -> PointExample:
        rng = self.rng
        look, mirrored, zoom = Look(rng), rng.random() < 0.5, math.exp(rng.uniform(-ZOOM, ZOOM))
        crops: list[NDArray[np.uint8]] = []
        edges: list[NDArray[np.float64]] = []
        shares = [share * zoom for share in POINT_WINDOWS]
        for window in windows_at(point, (image.shape[1], image.shape[0]), shares, POINT_SIZE):
            crop = look.changed(crop_window(image, window), rng)
            x, y, w, h = (math.nan,) * 4 if box is None else window.box_to_window(box)
            left, right = x, x + w
            if mirrored:
                crop, left, right = crop[:, ::-1], POINT_SIZE - right, POINT_SIZE - left
            crops.append(look.common(crop))
            edges.append(np.array([left, y, right, y + h]) / POINT_SIZE)
        return PointExample(np.stack(crops), np.stack(edges).astype(np.float32))


class PointBatch(NamedTuple):
    """Features of the windows of points, those of a point one after the other, and the edges; see `PointExample`."""

    features: Features
    edges: Tensor


class FeatureFile:
    """Features of examples in half precision in one file: computed once, read in every epoch.

    :param channels: of the backbone's features at stride 8 and 16. :param origin: hashes of what the features are
        computed from, by what that is; the file keeps them.
    :raises ValueError: if the file there is of another origin, with the remedy.
    """

    def __init__(self, path: Path, channels: tuple[int, int], origin: Mapping[str, str]) -> None:
        self._path = path
        self._header = json.dumps(dict(origin)).encode().ljust(HEADER_BYTES - 1) + b"\n"
        stride8, stride16 = (channels[0], 2 * CELLS, 2 * CELLS), (channels[1], CELLS, CELLS)
        window = np.dtype([("stride8", "f2", stride8), ("stride16", "f2", stride16), ("edges", "f4", (4,))])
        self._row = np.dtype((window, len(POINT_WINDOWS)))
        if path.is_file() and path.stat().st_size:  # empty: of a run that was killed at once
            with path.open("rb") as file:
                self._check(file.read(HEADER_BYTES), origin)

    def _check(self, header: bytes, origin: Mapping[str, str]) -> None:
        try:
            stored = parse_object(header)
        except ValueError:
            stored = {}
        if other := " and ".join(name for name, value in origin.items() if stored.get(name) != value):
            raise ValueError(
                f"{self._path}: {other} of its features are not those of this run, or not stated; delete it to compute "
                "them anew, or give another --folder"
            )

    def __len__(self) -> int:
        """Return the number of whole examples."""
        size = self._path.stat().st_size - HEADER_BYTES if self._path.is_file() else 0
        return max(size, 0) // self._row.itemsize

    def extend(
        self,
        net: InferenceNet,
        sampler: PointSampler,
        most: int,
        minutes: float,
        interrupted: Callable[[], bool] = lambda: False,
    ) -> None:
        """Add examples until there are ``most`` or ``interrupted()``, for some minutes at most."""
        end, count = time.monotonic() + 60 * minutes, len(self)
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with in_place(self._path, "r+b" if count else "wb") as file:
            file.write(self._header)
            file.truncate(HEADER_BYTES + count * self._row.itemsize)
            file.seek(0, 2)
            while count < most and time.monotonic() < end and not interrupted():
                example = sampler.example()
                rows = np.empty(len(POINT_WINDOWS), self._row.base)
                with torch.inference_mode():
                    features = net.extract(to_images(example.windows))
                rows["stride8"], rows["stride16"] = (maps.float().numpy() for maps in features)
                rows["edges"] = example.edges
                file.write(rows.tobytes())
                count += 1

    def batch(self, numbers: Sequence[int]) -> PointBatch:
        """Return some examples, in the order of their numbers."""
        rows = np.memmap(self._path, self._row.base, "r", HEADER_BYTES, shape=(len(self), len(POINT_WINDOWS)))
        some = rows[np.sort(numbers)].reshape(-1)
        stride8, stride16, edges = (torch.from_numpy(np.ascontiguousarray(some[name])) for name in some.dtype.names)
        return PointBatch(Features(stride8, stride16), edges)
