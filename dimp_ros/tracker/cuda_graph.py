# SPDX-License-Identifier: Apache-2.0
"""CUDA graphs: the kernel launches of a function of tensors, recorded once and replayed as one.

A frame has about two hundred small kernels; on a fast GPU their launches take longer than their work. One graph is
recorded for each set of input shapes, so for each number of targets. On a CPU functions are called directly.
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
"""In the first runs libraries choose algorithms and allocate memory, which must not be recorded."""


class Replay(Protocol):
    """A recorded graph: computes from its inputs into its outputs."""

    def replay(self) -> None:
        """Compute."""
        ...


class Recording(NamedTuple):
    """A graph with the tensors that it reads and writes."""

    inputs: Sequence[Tensor]
    outputs: tuple[Tensor, ...]
    graph: Replay


Function = Callable[..., tuple[Tensor, ...]]
Recorder = Callable[[Function, Sequence[Tensor]], Recording]


def record(function: Function, inputs: Sequence[Tensor]) -> Recording:
    """Record a function for CUDA tensors of these shapes."""
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
    """A function of tensors to tensors whose control flow does not depend on their values.

    On a GPU the outputs are valid until the next call: copy what is kept longer.

    :param recorder: see `record`.
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
        """Tell whether graphs are used on a device."""
        return device.type == "cuda"

    def _recording(self, inputs: Sequence[Tensor]) -> Recording | None:
        """Return the recording for inputs of these shapes; None where none can be made."""
        key = tuple((tensor.shape, tensor.dtype, tensor.device) for tensor in inputs)
        if key not in self._recordings:
            if len(self._recordings) >= MOST_RECORDINGS:
                return None
            try:
                self._recordings[key] = self._recorder(self._function, inputs)
            except torch.cuda.OutOfMemoryError:
                raise
            except RuntimeError as error:
                logging.getLogger(__name__).warning("no CUDA graph (%s); kernels are launched one by one", error)
                self._recordings[key] = None
        return self._recordings[key]
