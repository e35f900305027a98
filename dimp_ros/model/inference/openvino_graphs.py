# SPDX-License-Identifier: Apache-2.0
"""Static graphs compiled for a CPU by OpenVINO, and the cache folder that keeps them for the next start.

A compiled graph is kept under a name that depends on its weights, shapes, precision, the package's code, OpenVINO and
the processor, in ``$XDG_CACHE_HOME/dimp_ros/openvino`` (``~/.cache`` where that is not set). A file that cannot be
written or read, is damaged, or is of another graph costs time only. Who may write there is trusted: a compiled graph
is code. Importing this module does not import torch.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import re
import weakref
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from dimp_ros.files.inputs import read_small_file
from dimp_ros.files.outputs import is_stream, write_bytes

if TYPE_CHECKING:
    import openvino

MODEL_FOLDER = Path(__file__).resolve().parents[1]
MOST_FILES = 96
"""Graphs kept in the cache folder; those unused for the longest time are deleted."""
_LARGEST_FILE = 2**29
_NAME = re.compile(r"\.?[0-9a-f]{64}(\.[0-9a-f]{8}\.partial)?\.blob")
PRECISIONS = {"float32": "f32", "bfloat16": "bf16"}


class GraphKey(NamedTuple):
    """A graph of a network.

    :param name: see `dimp_ros.model.inference.graph_conversion.GRAPHS`. :param sizes: that its shapes follow from.
    :param precision: of convolutions and matrix products: float32 or bfloat16.
    """

    name: str
    sizes: tuple[int, ...]
    precision: str


class OpenvinoGraph:
    """A compiled graph with buffers of its own.

    ``inputs`` and ``outputs`` are arrays in the graph's order: write inputs, call, read outputs. They are overwritten
    by the next call.

    :param shared: buffers of other graphs to use as inputs, by number.
    """

    def __init__(self, compiled: openvino.CompiledModel, shared: dict[int, NDArray[Any]] | None = None) -> None:
        import openvino

        self._compiled = compiled
        self._request = compiled.create_infer_request()
        given = shared or {}
        self.inputs = [given.get(n, _buffer(port)) for n, port in enumerate(compiled.inputs)]
        self.outputs = [_buffer(port) for port in compiled.outputs]
        for n, array in enumerate(self.inputs):
            self._request.set_input_tensor(n, openvino.Tensor(array, shared_memory=True))
        for n, array in enumerate(self.outputs):
            self._request.set_output_tensor(n, openvino.Tensor(array, shared_memory=True))

    @contextlib.contextmanager
    def bound(self, number: int, array: NDArray[Any]) -> Iterator[None]:
        """Use an array as an input, without copying it. Its value in a call is None."""
        import openvino

        self._request.set_input_tensor(number, openvino.Tensor(array, shared_memory=True))
        try:
            yield
        finally:
            self._request.set_input_tensor(number, openvino.Tensor(self.inputs[number], shared_memory=True))

    def __call__(self, *values: Any) -> list[NDArray[Any]]:
        """Copy values into the inputs, compute and return the outputs; an input whose value is None stays."""
        for array, value in zip(self.inputs, values, strict=False):
            if value is not None:
                array[...] = value
        self._request.infer(share_outputs=True)  # in this thread: `start_async` would wait for another one to wake up
        return self.outputs


def _buffer(port: openvino.ConstOutput) -> NDArray[Any]:
    """Return an array for an input or output."""
    return np.zeros(tuple(port.shape), port.element_type.to_dtype())


_compiled: weakref.WeakValueDictionary[str, openvino.CompiledModel] = weakref.WeakValueDictionary()


def compile_graph(
    key: GraphKey, weights: str, threads: int, convert: Callable[[GraphKey], openvino.Model]
) -> openvino.CompiledModel:
    """Compile a graph, or take it from this process or from the cache folder.

    :param weights: hash of the network's weights. :param threads: that compute the graph.
    :param convert: makes the graph where it is not in the cache.
    """
    core, name = _core(), _file_name(key, weights, threads)
    if (known := _compiled.get(name)) is not None:
        return known
    settings: dict[str, Any] = {
        "INFERENCE_PRECISION_HINT": PRECISIONS[key.precision],
        "PERFORMANCE_HINT": "LATENCY",
        "NUM_STREAMS": 1,
        "INFERENCE_NUM_THREADS": threads,
        "ENABLE_CPU_PINNING": False,  # a pinned thread waits for its core while another one is free
    }
    path = cache_folder() / f"{name}.blob"
    compiled = _read(path, core, settings)
    if compiled is None:
        compiled = core.compile_model(convert(key), "CPU", settings)
        _write(path, compiled.export_model().getvalue())
    _compiled[name] = compiled
    return compiled


def is_compiled(key: GraphKey, weights: str, threads: int) -> bool:
    """Tell whether the cache folder has a compiled graph; arguments as for `compile_graph`."""
    return (cache_folder() / f"{_file_name(key, weights, threads)}.blob").exists()


def _file_name(key: GraphKey, weights: str, threads: int) -> str:
    """Return a hash of everything that a compiled graph depends on."""
    import openvino

    parts = (tuple(key), weights, threads, _code_digest(), openvino.__version__, _processor())
    return hashlib.sha256(repr(parts).encode()).hexdigest()


def cache_folder() -> Path:
    """Return the folder of compiled graphs; it may not exist."""
    root = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(root) if os.path.isabs(root) else Path.home() / ".cache") / "dimp_ros" / "openvino"


@cache
def _core() -> openvino.Core:
    import openvino

    return openvino.Core()


@cache
def _processor() -> str:
    """Return what compiled graphs depend on in the processor."""
    core = _core()
    names = ("FULL_DEVICE_NAME", "OPTIMIZATION_CAPABILITIES")
    return repr([core.get_property("CPU", name) for name in names])


@cache
def _code_digest() -> str:
    """Return a hash of the code that graphs are made from."""
    digest = hashlib.sha256()
    for path in sorted(MODEL_FOLDER.rglob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _read(path: Path, core: openvino.Core, settings: dict[str, Any]) -> openvino.CompiledModel | None:
    """Return the compiled graph in a file, or None where there is none or it is damaged."""
    try:
        content = read_small_file(path, _LARGEST_FILE)
        os.utime(path)
    except (OSError, ValueError):
        return None
    blob = content[32:]
    if _with_digest(path, blob) != content:
        return None
    try:
        return core.import_model(blob, "CPU", settings)
    except RuntimeError as error:
        logging.getLogger(__name__).info("compiled graph %s is not used: %s", path, str(error).splitlines()[0])
        return None


def _with_digest(path: Path, blob: bytes) -> bytes:
    """Return a compiled graph after a hash of it and of its name."""
    return hashlib.sha256(path.name.encode() + blob).digest() + blob


def _write(path: Path, blob: bytes) -> None:
    """Keep a compiled graph; delete old ones, and what killed processes left of theirs."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_symlink() or is_stream(path):
            path.unlink()  # what it leads to is not written
        write_bytes(path, _with_digest(path, blob))
        files = [file for file in path.parent.iterdir() if _NAME.fullmatch(file.name)]
        files.sort(key=lambda file: file.stat().st_mtime, reverse=True)
    except (OSError, ValueError) as error:
        logging.getLogger(__name__).info("compiled graphs are not kept for the next start: %s", error)
        return
    for old in files[MOST_FILES:]:
        with contextlib.suppress(OSError):
            old.unlink()
