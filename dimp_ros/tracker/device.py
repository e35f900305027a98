# SPDX-License-Identifier: Apache-2.0
"""Choice of the device, and the number of CPU threads. torch is imported only where there may be a GPU."""

from __future__ import annotations

import functools
import math
import os
import sys
from dataclasses import dataclass
from pathlib import Path

GPU_FILES = ("nvidia0", "nvidiactl", "nvhost-gpu", "nvgpu", "nvmap", "dxg", "kfd")
"""Files in /dev of a GPU that torch may compute on: NVIDIA's driver, Jetson's, Windows' for Linux, AMD's."""


@dataclass(frozen=True)
class Device:
    """A device: ``type`` is ``cpu`` or ``cuda``, ``index`` the number of a GPU or None."""

    type: str
    index: int | None = None

    def __str__(self) -> str:
        return self.type if self.index is None else f"{self.type}:{self.index}"


def choose_device(name: str) -> Device:
    """Return the device called ``name``: auto (CUDA where there is one, else the CPU), cpu, cuda or cuda:N.

    :raises ValueError: if the name is unknown or the device is not there; the message says what to do.
    """
    if name == "auto":
        return Device("cuda" if _may_have_gpu() and _gpu_count() else "cpu")
    kind, _, index = name.partition(":")
    if kind not in ("cpu", "cuda") or (index and not index.isdigit()):
        raise ValueError(f"device {name!r} is unknown; choose auto, cpu, cuda or cuda:N")
    if kind == "cuda":
        count = _gpu_count()
        if not count:
            raise ValueError(
                f"device {name!r} was asked for, but torch {_torch_version()} sees no CUDA device; use cpu"
            )
        if index and int(index) >= count:
            raise ValueError(f"device {name!r} is not there; torch sees {count} CUDA devices")
    return Device(kind, int(index) if index else None)


def _may_have_gpu() -> bool:
    """Tell whether torch may see a GPU, without importing it."""
    return not sys.platform.startswith("linux") or any(Path("/dev", name).exists() for name in GPU_FILES)


def _gpu_count() -> int:
    """Return how many GPUs torch sees."""
    import torch

    return torch.cuda.device_count() if torch.cuda.is_available() else 0


def _torch_version() -> str:
    import torch

    return str(torch.__version__)


_limit = 0


def limit_threads(count: int) -> None:
    """Set the number of CPU threads of trackers that are made later, and of torch."""
    global _limit
    _limit = count
    apply_limit()


def apply_limit() -> None:
    """Hand a limit over to torch, where it is loaded: for this thread and those that start later."""
    if _limit and "torch" in sys.modules:
        import torch

        torch.set_num_threads(_limit)


def thread_count() -> int:
    """Return the number of CPU threads to compute with: the limit, torch's where it is loaded, or the default."""
    if _limit:
        return _limit
    if "torch" in sys.modules:
        import torch

        return torch.get_num_threads()
    return default_threads()


def default_threads() -> int:
    """Return OMP_NUM_THREADS, or one thread for each core that this process may use, as many as its quota allows."""
    given = os.environ.get("OMP_NUM_THREADS", "")
    if given.isdigit() and int(given):
        return int(given)
    return max(1, math.floor(min(_cores(), cpu_quota())))


def cpu_quota(root: Path = Path("/sys/fs/cgroup"), own: Path = Path("/proc/self/cgroup")) -> float:
    """Return the cores' worth of time that this process's control group (version 2) and those above it allow."""
    try:
        lines = own.read_text("utf-8").splitlines()
    except OSError:
        return math.inf
    group = next((line[4:] for line in lines if line.startswith("0::/")), "")
    least = math.inf
    for folder in (group, *(str(parent) for parent in Path(group).parents)):
        try:
            quota, period = (root / folder / "cpu.max").read_text("ascii").split()
        except (OSError, ValueError):
            continue
        least = min(least, int(quota) / int(period)) if quota != "max" else least
    return least


def _cores() -> int:
    """Return the number of cores that this process may use; the threads of one core count once."""
    if not hasattr(os, "sched_getaffinity"):
        return os.cpu_count() or 1
    folder, allowed = Path("/sys/devices/system/cpu"), os.sched_getaffinity(0)
    try:
        return len({(folder / f"cpu{n}/topology/thread_siblings_list").read_text("ascii") for n in allowed})
    except OSError:
        return len(allowed)


@functools.cache
def multiplies_bfloat16() -> bool:
    """Tell whether the CPU has bfloat16 instructions; without them bfloat16 is slower than float32."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return False
    flags = next((line.split() for line in lines if line.startswith("flags")), [])
    return "avx512_bf16" in flags or "amx_bf16" in flags
