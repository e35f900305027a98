# SPDX-License-Identifier: Apache-2.0
"""Choice of device and precision, and upload of crops."""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dimp_ros.model.inference.fused_conv import onednn_fuses

PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def choose_device(name: str) -> torch.device:
    """Return the device called ``name``: auto (CUDA where there is one, else the CPU), cpu, cuda or cuda:N.

    :raises ValueError: if the name is unknown or the device is not there; the message says what to do.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    kind, _, index = name.partition(":")
    if kind not in ("cpu", "cuda") or (index and not index.isdigit()):
        raise ValueError(f"device {name!r} is unknown; choose auto, cpu, cuda or cuda:N")
    if kind == "cuda":
        if not torch.cuda.is_available():
            raise ValueError(
                f"device {name!r} was asked for, but torch {torch.__version__} sees no CUDA device; use cpu"
            )
        if index and int(index) >= torch.cuda.device_count():
            raise ValueError(f"device {name!r} is not there; torch sees {torch.cuda.device_count()} CUDA devices")
    return torch.device(name)


def choose_precision(name: str, device: torch.device) -> torch.dtype:
    """Return the type that the networks are computed in on a device.

    :param name: ``float32``, ``bfloat16``, ``float16``, or ``auto``: float16 on a GPU, on a CPU bfloat16 if it has
        instructions for it, else float32.
    :raises ValueError: if the name is unknown, or float16 is asked for on a CPU.
    """
    if name == "auto":
        if device.type != "cpu":
            return torch.float16
        return torch.bfloat16 if _multiplies_bfloat16() and onednn_fuses(torch.bfloat16) else torch.float32
    if name not in PRECISIONS:
        raise ValueError(f"precision {name!r} is unknown; choose auto, {', '.join(PRECISIONS)}")
    if name == "float16" and device.type == "cpu":
        raise ValueError("precision 'float16' is for GPUs; on a CPU choose auto, float32 or bfloat16")
    return PRECISIONS[name]


@functools.cache
def _multiplies_bfloat16() -> bool:
    """Tell whether the CPU has bfloat16 instructions; without them bfloat16 is slower than float32."""
    names = ("avx512_bf16", "amx_bf16")
    known = getattr(torch.cpu, "get_capabilities", None)
    if known is not None:
        return any(known().get(name) for name in names)
    try:
        flags = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return False
    return any(re.search(rf"^flags\b.*\b{name}\b", flags, re.MULTILINE) for name in names)


def limit_threads(count: int) -> None:
    """Set the number of CPU threads, for this thread and those that start later."""
    torch.set_num_threads(count)


def upload(crops: Sequence[NDArray[np.uint8]], device: torch.device) -> Tensor:
    """Return BGR crops ``[S, S, 3]``, N of them, as RGB images ``Tensor[N, 3, S, S]`` uint8 on the device."""
    rgb = np.stack([cv2.cvtColor(crop, cv2.COLOR_BGR2RGB) for crop in crops])
    images = torch.from_numpy(rgb)
    if device.type == "cuda":  # from pinned memory the copy is asynchronous
        images = images.pin_memory().to(device, non_blocking=True)
    return images.permute(0, 3, 1, 2)
