# SPDX-License-Identifier: Apache-2.0
"""Videos in and out: pictures from a file, a folder or a camera, and pictures into an MP4."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import count, islice
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from dimp_ros.images.files import list_images, read_image

Picture = NDArray[np.uint8]


class Video:
    """Pictures from a video file, from a folder of pictures in order of name, or from a camera given by its index.

    `fps`: frames a second, and `length`: the number of frames; None where the source does not tell.

    :raises ValueError: if nothing can be read there, with the remedy.
    """

    def __init__(self, source: str) -> None:
        self.source = source
        self.fps: float | None = None
        self.length: int | None = None
        self._files: list[Path] = []
        self._capture: cv2.VideoCapture | None = None
        if source and Path(source).is_dir():
            self._files = list_images(Path(source))
            if not self._files:
                raise ValueError(f"no pictures in the folder {source}; expected .jpg, .png or .webp files")
            self.length = len(self._files)
        else:
            self._capture = self._open()
            fps, length = self._capture.get(cv2.CAP_PROP_FPS), self._capture.get(cv2.CAP_PROP_FRAME_COUNT)
            self.fps = fps if 0 < fps < 1000 else None  # 1000: only the clock of millisecond stamps
            self.length = int(length) if 0 < length < math.inf else None

    def _open(self) -> cv2.VideoCapture:
        capture = cv2.VideoCapture()
        if self.source and Path(self.source).exists():
            if not capture.open(self.source):
                raise ValueError(f"{self.source} is not a video that OpenCV {cv2.__version__} can read")
        elif self.source.isdecimal():
            if not capture.open(int(self.source)):
                raise ValueError(f"camera {self.source} cannot be opened; is it there, and free?")
        else:
            raise ValueError(
                f"no such file or folder: {self.source or repr('')}; give a video, a folder of pictures or a camera's "
                "index"
            )
        return capture

    def frames(self, start: int = 0, end: int | None = None) -> Iterator[tuple[int, Picture]]:
        """Yield (index, HxWx3 uint8 BGR) for the frames `start` <= index < `end`, counted from 0, at every call.

        :raises ValueError: for a picture of a folder that cannot be read.
        """
        if self._files:
            for index, path in islice(enumerate(self._files), start, end):
                yield index, read_image(path)
            return
        capture, self._capture = self._capture or self._open(), None  # each call reads from the first frame on
        for index in islice(count(), end):
            # Frame by frame up to the first: seeking by number is not exact with every codec.
            good, image = capture.read() if index >= start else (capture.grab(), None)
            if not good:
                return
            if image is not None:
                yield index, image


class VideoWriter:
    """An MP4 that is made when its first picture comes, in that picture's size."""

    def __init__(self, path: Path, fps: float) -> None:
        self._path, self._fps = path, fps
        self._writer: cv2.VideoWriter | None = None
        self._shape: tuple[int, ...] = ()

    def write(self, picture: Picture) -> None:
        """Append a picture, HxWx3 uint8 BGR.

        :raises OSError: if the file cannot be written.
        :raises ValueError: for a picture of another size than the first.
        """
        height, width = picture.shape[:2]
        if self._writer is None:
            fourcc = cv2.VideoWriter.fourcc(*"mp4v")
            writer = cv2.VideoWriter(str(self._path), fourcc, self._fps, (width, height))
            if not writer.isOpened():
                raise OSError(
                    f"cannot write the video {self._path}; its name should end in .mp4, its folder be writable, and "
                    "OpenCV built with FFmpeg"
                )
            self._writer, self._shape = writer, picture.shape
        if picture.shape != self._shape:
            raise ValueError(
                f"the pictures of a video must have one size: {width} x {height} follows "
                f"{self._shape[1]} x {self._shape[0]}; scale the pictures first, or write no video"
            )
        self._writer.write(picture)

    def close(self) -> None:
        """Finish the file."""
        if self._writer is not None:
            self._writer.release()
