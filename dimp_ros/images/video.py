# SPDX-License-Identifier: Apache-2.0
"""Reading videos, folders of images and cameras; writing videos."""

from __future__ import annotations

import math
import shutil
import statistics
import tempfile
from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count, pairwise
from pathlib import Path
from typing import TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

from dimp_ros.files.inputs import opencv_path, video_path
from dimp_ros.files.outputs import OutputFile, WriteFailed
from dimp_ros.images.contrast import Contrast
from dimp_ros.images.files import list_images, read_image
from dimp_ros.images.film_capture import FilmCapture
from dimp_ros.images.video_structure import find_damage, mp4_length

BgrImage = NDArray[np.uint8]
"""HxWx3 uint8, blue, green, red."""
DEFAULT_FPS = 25.0
"""Frame rate of folders of images, cameras, and videos without one."""
CHECKED_EVERY = 64
"""Number of images between two checks of the free disk space."""
SPARE_BYTES = 64 * 1024
_WRITTEN = (".mp4", ".m4v", ".mov", ".mkv", ".avi")
"""Of containers in which a file that was cut off can be told from a whole one."""


Place: TypeAlias = int | float
"""A position in a video: int is a frame index from 0, float is seconds after the first frame."""
_TOLERANCE = 1e-6  # seconds, for rounding of float times
_SPARE_IMAGES = 2.5
"""So many may be missing at the end of a whole film: numbers and times are rounded."""
_LONG_STEP = 5
"""Times the usual one, of which is told."""


@dataclass(frozen=True)
class VideoFrame:
    """A frame of a video: ``seconds`` after the first one; ``image`` HxWx3 uint8 BGR, None for a ``problem``."""

    index: int
    seconds: float
    image: BgrImage | None
    problem: str = ""


