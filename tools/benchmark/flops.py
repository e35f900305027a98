# SPDX-License-Identifier: Apache-2.0
"""How much there is to compute and to move in each stage, and so how long it takes at least on a device.

Convolutions and linear layers are counted as the networks run them on tensors without content; what the target filter
and the overlap network's end need is written out. Batch norm, activations and sums are taken to be fused into the
layers before them. Every layer reads its input and its weights once and writes its output once. The overlap network's
maps are needed under the boxes only.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor, nn

from benchmark.roofline import Roofline
from dimp_ros.model.backbone import Features
from dimp_ros.model.dimp import DimpNet, build_empty_model
from dimp_ros.tracker.config import TrackerConfig

T = TypeVar("T")


class Operation(NamedTuple):
    """An operation that has to be finished before the next: floating-point operations, and bytes read and written."""

    flops: float
    bytes: float


class StageWork(NamedTuple):
    """All operations of a stage, one after the other, and the bytes that go to the device."""

    operations: list[Operation]
    upload: float = 0.0

    @property
    def flops(self) -> float:
        """Floating-point operations."""
        return sum(one.flops for one in self.operations)

    @property
    def bytes(self) -> float:
        """Bytes read and written."""
        return sum(one.bytes for one in self.operations)

    def floor(self, roofline: Roofline) -> float:
        """Return the least time in seconds: each operation at the ceiling that it meets first."""
        computing = sum(max(one.flops / roofline.flops, one.bytes / roofline.bandwidth) for one in self.operations)
        return computing + self.upload / roofline.upload


@torch.no_grad()
def stage_work(
    architecture: str, config: TrackerConfig, targets: int = 1, itemsize: int = 4, window: float = 300.0
) -> dict[str, StageWork]:
    """Count a frame's work by the names of `TrackResult.stage_ms`; ``optimize`` is an update that improves the filter.

    :param itemsize: bytes of a number in the networks; the optimiser's have four.
    :param window: side of the search window in the image, pixels.
    """
    with torch.device("meta"):
        net = build_empty_model(architecture).eval()
    image = torch.zeros(targets, 3, config.crop_size, config.crop_size, device="meta")
    count = _Counter(itemsize)
    stride8, stride16 = count(net.feature_extractor, lambda: net.feature_extractor(image))
    backbone = count.taken()
    features = count(net.classifier, lambda: net.classifier.features(stride16))
    classify = [*count.taken(), _correlation(features, 1, itemsize)]
    under = Features(*(maps[..., :side, :side] for maps, side in zip((stride8, stride16), _under(config), strict=True)))
    count(net.bb_regressor, lambda: net.bb_regressor.features(under))
    refine = [*count.taken(), *_ascent(net, config, targets, itemsize)]
    crop = targets * 3 * (window**2 + config.crop_size**2)
    step = [_correlation(features[:1], config.memory_size, 4)] * 3  # scores, gradient, curvature
    return {
        "crop": StageWork([Operation(0, crop)]),
        "upload": StageWork([], upload=targets * 3 * config.crop_size**2),
        "backbone": StageWork(backbone),
        "classify": StageWork(classify),
        "refine": StageWork(refine),
        "optimize": StageWork(step * config.update_steps * targets),
    }


def _under(config: TrackerConfig) -> tuple[int, int]:
    """Return how many pixels of the maps of stride 8 and 16 lie under the boxes along a side: 2 more to interpolate."""
    reach = config.crop_size / config.search_scale * (1 + config.jitter_size)
    at8, at16 = (min(math.ceil(reach / stride) + 2, config.crop_size // stride) for stride in (8, 16))
    return at8, at16


def _correlation(features: Tensor, images: int, itemsize: int, kernel: int = 4) -> Operation:
    """Count a correlation of ``images`` times features ``[N, C, H, W]`` with a filter, or its adjoint."""
    numbers = features.numel() * images
    return Operation(2 * numbers * kernel**2, (numbers + features.shape[1] * kernel**2) * itemsize)


def _ascent(net: DimpNet, config: TrackerConfig, targets: int, itemsize: int) -> Iterator[Operation]:
    """Count the overlap network's end: there and back in each step; the pooling is left out."""
    boxes = targets * config.proposals
    for layer in (net.bb_regressor.fc3_rt.linear, net.bb_regressor.fc4_rt.linear):
        weights = layer.in_features * layer.out_features
        for _ in range(2 * config.refine_steps):
            yield Operation(
                2 * boxes * weights, itemsize * (weights + boxes * (layer.in_features + layer.out_features))
            )


class _Counter:
    """Notes the work of each convolution and linear layer that runs."""

    def __init__(self, itemsize: int) -> None:
        self._itemsize = itemsize
        self._noted: list[Operation] = []

    def __call__(self, module: nn.Module, run: Callable[[], T]) -> T:
        """Run something that calls parts of ``module``, and note what they do."""
        with self._watching(module):
            return run()

    def taken(self) -> list[Operation]:
        """Return what was noted since the last time."""
        noted, self._noted = self._noted, []
        return noted

    @contextmanager
    def _watching(self, module: nn.Module) -> Iterator[None]:
        layers = [part for part in module.modules() if isinstance(part, (nn.Conv2d, nn.Linear))]
        hooks = [layer.register_forward_hook(self._note) for layer in layers]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    def _note(self, layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        weight = layer.weight
        assert isinstance(weight, Tensor)
        moved = inputs[0].numel() + output.numel() + weight.numel()
        self._noted.append(Operation(2 * output.numel() * weight[0].numel(), moved * self._itemsize))
