# SPDX-License-Identifier: Apache-2.0
"""Sequences of targets near others of their kind, long enough to hide the target several times."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dimp_ros.datasets.film import Film
from dimp_ros.evaluation.metrics import annotated
from dimp_ros.evaluation.sequences import VideoSequence

FRAMES = 210
"""Length of a sequence: targets are hidden for 10, 20, 40 and 10 frames, see `occlusion.intervals`."""
NEAR = 2.0
"""Distance of the centres, in target sizes sqrt(w * h), within which another target is near."""
ALIKE = 3.0
"""Largest ratio of areas of such a target and the own."""
LEAST_SHARE = 0.5
"""Least share of the frames in which another target is near."""
LEAST_FRAMES = 15
PER_VIDEO = 3
"""Most targets of a video."""


class BackAndForthFilm(Film):
    """The first frames of a film, forwards and backwards in turn; they are kept in memory.

    :param length: number of the film's frames that are used.
    """

    def __init__(self, path: Path, first: int, length: int, frames: int | None = None) -> None:
        super().__init__(path, first, frames)
        self.length = length
        self._frames: dict[int, NDArray[np.uint8]] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "length": self.length}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self.length, self._frames = state["length"], {}

    def __call__(self, index: int) -> NDArray[np.uint8]:
        """Return frame ``index`` of the repeated film, as `Film` does."""
        number = bounce(index, self.length)
        if number not in self._frames:
            self._frames[number] = super().__call__(number)
        return self._frames[number]


def bounce(index: int, length: int) -> int:
    """Return the frame that is shown at ``index`` if frames 0 to ``length - 1`` go forwards and backwards in turn."""
    at = index % max(2 * length - 2, 1)
    return at if at < length else 2 * length - 2 - at


def back_and_forth(sequence: VideoSequence, frames: int = FRAMES) -> VideoSequence | None:
    """Return a sequence of at least ``frames`` frames, forwards and backwards; None if it is too short.

    It is the part before the first frame without a box.
    """
    known = annotated(sequence.boxes)
    length = len(known) if known.all() else int(known.argmin())
    if length < LEAST_FRAMES:
        return None
    order = [bounce(index, length) for index in range(max(frames, length))]
    film = sequence.film and BackAndForthFilm(sequence.film.path, sequence.film.first, length, sequence.film.frames)
    return replace(
        sequence,
        frames=tuple(sequence.frames[number] for number in order),
        boxes=sequence.boxes[order],
        film=film,
        look_alikes=sequence.look_alikes[:, order],
        gaps_unknown=False,
    )


def share_near(sequence: VideoSequence) -> float:
    """Return the share of the frames with a box in which another target of similar size is near."""
    known = annotated(sequence.boxes)
    if not len(sequence.look_alikes):
        return 0.0
    own, others = sequence.boxes[known], sequence.look_alikes[:, known]
    size = np.sqrt(own[:, 2] * own[:, 3])
    distance = np.linalg.norm(others[..., :2] + others[..., 2:] / 2 - own[:, :2] - own[:, 2:] / 2, axis=-1) / size
    ratio = others[..., 2] * others[..., 3] / size**2
    near = (distance < NEAR) & (ratio < ALIKE) & (ratio > 1 / ALIKE)  # False where unknown
    return float(near.any(0).mean())


def near_look_alikes(sequences: Iterable[VideoSequence]) -> list[VideoSequence]:
    """Return `back_and_forth` of the targets with another near, at most `PER_VIDEO` of a video."""
    chosen: list[VideoSequence] = []
    videos: Counter[str] = Counter()
    for sequence in sequences:
        video = sequence.name.rpartition("#")[0] or sequence.name
        if videos[video] < PER_VIDEO and share_near(sequence) >= LEAST_SHARE:
            repeated = back_and_forth(sequence)
            if repeated is not None:
                videos[video] += 1
                chosen.append(repeated)
    return chosen
