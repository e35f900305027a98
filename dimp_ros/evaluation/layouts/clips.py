# SPDX-License-Identifier: Apache-2.0
"""The layout of films with tracks: each track is a sequence from its first box to its last."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from dimp_ros.datasets.clips import LISTING, FilmRecord, Track, read_films
from dimp_ros.datasets.film import Film
from dimp_ros.evaluation.sequences import VideoSequence


class ClipsLayout:
    """``clips.jsonl`` and films beside it, see `dimp_ros.datasets.clips`.

    Where lines say a split, only the films of ``val`` are taken: those of ``train`` are for training. Frames without a
    box do not count. ``meta`` has the film's name and source, and how its boxes were made (``kind``).
    """

    name = "clips"
    expects = f"{LISTING} and the films that it names"
    SPLIT = "val"

    def load(self, root: Path) -> list[VideoSequence]:
        """Load the films that ``clips.jsonl`` in `root` names; an empty list if there is none."""
        if not (root / LISTING).is_file():
            return []
        films = [film for film in read_films(root) if film.split in ("", self.SPLIT)]
        return [
            self._sequence(film, track)
            for film in films
            for track in film.tracks
            if np.isfinite(track.boxes).all(1).sum() > 1
        ]

    def incomplete(self, root: Path) -> dict[str, str]:
        """Return nothing: `load` refuses what lacks its film."""
        return {}

    @staticmethod
    def _sequence(film: FilmRecord, track: Track) -> VideoSequence:
        known = np.flatnonzero(np.isfinite(track.boxes).all(1))
        first, end = int(known[0]), int(known[-1]) + 1
        others = [other for other in film.tracks if other is not track and np.isfinite(other.boxes).any()]
        alike = any(other.category == track.category for other in others)
        return VideoSequence(
            name=f"{film.name}#{track.name}",
            frames=(film.path,) * (end - first),
            boxes=track.boxes[first:end],
            meta={"dataset": "clips", "film": film.name, "kind": film.kind, "source": film.source},
            film=Film(film.path, first, film.frames),
            look_alikes=np.array([other.boxes[first:end] for other in others if alike]).reshape(-1, end - first, 4),
            gaps_unknown=True,
        )
