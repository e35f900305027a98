# SPDX-License-Identifier: Apache-2.0
"""The choice of the device, and the way of pixels onto it, in one place."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


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


def to_batch(crops: Sequence[NDArray[np.uint8]], device: torch.device) -> Tensor:
    """Return BGR crops ``[S, S, 3]`` as RGB ``uint8 Tensor[N, 3, S, S]`` on the device, as the network wants them."""
    return torch.from_numpy(np.stack(crops)).to(device).flip(-1).permute(0, 3, 1, 2)
