# SPDX-License-Identifier: Apache-2.0
"""CUDA graphs: a function of tensors whose launches a GPU has recorded, to be replayed as one.

A frame is some two hundred small kernels, and on a fast GPU launching them takes longer than running them. A graph is
recorded for each set of shapes when it is first met, so for each number of targets. On a CPU functions are just called.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

MOST_RECORDINGS = 16
"""Graphs kept of a function. Shapes beyond that are computed without one."""
WARM_UP_RUNS = 3
"""Libraries choose their algorithms and take their memory in the first runs, which must not be recorded."""


class Replay(Protocol):
    """What has been recorded: computes from its inputs into its outputs."""

    def replay(self) -> None:
        """Compute."""
        ...


class Recording(NamedTuple):
    """A graph with the tensors that it reads from and writes to."""

    inputs: Sequence[Tensor]
    outputs: tuple[Tensor, ...]
    graph: Replay


Function = Callable[..., tuple[Tensor, ...]]
Recorder = Callable[[Function, Sequence[Tensor]], Recording]


def record(function: Function, inputs: Sequence[Tensor]) -> Recording:
    """Record what a function does with CUDA tensors of these shapes."""
    kept = [tensor.clone() for tensor in inputs]
    stream = torch.cuda.Stream(kept[0].device)
    stream.wait_stream(torch.cuda.current_stream(kept[0].device))
    with torch.cuda.stream(stream):
        for _ in range(WARM_UP_RUNS):
            function(*kept)
    torch.cuda.current_stream(kept[0].device).wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        outputs = function(*kept)
    return Recording(kept, outputs, graph)


class GraphedFunction:
    """A function of tensors to tensors, without any choice that depends on their values.

    Publishers on a GPU hold until the next call: what is to be kept longer has to be copied.

    :param function: what is recorded. :param recorder: see `record`.
    """

    def __init__(
        self, function: Function, recorder: Callable[[Function, Sequence[Tensor]], Recording] = record
    ) -> None:
        self._function, self._recorder = function, recorder
        self._recordings: dict[tuple[object, ...], Recording | None] = {}

    def __call__(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """Apply the function."""
        if not self.records(inputs[0].device):
            return self._function(*inputs)
        recording = self._recording(inputs)
        if recording is None:
            return self._function(*inputs)
        for kept, given in zip(recording.inputs, inputs, strict=True):
            kept.copy_(given, non_blocking=True)
        recording.graph.replay()
        return recording.outputs

    def records(self, device: torch.device) -> bool:
        """Say whether there are graphs on a device."""
        return device.type == "cuda"

    def _recording(self, inputs: Sequence[Tensor]) -> Recording | None:
        """Return the recording for inputs of these shapes; None where there is none to be had."""
        key = tuple((tensor.shape, tensor.dtype, tensor.device) for tensor in inputs)
        if key not in self._recordings:
            if len(self._recordings) >= MOST_RECORDINGS:
                return None
            try:
                self._recordings[key] = self._recorder(self._function, inputs)
            except torch.cuda.OutOfMemoryError:
                raise
            except RuntimeError as error:
                logging.getLogger(__name__).warning("no CUDA graph (%s): each kernel is launched by itself", error)
                self._recordings[key] = None
        return self._recordings[key]
