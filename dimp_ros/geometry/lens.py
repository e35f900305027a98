# SPDX-License-Identifier: Apache-2.0
"""Lenses with the distortion models of ROS: directions in space to normalized image coordinates and back.

Normalized coordinates are (pixel - principal point) / focal length. A lens model is valid up to the angle from the
optical axis where its polynomial stops to rise; beyond, it would fold the image back on itself. Directions and
coordinates beyond that limit are moved to the limit, on their side of the axis: finite, but not calibrated.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

_SAMPLES = 1024
_PLANE_LIMIT = math.radians(89.9)
"""Image coordinates on a plane are infinite at 90 degrees from the axis."""
_DISTORTED_PLANE_LIMIT = math.radians(85.0)
_LEAST_LIMIT = math.radians(1.0)
_LARGEST = 1e9
"""Largest coefficient. Those of long lenses are large, since their normalized coordinates are small."""

_TAYLOR = {"plumb_bob": 5, "rational_polynomial": 8}
_FISHEYE = ("equidistant", "fisheye")


class Lens(Protocol):
    """Interface of a lens."""

    limit: float
    """Angle from the optical axis up to which the lens is valid, radians."""

    def directions(self, x: Array, y: Array) -> Array:
        """Return unit vectors [N, 3] of normalized coordinates [N], z forward."""
        ...

    def coordinates(self, rays: Array) -> tuple[Array, Array]:
        """Return the normalized coordinates, each [N], of directions [N, 3] of any length but 0."""
        ...


def make_lens(model: str, coefficients: Sequence[float]) -> Lens:
    """Return the lens that a CameraInfo describes by ``distortion_model`` and ``d``.

    :param model: plumb_bob, rational_polynomial, equidistant (also called fisheye), or empty: then plumb_bob or
        rational_polynomial, by the number of coefficients.
    :param coefficients: (k1, k2, p1, p2, k3, k4, k5, k6) of the first two models, (k1, k2, k3, k4) of the third.
        Missing ones are 0, further ones must be 0.
    :raises ValueError: for another model, and for coefficients that are too many, too large or invalid.
    """
    values = [float(value) for value in coefficients]
    if not all(abs(value) <= _LARGEST for value in values):
        raise ValueError(f"distortion coefficients d = {values} must lie in +-{_LARGEST:g}; calibrate the camera")
    while values and values[-1] == 0.0:
        values.pop()
    if model in _FISHEYE:
        most = 4
    elif not values:
        return PlaneLens(())  # no distortion, whatever the model
    elif model in _TAYLOR or not model:
        most = _TAYLOR.get(model, 8)
    else:
        raise ValueError(
            f"distortion_model {model!r} is not known, only plumb_bob, rational_polynomial and equidistant; "
            "track the rectified image and set rectified"
        )
    if len(values) > most:
        raise ValueError(
            f"distortion_model {model!r} has {most} coefficients at most, but d has {len(values)}; "
            "track the rectified image and set rectified"
        )
    lens = FisheyeLens(values) if model in _FISHEYE else PlaneLens(values)
    if lens.limit < _LEAST_LIMIT:
        raise ValueError(f"distortion coefficients d = {values} of {model!r} make no lens; calibrate the camera")
    return lens


class PlaneLens:
    """A lens that maps onto a plane, r = tan(angle), with distortion plumb_bob or rational_polynomial, or none."""

    def __init__(self, coefficients: Sequence[float]) -> None:
        self.k1, self.k2, self.p1, self.p2, self.k3, self.k4, self.k5, self.k6 = (*coefficients, *(0.0,) * 8)[:8]
        self._straight = not any(coefficients)
        angles = np.linspace(0.0, _DISTORTED_PLANE_LIMIT, _SAMPLES, dtype=np.float64)
        self._radii, self._distorted, self.limit = _rising(angles, np.tan(angles), self._radial_distance)
        if self._straight:
            self.limit = _PLANE_LIMIT
        self._most = math.tan(self.limit)

    def directions(self, x: Array, y: Array) -> Array:
        """Return unit vectors [N, 3] of normalized coordinates [N], solved by Newton's method."""
        u, v = self._within_limit(x, y) if self._straight else self._undistorted(x, y)
        rays = np.stack([u, v, np.ones_like(u)], axis=-1)
        return np.asarray(rays / np.sqrt(u * u + v * v + 1.0)[:, None])

    def coordinates(self, rays: Array) -> tuple[Array, Array]:
        """Return the normalized coordinates, each [N], of directions [N, 3] of any length but 0."""
        across, along, radius = _polar(rays)
        ahead = rays[:, 2]
        near = ahead * self._most > radius
        distance = np.where(near, radius / np.where(near, ahead, 1.0), self._most)
        return self._distort(across * distance, along * distance)[:2]

    def _factor(self, r2: Array) -> tuple[Array, Array]:
        """Return the radial factor at squared radii, and its derivative with respect to the squared radius."""
        above = 1.0 + r2 * (self.k1 + r2 * (self.k2 + r2 * self.k3))
        below = 1.0 + r2 * (self.k4 + r2 * (self.k5 + r2 * self.k6))
        rise_above = self.k1 + r2 * (2.0 * self.k2 + r2 * 3.0 * self.k3)
        rise_below = self.k4 + r2 * (2.0 * self.k5 + r2 * 3.0 * self.k6)
        factor = above / below
        return factor, (rise_above - factor * rise_below) / below

    def _radial_distance(self, radii: Array) -> Array:
        """Return the distorted radii without the tangential part; NaN where the radial factor is undefined."""
        below = 1.0 + radii**2 * (self.k4 + radii**2 * (self.k5 + radii**2 * self.k6))
        return np.where(below > 0.0, radii * self._factor(radii**2)[0], np.nan)

    def _distort(self, x: Array, y: Array) -> tuple[Array, Array, Array, Array, Array]:
        """Return distorted coordinates (x, y) and their derivatives dx/dx, dx/dy = dy/dx, dy/dy."""
        r2, xy = x * x + y * y, x * y
        factor, rise = self._factor(r2)
        p1, p2 = self.p1, self.p2
        return (
            x * factor + 2.0 * p1 * xy + p2 * (r2 + 2.0 * x * x),
            y * factor + p1 * (r2 + 2.0 * y * y) + 2.0 * p2 * xy,
            factor + 2.0 * x * x * rise + 2.0 * p1 * y + 6.0 * p2 * x,
            2.0 * (xy * rise + p1 * x + p2 * y),
            factor + 2.0 * y * y * rise + 6.0 * p1 * y + 2.0 * p2 * x,
        )

    def _undistorted(self, x: Array, y: Array) -> tuple[Array, Array]:
        """Invert `_distort`: the radial part by table, then Newton's method; the best iterate is kept."""
        radius = np.hypot(x, y)
        scale = np.interp(radius, self._distorted, self._radii) / np.where(radius > 0.0, radius, 1.0)
        u, v = x * scale, y * scale
        best_u, best_v, least = u, v, np.full_like(u, np.inf)
        for _ in range(5):
            at_x, at_y, xx, xy, yy = self._distort(u, v)
            wrong_x, wrong_y = x - at_x, y - at_y
            error = np.hypot(wrong_x, wrong_y)
            better = error < least
            best_u, best_v = np.where(better, u, best_u), np.where(better, v, best_v)
            least = np.where(better, error, least)
            if not np.any(better & (error > 1e-12)):
                break
            area = xx * yy - xy * xy
            area = np.maximum(area, 1e-6)  # bounds the step where the Jacobian is nearly singular
            u, v = u + (yy * wrong_x - xy * wrong_y) / area, v + (xx * wrong_y - xy * wrong_x) / area
            u, v = self._within_limit(u, v)
        return best_u, best_v

    def _within_limit(self, x: Array, y: Array) -> tuple[Array, Array]:
        shrink = self._most / np.maximum(np.hypot(x, y), self._most)
        return x * shrink, y * shrink


