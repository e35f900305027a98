# SPDX-License-Identifier: Apache-2.0
"""The network's part of tracking in OpenVINO, on a CPU; see `dimp_ros.tracker.inference_backend`.

Everything is a static graph, see `dimp_ros.model.inference.graph_conversion`, and everything on the device a numpy
array. With compiled graphs in the cache torch is not imported. Windows are computed one after the other. The overlap
network's maps are computed in a region around the boxes, and again as a whole where a box left it.
"""

from __future__ import annotations

import math
import mmap
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from dimp_ros.model.checkpoints.network_source import NetworkSource
from dimp_ros.model.inference.openvino_graphs import GraphKey, OpenvinoGraph, compile_graph, is_compiled
from dimp_ros.model.inference.region import Region
from dimp_ros.tracker.config import TrackerConfig
from dimp_ros.tracker.graph_cache import compile_in_child
from dimp_ros.tracker.inference_backend import CloserBoxes, Crops, Floats, TargetModulation, WindowFeatures
from dimp_ros.tracker.memory import SampleMemory
from dimp_ros.tracker.modulation_fit import PROPOSALS, draw_proposals, fit, known_overlaps
from dimp_ros.tracker.random_numbers import UniformNumbers
from dimp_ros.tracker.stage_timer import StageTimer

if TYPE_CHECKING:
    import openvino

REGION_CELLS = 10
"""Side of the region that the overlap network's maps are computed in, cells of 16 pixels."""


class _Refiner(NamedTuple):
    """The graphs that refine the boxes of one target, in a region or in the whole window.

    :param maps: the overlap network's maps. :param step: one step of the ascent on them.
    """

    maps: OpenvinoGraph
    step: OpenvinoGraph

    def prepare(self, backbone: Sequence[Floats], region: Region | None) -> None:
        """Compute the maps of a window from its backbone features."""
        if region is None:
            self.maps(*backbone)
        else:
            self.step.inputs[6][:] = (region.row, region.column)
            self.maps(*backbone, (region.row, region.column))

    def ascend(self, vectors: Sequence[Floats], boxes: Floats, length: float) -> tuple[Floats, Floats]:
        """Take one step with boxes ``[P, 4]``; return them, and the overlaps ``[P]`` predicted before it."""
        refined, overlaps = self.step(None, None, *vectors, boxes, length)
        return refined[0], overlaps[0]


