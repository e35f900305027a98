# SPDX-License-Identifier: Apache-2.0
"""Masks as run lengths in COCO's compressed text form, read and written with NumPy alone.

Runs are counted down the columns and alternate between 0 and 1, beginning with 0. From the fourth on a run is stored
as the difference to the one two before it. Each number becomes groups of five bits, the lowest first; 32 marks that
another group follows, and 48 is added so that all are printable. The last group's highest bit is the sign.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray


def decode_counts(text: str) -> NDArray[np.int64]:
    """Return the run lengths ``int64 [N]`` of compressed ``text``.

    :raises ValueError: if it is cut off or holds other characters.
    """
    try:
        groups = np.frombuffer(text.encode("ascii"), np.uint8).astype(np.int64) - 48
    except UnicodeEncodeError:
        raise ValueError("a compressed mask holds other characters than 0..o; the annotation is damaged") from None
    if not len(groups):
        return np.zeros(0, np.int64)
    if groups.min() < 0 or groups.max() > 63:
        raise ValueError("a compressed mask holds other characters than 0..o; the annotation is damaged")
    ends = np.flatnonzero((groups & 32) == 0)
    if not len(ends) or ends[-1] != len(groups) - 1:
        raise ValueError("a compressed mask ends in the middle of a number; the annotation is cut off")
    starts = np.concatenate([[0], ends[:-1] + 1])
    lengths = ends - starts + 1
    if lengths.max() > 12:
        raise ValueError("a compressed mask holds a number of more than 60 bits; the annotation is damaged")
    position = np.arange(len(groups)) - np.repeat(starts, lengths)
    values = np.add.reduceat((groups & 31) << (5 * position), starts)
    values -= np.where(groups[ends] & 16, np.int64(1) << (5 * lengths), 0)  # two's complement of so many bits
    values[1::2] = np.cumsum(values[1::2])  # the differences begin with the fourth run, so both sums have a plain start
    values[2::2] = np.cumsum(values[2::2])
    return values


def encode_counts(counts: ArrayLike) -> str:
    """Return run lengths ``[N]`` as compressed text; the inverse of `decode_counts`."""
    values = np.asarray(counts, np.int64).copy()
    values[3:] -= np.asarray(counts, np.int64)[1:-2]
    text = bytearray()
    for value in values.tolist():
        while True:
            group, value = value & 31, value >> 5
            done = value == (-1 if group & 16 else 0)
            text.append(48 + group + (0 if done else 32))
            if done:
                break
    return text.decode("ascii")


def runs_to_mask(counts: ArrayLike, height: int, width: int) -> NDArray[np.uint8]:
    """Return the mask ``uint8 [height, width]`` of 0 and 1 that run lengths stand for.

    :raises ValueError: if they do not cover exactly ``height * width`` pixels.
    """
    lengths = np.asarray(counts, np.int64)
    if (lengths < 0).any() or lengths.sum() != height * width:
        raise ValueError(
            f"a mask's runs cover {lengths.sum()} pixels (shortest {lengths.min(initial=0)}) and not the "
            f"{width} x {height} = {width * height} of its picture; the annotation is damaged or of another picture"
        )
    flat = np.repeat((np.arange(len(lengths)) & 1).astype(np.uint8), lengths)
    return np.ascontiguousarray(flat.reshape(width, height).T)


def mask_to_runs(mask: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Return the run lengths ``int64 [N]`` of a mask ``[height, width]``; whatever is not 0 counts as 1."""
    flat = np.asarray(mask).T.reshape(-1) != 0
    changes = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    bounds = np.concatenate([[0], changes, [flat.size]]).astype(np.int64)
    first = [0] if flat.size and flat[0] else []  # the first run is one of zeros, if need be an empty one
    return np.concatenate([np.asarray(first, np.int64), np.diff(bounds)])


def decode_mask(text: str, height: int, width: int) -> NDArray[np.uint8]:
    """Return the mask ``uint8 [height, width]`` of 0 and 1 of compressed ``text``; see `runs_to_mask` for errors."""
    return runs_to_mask(decode_counts(text), height, width)


def encode_mask(mask: NDArray[np.uint8]) -> str:
    """Return a mask ``[height, width]`` as compressed text; the inverse of `decode_mask`."""
    return encode_counts(mask_to_runs(mask))
