# SPDX-License-Identifier: Apache-2.0
"""Masks in COCO's forms, read and written by pycocotools, which is imported when the first mask is decoded."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray


def _pycocotools() -> Any:
    try:
        import pycocotools.mask
    except ImportError as error:
        raise ImportError("masks need pycocotools; pip install 'dimp_ros[train]'") from error
    return pycocotools.mask


def decode_runs(counts: str | Sequence[int], height: int, width: int) -> NDArray[np.uint8]:
    """Return the mask ``uint8 [height, width]`` of 0 and 1 of run lengths, compressed text or a list.

    :raises ValueError: if they are damaged or do not cover the image exactly.
    """
    coco = _pycocotools()
    size = [height, width]
    try:
        if isinstance(counts, str):
            mask = coco.decode({"size": size, "counts": counts.encode()})
            complete = _compress(mask) == counts  # pycocotools leaves pixels that no run covers undefined
        else:
            complete = sum(counts) == height * width
            mask = coco.decode(coco.frPyObjects({"size": size, "counts": list(counts)}, *size)) if complete else None
    except ValueError:
        complete = False
    if not complete:
        raise ValueError(f"a mask's runs do not cover its {width} x {height} image; the annotation is damaged")
    return np.ascontiguousarray(mask)


def encode_runs(mask: NDArray[np.uint8]) -> str:
    """Return a mask ``[height, width]`` of 0 and 1 as compressed run lengths; the inverse of `decode_runs`."""
    return _compress(np.asfortranarray(mask, np.uint8))


def _compress(mask: NDArray[np.uint8]) -> str:
    return str(_pycocotools().encode(mask)["counts"].decode("ascii"))


def fill_polygons(polygons: Sequence[Sequence[float]], height: int, width: int) -> NDArray[np.uint8]:
    """Return the union of polygons, each x, y, x, y ... in pixels, as ``uint8 [height, width]`` of 0 and 1."""
    coco = _pycocotools()
    parts = coco.frPyObjects([list(map(float, polygon)) for polygon in polygons], height, width)
    return np.ascontiguousarray(coco.decode(coco.merge(parts)))
