# SPDX-License-Identifier: Apache-2.0
"""Frames of a video file by number."""

from __future__ import annotations

import threading
from collections import OrderedDict
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from dimp_ros.files.inputs import video_path

KEPT_FRAMES = 16
"""Decoded frames that are kept, so that several threads can read neighbouring frames in any order."""


class Film:
    """Frames of a video file, decoded in order: seeking by number is not exact with every codec.

    Reading forwards decodes each frame once; reading backwards starts again at the first frame. Instances can be
    pickled and shared by threads.

    :param first: number of the frame in the file that is frame 0 here.
    """

    def __init__(self, path: Path | str, first: int = 0) -> None:
        self.path, self.first = Path(path), first
        self._reset()

    def _reset(self) -> None:
        self._lock = threading.Lock()
        self._capture: cv2.VideoCapture | None = None
        self._next = 0
        self._kept: OrderedDict[int, NDArray[np.uint8]] = OrderedDict()

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path, "first": self.first}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.path, self.first = state["path"], state["first"]
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
        self._capture, self._next = cv2.VideoCapture(video_path(self.path)), 0
        self._kept.clear()
        if not self._capture.isOpened():
            raise OSError(f"{self.path} is not a film that OpenCV {cv2.__version__} can decode")
