# SPDX-License-Identifier: Apache-2.0
"""A calibrated camera as sensor_msgs/CameraInfo describes it: pixels to directions in space and back.

Directions are in the optical frame: x right, y down, z forward along the optical axis. Pixel i covers [i, i + 1), so
the middle of an image that is W pixels wide is at W / 2. Camera matrices put the centre of pixel i at i, half a pixel
lower; `Camera.from_matrix` converts.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dimp_ros.geometry.lens import Lens, PlaneLens, make_lens

if TYPE_CHECKING:
    from sensor_msgs.msg import CameraInfo

_HALF_PIXEL = 0.5
_MOST_PIXELS = 1e7
"""Largest coordinate accepted, in pixels."""
_MOST_SKEW = 0.01
"""Largest skew of a camera matrix, in focal lengths. It is not applied: 0.3 degrees at the edge of a 60-degree view."""


class NotCalibrated(ValueError):
    """A camera without a calibration, which drivers report by a matrix of zeros."""


@dataclass(frozen=True)
class Camera:
    """A camera whose images are ``width`` x ``height`` pixels.

    ``fx``, ``fy``: focal length in pixels. ``cx``, ``cy``: principal point, where pixel i covers
    [i, i + 1).
    """

    width: int
    height: int
    fx: float
    fy: float
    cx: float
    cy: float
    lens: Lens

    @classmethod
    def from_matrix(cls, width: int, height: int, matrix: Sequence[float], lens: Lens | None = None) -> Camera:
        """Return the camera of a calibration's matrix, which has the centre of the first pixel at (0, 0).

        :param matrix: row by row, 9 numbers of a 3x3 K or 12 of a 3x4 P. Only focal lengths and principal point are
            used; the baseline in P does not change directions. A skew beyond 1 % of the focal lengths, or a last row
            other than (0, 0, 1), would, and is refused.
        :param lens: None for one without distortion.
        :raises NotCalibrated: for a matrix of zeros.
        :raises ValueError: for an invalid size or matrix.
        """
        columns = len(matrix) // 3
        if len(matrix) not in (9, 12):
            raise ValueError(f"a camera matrix has 9 or 12 numbers, got {len(matrix)}")
        if not any(float(value) != 0.0 for value in matrix):
            raise NotCalibrated("the camera matrix is all zeros: the camera is not calibrated")
        if not (width >= 1 and height >= 1):
            raise ValueError(f"the camera's images are {width} x {height} pixels; both sides must be at least 1")
        fx, cx, fy, cy = (float(matrix[i]) for i in (0, 2, columns + 1, columns + 2))
        side = float(max(width, height))
        if not (side / 100 <= fx <= side * 1000 and side / 100 <= fy <= side * 1000):  # a NaN is refused as well
            raise ValueError(
                f"focal lengths {fx:g} and {fy:g} px of a {width} x {height} camera must lie in "
                f"{side / 100:g} .. {side * 1000:g}; calibrate the camera"
            )
        if not (abs(cx) <= side * 100 and abs(cy) <= side * 100):
            raise ValueError(f"principal point ({cx:g}, {cy:g}) px is far from the {width} x {height} image; calibrate")
        skew = max(abs(float(matrix[1])), abs(float(matrix[columns])))
        scale = [float(value) for value in matrix[2 * columns : 2 * columns + 3]]
        if not (skew <= _MOST_SKEW * min(fx, fy) and np.allclose(scale, (0.0, 0.0, 1.0), rtol=0.0, atol=1e-6)):
            raise ValueError(
                f"camera matrix with a skew of {skew:g} px and the last row {scale}: the skew must be at most "
                f"{_MOST_SKEW * min(fx, fy):g} px and the row 0, 0, 1, as sensor_msgs/CameraInfo describes; calibrate"
            )
        return cls(width, height, fx, fy, cx + _HALF_PIXEL, cy + _HALF_PIXEL, lens or PlaneLens(()))

    @classmethod
    def from_info(cls, info: CameraInfo, *, rectified: bool = False) -> Camera:
        """Return the camera of a CameraInfo, or of anything with its fields; region of interest and binning apply.

        :param rectified: the images are rectified: P describes them. Otherwise K and D do, and directions are in the
            axes of the unrectified camera, before the rotation R.
        :raises NotCalibrated: if the matrix is all zeros.
        :raises ValueError: for an invalid message, with the value received.
        """
        width, height = int(info.width), int(info.height)
        matrix, name = (info.p, "P") if rectified else (info.k, "K")
        try:
            lens = None if rectified else make_lens(info.distortion_model, info.d)
            camera = cls.from_matrix(width, height, matrix, lens)
        except NotCalibrated as error:
            remedy = "set rectified to false for raw images, or " if rectified and any(info.k) else ""
            raise NotCalibrated(f"{name} is all zeros: {remedy}calibrate the camera") from error
        region = info.roi
        if region.width or region.height:
            camera = camera.cropped(region.x_offset, region.y_offset, region.width, region.height)
        return camera.binned(max(1, info.binning_x), max(1, info.binning_y))

    def cropped(self, x: int, y: int, width: int, height: int) -> Camera:
        """Return the camera of a region of the images, whose pixels count from its own top-left corner.

        :raises ValueError: for a region that is not inside the image.
        """
        if width < 1 or height < 1 or x < 0 or y < 0 or x + width > self.width or y + height > self.height:
            raise ValueError(
                f"region of interest {width} x {height} at ({x}, {y}) is not inside the {self.width} x {self.height} "
                "image; region and camera matrix are of the full image, before binning"
            )
        return replace(self, width=width, height=height, cx=self.cx - x, cy=self.cy - y)

    def binned(self, x: int, y: int) -> Camera:
        """Return the camera of images binned by ``x`` x ``y`` pixels; the remainder is cut off.

        :raises ValueError: if no pixel is left.
        """
        if not (1 <= x <= self.width and 1 <= y <= self.height):
            raise ValueError(f"binning {x} x {y} leaves nothing of a {self.width} x {self.height} image")
        scaled = replace(self, fx=self.fx / x, fy=self.fy / y, cx=self.cx / x, cy=self.cy / y)
        return replace(scaled, width=self.width // x, height=self.height // y)

    def resized(self, width: int, height: int) -> Camera:
        """Return the camera of the same images resized to ``width`` x ``height``.

        :raises ValueError: if the aspect ratio differs by more than a pixel: then an unknown part was cut off.
        """
        if (width, height) == (self.width, self.height):
            return self
        if width < 1 or height < 1 or not same_shape(width, height, self.width, self.height):
            raise ValueError(
                f"the image is {width} x {height} pixels, but camera_info is of {self.width} x {self.height}, another "
                "shape: publish the camera_info of this image, with its region of interest"
            )
        x, y = width / self.width, height / self.height
        return replace(self, width=width, height=height, fx=self.fx * x, fy=self.fy * y, cx=self.cx * x, cy=self.cy * y)

    def bearing(self, x: ArrayLike, y: ArrayLike) -> NDArray[np.float64]:
        """Return unit vectors [..., 3] from the camera to pixels ``x``, ``y`` [...], inside or outside the image.

        A pixel beyond the lens's limit, where its distortion would fold the image back, gets the direction at the
        limit on its side; never a NaN.

        :raises ValueError: for coordinates that are not finite, or beyond +-10 million pixels.
        """
        pixels = np.broadcast_arrays(np.asarray(x, np.float64), np.asarray(y, np.float64))
        if not all((np.abs(values) <= _MOST_PIXELS).all() for values in pixels):
            raise ValueError(f"pixels x = {x!r}, y = {y!r} must be finite and within {_MOST_PIXELS:g} of 0")
        rays = self.lens.directions((pixels[0].ravel() - self.cx) / self.fx, (pixels[1].ravel() - self.cy) / self.fy)
        return rays.reshape(*pixels[0].shape, 3)

    def project(self, points: ArrayLike) -> NDArray[np.float64]:
        """Return the pixels [..., 2] of ``points`` [..., 3] in the optical frame, in any unit of length.

        A point beyond the lens's limit, such as one behind the camera, gets the pixel at the limit on its side, which
        lies far outside the image of most lenses; never a NaN.

        :raises ValueError: for points that are not finite, or at the camera's centre.
        """
        space = np.asarray(points, np.float64)
        rays = space.reshape(-1, 3)
        largest = np.abs(rays).max(axis=-1, initial=0.0)
        if not (np.isfinite(largest) & (largest > 0.0)).all():
            raise ValueError(f"points {points!r} must be finite and none at (0, 0, 0)")
        x, y = self.lens.coordinates(rays / largest[:, None])
        pixels = np.stack([x * self.fx + self.cx, y * self.fy + self.cy], axis=-1)
        return pixels.reshape(*space.shape[:-1], 2)


def same_shape(width: float, height: float, other_width: float, other_height: float) -> bool:
    """Return whether two images have the same aspect ratio, up to a pixel of the smaller one."""
    if width > other_width:
        width, height, other_width, other_height = other_width, other_height, width, height
    return math.isclose(height, width * other_height / other_width, rel_tol=0.0, abs_tol=max(1.0, height / width))