class FisheyeLens:
    """An equidistant lens, r = angle, times 1 + k1 angle^2 + ... + k4 angle^8; may see beyond 90 degrees."""

    def __init__(self, coefficients: Sequence[float]) -> None:
        self._k = (*coefficients, *(0.0,) * 4)[:4]
        angles = np.linspace(0.0, math.pi, _SAMPLES, dtype=np.float64)
        self._angles, self._distorted, self.limit = _rising(angles, angles, self._distort)

    def directions(self, x: Array, y: Array) -> Array:
        """Return unit vectors [N, 3] of normalized coordinates [N]."""
        radius = np.hypot(x, y)
        within = np.minimum(radius, self._distorted[-1])
        angle = np.interp(within, self._distorted, self._angles)
        for _ in range(2):
            slope = np.maximum(self._slope(angle), 1e-3)
            angle = np.clip(angle + (within - self._distort(angle)) / slope, 0.0, self.limit)
        scale = np.where(radius > 0.0, np.sin(angle) / np.where(radius > 0.0, radius, 1.0), 1.0)
        return np.stack([x * scale, y * scale, np.cos(angle)], axis=-1)

    def coordinates(self, rays: Array) -> tuple[Array, Array]:
        """Return the normalized coordinates, each [N], of directions [N, 3] of any length but 0."""
        across, along, radius = _polar(rays)
        distance = self._distort(np.minimum(np.arctan2(radius, rays[:, 2]), self.limit))
        return across * distance, along * distance

    def _distort(self, angle: Array) -> Array:
        k1, k2, k3, k4 = self._k
        a2 = angle * angle
        return np.asarray(angle * (1.0 + a2 * (k1 + a2 * (k2 + a2 * (k3 + a2 * k4)))))

    def _slope(self, angle: Array) -> Array:
        k1, k2, k3, k4 = self._k
        a2 = angle * angle
        return np.asarray(1.0 + a2 * (3.0 * k1 + a2 * (5.0 * k2 + a2 * (7.0 * k3 + a2 * 9.0 * k4))))


class _Distance(Protocol):
    def __call__(self, values: Array, /) -> Array: ...


def _rising(angles: Array, values: Array, distance: _Distance) -> tuple[Array, Array, float]:
    """Return ``values`` up to where ``distance`` stops to rise, their distances, and the angle there."""
    with np.errstate(all="ignore"):
        reached = distance(values)
        rises = np.diff(reached) > 1e-3 * np.diff(values)  # a NaN does not rise
    count = len(values) if rises.all() else int(np.argmin(rises)) + 1
    return values[:count], reached[:count], float(angles[count - 1])


def _polar(rays: Array) -> tuple[Array, Array, Array]:
    """Return cosine and sine of the azimuth about the optical axis, and the distance from it."""
    x, y = rays[:, 0], rays[:, 1]
    radius = np.hypot(x, y)
    off_axis = radius > 0.0
    divisor = np.where(off_axis, radius, 1.0)
    return np.where(off_axis, x / divisor, 1.0), y / divisor, radius  # azimuth 0 on the axis
