# SPDX-License-Identifier: Apache-2.0
"""Films with tracks: video files beside ``clips.jsonl``, one line a film.

A line has ``file``, ``frames``, ``width``, ``height`` and ``tracks``: each an ``id``, perhaps a ``category``, and
``boxes``, one entry a frame: [x, y, w, h] in the film's pixels, 0-based, or null where the target is absent or its box
unknown. ``split``, ``kind`` (how the boxes were made), ``source`` and ``licence`` are optional.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dimp_ros.datasets.base import Clip, DataSet, Still
from dimp_ros.datasets.film import Film
from dimp_ros.datasets.video import clip_of
from dimp_ros.files.json_file import named_errors, parse_object

LISTING = "clips.jsonl"


@dataclass(frozen=True)
class Track:
    """One target of a film: ``boxes`` ``float64 [N, 4]``, all nan in frames without a known box."""

    name: str
    category: str
    boxes: NDArray[np.float64]


@dataclass(frozen=True)
class FilmRecord:
    """A line of ``clips.jsonl``."""

    path: Path
    frames: int
    split: str
    kind: str
    source: str
    licence: str
    tracks: tuple[Track, ...]

    @property
    def name(self) -> str:
        """The film's name, without folder and suffix."""
        return self.path.stem


def read_films(
    root: Path | str, split: str | None = None, kinds: Collection[str] | None = None
) -> Iterator[FilmRecord]:
    """Read ``clips.jsonl`` in ``root``; no film is opened.

    :param split: only films of this split; None for all. :param kinds: only films with boxes of these kinds.
    :raises FileNotFoundError: if it is missing. :raises ValueError: naming the line that is damaged.
    """
    root = Path(root).expanduser()
    listing = root / LISTING
    if not listing.is_file():
        raise FileNotFoundError(f"no {LISTING} in {str(root)!r}; give the folder that holds it and the films")
    remedy = "every line needs file, frames and tracks, each with id and a box or null for every frame"
    with listing.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            with named_errors(f"{listing}, line {number}", remedy):
                film = _film(root, parse_object(line))
            if (split is None or film.split == split) and (kinds is None or film.kind in kinds):
                yield film


def _film(root: Path, record: dict[str, Any]) -> FilmRecord:
    frames = int(record["frames"])
    tracks = tuple(
        Track(str(track["id"]), str(track.get("category") or ""), _boxes(track["boxes"], frames))
        for track in record["tracks"]
    )
    split, kind, source, licence = (str(record.get(key) or "") for key in ("split", "kind", "source", "licence"))
    return FilmRecord(root / record["file"], frames, split, kind, source, licence, tracks)


def _boxes(entries: Sequence[Any], frames: int) -> NDArray[np.float64]:
    if len(entries) != frames:
        raise ValueError(f"{len(entries)} boxes for {frames} frames")
    boxes = np.array([[np.nan] * 4 if entry is None else entry for entry in entries], np.float64).reshape(-1, 4)
    boxes[~(np.isfinite(boxes).all(1) & (boxes[:, 2:] > 0).all(1))] = np.nan
    return boxes


class ClipsDataSet(DataSet):
    """A folder of films with tracks; each track is a clip, the film's other tracks are its distractors.

    :param split: ``train`` by default; '' for all films. :param kinds: kinds of boxes to take; None for all.
    :raises OSError: if the folder or ``clips.jsonl`` is missing. :raises ValueError: if a line is damaged, or no film
        is of this split and these kinds.
    """

    def __init__(
        self, root: Path | str, split: str = "train", kinds: Collection[str] | None = None, name: str = "clips"
    ) -> None:
        self.name = name
        films = list(read_films(root, split or None, kinds))
        if not films:
            raise ValueError(f"{str(root)!r} has no film of split {split!r} and kinds {kinds or 'any'}")
        self._clips = [clip for film in films for clip in _clips(film)]

    def stills(self) -> Sequence[Still]:
        """Return none: there are only clips."""
        return ()

    def clips(self) -> Sequence[Clip]:
        """Return the tracks in the order of the file, without those that have no box."""
        return self._clips


def _clips(film: FilmRecord) -> Iterator[Clip]:
    # Shared: each frame is decoded once for all tracks that are read together.
    frames = Film(film.path, frames=film.frames)
    for track in film.tracks:
        if np.isfinite(track.boxes).any():
            yield clip_of(
                frames,
                f"{film.name}#{track.name}",
                track.boxes,
                category=track.category,
                source=film.source,
                licence=film.licence,
                distractors=tuple(other.boxes for other in film.tracks if other is not track),
            )
