# SPDX-License-Identifier: Apache-2.0
"""Range of a target from depths or from its known width, and its position in space."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from dimp_ros.geometry.box import Box
from dimp_ros.geometry.camera import Camera

_LEAST_PIXELS = 4
_LEAST_VALID = 0.05
"""Least share of the sampled pixels with a valid depth."""

_FOREGROUND_SHARE = 0.15
"""A target covers at least this share of the middle of its box; smaller groups in front are noise."""

_CLUSTER = 0.10
_CLUSTER_METRES = 0.05
"""Depths within 10 % + 5 cm of the nearest form a group: noise of stereo cameras, depth of the target itself."""

_DEPTH_NOISE = 0.01
"""Least relative standard deviation of a depth; the spread does not contain calibration errors."""

_WIDTH_NOISE = 0.2
"""Relative standard deviation of the apparent width: the target turns and deforms, and boxes are biased."""

_EDGE_NOISE = 0.05
_EDGE_NOISE_PIXELS = 0.5
"""Assumed standard deviation of a box's edges and middle: a share of its side, and at least so many pixels."""

_CALIBRATION_NOISE = 1e-3
"""Standard deviation of every direction, radians."""

_LEAST_FORWARD = 0.1
"""Least z of a ray: depth is along the optical axis, and gives no range for rays nearly perpendicular to it."""


class Range(NamedTuple):
    """Distance from the camera along a ray, and its standard deviation, in metres."""

    distance: float
    deviation: float
    source: str
    """``depth``: measured. ``width``: approximate, from the apparent size of the target."""


class Foreground(NamedTuple):
    """The nearest surface among depths: median and robust standard deviation, metres, along the optical axis."""

    depth: float
    deviation: float
    pixels: int
    """Number of depths in the group."""
    valid: int
    """Number of valid depths."""


class Position(NamedTuple):
    """A position in the optical frame in metres, with covariance."""

    x: float
    y: float
    z: float
    covariance: NDArray[np.float64]
    """[3, 3], square metres."""
    range: Range

    @property
    def approximate(self) -> bool:
        """Whether the range is estimated from the apparent size instead of measured."""
        return self.range.source != "depth"


def foreground(depths: NDArray[np.floating]) -> Foreground | None:
    """Return the nearest group of depths that is large enough to be a target, None if there is none.

    The group starts at the first of the sorted valid depths that has 15 % of all within 10 % + 5 cm behind it; then it
    is centred on its median three times. A wall behind the target does not count, however much of it is visible, nor
    do scattered wrong depths in front. An object in front that covers 15 % of the middle of the box does count: a robot
    that follows the target must stop for it.

    :param depths: metres along the optical axis, any shape; values that are not finite or not above 0 are invalid.
    """
    flat = np.asarray(depths, np.float64).ravel()
    valid = np.sort(flat[np.isfinite(flat) & (flat > 0.0)])
    if len(valid) < max(_LEAST_PIXELS, _LEAST_VALID * len(flat)):
        return None
    needed = max(_LEAST_PIXELS, math.ceil(_FOREGROUND_SHARE * len(valid)))
    ends = np.searchsorted(valid, valid * (1.0 + _CLUSTER) + _CLUSTER_METRES, side="right")
    counts = ends - np.arange(len(valid))
    if counts.max() < needed:
        return None  # scattered depths: there is no surface
    first = int(np.argmax(counts >= needed))
    group = valid[first : ends[first]]
    for _ in range(3):
        middle = float(np.median(group))
        reach = (middle * _CLUSTER + _CLUSTER_METRES) / 2.0
        group = valid[np.searchsorted(valid, middle - reach) : np.searchsorted(valid, middle + reach, side="right")]
    middle = float(np.median(group))
    spread = 1.4826 * float(np.median(np.abs(group - middle)))
    return Foreground(middle, math.hypot(spread, _DEPTH_NOISE * middle), len(group), len(valid))


def range_from_depth(camera: Camera, box: Box, found: Foreground) -> Range | None:
    """Return the range of a target with the foreground ``found``, None if its ray is nearly perpendicular to the axis.

    Depths are measured along the optical axis; the range is along the ray, which is longer.
    """
    forward = float(camera.bearing(*box.center)[2])
    if forward < _LEAST_FORWARD:
        return None
    return Range(found.depth / forward, found.deviation / forward, "depth")


def range_from_width(camera: Camera, box: Box, width: float) -> Range | None:
    """Return the range of a target that is ``width`` metres wide, from the angle between the sides of its box.

    None if a side of the box is at the image's border: a target that leaves the image looks narrower, and would seem
    farther away than it is.
    """
    border = max(1.0, camera.width / 100)
    if box.x < border or box.x + box.w > camera.width - border or box.w < 1.0:
        return None
    middle = box.y + box.h / 2
    left, right = camera.bearing([box.x, box.x + box.w], [middle, middle])
    half = math.atan2(float(np.linalg.norm(np.cross(left, right))), float(left @ right)) / 2.0
    if half < 1e-6:
        return None
    distance = width / 2.0 / math.tan(half)
    edges = math.sqrt(2.0) * max(_EDGE_NOISE_PIXELS, _EDGE_NOISE * box.w) / box.w
    return Range(distance, distance * math.hypot(_WIDTH_NOISE, edges), "width")


def position(camera: Camera, box: Box, found: Range) -> Position:
    """Return the position at a range along the bearing of a box's middle, with its covariance.

    Along the ray the variance is the range's. Across it, the standard deviation is the range times the angle of the
    box's jitter (5 % of its side, at least half a pixel) and, in quadrature, 1 mrad for the calibration. Both are
    rotated into the optical frame.
    """
    x, y = box.center
    step_x, step_y = (max(_EDGE_NOISE_PIXELS, _EDGE_NOISE * side) for side in (box.w, box.h))
    ray, moved_x, moved_y = camera.bearing([x, x + step_x, x], [y, y, y + step_y])
    across = np.stack([moved_x - ray, moved_y - ray])
    across -= np.outer(across @ ray, ray)
    spread = across.T @ across + _CALIBRATION_NOISE**2 * (np.eye(3) - np.outer(ray, ray))
    covariance = found.distance**2 * spread + found.deviation**2 * np.outer(ray, ray)
    place = found.distance * ray
    return Position(float(place[0]), float(place[1]), float(place[2]), covariance, found)
