# SPDX-License-Identifier: Apache-2.0
"""Contrast of a stream: black and white level of grey images of more than 8 bits, without flicker."""

from __future__ import annotations

import threading
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

SAMPLES_PER_SIDE = 64
"""The limits of an image are computed from at most so many rows and columns."""
PERCENTILES = (0.5, 99.5)
FOLLOW = 0.05
"""Gain of the exponential average of the stream's limits."""
FULL_SCALES = {"f": (1.0, 255.0), "u": (1023.0, 4095.0, 16383.0, 65535.0)}
"""Possible values of full brightness of colour, by numpy's kind of type."""
_LARGEST = 1e38  # so that differences are finite, also in single precision
_SMALLEST_SPAN = 1e-30  # so that 255 / span is finite


class Limits(NamedTuple):
    """Values that are shown black and white."""

    low: float
    high: float


class Contrast:
    """Limits shared by the images of one stream, so that an object looks the same in each; thread-safe.

    The limits of one image are robust percentiles of a bounded sample; NaN and infinity are ignored. Those of the
    stream follow slowly: a hot object that enters a thermal image must not change the target's appearance from one
    image to the next. If more than half of an image lies outside (the camera's gain changed), they start again from it.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._limits: dict[str, Limits] = {}
        self._full_scale: dict[str, float] = {}

    def grey(self, samples: NDArray[Any]) -> Limits:
        """Move the stream's limits towards those of a new image, and return them.

        :param samples: ``[H, W]`` of any real type.
        """
        values = _finite(samples)
        name = samples.dtype.name
        with self._lock:
            limits = self._limits.get(name)
            if values.size == 0:
                return limits or Limits(0.0, 1.0)
            low, high = (float(value) for value in np.percentile(values, PERCENTILES))
            if limits is None or np.mean((values >= limits.low) & (values <= limits.high)) < 0.5:
                limits = Limits(low, high)
            else:
                limits = Limits(*(old + FOLLOW * (new - old) for old, new in zip(limits, (low, high), strict=True)))
            self._limits[name] = limits
        return limits

    def color(self, samples: NDArray[Any]) -> float:
        """Return the value of full brightness of colour or Bayer images of 16 bits or floating point.

        It is the smallest of `FULL_SCALES` that no image of the stream has exceeded: sensors of 10 to 14 bits deliver
        16, and their images would be dark on a scale of 65535. 0.5 % of a floating-point image may exceed it.

        :param samples: ``[H, W, C]`` or ``[H, W]``.
        """
        kind, name = samples.dtype.kind, samples.dtype.name
        scales = FULL_SCALES[kind]
        if kind == "f":
            values = _finite(samples)
            largest = float(np.percentile(values, PERCENTILES[1])) if values.size else 0.0
        else:
            largest = float(samples.max())
        scale = next((scale for scale in scales if largest <= scale), scales[-1])
        with self._lock:
            self._full_scale[name] = max(scale, self._full_scale.get(name, 0.0))
            return self._full_scale[name]


def to_uint8(samples: NDArray[Any], limits: Limits) -> NDArray[np.uint8]:
    """Return grey values as uint8: ``low`` and below as 0, ``high`` and above as 255, NaN as 0; the shape is kept.

    Equal limits give 0 everywhere.
    """
    low, high = limits
    if not high - low > _SMALLEST_SPAN:
        return np.zeros(samples.shape, np.uint8)
    with np.errstate(invalid="ignore"):
        values = samples.astype(np.float32 if samples.dtype.itemsize <= 2 else np.float64)
        np.clip(values, low, high, out=values)
        np.subtract(values, low, out=values)
    values = values.astype(np.float32, copy=False)
    if samples.dtype.kind == "f":
        cv2.patchNaNs(values, 0.0)
    return cv2.convertScaleAbs(values, alpha=255 / (high - low))


def _finite(samples: NDArray[Any]) -> NDArray[np.float64]:
    """Return the finite values of a regular sample of the pixels."""
    height, width = samples.shape[:2]
    down, right = -(-height // SAMPLES_PER_SIDE), -(-width // SAMPLES_PER_SIDE)
    with np.errstate(invalid="ignore"):
        values = samples[down // 2 :: down, right // 2 :: right].astype(np.float64).ravel()
    return np.clip(values[np.isfinite(values)], -_LARGEST, _LARGEST)
