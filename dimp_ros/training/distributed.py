# SPDX-License-Identifier: Apache-2.0
"""One process or several: the rank that `torchrun` gives, the device, and messages between ranks."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel


@dataclass(frozen=True)
class DistributedContext:
    """Rank of a process among ``world`` processes, and its device."""

    rank: int
    world: int
    device: torch.device

    @property
    def is_main(self) -> bool:
        """Whether this is the process that writes files and shows progress."""
        return self.rank == 0


@contextmanager
def init_distributed(device: str = "auto") -> Iterator[DistributedContext]:
    """Join the processes that `torchrun` started, if any, and leave them at the end.

    :param device: ``auto`` (a GPU where there is one), ``cpu``, ``cuda`` or ``cuda:N``.
    """
    rank, world = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    local = int(os.environ.get("LOCAL_RANK", "0"))
    wanted = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
    chosen = torch.device(f"cuda:{local}" if wanted == "cuda" else wanted)
    if chosen.type == "cuda":
        if not torch.cuda.is_available():
            raise ValueError(f"device {device!r} asked for, but this PyTorch sees no GPU; use 'cpu' or 'auto'")
        torch.cuda.set_device(chosen)
    grouped = "RANK" in os.environ and world > 1
    if grouped:
        dist.init_process_group("nccl" if chosen.type == "cuda" else "gloo")
    try:
        yield DistributedContext(rank, world, chosen)
    finally:
        if grouped:
            dist.destroy_process_group()


def distribute(network: nn.Module, context: DistributedContext, unused: bool) -> nn.Module:
    """Return the network with gradients averaged over all processes.

    :param unused: whether some steps do not use all parameters.
    """
    if context.world == 1:
        return network
    devices = [context.device.index] if context.device.type == "cuda" else None
    # Each process keeps its own batch statistics; those of rank 0 are saved.
    return DistributedDataParallel(network, device_ids=devices, broadcast_buffers=False, find_unused_parameters=unused)


def broadcast(value: bool, context: DistributedContext) -> bool:
    """Return the ``value`` of rank 0 in all processes."""
    if context.world == 1:
        return value
    flag = torch.tensor([int(value)], device=context.device)
    dist.broadcast(flag, src=0)
    return bool(flag.item())