class Video:
    """Frames of a video file, a folder of images in order of their numbers, or a camera given by its index.

    `fps`: frames per second; `length`: number of frames, for some containers an estimate; None if unknown. After the
    last frame, `damage`: why the file has more than was read, empty if it has not; `notes`: remarks, one line each.

    :raises ValueError: if the source cannot be read, with the remedy.
    """

    def __init__(self, source: str) -> None:
        self.source = source
        self.fps: float | None = None
        self.length: int | None = None
        self.notes: list[str] = []
        self.damage = ""
        self._checked = False
        self._files: list[Path] = []
        self._capture: FilmCapture | cv2.VideoCapture | None = None
        if source and Path(source).is_dir():
            self._files = list_images(Path(source))
            if not self._files:
                raise ValueError(f"no images in the folder {source}; expected .jpg, .png or .webp files")
            opencv_path(source)
            self.length = len(self._files)
        else:
            self._capture = self._open()
            fps, length = self._capture.get(cv2.CAP_PROP_FPS), self._capture.get(cv2.CAP_PROP_FRAME_COUNT)
            self.fps = fps if 0 < fps < 1000 else None  # 1000 is the clock of millisecond stamps, not a frame rate
            self.length = int(length) if 0 < length < math.inf else None

    def _open(self) -> FilmCapture | cv2.VideoCapture:
        if self.source and Path(self.source).exists():
            film = FilmCapture(video_path(self.source))
            if not film.isOpened():
                raise ValueError(f"{self.source} is not a video that OpenCV {cv2.__version__} can read")
            return film
        if self.source.isdecimal() and len(self.source) <= 9:  # OpenCV takes 32 bits
            camera = cv2.VideoCapture(int(self.source))
            if not camera.isOpened():
                raise ValueError(f"camera {self.source} cannot be opened; is it there, and free?")
            return camera
        raise ValueError(
            f"no such file or folder: {self.source or repr('')}; give a video, a folder of images or a camera's index"
        )

    def frames(self, start: Place = 0, end: Place | None = None) -> Iterator[VideoFrame]:
        """Yield the frames from `start` to before `end`; each call starts again.

        An unreadable image of a folder is a frame with a ``problem``. The time of a video's frame is the container's
        timestamp; the frame rate may vary.
        """
        return self._folder_frames(start, end) if self._files else self._video_frames(start, end)

    def _folder_frames(self, start: Place, end: Place | None) -> Iterator[VideoFrame]:
        contrast = Contrast()
        for index, path in enumerate(self._files):
            seconds = index / DEFAULT_FPS
            if end is not None and _reached(index, seconds, end):
                return
            if not _reached(index, seconds, start):
                continue
            try:
                yield VideoFrame(index, seconds, read_image(path, contrast=contrast))
            except ValueError as error:
                yield VideoFrame(index, seconds, None, str(error))

    def _video_frames(self, start: Place, end: Place | None) -> Iterator[VideoFrame]:
        capture, self._capture = self._capture or self._open(), None  # each call reads from the first frame on
        first = seconds = 0.0
        step = 1 / (self.fps or DEFAULT_FPS)
        times, latest = array("d"), 0.0
        for index in count():
            # Frame by frame up to the first: seeking by number is not exact with every codec.
            if not capture.grab():
                break
            stamp = capture.get(cv2.CAP_PROP_POS_MSEC) / 1e3
            if index == 0:
                first = stamp
            else:  # cameras and files without timestamps do not count up
                seconds = stamp - first if stamp - first > seconds else seconds + step
            latest = max(latest, stamp)
            times.append(seconds)
            if end is not None and _reached(index, seconds, end):
                return
            if _reached(index, seconds, start):
                good, image = capture.retrieve()
                if not good:
                    break
                self._note(capture)
                yield VideoFrame(index, seconds, np.asarray(image, np.uint8))
        if not self._checked and Path(self.source).is_file():
            self._checked = True
            self.damage = self._damage(len(times), latest)
            steps = [later - earlier for earlier, later in pairwise(times)]
            if not self.damage and steps and max(steps) > _LONG_STEP * statistics.median(steps):
                self.notes.append(
                    f"{self.source} has no image for {max(steps):.2f} s after frame {steps.index(max(steps))}: its "
                    "frame rate varies, or images are missing; frames are numbered as they were read"
                )

    def _note(self, capture: FilmCapture | cv2.VideoCapture) -> None:
        remark = f"{self.source}: {capture.remark}" if isinstance(capture, FilmCapture) and capture.remark else ""
        if remark and remark not in self.notes:
            self.notes.append(remark)

    def _damage(self, read: int, latest: float) -> str:
        """Return why the file has more images than were ``read``; empty if it has not.

        The container's number of images is no proof alone: for Matroska it is the length of film and sound times the
        frame rate, which may vary; for AVI it counts empty entries, for MP4 fields and what an edit list leaves out.

        :param latest: the container's time of the last image, seconds.
        """
        path, expected = Path(self.source), max(self.length or 0, read)
        images = f"{read} of {expected} images" if expected > read else f"{read} images"
        if broken := find_damage(path):
            return f"{self.source} has {images} that can be read: {broken}"
        mp4 = mp4_length(path)
        if mp4 is None:
            return ""
        rate = self.fps or DEFAULT_FPS
        lost, late = expected - read - mp4.hidden * rate, (mp4.shown - latest) * rate - 1
        ends_early = lost > _SPARE_IMAGES and late > _SPARE_IMAGES
        return f"{self.source} ends after {images}: the others cannot be decoded" if ends_early else ""


def _reached(index: int, seconds: float, place: Place) -> bool:
    return seconds >= place - _TOLERANCE if isinstance(place, float) else index >= place


