# SPDX-License-Identifier: Apache-2.0
"""The network's part of a frame in OpenVINO, on a CPU; see `dimp_ros.tracker.inference_backend`.

Windows are computed one after the other. The overlap network's maps are computed in a region around the boxes, and
again as a whole where a box left it. Filter updates stay in PyTorch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from dimp_ros.model.backbone import Features
from dimp_ros.model.box_refiner import RefinedBoxes
from dimp_ros.model.dimp import DimpNet
from dimp_ros.model.inference.graphs import Ascent, CloserLookGraph, FeatureGraph, OverlapMaps
from dimp_ros.model.inference.network import versions
from dimp_ros.model.inference.openvino_graphs import GraphSource, OpenvinoGraph, compile_graph, weights_digest
from dimp_ros.model.inference.region import Region
from dimp_ros.model.iou_net import Modulation
from dimp_ros.model.target_filter import apply_filter
from dimp_ros.tracker.inference_backend import Floats, FrameFeatures
from dimp_ros.tracker.memory import SampleMemory
from dimp_ros.tracker.stage_timer import StageTimer

REGION_CELLS = 10
"""Side of the region that the overlap network's maps are computed in, cells of 16 pixels: 160 of 288 pixels."""


class _Refiner(NamedTuple):
    """The graphs that refine the boxes of one target, in a region or in the whole window.

    :param maps: the overlap network's maps. :param step: one step of the ascent on them.
    """

    maps: OpenvinoGraph
    step: OpenvinoGraph

    def prepare(self, backbone: Sequence[NDArray[np.float32]], region: Region | None) -> None:
        """Compute the maps of a window from its backbone features."""
        for buffer, values in zip(self.maps.inputs, backbone, strict=False):
            buffer[0] = values
        if region is not None:
            self.maps.inputs[2][:] = self.step.inputs[6][:] = (region.row, region.column)
        self.maps()

    def ascend(
        self, vectors: Sequence[NDArray[np.float32]], boxes: NDArray[np.float32], length: float
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Take one step with boxes ``[P, 4]``; return them, and the overlaps ``[P]`` predicted before it."""
        for buffer, values in zip(self.step.inputs[2:6], (*vectors, boxes, length), strict=True):
            buffer[:] = values
        self.step()
        return self.step.outputs[0][0], self.step.outputs[1][0]


class OpenvinoBackend:
    """Runs a network with fixed weights on a CPU.

    :param net: in evaluation mode; see `up_to_date`. :param precision: float32 or bfloat16.
    """

    name = "openvino"

    def __init__(self, net: DimpNet, precision: torch.dtype) -> None:
        self.net, self._precision, self._versions = net, precision, versions(net)
        self._digest, self._threads = weights_digest(net), torch.get_num_threads()
        self._searches: dict[int, OpenvinoGraph] = {}
        self._refiners: dict[tuple[int, ...], list[_Refiner]] = {}
        self._closer: OpenvinoGraph | None = None

    def up_to_date(self) -> bool:
        """Tell whether the network still has the weights that the backend was made from."""
        return self._versions == versions(self.net)

    def extract(self, crops: Sequence[NDArray[np.uint8]]) -> Features:
        """Return the backbone's features of crops."""
        graph, parts = self._search(len(crops[0])), []
        for crop in crops:
            graph.inputs[0][0] = crop
            graph()
            parts.append([torch.from_numpy(maps.copy()) for maps in graph.outputs[:2]])
        return Features(*(torch.cat(maps) for maps in zip(*parts, strict=True)))

    def target_features(self, stride16: Tensor) -> Tensor:
        """Return classification features of backbone features."""
        return self.net.classifier.features(stride16)

    def extract_and_score(
        self, crops: Sequence[NDArray[np.uint8]], filters: Tensor, timer: StageTimer
    ) -> FrameFeatures:
        """Extract features of search windows and score them with the targets' filters."""
        graph, parts = self._search(len(crops[0])), []
        for crop in crops:
            graph.inputs[0][0] = crop
            graph()
            parts.append([torch.from_numpy(maps if len(crops) == 1 else maps.copy()) for maps in graph.outputs])
        stride8, stride16, features = parts[0] if len(parts) == 1 else map(torch.cat, zip(*parts, strict=True))
        timer.record("backbone")
        scores = apply_filter(features[:, None], filters)[:, 0].numpy()  # in float32, unlike the graph
        timer.record("classify")
        return FrameFeatures(Features(stride8, stride16), features, scores)

    def refine_boxes(
        self, modulation: Modulation, backbone: Features, boxes: Floats, steps: int, length: float
    ) -> tuple[Floats, Floats]:
        """Refine the boxes of B targets."""
        limited, whole = self._refiners_for(backbone, boxes.shape[1])
        refined, overlaps = np.empty_like(boxes), np.empty(boxes.shape[:2], np.float32)
        for n in range(len(boxes)):
            maps, vectors = ([part[n].numpy() for part in parts] for parts in (backbone, modulation))
            refiner, now = limited, boxes[n]
            region = Region.around(now, maps[1].shape[-1], least=REGION_CELLS)
            if region is None or region.size > REGION_CELLS:
                refiner, region = whole, None
            refiner.prepare(maps, region)
            for _ in range(max(steps, 1)):
                if region is not None and not region.covers(now, maps[1].shape[-1]):
                    refiner, region = whole, None
                    refiner.prepare(maps, None)
                now, predicted = refiner.ascend(vectors, now, length if steps else 0.0)
            refined[n], overlaps[n] = now, predicted
        return refined, overlaps

    def update_filter(self, weights: Tensor, memory: SampleMemory, steps: int) -> Tensor:
        """Return the filter after ``steps`` optimiser steps on all samples."""
        samples = [part[None] for part in memory.samples()]
        better: Tensor = self.net.classifier.filter_optimizer(weights, *samples, steps)[-1]
        return better

    def look_closer(self, crops: Sequence[NDArray[np.uint8]], tokens: Tensor) -> RefinedBoxes:
        """Apply the box refiner to its windows."""
        if self._closer is None:
            examples = torch.zeros((1, *crops[0].shape), dtype=torch.uint8), torch.zeros_like(tokens[:1])
            self._closer = self._compile("closer", lambda: CloserLookGraph(self.net), examples, self._precision)
        graph, parts = self._closer, []
        for crop, own in zip(crops, tokens.numpy(), strict=True):
            graph.inputs[0][0], graph.inputs[1][0] = crop, own
            graph()
            parts.append([torch.from_numpy(values.copy()) for values in graph.outputs])
        return RefinedBoxes(*(torch.cat(values) for values in zip(*parts, strict=True)))

    def _compile(
        self,
        name: str,
        build: Callable[[], nn.Module],
        examples: Sequence[Tensor],
        precision: torch.dtype,
        shared: dict[int, NDArray[Any]] | None = None,
    ) -> OpenvinoGraph:
        """Compile a graph of the network; see `OpenvinoGraph` for ``shared``."""
        source = GraphSource(build, f"{name} {self._digest}", examples)
        return OpenvinoGraph(compile_graph(source, precision, self._threads), shared)

    def _search(self, size: int) -> OpenvinoGraph:
        """Return the graph for search windows of a size."""
        if size not in self._searches:
            example = torch.zeros((1, size, size, 3), dtype=torch.uint8)
            self._searches[size] = self._compile("search", lambda: FeatureGraph(self.net), [example], self._precision)
        return self._searches[size]

    def _refiners_for(self, backbone: Features, proposals: int) -> list[_Refiner]:
        """Return the graphs for a region and for the whole window, made at once: no frame is to wait for the second."""
        cells = backbone.stride16.shape[-1]
        key = (cells, proposals)
        if key not in self._refiners:
            sizes = [None] if cells <= REGION_CELLS else [REGION_CELLS, None]
            made = [self._make_refiner(backbone, proposals, size) for size in sizes]
            self._refiners = {key: [made[0], made[-1]]}
        return self._refiners[key]

    def _make_refiner(self, backbone: Features, proposals: int, cells: int | None) -> _Refiner:
        """Compile the overlap network's maps, and the ascent, which needs float32: boxes are in pixels."""
        overlap = self.net.bb_regressor
        corner = [] if cells is None else [torch.zeros(2, dtype=torch.int64)]
        examples = [torch.zeros(1, *part.shape[1:]) for part in backbone]
        maps = self._compile(
            f"maps {cells}", lambda: OverlapMaps(overlap, cells), [*examples, *corner], self._precision
        )
        vectors = [torch.zeros(1, output.shape[1]) for output in maps.outputs]
        boxes = torch.tensor([[[8.0, 8.0, 32.0, 32.0]]]).repeat(1, proposals, 1)
        examples = [*(torch.zeros(output.shape) for output in maps.outputs), *vectors, boxes, torch.ones(1), *corner]
        step = self._compile("step", lambda: Ascent(overlap, 1), examples, torch.float32, dict(enumerate(maps.outputs)))
        return _Refiner(maps, step)
