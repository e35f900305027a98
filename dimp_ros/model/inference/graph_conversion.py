# SPDX-License-Identifier: Apache-2.0
"""Conversion of a network's static graphs to OpenVINO's, which takes torch and some seconds."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import NamedTuple

import openvino
import torch
from openvino.frontend import FrontEndManager
from openvino.frontend.pytorch.ts_decoder import TorchScriptPythonDecoder
from torch import Tensor, nn

from dimp_ros.model.dimp import DimpNet
from dimp_ros.model.inference.graphs import (
    Ascent,
    ClassifierGraph,
    CloserLookGraph,
    FeatureGraph,
    OverlapMaps,
    ScoreGraph,
    TokensGraph,
)
from dimp_ros.model.inference.learning_graphs import (
    FitGraph,
    InitialGraph,
    ModulationGraph,
    PointBoxGraph,
    PooledGraph,
    UpdateGraph,
)
from dimp_ros.model.inference.openvino_graphs import GraphKey
from dimp_ros.model.sizes import CLOSER_SIZE, POINT_SIZE, POINT_WINDOWS


class Graph(NamedTuple):
    """A graph to convert: a module in evaluation mode, and examples of its inputs."""

    module: nn.Module
    examples: Sequence[Tensor]


class _Shapes:
    """Zeros in the shapes of a network's features and vectors."""

    def __init__(self, net: DimpNet) -> None:
        self.channels8, self.channels16 = net.feature_extractor.channels
        classifier, overlap = net.classifier, net.bb_regressor
        self.channels, self.kernel = classifier.filter_initializer.filter_conv.out_channels, classifier.kernel
        self.widths = [len(block[0].weight) for block in (overlap.fc34_3r, overlap.fc34_4r)]  # type: ignore[arg-type]

    def backbone(self, cells: int, count: int = 1) -> list[Tensor]:
        """Return features of both strides of windows of ``cells`` times ``cells`` cells of stride 16."""
        return [
            torch.zeros(count, self.channels8, 2 * cells, 2 * cells),
            torch.zeros(count, self.channels16, cells, cells),
        ]

    def vectors(self) -> list[Tensor]:
        """Return modulation vectors."""
        return [torch.zeros(1, width) for width in self.widths]

    def samples(self, cells: int, count: int = 1) -> Tensor:
        """Return classification features."""
        return torch.zeros(count, self.channels, cells, cells)

    def filter(self) -> Tensor:
        """Return a filter."""
        return torch.zeros(1, self.channels, self.kernel, self.kernel)


def _pooled(net: DimpNet, count: int) -> list[Tensor]:
    """Return what is pooled in ``count`` boxes."""
    overlap, widths = net.bb_regressor, _Shapes(net).widths
    bins = (overlap.pool3_t.output_size, overlap.pool4_t.output_size)
    return [torch.zeros(count, side * side * width) for side, width in zip(bins, widths, strict=True)]


def boxes(count: int) -> Tensor:
    """Return boxes ``[count, 4]``."""
    return torch.tensor([[8.0, 8.0, 32.0, 32.0]]).repeat(count, 1)


def images(size: int) -> Tensor:
    """Return one window."""
    return torch.zeros((1, size, size, 3), dtype=torch.uint8)


def _step(net: DimpNet, cells: int, proposals: int, limited: int) -> Graph:
    """Return the ascent on maps of so many cells; ``limited`` to a region or not."""
    like = _Shapes(net)
    maps = [torch.zeros(1, w, n * cells, n * cells) for n, w in zip((2, 1), like.widths, strict=True)]
    corner = [torch.zeros(2, dtype=torch.int64)] if limited else []
    module = Ascent(net.bb_regressor, 1)
    return Graph(module, [*maps, *like.vectors(), boxes(proposals)[None], torch.ones(1), *corner])


def _tokens(net: DimpNet) -> Tensor:
    assert net.box_refiner is not None
    return torch.zeros(1, *net.box_refiner.place.shape)


GRAPHS: dict[str, Callable[..., Graph]] = {
    "search": lambda net, size: Graph(FeatureGraph(net), [images(size)]),
    "classify": lambda net, cells: Graph(
        ClassifierGraph(net), [_Shapes(net).backbone(cells)[1], torch.ones(1, net.feature_extractor.channels[1])]
    ),
    "score": lambda net, cells: Graph(ScoreGraph(), [_Shapes(net).samples(cells), _Shapes(net).filter()]),
    "initial": lambda net, cells, count: Graph(InitialGraph(net), [_Shapes(net).samples(cells, count), boxes(count)]),
    "update": lambda net, cells, count: Graph(
        UpdateGraph(net),
        [_Shapes(net).filter(), _Shapes(net).samples(cells, count), boxes(count), torch.full((count,), 1 / count)],
    ),
    "modulation": lambda net, cells: Graph(ModulationGraph(net), [*_Shapes(net).backbone(cells), boxes(1)]),
    "maps": lambda net, cells: Graph(OverlapMaps(net.bb_regressor), _Shapes(net).backbone(cells)),
    "region maps": lambda net, cells, region: Graph(
        OverlapMaps(net.bb_regressor, region), [*_Shapes(net).backbone(cells), torch.zeros(2, dtype=torch.int64)]
    ),
    "step": lambda net, cells, proposals: _step(net, cells, proposals, limited=False),
    "region step": lambda net, cells, proposals: _step(net, cells, proposals, limited=True),
    "pooled": lambda net, cells, views, proposals: Graph(
        PooledGraph(net), [*_Shapes(net).backbone(cells, views), boxes(views * proposals).view(views, proposals, 4)]
    ),
    "fit": lambda net, count: Graph(
        FitGraph(net), [*_pooled(net, count), *_Shapes(net).vectors(), torch.zeros(count), torch.zeros(count)]
    ),
    "tokens": lambda net: Graph(TokensGraph(net), [images(CLOSER_SIZE), boxes(1)]),
    "closer": lambda net: Graph(CloserLookGraph(net), [images(CLOSER_SIZE), _tokens(net)]),
    "point": lambda net: Graph(PointBoxGraph(net), _Shapes(net).backbone(POINT_SIZE // 16, len(POINT_WINDOWS))),
}
"""By name: from a network in evaluation mode and the sizes of a `GraphKey`."""


def convert(net: DimpNet, key: GraphKey) -> openvino.Model:
    """Convert a graph of a network to an OpenVINO model with fixed shapes."""
    with torch.inference_mode(False), torch.no_grad():
        graph = GRAPHS[key.name](net, *key.sizes)
    return convert_module(graph.module, graph.examples)


def convert_module(module: nn.Module, examples: Sequence[Tensor]) -> openvino.Model:
    """Convert a module to an OpenVINO model whose shapes are those of the examples."""
    # The decoder is what `openvino.convert_model` uses, which also looks for a module that reports usage.
    with torch.inference_mode(False), torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        copies = tuple(example.clone() for example in examples)
        decoder = TorchScriptPythonDecoder(module.eval(), example_input=copies)
        frontend = FrontEndManager().load_by_framework("pytorch")
        model = frontend.convert(frontend.load(decoder))
    for port, example in zip(model.inputs, examples, strict=True):
        port.get_node().set_element_type(openvino.Type(example.numpy().dtype))
    model.reshape({port: list(example.shape) for port, example in zip(model.inputs, examples, strict=True)})
    model.validate_nodes_and_infer_types()
    return model
