# SPDX-License-Identifier: Apache-2.0
"""Training images as JPEG in one file, decoded when they are drawn: 25,000 frames of 480 x 270 take 1.3 GB.

Films are decoded once, when the store is made. Every process of a run maps the file.
"""

from __future__ import annotations

import argparse
import json
import mmap
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from dimp_ros.datasets.base import Clip, DataSet, Still, data_digest, held_out
from dimp_ros.datasets.clips import ClipsDataSet
from dimp_ros.datasets.compact import CompactDataSet
from dimp_ros.files.json_file import named_errors, read_object
from dimp_ros.files.outputs import OutputFile, write_text
from dimp_ros.files.shared_folder import SharedFolder

QUALITY = 95
INDEX, DATA = "frames.json", "frames.bin"

Boxes = list[list[float] | None]


@dataclass(frozen=True)
class StoredVideo:
    """A video, or a single image.

    :param frames: number of each frame in the store. :param tracks: for each target a box x, y, w, h or None a frame.
    """

    name: str
    source: str
    frames: list[int]
    tracks: list[Boxes]


class FrameStore:
    """The images and boxes of a store.

    :raises FileNotFoundError: if ``folder`` holds no complete store.
    """

    def __init__(self, folder: Path) -> None:
        index = folder / INDEX
        if not index.is_file():
            raise FileNotFoundError(f"no store in {folder}: make one with build_frame_store")
        content = read_object(index)
        with named_errors(index, "delete it, and the store is made again"):
            self.videos = [StoredVideo(**video) for video in content["videos"]]
            self.summary: str = content["summary"]
            self.digest: str = content.get("digest", "")
            self._offsets: list[int] = content["offsets"]
        self._path = folder / DATA
        with self._path.open("rb") as file:
            self._bytes = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        if len(self._bytes) != self._offsets[-1]:
            size = f"has {len(self._bytes)} bytes, not the {self._offsets[-1]} of {INDEX}"
            raise ValueError(f"{self._path} {size}; delete the file, and it is made again")

    def __len__(self) -> int:
        return len(self._offsets) - 1

    def image(self, number: int) -> NDArray[np.uint8]:
        """Return a frame as ``[H, W, 3]`` BGR.

        :raises ValueError: if it is damaged, with the remedy.
        """
        start, end = self._offsets[number], self._offsets[number + 1]
        image = cv2.imdecode(np.frombuffer(self._bytes, np.uint8, end - start, start), cv2.IMREAD_COLOR)
        if image is None:
            raise ValueError(f"{self._path}: image {number} is damaged; delete the file, and it is made again")
        return np.asarray(image, np.uint8)


def build_frame_store(folder: Path, data_sets: Sequence[DataSet], longest_side: int = 480) -> FrameStore:
    """Make a store of the stills and clips of ``data_sets``, or open the complete one that is there of the same data.

    Held-out images (see `held_out`), cut-outs and stills without objects are left out. A store of other data is
    replaced by new files: who has it open keeps the old ones.

    :param longest_side: larger images are reduced to it, in pixels.
    """
    summary = "; ".join(data.summary() for data in data_sets) + f" (longest side {longest_side})"
    digest = data_digest(data_sets)

    def current() -> bool:
        whole = (folder / INDEX).is_file() and (folder / DATA).is_file()
        return whole and ((store := FrameStore(folder)).summary, store.digest) == (summary, digest)

    def make() -> None:
        about = {"summary": summary, "digest": digest}
        _write_store(folder, _videos(data_sets), longest_side, about)

    held = SharedFolder(folder, current, make)
    return FrameStore(held.folder)


def _write_store(
    folder: Path, source: Iterable[tuple[StoredVideo, Iterator[Any]]], longest_side: int, about: dict[str, str]
) -> None:
    """Write the files of a store under their names when they are complete."""
    offsets, videos = [0], []
    with OutputFile(folder / DATA) as partial:
        with partial.open("wb") as file, ThreadPoolExecutor(2) as pool:
            for video, images in source:
                scales = []
                first = len(offsets) - 1
                for encoded, scale in pool.map(lambda image: _encoded(image, longest_side), images):
                    offsets.append(offsets[-1] + file.write(encoded))
                    scales.append(scale)
                tracks = [
                    [
                        None if box is None else [round(v * s, 2) for v in box]
                        for box, s in zip(track, scales, strict=True)
                    ]
                    for track in video.tracks
                ]
                videos.append(StoredVideo(video.name, video.source, list(range(first, len(offsets) - 1)), tracks))
        (folder / INDEX).unlink(missing_ok=True)  # from here to the new one the store is not whole
    write_text(folder / INDEX, json.dumps({**about, "offsets": offsets, "videos": [asdict(video) for video in videos]}))


def add_store_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments from which `store_of` builds the store of a run."""
    parser.add_argument("--clips", type=Path, required=True, help="folder of films with tracks (clips.jsonl)")
    parser.add_argument("--images", type=Path, help="folder of stills (annotations.jsonl)")
    parser.add_argument("--store", type=Path, help="folder of the decoded images (default: FOLDER/frames)")


def store_of(arguments: argparse.Namespace) -> FrameStore:
    """Return the store for the arguments of `add_store_arguments`, and ``--folder``, that of the run."""
    return build_frame_store(arguments.store or arguments.folder / "frames", data_sets_of(arguments))


def data_sets_of(arguments: argparse.Namespace) -> list[DataSet]:
    """Return the data sets for the arguments of `add_store_arguments`."""
    stills = [CompactDataSet(arguments.images)] if arguments.images else []
    return [*stills, ClipsDataSet(arguments.clips)]


def _videos(data_sets: Sequence[DataSet]) -> Iterator[tuple[StoredVideo, Iterator[Any]]]:
    """Yield every image and video with what reads its frames, the tracks of one video together."""
    for data in data_sets:
        for still in data.stills():
            if still.kind == "still" and still.instances and not held_out(still.name):
                yield _still(still)
        for name, tracks in groupby(data.clips(), key=lambda clip: clip.name.partition("#")[0]):
            if not held_out(name):
                yield _clip(name, list(tracks))


def _still(still: Still) -> tuple[StoredVideo, Iterator[Any]]:
    boxes: list[Boxes] = [[list(instance.box)] for instance in still.instances]
    return StoredVideo(still.name, still.source, [0], boxes), (still.read() for _ in range(1))


def _clip(name: str, clips: Sequence[Clip]) -> tuple[StoredVideo, Iterator[Any]]:
    tracks: list[Boxes] = [
        [[float(v) for v in box] if np.isfinite(box).all() else None for box in clip.boxes] for clip in clips
    ]
    count = len(clips[0])
    return StoredVideo(name, clips[0].source, list(range(count)), tracks), (clips[0].read(i) for i in range(count))


def _encoded(image: NDArray[np.uint8], longest_side: int) -> tuple[bytes, float]:
    """Return an image as JPEG, reduced where it is larger than ``longest_side``, and the factor."""
    scale = min(1.0, longest_side / max(image.shape[:2]))
    if scale < 1:
        image = np.asarray(cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA), np.uint8)
    good, encoded = cv2.imencode(".jpg", image[..., :3], [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
    if not good:
        raise ValueError(f"an image of shape {image.shape} cannot be encoded as JPEG")
    return encoded.tobytes(), scale
