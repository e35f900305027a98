# SPDX-License-Identifier: Apache-2.0
"""Graphs as ONNX files, and those as OpenVINO's; both with names, shapes and metadata."""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch

from dimp_ros.apps.export.frame_graphs import FrameGraph

OPSET = 18
"""Version of ONNX's operators; the oldest that has all that are used."""


def write_onnx(path: Path, graph: FrameGraph, metadata: Mapping[str, str]) -> None:
    """Write a graph as one ONNX file.

    :param metadata: stored in ``metadata_props``; entries ``tensor.NAME`` also as the tensor's ``doc_string``.
    """
    import onnx

    module = graph.module.eval()
    dimensions = {name: torch.export.Dim(name) for name in set(graph.dynamic.values())}
    shapes = tuple({0: dimensions[graph.dynamic[name]]} if name in graph.dynamic else {} for name in graph.inputs)
    with _quiet(), torch.no_grad():
        program = torch.onnx.export(
            module,
            tuple(graph.examples),
            dynamo=True,
            input_names=graph.inputs,
            output_names=graph.outputs,
            dynamic_shapes=shapes if graph.dynamic else None,
            opset_version=OPSET,
            verbose=False,
        )
    assert program is not None
    model = program.model_proto
    onnx.helper.set_model_props(model, dict(metadata))
    for tensor in (*model.graph.input, *model.graph.output):
        tensor.doc_string = metadata[f"tensor.{tensor.name}"]
    onnx.checker.check_model(model)
    onnx.save(model, path)


def write_openvino(path: Path, source: Path, metadata: Mapping[str, str]) -> None:
    """Convert an ONNX file to OpenVINO's ``path`` (.xml) and the weights beside it (.bin), float32.

    :param metadata: stored as runtime information under ``dimp_ros``. :raises OSError: if they cannot be written.
    """
    import openvino

    model = openvino.convert_model(source)
    for name, text in metadata.items():
        model.set_rt_info(text, ["dimp_ros", name])
    try:
        openvino.save_model(model, path, compress_to_fp16=False)
    except RuntimeError as error:  # as C++'s streams fail, such as on a full disk
        raise OSError(str(error)) from error


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep the exporter's notes on itself from the terminal; errors are raised."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript")]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
