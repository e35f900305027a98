# SPDX-License-Identifier: Apache-2.0
"""Flat textured surfaces as a camera sees them, exactly: by the ray of every pixel, whatever the lens.

A surface is the points ``corner + a * along + b * down``. In the camera's frame, a pixel's ray r (scaled to z = 1)
meets it at depth z with r = (a along + b down + corner) / z, so (a/z, b/z, 1/z) is a 3x3 matrix times r.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from dimp_ros.apps.simulator.textures import pyramid
from dimp_ros.geometry.camera import Camera
from dimp_ros.images.video import BgrImage

Floats = NDArray[np.float64]
Singles = NDArray[np.float32]

NEAREST = 0.02
"""What is nearer to the camera than this is not drawn, metres."""
_FARTHEST_TEXEL = 30000.0  # cv2.remap's coordinates are 16-bit numbers


class Texture:
    """An image in several resolutions, [H, W, 3] BGR, or [H, W, 4] with an opacity that the colours are scaled by."""

    def __init__(self, image: NDArray[np.uint8]) -> None:
        self.levels = pyramid(image)
        """From the finest resolution to the coarsest, halved from each to the next."""

    @property
    def aspect(self) -> float:
        """Width over height."""
        height, width = self.levels[0].shape[:2]
        return width / height


@dataclass(frozen=True)
class TexturedSurface:
    """A flat image in the world; ``corner`` is its top left one, ``along`` and ``down`` its sides, metres [3]."""

    corner: Floats
    along: Floats
    down: Floats
    texture: Texture

    def outline(self, per_side: int = 12) -> Floats:
        """Return points [N, 3] of its edge."""
        part = np.arange(per_side) / per_side
        zero, one = np.zeros(per_side), np.ones(per_side)
        a = np.concatenate([part, one, 1.0 - part, zero])
        b = np.concatenate([zero, part, one, 1.0 - part])
        return self.points(a, b)

    @property
    def middle(self) -> Floats:
        """Its middle in the world [3]."""
        return self.corner + (self.along + self.down) / 2

    def points(self, a: Floats, b: Floats) -> Floats:
        """Return the points [N, 3] at ``a`` along and ``b`` down [N], from 0 to 1."""
        return self.corner + a[:, None] * self.along + b[:, None] * self.down

    def solved(self, position: Floats, rotation: Floats) -> Floats | None:
        """Return the matrix [3, 3] of the module's text for a camera; None where it looks along the surface."""
        sides = np.stack([self.along, self.down, self.corner - position], axis=1)
        matrix = rotation.T @ sides
        if abs(np.linalg.det(matrix)) < 1e-12:
            return None
        return np.asarray(np.linalg.inv(matrix))