class OpenvinoBackend:
    """Runs a network with fixed weights on a CPU.

    :param precision: float32 or bfloat16. :param config: of the tracker; the graph for its search windows is compiled
        at once, and on a first start all others with it. :param threads: that compute.
    :raises ValueError: if the weights do not fit.
    """

    name = "openvino"

    def __init__(self, source: NetworkSource, precision: str, config: TrackerConfig, threads: int) -> None:
        self._source, self._precision, self._threads = source, precision, threads
        self.has_box_refiner, self.has_point_box = source.has_box_refiner, source.has_point_box
        self._state, self._digest = source.state(), source.digest()
        self._graphs: dict[GraphKey, OpenvinoGraph] = {}
        self._refiners: dict[tuple[int, int], list[_Refiner]] = {}
        self._config = config
        self._may_compile_in_child = source.path is not None and "torch" not in sys.modules
        self._graph("search", config.crop_size)

    def up_to_date(self) -> bool:
        """Tell whether the network still has the weights that the backend was made from."""
        return self._state == self._source.state()

    def device_bytes(self) -> int | None:
        """Return None: what is taken of the CPU's memory is for the system to tell."""
        return None

    def to_host(self, array: Floats) -> Floats:
        """Return a copy."""
        return array.copy()

    def to_device(self, array: Floats) -> Floats:
        """Return a copy."""
        return np.ascontiguousarray(array, np.float32)

    def extract(self, crops: Crops) -> WindowFeatures:
        """Return features of windows."""
        graph = self._graph("search", len(crops[0]))
        features = [_zeros(len(crops), *maps.shape[1:]) for maps in graph.outputs]
        for n, crop in enumerate(crops):
            for whole, maps in zip(features, graph(crop), strict=True):
                whole[n] = maps[0]
        return WindowFeatures(*features)

    def extract_and_score(
        self, crops: Crops, filters: Sequence[Floats], timer: StageTimer
    ) -> tuple[WindowFeatures, Floats]:
        """Extract features of search windows and score them with the targets' filters."""
        graph, parts, scores = self._graph("search", len(crops[0])), [], []
        for crop, filter in zip(crops, filters, strict=True):
            maps = graph(crop)
            timer.record("backbone")
            parts.append(maps if len(crops) == 1 else [part.copy() for part in maps])
            scores.append(self.score(maps[2], filter))
            timer.record("classify")
        features = parts[0] if len(parts) == 1 else [np.concatenate(maps) for maps in zip(*parts, strict=True)]
        return WindowFeatures(*features), np.concatenate(scores)

    def classification_features(self, features: WindowFeatures, kept: NDArray[np.bool_], share: float) -> Floats:
        """Return classification features of windows, and of copies of the first one with dropout."""
        plain = features.stride16[0]
        graph = self._graph("classify", plain.shape[-1])
        samples = _zeros(len(features.classifier) + len(kept), *features.classifier.shape[1:])
        samples[: len(features.classifier)] = features.classifier
        for sample, row in zip(samples[len(features.classifier) :], kept, strict=True):
            sample[:] = graph(plain, row / np.float32(share))[0][0]
        return samples

    def learn_filter(self, samples: Floats, boxes: Floats, steps: int) -> Floats:
        """Return the initial filter after ``steps`` optimiser steps."""
        (initial,) = self._sized("initial", samples)(samples, boxes)
        equal = np.full(len(samples), 1 / len(samples), np.float32)
        return self._optimize(initial, samples, boxes, equal, steps)

    def update_filter(self, filter: Floats, memory: SampleMemory, steps: int) -> Floats:
        """Return the filter after ``steps`` optimiser steps on all samples; those of empty slots have weight 0."""
        return self._optimize(filter, *memory.slots(), steps)

    def reserve(self, samples: Floats, capacity: int) -> Floats:
        """Return an array of ``capacity`` rows that begins with samples."""
        reserved = _zeros(capacity, *samples.shape[1:])
        reserved[: len(samples)] = samples
        return reserved

    def score(self, samples: Floats, filter: Floats) -> Floats:
        """Correlate samples with a filter, in float32 whatever the precision."""
        graph = self._graph("score", samples.shape[-1])
        return np.concatenate([graph(sample, filter)[0].copy() for sample in samples])

    def modulation(self, features: WindowFeatures, box: Floats) -> TargetModulation:
        """Return the overlap network's modulation vectors of a target, computed in float32."""
        graph = self._graph("modulation", features.stride16.shape[-1])
        return TargetModulation(*(vector.copy() for vector in graph(features.stride8, features.stride16, box)))

    def fit_modulation(
        self, modulation: TargetModulation, features: WindowFeatures, boxes: Floats, config: TrackerConfig
    ) -> TargetModulation:
        """Fit modulation vectors to windows of the first frame."""
        proposals = draw_proposals(boxes, UniformNumbers(config.seed))
        views, count, cells = len(boxes), proposals.shape[0] * proposals.shape[1], features.stride16.shape[-1]
        pooled = self._graph("pooled", cells, views, PROPOSALS)(features.stride8, features.stride16, proposals)
        truth, weights = (part.reshape(count) for part in known_overlaps(proposals, boxes))
        graph = self._graph("fit", count)

        def gradient(*vectors: Floats) -> tuple[Floats, Floats]:
            by8, by16 = graph(None, None, *vectors, truth, weights)
            return by8, by16

        with graph.bound(0, pooled[0]), graph.bound(1, pooled[1]):
            return fit(modulation, gradient, config)

    def refine_boxes(
        self,
        modulation: Sequence[TargetModulation],
        features: WindowFeatures,
        boxes: Floats,
        steps: int,
        length: float,
    ) -> tuple[Floats, Floats]:
        """Refine the boxes of B targets."""
        cells = features.stride16.shape[-1]
        limited, whole = self._refiners_for(cells, boxes.shape[1])
        refined, overlaps = np.empty_like(boxes), np.empty(boxes.shape[:2], np.float32)
        for n, vectors in enumerate(modulation):
            maps = features.stride8[n], features.stride16[n]
            refiner, now = limited, boxes[n]
            region = Region.around(now, cells, least=REGION_CELLS)
            if region is None or region.size > REGION_CELLS:
                refiner, region = whole, None
            refiner.prepare(maps, region)
            for _ in range(max(steps, 1)):
                if region is not None and not region.covers(now, cells):
                    refiner, region = whole, None
                    refiner.prepare(maps, None)
                now, predicted = refiner.ascend(vectors, now, length if steps else 0.0)
            refined[n], overlaps[n] = now, predicted
        return refined, overlaps

    def target_tokens(self, crop: NDArray[np.uint8], box: Floats) -> Floats:
        """Return the box refiner's tokens of a target, in float32."""
        return self._graph("tokens")(crop, box)[0].copy()

    def look_closer(self, crops: Crops, tokens: Sequence[Floats]) -> CloserBoxes:
        """Apply the box refiner to its windows."""
        graph = self._graph("closer")
        parts = [[part.copy() for part in graph(crop, own)] for crop, own in zip(crops, tokens, strict=True)]
        edges, quality = (np.concatenate(part) for part in zip(*parts, strict=True))
        return CloserBoxes(edges, 1 / (1 + np.exp(-quality)))

    def boxes_at_point(self, crops: Crops) -> CloserBoxes:
        """Apply the head for points to its windows, in float32."""
        features = self.extract(crops)
        return CloserBoxes(*(part.copy() for part in self._graph("point")(features.stride8, features.stride16)))

    def _optimize(self, filter: Floats, samples: Floats, boxes: Floats, weights: Floats, steps: int) -> Floats:
        """Take optimiser steps on samples of given weights."""
        graph = self._sized("update", samples)
        with graph.bound(1, samples):
            for _ in range(steps):
                (filter,) = graph(filter, None, boxes, weights)
        return filter.copy()

    def _sized(self, name: str, samples: Floats) -> OpenvinoGraph:
        """Return a graph for a number of samples."""
        return self._graph(name, samples.shape[-1], len(samples))

    def _graph(self, name: str, *sizes: int) -> OpenvinoGraph:
        """Return a graph of the network; convolutions in the networks' precision where that is precise enough."""
        key = GraphKey(name, sizes, self._precision if name in ("search", "classify", "closer") else "float32")
        if key not in self._graphs:
            self._graphs[key] = OpenvinoGraph(self._compile(key))
        return self._graphs[key]

    def _compile(self, key: GraphKey) -> openvino.CompiledModel:
        """Compile a graph; where the cache folder has not got it, all of them in another process, once."""
        if self._may_compile_in_child and not is_compiled(key, self._digest, self._threads):
            self._may_compile_in_child = False
            assert self._source.path is not None
            compile_in_child(self._source.path, self._precision, self._threads, self._config)
        return compile_graph(key, self._digest, self._threads, self._convert)

    def _convert(self, key: GraphKey) -> openvino.Model:
        """Convert a graph, with torch."""
        from dimp_ros.model.inference.graph_conversion import convert

        return convert(self._source.network(), key)

    def _refiners_for(self, cells: int, proposals: int) -> list[_Refiner]:
        """Return the graphs for a region and for the whole window, made at once: no frame is to wait for the second."""
        key = (cells, proposals)
        if key not in self._refiners:
            made = [self._make_refiner("", cells, proposals)]
            if cells > REGION_CELLS:
                made.insert(0, self._make_refiner("region ", cells, proposals, REGION_CELLS))
            self._refiners = {key: [made[0], made[-1]]}
        return self._refiners[key]

    def _make_refiner(self, kind: str, cells: int, proposals: int, *region: int) -> _Refiner:
        """Compile the overlap network's maps, and the ascent, which needs float32: boxes are in pixels."""
        maps = OpenvinoGraph(self._compile(GraphKey(f"{kind}maps", (cells, *region), self._precision)))
        shared: dict[int, NDArray[Any]] = dict(enumerate(maps.outputs))
        step = self._compile(GraphKey(f"{kind}step", (*(region or (cells,)), proposals), "float32"))
        return _Refiner(maps, OpenvinoGraph(step, shared))


def _zeros(*shape: int) -> Floats:
    """Return zeros; a large array in memory that is given back when it is dropped, which C's allocator would keep."""
    size = 4 * math.prod(shape)
    return np.frombuffer(mmap.mmap(-1, size) if size > 2**20 else bytearray(size), np.float32).reshape(shape)
