# SPDX-License-Identifier: Apache-2.0
"""A video file's images from OpenCV, also those that it cannot convert to BGR itself, such as interlaced ones.

FFmpeg from version 8 on converts no interlaced image into one that is not. OpenCV overlooks that: it returns success
with the image before, or with memory in which nothing was written. FFmpeg's own filters can take the mark off an image;
both fields stay woven. Other images are the same through the filters, bit by bit, and so are their times.
"""

from __future__ import annotations

import os
import re
import threading
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

_OPTIONS = "OPENCV_FFMPEG_CAPTURE_OPTIONS"
_ENVIRONMENT = threading.Lock()
_COMPARED_ROWS = 16
_TURNS = {90: cv2.ROTATE_90_CLOCKWISE, 180: cv2.ROTATE_180, 270: cv2.ROTATE_90_COUNTERCLOCKWISE}


class FilmCapture:
    """As `cv2.VideoCapture` of a file, with images that were really converted.

    OpenCV's conversion is in doubt for the first image, and for each that equals the one before. Such an image is read
    through the filters as well, and if it differs, or a film repeats images, so are all after it.

    `remark`: what a user should know of it, one line; empty if nothing.

    :param path: absolute, as `dimp_ros.files.inputs.video_path` returns it.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._capture = cv2.VideoCapture(path)
        self._fps, self._length = (self._capture.get(name) for name in (cv2.CAP_PROP_FPS, cv2.CAP_PROP_FRAME_COUNT))
        self._in_doubt = self._capture.isOpened() and self._capture.getBackendName() == "FFMPEG"
        self._turn: int | None = None
        if self._in_doubt:
            turn = _TURNS.get(round(self._capture.get(cv2.CAP_PROP_ORIENTATION_META)))
            # Here rather than there: the filters turn no image, and OpenCV turns one again that it could not convert.
            self._turn = turn if self._capture.set(cv2.CAP_PROP_ORIENTATION_AUTO, 0) else None
        self._index = -1
        self._rows: tuple[int, NDArray[np.uint8]] | None = None
        self._timed = True
        self.remark = ""

    def isOpened(self) -> bool:
        """Return whether the file is a video."""
        return self._capture.isOpened()

    def release(self) -> None:
        """Close the file."""
        self._capture.release()

    def get(self, name: int) -> float:
        """Return a property of `cv2.VideoCapture`."""
        if name == cv2.CAP_PROP_FPS:
            return self._fps
        if name == cv2.CAP_PROP_FRAME_COUNT:
            return self._length
        if name == cv2.CAP_PROP_POS_MSEC and not self._timed:
            return 0.0
        return self._capture.get(name)

    def grab(self) -> bool:
        """Decode the next image; return False if there is none."""
        if not self._capture.grab():
            return False
        self._index += 1
        if self._in_doubt and self._index == 0:
            good, image = self._capture.retrieve()
            if good:
                self._check(image)
        return True

    def retrieve(self) -> tuple[bool, Any]:
        """Return whether there is an image, and it, HxWx3 uint8 BGR."""
        good, image = self._capture.retrieve()
        if good and self._in_doubt and self._index > 0:
            image = self._check(image)
        if good and self._turn is not None:
            image = cv2.rotate(image, self._turn)
        return good, image

    def _check(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Return the image that was decoded last, which OpenCV gave as ``image``."""
        before, rows = self._rows, image[:: max(1, len(image) // _COMPARED_ROWS)].copy()
        self._rows = (self._index, rows)
        if before is not None and not np.array_equal(rows, before[1]):
            return image
        filtered = self._open_filtered(before)
        good, right = filtered.retrieve() if filtered else (False, image)
        if not filtered or not good:
            if before is not None:
                self._in_doubt = False
                self.remark = (
                    f"image {self._index} equals the one before, and whether OpenCV {cv2.__version__} could convert it "
                    "is not known; if the video moves there, it is interlaced: `ffmpeg -i IN -vf yadif OUT`"
                )
            return image
        if not np.array_equal(image, right):
            self.remark = (
                "it is interlaced: the lines of both fields are used as they are; `ffmpeg -i IN -vf yadif OUT` gives "
                "images of one moment each"
            )
        elif before is None:
            return image
        self._timed = self._has_times()
        self._capture, self._in_doubt = filtered, False
        return np.asarray(right, np.uint8)

    def _open_filtered(self, before: tuple[int, NDArray[np.uint8]] | None) -> cv2.VideoCapture | None:
        """Return the film through the filters, at the image that was decoded last; None if it differs up to there."""
        filtered = _filtered(self._path)
        for index in range(self._index + 1):
            if not filtered.grab():
                return None
            if before is not None and index == before[0]:
                good, image = filtered.retrieve()
                if not good or not np.array_equal(image[:: max(1, len(image) // _COMPARED_ROWS)], before[1]):
                    return None
        return filtered

    def _has_times(self) -> bool:
        """Return whether the file has times: the filters make them up where it has none."""
        stamp = self._capture.get(cv2.CAP_PROP_POS_MSEC)
        return stamp > 0 or not self._capture.grab() or self._capture.get(cv2.CAP_PROP_POS_MSEC) > stamp


def _filtered(path: str) -> cv2.VideoCapture:
    """Return a capture of a film whose images are all marked as not interlaced; not opened without the filters."""
    for special in ("\\': \n\r\t", "\\'[],; \n\r\t"):  # of a filter's options, then of a list of filters
        path = re.sub(f"([{re.escape(special)}])", r"\\\1", path)
    with _ENVIRONMENT:  # the only way by which OpenCV takes FFmpeg's options
        options = os.environ.get(_OPTIONS)
        os.environ[_OPTIONS] = "|".join(filter(None, (options, "input_format;lavfi")))
        try:
            return cv2.VideoCapture(f"movie=filename={path},setfield=mode=prog", cv2.CAP_FFMPEG)
        finally:
            if options is None:
                del os.environ[_OPTIONS]
            else:
                os.environ[_OPTIONS] = options
