# SPDX-License-Identifier: Apache-2.0
"""Frames of a video file by number."""

from __future__ import annotations

import math
import threading
from collections import OrderedDict
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from dimp_ros.files.inputs import video_path
from dimp_ros.images.film_capture import FilmCapture
from dimp_ros.images.video_structure import find_damage, mp4_length

KEPT_FRAMES = 16
"""Decoded frames that are kept, so that several threads can read neighbouring frames in any order."""

_REMEDY = "fetch the film again, or take its line out of the annotations"


class Film:
    """Frames of a video file, decoded in order: seeking by number is not exact with every codec.

    Reading forwards decodes each frame once; reading backwards starts again at the first frame. Instances can be
    pickled and shared by threads.

    :param first: number of the frame in the file that is frame 0 here. :param frames: how many frames of the file are
        annotated. The film is refused then where it is damaged or, as far as an MP4 tells, has another number of them
        or lacks some in the middle: boxes would be those of other frames.
    """

    def __init__(self, path: Path | str, first: int = 0, frames: int | None = None) -> None:
        self.path, self.first, self.frames = Path(path), first, frames
        self._reset()

    def _reset(self) -> None:
        self._lock = threading.Lock()
        self._capture: FilmCapture | None = None
        self._next = 0
        self._checked, self._rate = False, math.nan
        self._kept: OrderedDict[int, NDArray[np.uint8]] = OrderedDict()

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path, "first": self.first, "frames": self.frames}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.path, self.first, self.frames = state["path"], state["first"], state["frames"]
        self._reset()

    def __call__(self, index: int) -> NDArray[np.uint8]:
        """Return frame ``index`` as ``[H, W, 3]`` BGR.

        :raises OSError: if the file is missing, damaged or too short, or this OpenCV cannot decode it.
        :raises ValueError: if it is a playlist, or no regular file.
        """
        number = self.first + index
        with self._lock:
            if number not in self._kept:
                self._decode(number)
            return self._kept[number]

    def file(self, index: int) -> Path:
        """Return the file of a frame, which is the film."""
        return self.path

    def close(self) -> None:
        """Close the file; reading opens it again."""
        with self._lock:
            if self._capture is not None:
                self._capture.release()
            self._capture, self._next = None, 0
            self._kept.clear()

    def _decode(self, number: int) -> None:
        """Decode up to frame ``number`` and keep it."""
        if self._capture is None or number < self._next:
            self._open()
        assert self._capture is not None
        while self._next <= number:
            good = self._capture.grab()
            image = self._capture.retrieve()[1] if good and self._next > number - KEPT_FRAMES else None
            if not good or (image is None and self._next == number):
                raise OSError(f"{self.path}: frame {number} cannot be decoded; the file ends at frame {self._next}")
            self._check_time()
            if image is not None:
                self._kept[self._next] = np.asarray(image, np.uint8)
                if len(self._kept) > KEPT_FRAMES:
                    self._kept.popitem(last=False)
            self._next += 1

    def _open(self) -> None:
        if not self.path.is_file():
            raise FileNotFoundError(f"no film {self.path}; fetch the data set again")
        if self._capture is not None:
            self._capture.release()
        self._capture, self._next = None, 0
        self._kept.clear()
        capture = FilmCapture(video_path(self.path))
        if not capture.isOpened():
            raise OSError(f"{self.path} is not a film that OpenCV {cv2.__version__} can decode")
        if self.frames is not None and not self._checked:
            self._check(capture, self.frames)
            self._checked = True
        self._capture = capture

    def _check(self, capture: FilmCapture, frames: int) -> None:
        """Check that the file has as many frames as are annotated, and note the rate of an MP4 with equal steps."""
        if broken := find_damage(self.path):
            raise OSError(f"{self.path} is damaged, {broken}, and its boxes may be of other frames; {_REMEDY}")
        mp4, rate = mp4_length(self.path), capture.get(cv2.CAP_PROP_FPS)
        if mp4 is None or mp4.hidden * rate > 0.5:
            return
        count = round(capture.get(cv2.CAP_PROP_FRAME_COUNT))
        if count != frames:
            raise OSError(f"{self.path} has {count} frames, and there are boxes for {frames}; {_REMEDY}")
        self._rate = rate if mp4.steady and rate > 0 else math.nan

    def _check_time(self) -> None:
        """Check that the frame that was decoded is the next one: the decoder leaves out those that it cannot decode."""
        assert self._capture is not None
        found = self._capture.get(cv2.CAP_PROP_POS_MSEC) / 1e3 * self._rate
        if abs(found - self._next) > 0.5:
            self._capture = None  # the next attempt begins anew
            raise OSError(
                f"{self.path}: after frame {self._next - 1} comes {found:.0f}: those between cannot be decoded, and "
                f"the boxes would be of other frames; {_REMEDY}"
            )
