# SPDX-License-Identifier: Apache-2.0
"""The first frame as one graph: its views, and samples, initial filter and modulation vectors from them."""

from __future__ import annotations

import math
from typing import ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dimp_ros.model.backbone import Features
from dimp_ros.model.dimp import DimpNet
from dimp_ros.model.inference.graphs import FeatureGraph
from dimp_ros.model.inference.learning_graphs import InitialGraph
from dimp_ros.tracker.augment import ViewChange, view_changes
from dimp_ros.tracker.config import TrackerConfig
from dimp_ros.tracker.random_numbers import UniformNumbers


class FirstFrameGraph(nn.Module):
    """What `dimp_ros.tracker.target_model.init_target_model` learns a target from, up to the optimiser's steps.

    Shifts and dropout are those that the tracker draws with the configuration's seed.

    :param net: in evaluation mode. :param config: gives the window's size and the views.
    """

    INPUTS: ClassVar = ("image", "box")
    OUTPUTS: ClassVar = ("filter", "samples", "boxes", "modulation8", "modulation16")

    def __init__(self, net: DimpNet, config: TrackerConfig) -> None:
        super().__init__()
        self.size, self.changes = config.crop_size, view_changes(config, np.random.default_rng(config.seed))
        self.features, self.initial, self.overlap = FeatureGraph(net), InitialGraph(net), net.bb_regressor
        shape, share = (config.dropout_copies, net.feature_extractor.channels[1]), np.float32(1 - config.dropout_rate)
        kept = UniformNumbers(config.seed)(*shape) < share
        shifts = np.array([change.shift for change in self.changes] + [(0, 0)] * config.dropout_copies, np.float32)
        self.register_buffer("dropout", torch.from_numpy(kept / share))  # factors of the channels of each copy
        self.register_buffer("shifts", F.pad(torch.from_numpy(shifts), (0, 2)))
        self.dropout: Tensor
        self.shifts: Tensor

    def forward(self, image: Tensor, box: Tensor) -> tuple[Tensor, ...]:
        """Compute views and what follows from them.

        :param image: uint8 ``[1, 2S, 2S, 3]``, twice as wide as the search window and centred on the target.
        :param box: ``[1, 4]``, the target in its pixels.
        :return: initial filter ``[1, C, k, k]``, samples ``[N, C, S/16, S/16]``, the target's box in each
            (``[N, 4]``, pixels of the view), modulation vectors.
        """
        large = image.permute(0, 3, 1, 2).float()
        views = torch.cat([_view(large, self.size, change) for change in self.changes])
        stride8, stride16, features = self.features(views.permute(0, 2, 3, 1))
        samples = torch.cat((features, self.features.classifier(stride16[:1], self.dropout)))
        boxes = box - torch.tensor([self.size / 2, self.size / 2, 0, 0]) + self.shifts
        modulation = self.overlap.modulation(Features(stride8[:1], stride16[:1]), boxes[:1])
        return self.initial(samples, boxes), samples, boxes, *modulation


def _view(large: Tensor, size: int, change: ViewChange) -> Tensor:
    """Cut a view ``[1, 3, S, S]`` from the large window ``[1, 3, 2S, 2S]``, as `dimp_ros.tracker.augment` does."""
    (dx, dy), flip, blur, degrees = change
    x, y = size // 2 - dx, size // 2 - dy
    if degrees:
        center, sine, cosine = size - 0.5, math.sin(math.radians(degrees)), math.cos(math.radians(degrees))
        u = torch.arange(x, x + size)[None, :] / center - 1  # -1..1: first to last column of the large window
        v = torch.arange(y, y + size)[:, None] / center - 1
        grid = torch.stack((cosine * u - sine * v, sine * u + cosine * v), -1)
        return F.grid_sample(large, grid[None], padding_mode="border", align_corners=True)
    if flip:
        large = large.flip(-1)
    if blur:
        large = _blurred(_blurred(large, blur[0]).mT, blur[1]).mT
    return large[..., y : y + size, x : x + size]


def _blurred(images: Tensor, sigma: float) -> Tensor:
    """Blur the rows of images ``[1, 3, H, W]`` with a Gaussian of OpenCV's size."""
    radius = (round(6 * sigma + 1) | 1) // 2
    kernel = (-torch.arange(-radius, radius + 1).square() / (2 * sigma**2)).exp()
    padded = F.pad(images, (radius, radius, 0, 0), mode="reflect")
    return F.conv2d(padded, (kernel / kernel.sum()).expand(3, 1, 1, -1), groups=3)