class SurfaceRenderer:
    """Draws surfaces as ``camera`` sees them: a backdrop of endless ones, and plates in front of it."""

    def __init__(self, camera: Camera) -> None:
        self.camera = camera
        x, y = np.meshgrid(np.arange(camera.width) + 0.5, np.arange(camera.height) + 0.5)
        rays = camera.bearing(x, y)
        self._rays: Singles = np.ascontiguousarray((rays / rays[..., 2:]).transpose(2, 0, 1), np.float32)  # [3, H, W]

    def draw(
        self, position: Floats, rotation: Floats, backdrop: Sequence[TexturedSurface], plates: Sequence[TexturedSurface]
    ) -> BgrImage:
        """Return the image, [H, W, 3] uint8 BGR; of the backdrop's surfaces, the nearest counts, later plates cover."""
        image = np.full((self.camera.height, self.camera.width, 3), (235, 215, 190), np.uint8)
        matrices = [surface.solved(position, rotation) for surface in backdrop]
        nearness, nearest = self._nearest(matrices)
        for index, (surface, matrix) in enumerate(zip(backdrop, matrices, strict=True)):
            chosen = (nearest == index) & (nearness > 0.0)
            if matrix is None or not chosen.any():
                continue
            rows, columns = _extent(chosen)
            part = self._textured(surface, matrix, rows, columns, cv2.BORDER_REFLECT)
            np.copyto(image[rows, columns], part, where=chosen[rows, columns, None])
        for plate in plates:
            self._draw_plate(image, plate, position, rotation)
        return image

    def depth(
        self, position: Floats, rotation: Floats, backdrop: Sequence[TexturedSurface], plates: Sequence[TexturedSurface]
    ) -> Singles:
        """Return the depth along the optical axis, [H, W] float32 in metres; NaN where there is nothing."""
        nearness, _ = self._nearest([surface.solved(position, rotation) for surface in backdrop])
        with np.errstate(divide="ignore"):
            depth = np.where(nearness > 0.0, 1.0 / nearness, np.nan).astype(np.float32)
        for plate in plates:
            if (found := self._window(plate, position, rotation)) is None:
                continue
            matrix, rows, columns = found
            opacity = self._textured(plate, matrix, rows, columns, cv2.BORDER_CONSTANT)[..., 3]
            inverse = self._product(matrix[2], rows, columns)
            seen = (opacity > 127) & (inverse > 0.0)
            np.copyto(depth[rows, columns], np.float32(1.0) / np.where(seen, inverse, 1.0), where=seen)
        return depth

    def _nearest(self, matrices: Sequence[Floats | None]) -> tuple[Singles, NDArray[np.int8]]:
        """Return the greatest inverse depth [H, W] of endless surfaces, 0 where there is none, and whose it is."""
        shape = self._rays.shape[1:]
        nearness, nearest = np.zeros(shape, np.float32), np.zeros(shape, np.int8)
        for index, matrix in enumerate(matrices):
            if matrix is None:
                continue
            inverse = self._product(matrix[2], slice(None), slice(None))
            nearer = inverse > nearness
            np.copyto(nearness, inverse, where=nearer)
            nearest[nearer] = index
        return nearness, nearest

    def _draw_plate(self, image: BgrImage, plate: TexturedSurface, position: Floats, rotation: Floats) -> None:
        if (found := self._window(plate, position, rotation)) is None:
            return
        matrix, rows, columns = found
        part = self._textured(plate, matrix, rows, columns, cv2.BORDER_CONSTANT)
        keep = 255 - part[..., 3:].astype(np.uint16)
        image[rows, columns] = part[..., :3] + (image[rows, columns] * keep + 127) // 255

    def _window(self, plate: TexturedSurface, position: Floats, rotation: Floats) -> tuple[Floats, slice, slice] | None:
        """Return a plate's matrix and the rows and columns that it may be seen in; None where it is not in sight."""
        points = (plate.outline() - position) @ rotation
        matrix = plate.solved(position, rotation)
        if matrix is None or points[:, 2].min() < NEAREST:
            return None
        pixels = self.camera.project(points)
        limits = [self.camera.width, self.camera.height]
        low = np.clip(np.floor(pixels.min(0)) - 1, 0, limits).astype(int)
        high = np.clip(np.ceil(pixels.max(0)) + 1, 0, limits).astype(int)
        if (high <= low).any():
            return None
        return matrix, slice(low[1], high[1]), slice(low[0], high[0])

    def _textured(self, surface: TexturedSurface, matrix: Floats, rows: slice, columns: slice, border: int) -> BgrImage:
        """Return how a surface looks in a part of the image; what is behind the camera is undefined.

        Each row is taken from the resolution in which a pixel covers about one texel.
        """
        a, b, inverse = (self._product(row, rows, columns) for row in matrix)
        inverse = np.where(np.abs(inverse) < 1e-6, np.float32(1e-6), inverse)
        a, b = a / inverse, b / inverse
        levels = surface.texture.levels
        chosen = np.clip(np.floor(np.log2(_texels_a_pixel(a, b, levels[0].shape))), 0, len(levels) - 1).astype(int)
        image = np.empty((*a.shape, levels[0].shape[2]), np.uint8)
        edges = [0, *(np.flatnonzero(np.diff(chosen)) + 1), len(chosen)]
        for band in map(slice, edges, edges[1:]):
            texels = levels[chosen[band.start]]
            height, width = texels.shape[:2]
            x = np.clip(a[band] * width - 0.5, -_FARTHEST_TEXEL, _FARTHEST_TEXEL)
            y = np.clip(b[band] * height - 0.5, -_FARTHEST_TEXEL, _FARTHEST_TEXEL)
            image[band] = cv2.remap(texels, x, y, cv2.INTER_LINEAR, borderMode=border)
        return image

    def _product(self, row: Floats, rows: slice, columns: slice) -> Singles:
        """Return a row of a matrix times the rays of a part of the image, [h, w]."""
        x, y, z = row.astype(np.float32)
        part = self._rays[:, rows, columns]
        return np.asarray(x * part[0] + y * part[1] + z)


def _texels_a_pixel(a: Singles, b: Singles, shape: tuple[int, ...]) -> Singles:
    """Return the side of a pixel in texels, 1 or more, for each row [h] of places [h, w] on a texture."""
    if min(a.shape) < 2:
        return np.ones(len(a), np.float32)
    some = np.linspace(0, a.shape[1] - 2, 9).astype(int)
    across = np.hypot((a[:, some + 1] - a[:, some]) * shape[1], (b[:, some + 1] - b[:, some]) * shape[0])
    down = np.hypot(np.diff(a[:, some], axis=0) * shape[1], np.diff(b[:, some], axis=0) * shape[0])
    down = np.concatenate([down, down[-1:]])
    return np.asarray(np.maximum(np.sqrt(np.median(across, axis=1) * np.median(down, axis=1)), 1.0), np.float32)


def _extent(mask: NDArray[np.bool_]) -> tuple[slice, slice]:
    """Return the rows and columns between which ``mask`` [H, W] holds somewhere."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1)
