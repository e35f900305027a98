# SPDX-License-Identifier: Apache-2.0
"""Uncompressed images of which only the requested region is converted.

Each region equals the same part of the converted whole image: before conversion it is widened to the grid of the colour
samples and by the margin of their interpolation.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from dimp_ros.images.contrast import Contrast, Limits, to_uint8
from dimp_ros.images.encodings import Encoding, Kind
from dimp_ros.images.picture import ArrayPicture, Picture, WholePicture


def picture_of(samples: NDArray[Any], encoding: Encoding, contrast: Contrast) -> Picture:
    """Return samples in one plane as an image.

    :param samples: ``[H, W]`` or ``[H, W, C]`` in the encoding's type, of any byte order and alignment.
    """
    if encoding.kind is Kind.READY:
        return ArrayPicture(samples)
    if encoding.kind is Kind.COLOR:
        return ColorPicture(samples, encoding.code, contrast)
    if encoding.kind is Kind.BAYER:
        assert encoding.code is not None
        return BayerPicture(samples, encoding.code, contrast)
    return GreyPicture(samples, contrast)


class SampledPicture(WholePicture):
    """An image of ``samples`` ``[H, W, ...]``, one per pixel."""

    def __init__(self, samples: NDArray[Any]) -> None:
        self.samples = samples
        self._native = samples.dtype.newbyteorder("=")
        self._full_scale: float | None = None

    @property
    def width(self) -> int:
        """Width in pixels."""
        return int(self.samples.shape[1])

    @property
    def height(self) -> int:
        """Height in pixels."""
        return int(self.samples.shape[0])

    def part(self, x0: int, y0: int, x1: int, y1: int) -> NDArray[Any]:
        """Return samples in native byte order and aligned, as OpenCV needs them."""
        part = self.samples[y0:y1, x0:x1]
        return part if part.dtype.itemsize == 1 else part.astype(self._native)

    def full_scale(self, contrast: Contrast) -> float:
        """Return the value of full brightness, computed once."""
        if self._full_scale is None:
            self._full_scale = contrast.color(self.samples)
        return self._full_scale


def _scaled(samples: NDArray[Any], full: float) -> NDArray[np.uint8]:
    """Return colour from 0 to ``full`` as uint8."""
    if samples.dtype.kind == "f":
        return to_uint8(samples, Limits(0.0, full))
    return cv2.convertScaleAbs(samples, alpha=255 / full)


class ColorPicture(SampledPicture):
    """Three or four channels of 8 or 16 bits or floating point; ``code`` converts them to BGR."""

    def __init__(self, samples: NDArray[Any], code: int | None, contrast: Contrast) -> None:
        super().__init__(samples)
        self._code = code
        self._contrast = contrast

    def region(self, x0: int, y0: int, x1: int, y1: int) -> NDArray[np.uint8]:
        """Return the region in BGR."""
        part = self.part(x0, y0, x1, y1)
        if part.shape[:2] == (1, 1):  # OpenCV 4.5 does not take a single pixel
            part = np.repeat(part, 2, axis=1)
        if part.dtype != np.uint8:
            part = _scaled(part, self.full_scale(self._contrast))
        return (part if self._code is None else cv2.cvtColor(part, self._code))[:, : x1 - x0]


class GreyPicture(SampledPicture):
    """Grey of more than 8 bits, signed or floating point, scaled between the limits of the stream."""

    def __init__(self, samples: NDArray[Any], contrast: Contrast) -> None:
        super().__init__(samples)
        self._contrast = contrast
        self._limits: Limits | None = None

    def region(self, x0: int, y0: int, x1: int, y1: int) -> NDArray[np.uint8]:
        """Return the region in grey, scaled by the limits of the whole image."""
        if self._limits is None:
            self._limits = self._contrast.grey(self.samples)
        return to_uint8(self.part(x0, y0, x1, y1), self._limits)


class BayerPicture(SampledPicture):
    """A Bayer mosaic of 8 or 16 bits, demosaiced by interpolation."""

    def __init__(self, samples: NDArray[Any], code: int, contrast: Contrast) -> None:
        super().__init__(samples)
        self._code = code
        self._contrast = contrast

    def region(self, x0: int, y0: int, x1: int, y1: int) -> NDArray[np.uint8]:
        """Return the region in BGR."""
        # OpenCV copies the outermost pixels from their neighbours: a margin of two keeps that out of the region
        left, top = max(0, x0 - 2) & ~1, max(0, y0 - 2) & ~1
        part = self.part(left, top, min(self.width, x1 + 2), min(self.height, y1 + 2))
        if min(part.shape) < 3:  # only if the image itself is as thin: OpenCV would make it black
            part = cv2.copyMakeBorder(part, 0, 2, 0, 2, cv2.BORDER_REFLECT_101)
        color = cv2.cvtColor(part, self._code)
        if color.dtype != np.uint8:
            color = _scaled(color, self.full_scale(self._contrast))
        return color[y0 - top : y1 - top, x0 - left : x1 - left]


class PackedPicture(WholePicture):
    """YUV 4:2:2, two pixels of ``samples`` ``[H, W rounded up to even, 2]`` sharing their chroma."""

    def __init__(self, samples: NDArray[np.uint8], width: int, code: int) -> None:
        self._samples = samples
        self._code = code
        self.width = width
        self.height = int(samples.shape[0])

    def region(self, x0: int, y0: int, x1: int, y1: int) -> NDArray[np.uint8]:
        """Return the region in BGR."""
        left = x0 & ~1
        color = cv2.cvtColor(self._samples[y0:y1, left : x1 + (x1 & 1)], self._code)
        return color[:, x0 - left : x1 - left]


class PlanarPicture(WholePicture):
    """YUV whose ``luma`` ``[H, W]`` and interleaved ``chroma`` ``[H / rows, W / columns, 2]`` are separate planes."""

    def __init__(self, luma: NDArray[np.uint8], chroma: NDArray[np.uint8], encoding: Encoding) -> None:
        assert encoding.code is not None
        self._luma = luma
        self._chroma = chroma
        self._shared = encoding.chroma
        self._code: int = encoding.code
        self.height, self.width = (int(side) for side in luma.shape)

    def region(self, x0: int, y0: int, x1: int, y1: int) -> NDArray[np.uint8]:
        """Return the region in BGR."""
        columns, rows = self._shared
        left, top = x0 - x0 % columns, y0 - y0 % rows
        right, bottom = x1 + x1 % columns, y1 + y1 % rows
        luma = self._luma[top:bottom, left:right]
        beyond = (bottom - top - luma.shape[0], right - left - luma.shape[1])  # of an image with an odd side
        if any(beyond):
            luma = cv2.copyMakeBorder(luma, 0, beyond[0], 0, beyond[1], cv2.BORDER_REPLICATE)
        chroma = self._chroma[top // rows : bottom // rows, left // columns : right // columns]
        if rows == 2:
            color = cv2.cvtColorTwoPlane(luma, chroma, self._code)
        else:
            color = cv2.cvtColor(_pack(luma, chroma, columns), self._code)[:, :: 3 - columns]
        return color[y0 - top : y1 - top, x0 - left : x1 - left]


def _pack(luma: NDArray[np.uint8], chroma: NDArray[np.uint8], columns: int) -> NDArray[np.uint8]:
    """Interleave luma ``[H, W]`` and chroma as YUV 4:2:2; pixels are doubled if each has its own chroma."""
    height, width = luma.shape
    if columns == 2:
        return np.stack([luma, chroma.reshape(height, width)], axis=2)
    packed = np.empty((height, 2 * width, 2), np.uint8)
    packed[:, ::2, 0] = packed[:, 1::2, 0] = luma
    packed[:, :, 1] = chroma.reshape(height, 2 * width)
    return packed
