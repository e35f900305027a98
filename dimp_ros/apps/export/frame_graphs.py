# SPDX-License-Identifier: Apache-2.0
"""The graphs of one model: what a host needs to start a target and to track it, with the meaning of every tensor."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import NamedTuple

import torch
from torch import Tensor, nn

from dimp_ros.apps.export.first_frame import FirstFrameGraph
from dimp_ros.model.backbone import Features
from dimp_ros.model.dimp import DimpNet
from dimp_ros.model.inference.graphs import CloserLookGraph, RefinementGraph, SearchGraph, TokensGraph
from dimp_ros.model.inference.learning_graphs import UpdateGraph
from dimp_ros.model.sizes import CLOSER_SIZE
from dimp_ros.tracker.config import TrackerConfig

BGR = "BGR, values 0..255, not normalised"
CROP_BOX = "x, y, w, h in crop pixels"

MEANING = {
    "search": {
        "images": f"search windows, {BGR}",
        "filters": "of the target in each window",
        "stride8": "backbone features, 8 pixels a cell",
        "stride16": "backbone features, 16 pixels a cell",
        "features": "classification features, a sample for the filter's updates",
        "scores": "cell (row, column) is a target centre at crop pixel (16 column, 16 row)",
    },
    "first_frame": {
        "image": f"window of the first frame, twice as wide as a search window, {BGR}",
        "box": f"the target in it, {CROP_BOX}",
        "filter": "initial filter, for the steps of the graph update",
        "samples": "classification features of views of the first frame",
        "boxes": f"the target in each sample, {CROP_BOX}",
        "modulation8": "what the overlap network knows of the target, stride 8",
        "modulation16": "the same, stride 16",
    },
    "update": {
        "filter": "the filter before the step",
        "features": "of the samples",
        "boxes": f"the target in each sample, {CROP_BOX}",
        "weights": "of the samples; they sum to 1",
        "updated": "the filter after one step",
    },
    "refine": {
        "stride8": "of the graph search",
        "stride16": "of the graph search",
        "modulation8": "of the target in each window",
        "modulation16": "of the target in each window",
        "boxes": f"proposals, {CROP_BOX}",
        "length": "of a step",
        "refined": f"the boxes after all steps, {CROP_BOX}",
        "overlaps": "predicted 2 * IoU - 1 of each box before its last step",
    },
    "tokens": {
        "images": f"windows of the first frame, {BGR}",
        "boxes": "the target in each window, x, y, w, h in window pixels",
        "tokens": "what the box refiner knows of the target",
    },
    "closer_look": {
        "images": f"windows round the boxes to refine, {BGR}",
        "tokens": "of the target in each window",
        "edges": "left, top, right, bottom in window sides: 0..1 is the window",
        "quality": "logit of the predicted overlap",
    },
}
"""Graph and tensor -> what it holds."""


class FrameGraph(NamedTuple):
    """A graph to write.

    :param examples: inputs of the module. :param dynamic: input -> name of its first dimension, where that is free.
    """

    name: str
    module: nn.Module
    examples: Sequence[Tensor]
    dynamic: Mapping[str, str]

    @property
    def inputs(self) -> tuple[str, ...]:
        """Names of the inputs."""
        names: tuple[str, ...] = self.module.INPUTS  # type: ignore[assignment]
        return names[: len(self.examples)]

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of the outputs."""
        names: tuple[str, ...] = self.module.OUTPUTS  # type: ignore[assignment]
        return names


def frame_graphs(net: DimpNet, config: TrackerConfig) -> list[FrameGraph]:
    """Return the graphs that track with a network; `tokens` and `closer_look` are of one with a box refiner.

    `refine` is left out where ``refine_steps`` is 0.

    :param net: on the CPU, in evaluation mode. :param config: gives the crop's size and the steps of `refine`.
    """
    size, kernel = config.crop_size, net.classifier.kernel
    stride8, stride16 = net.feature_extractor.channels
    channels = net.classifier.filter_initializer.filter_conv.out_channels
    images = torch.full((2, size, size, 3), 127, dtype=torch.uint8)
    large = torch.full((1, 2 * size, 2 * size, 3), 127, dtype=torch.uint8)
    boxes = torch.tensor([[0.4, 0.4, 0.2, 0.2], [0.45, 0.4, 0.15, 0.25]]) * size
    filters = torch.zeros(2, channels, kernel, kernel)
    features = torch.zeros(2, channels, size // 16, size // 16)
    maps = (torch.zeros(1, stride8, size // 8, size // 8), torch.zeros(1, stride16, size // 16, size // 16))
    with torch.no_grad():
        vectors = net.bb_regressor.modulation(Features(*maps), boxes[:1])
    proposals = boxes[:1, None].repeat(1, config.proposals, 1)
    graphs = [
        FrameGraph("search", SearchGraph(net), (images, filters), {"images": "windows", "filters": "windows"}),
        FrameGraph(
            "first_frame", FirstFrameGraph(net, config), (large, torch.tensor([[0.9, 0.9, 0.2, 0.2]]) * size), {}
        ),
        FrameGraph(
            "update",
            UpdateGraph(net),
            (filters[:1], features, boxes, torch.full((2,), 0.5)),
            {"features": "samples", "boxes": "samples", "weights": "samples"},
        ),
    ]
    if config.refine_steps:
        ascent = RefinementGraph(net.bb_regressor, config.refine_steps)
        graphs.append(FrameGraph("refine", ascent, (*maps, *vectors, proposals, torch.ones(1)), {}))
    if net.box_refiner is None:
        return graphs
    windows = torch.full((2, CLOSER_SIZE, CLOSER_SIZE, 3), 127, dtype=torch.uint8)
    tokens = torch.zeros(2, *net.box_refiner.place.shape)
    inside = torch.tensor([[36.0, 36, 72, 72], [40, 36, 60, 80]])
    return [
        *graphs,
        FrameGraph("tokens", TokensGraph(net), (windows, inside), {"images": "targets", "boxes": "targets"}),
        FrameGraph("closer_look", CloserLookGraph(net), (windows, tokens), {"images": "targets", "tokens": "targets"}),
    ]


def description(graph: FrameGraph, model: str, config: TrackerConfig) -> dict[str, str]:
    """Return the metadata of a graph: model, graph, the tracker's settings as JSON, and a line on every tensor."""
    tensors = {f"tensor.{name}": MEANING[graph.name][name] for name in (*graph.inputs, *graph.outputs)}
    return {"model": model, "graph": graph.name, "settings": json.dumps(asdict(config)), **tensors}
