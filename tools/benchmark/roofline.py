# SPDX-License-Identifier: Apache-2.0
"""What a device can do at best, measured: products of large matrices, copies within its memory, copies to it."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch

MATRIX_SIDES = {"cpu": (256, 512, 1024), "cuda": (4096, 8192)}
COPY_BYTES = (2**18, 2**20, 2**22, 2**24, 2**26)
"""From what lies in a core's cache to what does not fit into any: the best rate counts, wherever it is reached."""

UPLOAD_BYTES = 2**26


class Roofline(NamedTuple):
    """The best rates seen; ``inf`` where nothing is to be done, as for uploads to a CPU.

    :param flops: floating-point operations a second, a multiplication and an addition being two.
    :param bandwidth: bytes a second, read and written ones both counted. :param upload: bytes a second to the device.
    """

    flops: float
    bandwidth: float
    upload: float

    def best(self, other: Roofline) -> Roofline:
        """Return the higher of each: a busy machine only ever lowers them."""
        return Roofline(*(max(a, b) for a, b in zip(self, other, strict=True)))


def measure_roofline(device: torch.device, dtype: torch.dtype, seconds: float = 0.2) -> Roofline:
    """Measure the roofline of a device for a type, spending about ``seconds`` on each size.

    :raises ValueError: if ``seconds`` is not positive.
    """
    if seconds <= 0:
        raise ValueError(f"seconds is {seconds}; it must be above 0, or nothing is measured")
    flops = bandwidth = 0.0
    upload = float("inf")
    for side in MATRIX_SIDES[device.type]:
        a, b = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
        flops = max(flops, 2 * side**3 / shortest(partial(torch.mm, a, b, out=torch.empty_like(a)), device, seconds))
    for count in COPY_BYTES:
        source = torch.zeros(count, dtype=torch.uint8, device=device)
        once = shortest(partial(torch.empty_like(source).copy_, source), device, seconds / len(COPY_BYTES))
        bandwidth = max(bandwidth, 2 * count / once)
    if device.type == "cuda":
        source = torch.zeros(UPLOAD_BYTES, dtype=torch.uint8).pin_memory()
        target = torch.empty(UPLOAD_BYTES, dtype=torch.uint8, device=device)
        upload = UPLOAD_BYTES / shortest(partial(target.copy_, source, non_blocking=True), device, seconds)
    return Roofline(flops, bandwidth, upload)


def shortest(work: Callable[[], object], device: torch.device, seconds: float) -> float:
    """Return the shortest time of one call, in seconds; calls are timed in groups that are long enough to be timed."""
    work()
    wait_for(device)
    group, best, end = 1, float("inf"), time.perf_counter() + seconds
    while True:
        begin = time.perf_counter()
        for _ in range(group):
            work()
        wait_for(device)
        now = time.perf_counter()
        best = min(best, (now - begin) / group)
        if now - begin < 2e-3:
            group *= 2
        elif now > end:
            return best


def wait_for(device: torch.device) -> None:
    """Wait until everything that was asked of a device is done."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
