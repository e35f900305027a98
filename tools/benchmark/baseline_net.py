# SPDX-License-Identifier: Apache-2.0
"""DiMP's networks as plain functions of their weights, written from the formulas, nothing folded or fused.

In float32 it is the baseline of the benchmark, in float64 the reference of the tests. It shares no code with
`dimp_ros.model`.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

Pair = tuple[Tensor, Tensor]
"""Feature maps ``[N, C, H, W]`` at stride 8 and 16, or the modulation vectors that belong to them."""

BINS = 100
SPACING = 0.1


def pool_weights(start: Tensor, length: Tensor, bins: int, size: int) -> Tensor:
    """Return how much each of ``size`` pixels counts in each bin of intervals: ``[P, bins, size]``."""
    ends = torch.arange(bins + 1, device=start.device, dtype=start.dtype) / bins
    edges = start[:, None] + length[:, None] * ends
    t = (edges[:, :, None] - torch.arange(size, device=start.device)).clamp(-1, 1)
    integral = torch.where(t < 0, (t + 1) ** 2 / 2, 1 - (1 - t) ** 2 / 2)
    return (integral[:, 1:] - integral[:, :-1]) * bins / length[:, None, None]


def pool(features: Tensor, boxes: Tensor, bins: int, scale: float) -> Tensor:
    """Pool box n ``boxes[n]`` ``[4]`` (x, y, w, h) from image n, or all from the one: ``[P, C, bins, bins]``."""
    x, y, w, h = (boxes * scale).unbind(1)
    rows = pool_weights(y, h, bins, features.shape[2])
    columns = pool_weights(x, w, bins, features.shape[3])
    return torch.einsum("pkh,pchw,plw->pckl", rows, features.expand(len(boxes), -1, -1, -1), columns)


class BaselineNet:
    """The network that ``tensors`` belong to; images are RGB ``[N, 3, H, W]``, 0..255, boxes in their pixels.

    :param dtype: of weights, images and boxes.
    """

    def __init__(
        self, tensors: Mapping[str, Tensor], architecture: str, device: torch.device, dtype: torch.dtype = torch.float32
    ) -> None:
        self.architecture, self.dtype = architecture, dtype
        self.tensors = {
            key: value.to(device, dtype if value.is_floating_point() else value.dtype).contiguous()
            for key, value in tensors.items()
        }

    def _conv(self, x: Tensor, name: str, *, stride: int = 1, padding: int = 0, groups: int = 1) -> Tensor:
        return F.conv2d(x, self.tensors[f"{name}.weight"], self.tensors.get(f"{name}.bias"), stride, padding, 1, groups)

    def _norm(self, x: Tensor, name: str, eps: float = 1e-5) -> Tensor:
        names = ("running_mean", "running_var", "weight", "bias")
        mean, var, weight, bias = (self.tensors[f"{name}.{suffix}"] for suffix in names)
        return F.batch_norm(x, mean, var, weight, bias, eps=eps)

    # Backbones

    def backbone(self, images: Tensor) -> Pair:
        """Return the feature maps of both strides."""
        if self.architecture == "dimp_lite":
            return self._efficientnet((images - 127) / 128)
        mean = images.new_tensor((0.485, 0.456, 0.406)).view(3, 1, 1)
        std = images.new_tensor((0.229, 0.224, 0.225)).view(3, 1, 1)
        return self._resnet((images / 255 - mean) / std)

    def _resnet(self, x: Tensor) -> Pair:
        name = "feature_extractor"
        x = F.relu(self._norm(self._conv(x, f"{name}.conv1", stride=2, padding=3), f"{name}.bn1"))
        x = F.max_pool2d(x, 3, 2, 1)
        depths = (3, 4, 6) if self.architecture == "dimp50" else (2, 2, 2)
        maps = []
        for layer, depth in enumerate(depths, start=1):
            for index in range(depth):
                x = self._residual(x, f"{name}.layer{layer}.{index}", stride=2 if layer > 1 and index == 0 else 1)
            maps.append(x)
        return maps[1], maps[2]

    def _residual(self, x: Tensor, name: str, stride: int = 1) -> Tensor:
        shortcut = x
        if f"{name}.downsample.0.weight" in self.tensors:
            shortcut = self._norm(self._conv(x, f"{name}.downsample.0", stride=stride), f"{name}.downsample.1")
        if f"{name}.conv3.weight" in self.tensors:
            x = F.relu(self._norm(self._conv(x, f"{name}.conv1"), f"{name}.bn1"))
            x = F.relu(self._norm(self._conv(x, f"{name}.conv2", stride=stride, padding=1), f"{name}.bn2"))
            x = self._norm(self._conv(x, f"{name}.conv3"), f"{name}.bn3")
        else:
            x = F.relu(self._norm(self._conv(x, f"{name}.conv1", stride=stride, padding=1), f"{name}.bn1"))
            x = self._norm(self._conv(x, f"{name}.conv2", padding=1), f"{name}.bn2")
        return F.relu(x + shortcut)

    def _efficientnet(self, x: Tensor) -> Pair:
        name, eps = "feature_extractor", 1e-3
        x = F.relu6(self._norm(self._conv(x, f"{name}.conv_stem", stride=2, padding=1), f"{name}.bn0", eps))
        maps = []
        for index in range(11):
            block, before = f"{name}.blocks.{index}", x
            if f"{block}.expand_conv.weight" in self.tensors:
                x = F.relu6(self._norm(self._conv(x, f"{block}.expand_conv"), f"{block}.bn0", eps))
            kernel, stride = self.tensors[f"{block}.depthwise_conv.weight"].shape[-1], 2 if index in (1, 3, 5) else 1
            x = self._conv(x, f"{block}.depthwise_conv", stride=stride, padding=kernel // 2, groups=x.shape[1])
            x = F.relu6(self._norm(x, f"{block}.bn1", eps))
            x = self._norm(self._conv(x, f"{block}.project_conv"), f"{block}.bn2", eps)
            x = x + before if x.shape == before.shape else x
            maps.append(x)
        return maps[4], maps[10]

    # Target classification

    def classification_features(self, stride16: Tensor) -> Tensor:
        """Return ``[N, C, H, W]`` of fixed norm."""
        name, x = "classifier.feature_extractor", stride16
        last = "0"
        if f"{name}.0.conv1.weight" in self.tensors:
            x, last = self._residual(x, f"{name}.0"), "1"
        x = self._conv(x, f"{name}.{last}", padding=1)
        energy = x.square().sum((1, 2, 3), keepdim=True) + 1e-5
        return x * (1 / (x.shape[1] * 16)) ** 0.5 * (x[0].numel() / energy).sqrt()

    def initial_filter(self, features: Tensor, boxes: Tensor) -> Tensor:
        """Return the mean of what the boxes ``[N, 4]`` hold: ``[1, C, 4, 4]``."""
        maps = self._conv(features, "classifier.filter_initializer.filter_conv", padding=1)
        return pool(maps, boxes, 4, 1 / 16).mean(0, keepdim=True)

    def optimize(self, weights: Tensor, features: Tensor, boxes: Tensor, gamma: Tensor, steps: int) -> list[Tensor]:
        """Return the iterates of steepest descent (autograd, Gauss-Newton step length), the given filter first."""
        label, mask, spatial = self._loss_maps(boxes, features.shape[-1] + 1)
        name = "classifier.filter_optimizer"
        reg = self.tensors[f"{name}.filter_reg"].abs().clamp(min=1e-3) ** 2
        length = self.tensors[f"{name}.log_step_length"].exp()
        iterates = [weights]
        for _ in range(steps):
            with torch.enable_grad():
                variable = iterates[-1].detach().requires_grad_(True)
                scores = F.conv2d(features, variable, padding=2)
                residual = spatial * (mask * scores + (1 - mask) * scores.clamp(min=0) - label)
                loss = (gamma.view(-1, 1, 1, 1) * residual**2).sum() + reg * (variable**2).sum()
                (doubled,) = torch.autograd.grad(loss, variable)
            gradient = doubled / 2
            slope = spatial * torch.where(scores.detach() > 0, 1.0, mask)
            h = slope * F.conv2d(features, gradient, padding=2)
            squared = (gradient**2).sum()
            curvature = (gamma.view(-1, 1, 1, 1) * h**2).sum() + reg * squared
            iterates.append(iterates[-1] - length * squared / curvature.clamp(min=1e-8) * gradient)
        return iterates

    def _loss_maps(self, boxes: Tensor, cells: int) -> tuple[Tensor, Tensor, Tensor]:
        """Return label, mask and spatial weight ``[N, 1, cells, cells]``: 1x1 convolutions of the distance's basis."""
        centre = (boxes[:, :2] + boxes[:, 2:] / 2) / 16
        at = torch.arange(cells, device=boxes.device, dtype=self.dtype)
        dx, dy = at - centre[:, 0, None], at - centre[:, 1, None]
        distance = (dx[:, None, :] ** 2 + dy[:, :, None] ** 2).sqrt()[:, None] / SPACING
        knots = torch.arange(BINS, device=boxes.device, dtype=self.dtype).view(1, -1, 1, 1)
        basis = (1 - (distance - knots).abs()).clamp(min=0)
        basis[:, -1] = (1 + (distance[:, 0] - (BINS - 1))).clamp(0, 1)
        name = "classifier.filter_optimizer"
        label = self._conv(basis, f"{name}.label_map_predictor")
        mask = self._conv(basis, f"{name}.target_mask_predictor.0").sigmoid()
        return label, mask, self._conv(basis, f"{name}.spatial_weight_predictor")

    # Overlap prediction

    def _block(self, x: Tensor, name: str, padding: int = 1) -> Tensor:
        name = f"bb_regressor.{name}"
        return F.relu(self._norm(self._conv(x, f"{name}.0", padding=padding), f"{name}.1"))

    def _linear(self, x: Tensor, name: str) -> Tensor:
        name = f"bb_regressor.{name}"
        x = F.linear(x.flatten(1), self.tensors[f"{name}.linear.weight"], self.tensors[f"{name}.linear.bias"])
        return F.relu(self._norm(x, f"{name}.bn"))

    def modulation(self, backbone: Pair, box: Tensor) -> Pair:
        """Return the modulation vectors ``[1, C, 1, 1]`` of a target ``box`` ``[1, 4]`` in one image."""
        pooled3 = pool(self._block(backbone[0], "conv3_1r"), box, 3, 1 / 8)
        pooled4 = pool(self._block(backbone[1], "conv4_1r"), box, 1, 1 / 16)
        joint = torch.cat((self._block(pooled3, "fc3_1r", padding=0), pooled4), dim=1)
        return self._block(joint, "fc34_3r", padding=0), self._block(joint, "fc34_4r", padding=0)

    def overlap_features(self, backbone: Pair) -> Pair:
        """Return the test branch's maps of one image."""
        stride8 = self._block(self._block(backbone[0], "conv3_1t"), "conv3_2t")
        return stride8, self._block(self._block(backbone[1], "conv4_1t"), "conv4_2t")

    def overlap(self, modulation: Pair, features: Pair, boxes: Tensor) -> Tensor:
        """Predict ``2 * IoU - 1`` of ``boxes`` ``[P, 4]``: ``[P]``, with modulated whole maps."""
        pooled3 = pool(features[0] * modulation[0], boxes, 5, 1 / 8)
        pooled4 = pool(features[1] * modulation[1], boxes, 3, 1 / 16)
        joint = torch.cat((self._linear(pooled3, "fc3_rt"), self._linear(pooled4, "fc4_rt")), dim=1)
        weight, bias = (self.tensors[f"bb_regressor.iou_predictor.{suffix}"] for suffix in ("weight", "bias"))
        return F.linear(joint, weight, bias)[:, 0]