class VideoWriter:
    """Writes MPEG-4 in the size of its first image; the file appears under its name when it is closed.

    The suffix of its name chooses the container: MP4, QuickTime, Matroska or AVI.

    :raises ValueError: for a path that is not UTF-8, or has another suffix.
    """

    def __init__(self, path: Path, fps: float) -> None:
        opencv_path(path.absolute())
        if path.suffix.lower() not in _WRITTEN:
            raise ValueError(f"{path} cannot be a video: its name should end in .mp4, or {', '.join(_WRITTEN[1:])}")
        with tempfile.TemporaryDirectory() as folder:
            trial = _ffmpeg_writer(Path(folder, f"x{path.suffix}"), 25.0, 64, 64)
            if not trial.isOpened():
                raise ValueError(
                    f"{path} cannot be a video: OpenCV {cv2.__version__} cannot write one to {tempfile.gettempdir()}; "
                    "it needs FFmpeg, and space there"
                )
            trial.release()
        self._path, self._fps = path, _frame_rate(fps)
        self._output: OutputFile | None = None
        self._writer: cv2.VideoWriter | None = None
        self._shape: tuple[int, ...] = ()
        self._count = 0

    def write(self, image: BgrImage) -> None:
        """Append an image, HxWx3 uint8 BGR.

        :raises OSError: if the file cannot be written.
        :raises ValueError: for an image of another size than the first.
        """
        height, width = image.shape[:2]
        if self._writer is None:
            self._open(width, height)
            self._shape = image.shape
        if image.shape != self._shape:
            raise ValueError(
                f"the images of a video must have one size: {width} x {height} follows "
                f"{self._shape[1]} x {self._shape[0]}; scale them first, or write no video"
            )
        assert self._writer is not None
        self._writer.write(image)
        self._count += 1
        if self._count % CHECKED_EVERY == 0 and not _has_space(self._path):
            raise WriteFailed(
                f"{self._path}: its disk is full after {self._count} images; free some space there, or write to another"
            )

    def _open(self, width: int, height: int) -> None:
        self._output = OutputFile(self._path)
        writer = _ffmpeg_writer(self._output.partial, self._fps, width, height)
        if not writer.isOpened():
            self.discard()
            raise WriteFailed(f"cannot write the video {self._path}; its folder should be writable and have space left")
        self._writer = writer

    def close(self) -> None:
        """Finish the file; does nothing if nothing was written, or after `discard`.

        :raises WriteFailed: if the file is incomplete; it is removed then.
        """
        if self._writer is None or self._output is None:
            return
        self._writer.release()
        self._writer = None
        # OpenCV reports no write errors
        kept, damage = _count_images(self._output.partial), find_damage(self._output.partial, closed=True)
        if damage or kept != self._count:
            self._output.discard()
            why = damage if kept == self._count else f"of {self._count} images {kept} can be read back"
            remedy = "see that its disk has space and ulimit -f allows it, or write to another"
            raise WriteFailed(f"{self._path} could not be finished: {why}, and it was removed; {remedy}")
        self._output.commit()

    def discard(self) -> None:
        """Remove an unfinished video."""
        if self._writer is not None:
            self._writer.release()
            self._writer = None
        if self._output is not None:
            self._output.discard()


def _frame_rate(fps: float) -> float:
    """Return the nearest rate that MPEG-4 can express: a fraction with a numerator of 16 bits."""
    fps = min(max(fps, 0.01), 1000.0)
    return round(fps, 3 if fps < 60 else 2 if fps < 600 else 1)


def _ffmpeg_writer(path: Path, fps: float, width: int, height: int) -> cv2.VideoWriter:
    return cv2.VideoWriter(str(path), cv2.CAP_FFMPEG, cv2.VideoWriter.fourcc(*"mp4v"), fps, (width, height))


def _count_images(path: Path) -> int:
    """Return the number of images in a file, which are not decoded."""
    capture = cv2.VideoCapture(opencv_path(path), cv2.CAP_FFMPEG, (cv2.CAP_PROP_FORMAT, -1))
    try:
        return sum(1 for _ in iter(capture.grab, False))
    finally:
        capture.release()


def _has_space(path: Path) -> bool:
    """Return whether `SPARE_BYTES` more can be written beside a file; tried only if space is short."""
    folder = path.absolute().parent
    if shutil.disk_usage(folder).free > SPARE_BYTES:
        return True
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(bytes(SPARE_BYTES))
    except OSError:
        return False
    return True
