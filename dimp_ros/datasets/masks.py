# SPDX-License-Identifier: Apache-2.0
"""Masks in COCO's forms, read and written by pycocotools, which is imported when the first mask is decoded."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dimp_ros.images.decoder import MAX_MEGAPIXELS

MAX_POLYGONS = 1000
"""Polygons of one mask at most; merging them takes time in proportion to the square of their number."""
MAX_OUTLINE = 500_000
"""Length of the outlines of one mask at most, in pixels; the decoder takes about 60 bytes for each."""


def _pycocotools() -> Any:
    try:
        import pycocotools.mask
    except ImportError as error:
        raise ImportError("masks need pycocotools; pip install 'dimp_ros[train]'") from error
    return pycocotools.mask


def check_mask_size(height: int, width: int) -> None:
    """Raise ValueError for a mask without pixels, or with more than `MAX_MEGAPIXELS`."""
    if not (height > 0 and width > 0 and height * width <= MAX_MEGAPIXELS * 1e6):
        raise ValueError(
            f"a mask of {width} x {height} pixels; both sides must be at least 1, and it may have "
            f"{MAX_MEGAPIXELS:g} megapixels"
        )


def _whole(counts: Any, pixels: int) -> bool:
    """Return whether run lengths can be those of so many pixels; a text's lengths are known once it is decoded."""
    if isinstance(counts, str):
        return counts.isascii() and len(counts) <= 7 * (pixels + 1)
    if not isinstance(counts, list | tuple) or len(counts) > 2 * (pixels + 1):
        return False
    return all(type(count) is int and 0 <= count <= pixels for count in counts) and sum(counts) == pixels


def decode_runs(counts: str | Sequence[int], height: int, width: int) -> NDArray[np.uint8]:
    """Return the mask ``uint8 [height, width]`` of 0 and 1 of run lengths, compressed text or a list.

    :raises ValueError: if they are damaged or do not cover the image exactly, or it exceeds `MAX_MEGAPIXELS`.
    """
    check_mask_size(height, width)
    coco = _pycocotools()
    size = [height, width]
    complete = _whole(counts, height * width)
    if complete and isinstance(counts, str):
        try:
            mask = coco.decode({"size": size, "counts": counts.encode()})
            complete = _compress(mask) == counts  # pycocotools leaves pixels that no run covers undefined
        except ValueError:
            complete = False
    elif complete:
        mask = coco.decode(coco.frPyObjects({"size": size, "counts": list(counts)}, *size))
    if not complete:
        raise ValueError(f"a mask's runs do not cover its {width} x {height} image; the annotation is damaged")
    return np.ascontiguousarray(mask)


def encode_runs(mask: NDArray[np.uint8]) -> str:
    """Return a mask ``[height, width]`` of 0 and 1 as compressed run lengths; the inverse of `decode_runs`."""
    return _compress(np.asfortranarray(mask, np.uint8))


def _compress(mask: NDArray[np.uint8]) -> str:
    return str(_pycocotools().encode(mask)["counts"].decode("ascii"))


def fill_polygons(polygons: Sequence[Sequence[float]], height: int, width: int) -> NDArray[np.uint8]:
    """Return the union of polygons, each x, y, x, y ... in pixels, as ``uint8 [height, width]`` of 0 and 1.

    :raises ValueError: for corners that are not finite or farther outside than the image is large, and for more than
        `MAX_POLYGONS`, `MAX_OUTLINE` or `MAX_MEGAPIXELS`.
    """
    check_mask_size(height, width)
    if len(polygons) > MAX_POLYGONS:
        raise ValueError(f"a mask of {len(polygons)} polygons, and it may have {MAX_POLYGONS}")
    parts = [np.asarray(polygon, np.float64) for polygon in polygons]
    outline = 0.0
    for part in parts:
        if part.ndim != 1 or part.size < 6 or part.size % 2:
            raise ValueError(f"a polygon of shape {list(part.shape)}; it must be x, y of at least 3 corners")
        corners, size = part.reshape(-1, 2), np.array((width, height))
        if not ((corners >= -size) & (corners <= 2 * size)).all():  # nan is refused, too
            raise ValueError(
                f"a polygon with x {corners[:, 0].min():g} to {corners[:, 0].max():g} and y {corners[:, 1].min():g} to "
                f"{corners[:, 1].max():g} for an image of {width} x {height}; corners must be finite and near the image"
            )
        outline += float(np.abs(corners - np.roll(corners, 1, 0)).max(1).sum())
    if outline > MAX_OUTLINE:
        raise ValueError(f"polygons with outlines of {outline:.0f} pixels, and they may have {MAX_OUTLINE}")
    if not parts:
        return np.zeros((height, width), np.uint8)
    coco = _pycocotools()
    merged = coco.merge(coco.frPyObjects([part.tolist() for part in parts], height, width))
    return np.ascontiguousarray(coco.decode(merged))
