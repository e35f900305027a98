# SPDX-License-Identifier: Apache-2.0
"""Validation of the box refiner on fixed windows of the ``val`` films."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dimp_ros.datasets.clips import read_films
from dimp_ros.datasets.film import Film
from dimp_ros.geometry.box import Box, iou
from dimp_ros.images.closer_window import CloserWindow, crop_window
from dimp_ros.model.sizes import CLOSER_CONTEXT, CLOSER_SIZE
from dimp_ros.training.refiner_network import RefinerTraining, to_images
from dimp_ros.training.window_changes import hidden, overlapping, perturbed, usable

BATCH = 32


class ValidationWindow(NamedTuple):
    """A search window, and the target's box in the image; None if the window does not show it.

    :param track: number of the target. :param name: what it counts for.
    """

    track: int
    name: str
    window: CloserWindow
    truth: Box | None
    crop: NDArray[np.uint8]


class Validation:
    """Every track's first box, windows round wrong boxes in this and later frames, and windows without the target.

    :param frames: later frames of a track.
    """

    def __init__(self, clips: Path, frames: int = 3, seed: int = 5) -> None:
        rng, without = np.random.default_rng(seed), np.random.default_rng(seed + 1)
        self.films: list[tuple[str, str]] = []
        self.windows: list[tuple[NDArray[np.uint8], Box]] = []
        self.items: list[ValidationWindow] = []
        for film in read_films(clips, "val"):
            read = Film(film.path, frames=film.frames)
            images = [read(i) for i in range(film.frames)]
            for track in film.tracks:
                known = [i for i in np.flatnonzero(np.isfinite(track.boxes).all(1)) if usable(Box(*track.boxes[i]))]
                if len(known) < 2:
                    continue
                number, box = len(self.films), Box(*(float(v) for v in track.boxes[known[0]]))
                self.films.append((film.name, film.kind))
                own = CloserWindow.around(box, CLOSER_CONTEXT, CLOSER_SIZE)
                self.windows.append((crop_window(images[known[0]], own), own.box_to_window(box)))
                chosen = [known[0], *rng.choice(known[1:], min(frames, len(known) - 1), replace=False)]
                for at in chosen:
                    truth = Box(*(float(v) for v in track.boxes[at]))
                    window = CloserWindow.around(perturbed(rng, truth), CLOSER_CONTEXT, CLOSER_SIZE)
                    name = "shown" if at == known[0] else film.kind
                    self.items.append(ValidationWindow(number, name, window, truth, crop_window(images[at], window)))
                at = chosen[-1]
                truth = Box(*(float(v) for v in track.boxes[at]))
                others = [Box(*(float(v) for v in other.boxes[at])) for other in film.tracks if other is not track]
                others = [o for o in others if np.isfinite(o).all() and usable(o) and not overlapping(o, truth)]
                for start in [truth, *others[:2]]:
                    window = CloserWindow.around(perturbed(without, start), CLOSER_CONTEXT, CLOSER_SIZE)
                    crop = crop_window(hidden(without, images[at], truth), window)
                    self.items.append(
                        ValidationWindow(number, "covered" if start is truth else "another", window, None, crop)
                    )

    @torch.inference_mode()
    def overlaps(self, net: RefinerTraining) -> dict[str, float]:
        """Return mean overlaps with the true box, and the mean overlaps that are predicted.

        ``shown``: in the first frame, over tracks; ``mask``, ``human``, ``pseudo``: in later frames, by kind over
        films; ``predicted``: in all of these; ``covered`` and ``another``: predicted in windows without the target,
        where it is covered, and of another target.
        """
        tokens: list[Tensor] = []
        for start in range(0, len(self.windows), BATCH):
            part = self.windows[start : start + BATCH]
            boxes = torch.tensor([box for _, box in part], dtype=torch.float32)
            features = net.to_features(net.to_stride4(to_images(np.stack([image for image, _ in part]))))
            tokens.extend(net.tokens(features, boxes))
        found: dict[str, dict[str, list[float]]] = {}
        for start in range(0, len(self.items), BATCH):
            some = self.items[start : start + BATCH]
            features = net.to_features(net.to_stride4(to_images(np.stack([item.crop for item in some]))))
            refined = net(features, torch.stack([tokens[item.track] for item in some]))
            predicted = refined.quality.sigmoid().tolist()
            for item, edges, quality in zip(some, refined.edges.tolist(), predicted, strict=True):
                film, _ = self.films[item.track]
                if item.truth is None:
                    found.setdefault(item.name, {}).setdefault(film, []).append(quality)
                    continue
                box = item.window.edges_to_image(tuple(edges))
                value = float(iou(np.array(box), np.array(item.truth))) if box.w > 0 and box.h > 0 else 0.0
                found.setdefault(item.name, {}).setdefault(film, []).append(value)
                found.setdefault("predicted", {}).setdefault(film, []).append(quality)
        return {
            name: round(float(np.mean([np.mean(values) for values in films.values()])), 4)
            for name, films in sorted(found.items())
        }
