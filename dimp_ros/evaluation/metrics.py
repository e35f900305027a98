# SPDX-License-Identifier: Apache-2.0
"""Accuracy of tracks: success and precision as in OTB, TrackingNet and LaSOT, average overlap as in GOT-10k.

Shapes: N frames, boxes ``(x, y, w, h)`` in float pixels. A frame is *annotated* if its true box is finite and not
empty; other frames (target absent) do not count. The first frame, whose box the tracker is given, counts in
success and precision (Wu, Lim, Yang, TPAMI 2015) and not in the average overlap (Huang, Zhao, Huang, TPAMI
2021). A predicted box that is not finite has overlap 0 and an infinite error.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dimp_ros.geometry.box import iou

Floats = NDArray[np.float64]

SUCCESS_THRESHOLDS: Floats = np.arange(21) / 20.0
"""The 21 overlap thresholds 0, 0.05 ... 1 of the success plot."""

PRECISION_THRESHOLDS: Floats = np.arange(51) / 1.0
"""The 51 centre errors 0, 1 ... 50, in pixels, of the precision plot."""

NORMALIZED_THRESHOLDS: Floats = np.arange(51) / 100.0
"""The 51 centre errors 0, 0.01 ... 0.5, in box sizes, of the normalised precision plot."""

AVERAGE_OVERLAP_THRESHOLDS: Floats = np.arange(101) / 100.0
"""The 101 overlap thresholds 0, 0.01 ... 1 of GOT-10k's success plot."""

PRECISION_PIXELS = 20.0
"""Centre error, in pixels, up to which a frame counts as precise (P20)."""


def _boxes(boxes: ArrayLike) -> Floats:
    array = np.asarray(boxes, dtype=np.float64)
    if array.ndim != 2 or array.shape[1] != 4:
        raise ValueError(f"boxes must have shape (N, 4) as x, y, w, h; got {array.shape}")
    return array


def _pair(predicted: ArrayLike, truth: ArrayLike) -> tuple[Floats, Floats]:
    first, second = _boxes(predicted), _boxes(truth)
    if len(first) != len(second):
        raise ValueError(f"one predicted box per frame is needed; got {len(first)} boxes for {len(second)} frames")
    return first, second


def annotated(truth: ArrayLike) -> NDArray[np.bool_]:
    """Tell which frames have a true box: (N, 4) boxes -> (N,) bool."""
    boxes = _boxes(truth)
    with np.errstate(invalid="ignore"):
        return np.isfinite(boxes).all(axis=1) & (boxes[:, 2] > 0) & (boxes[:, 3] > 0)


def overlap(predicted: ArrayLike, truth: ArrayLike) -> Floats:
    """Return the intersection over union of each pair of boxes: (N, 4), (N, 4) -> (N,) in [0, 1].

    Boxes are not clipped to the image. A pair with a box that is empty or not finite has overlap 0.
    """
    first, second = _pair(predicted, truth)
    valid = annotated(first) & annotated(second)
    result = np.zeros(len(first))
    result[valid] = np.minimum(iou(first[valid], second[valid]), 1.0)  # rounding must not exceed 1
    return result


def center_error(predicted: ArrayLike, truth: ArrayLike) -> Floats:
    """Return the distance between box centres in pixels: (N, 4), (N, 4) -> (N,); inf where a box is not finite."""
    first, second = _pair(predicted, truth)
    valid = np.isfinite(first).all(axis=1) & np.isfinite(second).all(axis=1)
    result = np.full(len(first), np.inf)
    offset = (first[:, :2] + first[:, 2:] / 2)[valid] - (second[:, :2] + second[:, 2:] / 2)[valid]
    result[valid] = np.hypot(offset[:, 0], offset[:, 1])
    return result


def success_curve(predicted: ArrayLike, truth: ArrayLike) -> Floats:
    """Return the share of annotated frames whose overlap is *greater* than each threshold: (N, 4), (N, 4) -> (21,).

    "Greater" is strict, so even a perfect track scores 0 at the last threshold, 1.
    """
    frames = annotated(truth)
    if not frames.any():
        raise ValueError("no annotated frame: success is undefined; give a sequence with at least one box")
    overlaps = overlap(predicted, truth)[frames]
    curve: Floats = (overlaps[:, None] > SUCCESS_THRESHOLDS[None, :]).mean(axis=0)
    return curve


