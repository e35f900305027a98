# SPDX-License-Identifier: Apache-2.0
"""Time the conversion of a search region and of the whole image, in one run and one thread."""

from __future__ import annotations

import time
from collections.abc import Callable
from types import SimpleNamespace

import cv2
import numpy as np

from dimp_ros.images.contrast import Contrast
from dimp_ros.images.conversion import to_picture
from dimp_ros.images.encodings import ENCODINGS

WIDTH, HEIGHT = 1280, 720
WINDOW = (501, 203, 803, 505)  # of a target of about 60 pixels; odd corners
ROUNDS, REPEATS = 15, 8


def noise(encoding: str) -> SimpleNamespace:
    """Return an image message with values in the range of its type."""
    layout = ENCODINGS[encoding]
    step = layout.row_bytes(WIDTH)
    count = step * layout.data_rows(HEIGHT) // layout.dtype.itemsize
    data = np.random.default_rng(0).integers(0, 100, count).astype(layout.dtype).tobytes()
    return SimpleNamespace(width=WIDTH, height=HEIGHT, encoding=encoding, step=step, is_bigendian=0, data=data)


def milliseconds(work: Callable[[], object]) -> float:
    """Return the median time of one call."""
    times = []
    for _ in range(ROUNDS):
        begin = time.perf_counter()
        for _ in range(REPEATS):
            work()
        times.append((time.perf_counter() - begin) / REPEATS * 1e3)
    return float(np.median(times))


def main() -> None:
    """Print a table with a row for each encoding."""
    cv2.setNumThreads(1)
    window = f"{WINDOW[2] - WINDOW[0]} x {WINDOW[3] - WINDOW[1]}"
    print(f"{WIDTH} x {HEIGHT}, window {window}; milliseconds of a call, its checks included")
    print(f"{'encoding':14s}{'window':>9s}{'whole':>9s}{'ratio':>8s}")
    for encoding in ENCODINGS:
        message, levels = noise(encoding), Contrast()
        part = milliseconds(lambda m=message, s=levels: to_picture(m, s).region(*WINDOW))
        whole = milliseconds(lambda m=message, s=levels: to_picture(m, s).region(0, 0, WIDTH, HEIGHT))
        print(f"{encoding:14s}{part:9.3f}{whole:9.3f}{part / whole:8.2f}", flush=True)


if __name__ == "__main__":
    main()
