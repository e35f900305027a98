# SPDX-License-Identifier: Apache-2.0
"""The whole DiMP network, and the models by name: ``dimp18``, ``dimp50`` and ``dimp_lite``."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from dimp_ros.model.backbone import Backbone, EfficientNetLite0, Features, resnet18, resnet50
from dimp_ros.model.box_refiner import BoxRefiner
from dimp_ros.model.classifier import Classifier
from dimp_ros.model.iou_net import IoUNet
from dimp_ros.model.point_box import PointBoxHead


@dataclass(frozen=True)
class Architecture:
    """What tells one DiMP network from another.

    :param backbone: builds the feature extractor.
    :param classifier_channels: channels of the classification features and of the filter.
    :param classifier_residual: whether a residual block stands in the classification features.
    :param iou_reference: widths of the overlap network's reference branch at stride 8 and 16.
    :param iou_test: widths of its test branch.
    """

    backbone: Callable[[], Backbone]
    classifier_channels: int
    classifier_residual: bool = False
    iou_reference: tuple[int, int] = (128, 256)
    iou_test: tuple[int, int] = (256, 256)


ARCHITECTURES = {
    "dimp18": Architecture(resnet18, 256, classifier_residual=True),
    "dimp50": Architecture(resnet50, 512),
    "dimp_lite": Architecture(EfficientNetLite0, 256, iou_reference=(128, 128), iou_test=(128, 128)),
}


class DimpNet(nn.Module):
    """Backbone, target classifier and overlap predictor; each part is used on its own, so there is no ``forward``.

    ``box_refiner`` is None, unless a weights file has one: it then gives boxes besides the overlap predictor.
    ``point_box`` is None likewise: without it, a target cannot be given by a point.
    """

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        self.architecture = architecture
        self.feature_extractor = architecture.backbone()
        channels = self.feature_extractor.channels
        self.classifier = Classifier(
            channels[1], architecture.classifier_channels, residual=architecture.classifier_residual
        )
        self.box_refiner: BoxRefiner | None = None
        self.point_box: PointBoxHead | None = None
        self.bb_regressor = IoUNet(channels, architecture.iou_reference, architecture.iou_test)

    def add_box_refiner(self) -> None:
        """Add a box refiner, with a backbone of its own, with random weights."""
        self.box_refiner = BoxRefiner(self.architecture.backbone())

    def add_point_box(self) -> None:
        """Add a head for points with random weights."""
        self.point_box = PointBoxHead(self.feature_extractor.channels)

    def extract(self, images: Tensor) -> Features:
        """Return the backbone's features of RGB images ``Tensor[N, 3, H, W]`` with values 0..255."""
        normalized = self.feature_extractor.normalize(images)
        return self.feature_extractor(normalized.contiguous(memory_format=torch.channels_last))


def build_model(name: str) -> DimpNet:
    """Build the model called ``name`` with random weights.

    :raises ValueError: if no model has that name.
    """
    if name not in ARCHITECTURES:
        raise ValueError(f"no model is called {name!r}; choose one of {', '.join(sorted(ARCHITECTURES))}")
    return DimpNet(ARCHITECTURES[name])


class _WithoutDrawing(TorchFunctionMode):
    """Leave tensors as they are where they would be filled with random numbers."""

    DRAWING = frozenset(("normal_", "uniform_", "kaiming_normal_", "kaiming_uniform_"))

    def __torch_function__(
        self, func: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if getattr(func, "__name__", "") in self.DRAWING:  # a method of tensors, or a function of nn.init
            return args[0] if args else kwargs["tensor"]
        return func(*args, **kwargs)


def build_empty_model(name: str) -> DimpNet:
    """Build the model called ``name`` for weights that are going to be loaded; until then they are undefined.

    :raises ValueError: if no model has that name.
    """
    with _WithoutDrawing():
        return build_model(name)