def success_auc(predicted: ArrayLike, truth: ArrayLike) -> float:
    """Return the area under the success curve, the mean of its 21 values, in [0, 20/21]."""
    return float(success_curve(predicted, truth).mean())


def _within(errors: Floats, thresholds: Floats, truth: ArrayLike) -> Floats:
    frames = annotated(truth)
    if not frames.any():
        raise ValueError("no annotated frame: precision is undefined; give a sequence with at least one box")
    curve: Floats = (errors[frames][:, None] <= thresholds[None, :]).mean(axis=0)
    return curve


def precision_curve(predicted: ArrayLike, truth: ArrayLike) -> Floats:
    """Return the share of annotated frames with a centre error of at most 0, 1 ... 50 px: (N, 4), (N, 4) -> (51,)."""
    return _within(center_error(predicted, truth), PRECISION_THRESHOLDS, truth)


def precision(predicted: ArrayLike, truth: ArrayLike, pixels: float = PRECISION_PIXELS) -> float:
    """Return the share of annotated frames whose centre error is at most `pixels` (P20 by default), in [0, 1]."""
    return float(_within(center_error(predicted, truth), np.array([pixels]), truth)[0])


def normalized_error(predicted: ArrayLike, truth: ArrayLike) -> Floats:
    """Return the centre error in units of the true box's size: (N, 4), (N, 4) -> (N,); inf where it is undefined.

    ``| ((cx - cx*) / w*, (cy - cy*) / h*) |`` (Mueller et al., TrackingNet, ECCV 2018, section 5.1).
    """
    first, second = _pair(predicted, truth)
    valid = np.isfinite(first).all(axis=1) & annotated(second)
    result = np.full(len(first), np.inf)
    offset = (first[:, :2] + first[:, 2:] / 2 - second[:, :2] - second[:, 2:] / 2)[valid] / second[valid, 2:]
    result[valid] = np.hypot(offset[:, 0], offset[:, 1])
    return result


def normalized_precision_curve(predicted: ArrayLike, truth: ArrayLike) -> Floats:
    """Return the share of annotated frames with a normalised error of at most 0, 0.01 ... 0.5: 2 x (N, 4) -> (51,)."""
    return _within(normalized_error(predicted, truth), NORMALIZED_THRESHOLDS, truth)


def normalized_precision(predicted: ArrayLike, truth: ArrayLike) -> float:
    """Return the area under the normalised precision curve, the mean of its 51 values, in [0, 1]."""
    return float(normalized_precision_curve(predicted, truth).mean())


def _clipped(boxes: Floats, size: tuple[float, float]) -> Floats:
    """Cut boxes off at 0 and at width and height, corner first and then sides, as GOT-10k's toolkit does."""
    corner = np.clip(boxes[:, :2], 0, size)
    return np.concatenate([corner, np.clip(boxes[:, 2:], 0, np.asarray(size) - corner)], axis=1)


def counted_overlaps(
    predicted: ArrayLike, truth: ArrayLike, size: tuple[float, float] | None = None, origin: int = 0
) -> Floats:
    """Return the overlaps that GOT-10k counts: those of annotated frames without the first: (N, 4), (N, 4) -> (M,).

    With `size`, the image's (width, height), both boxes are first clipped to it as the official toolkit does: in the
    coordinates of the data set's files, in which the first pixel is `origin`, at 0 and at width and height; a corner
    outside moves onto the edge and the side stays, as long as it fits.
    Their mean is AO, the shares above 0.5 and 0.75 are SR(0.5) and SR(0.75), over all frames of all sequences.
    """
    first, second = _pair(predicted, truth)
    frames = annotated(second)
    frames[:1] = False
    first, second = first[frames] + (origin, origin, 0, 0), second[frames] + (origin, origin, 0, 0)
    if size is not None:
        first, second = _clipped(first, size), _clipped(second, size)
    return overlap(first, second)
