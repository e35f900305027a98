# SPDX-License-Identifier: Apache-2.0
"""DiMP-18 written out in float64 from the specification, slowly and without any of our modules, to compare with.

Everything is a function of the state dict of a checkpoint. Pooling integrates piece by piece, the filter's loss is the
formula as printed, its derivatives are autograd's.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor


def pool_weights(start: float, length: float, bins: int, size: int) -> Tensor:
    """Integrate the hat function of every pixel over every bin: linear between whole coordinates, so by midpoints."""
    weights, pixels = np.zeros((bins, size)), np.arange(size)
    for k in range(bins):
        a, b = start + length * k / bins, start + length * (k + 1) / bins
        cuts = [a, *(float(c) for c in range(int(np.ceil(a)), int(np.floor(b)) + 1) if a < c < b), b]
        for p, q in itertools.pairwise(cuts):
            weights[k] += (q - p) * np.clip(1 - np.abs((p + q) / 2 - pixels), 0, None) / (b - a)
    return torch.from_numpy(weights)


def pool(features: Tensor, box: Tensor, bins: int, scale: float) -> Tensor:
    """Pool one box ``[4]`` (x, y, w, h) from ``[C, H, W]`` to ``[C, bins, bins]``."""
    x, y, w, h = (float(value) * scale for value in box)
    rows, columns = pool_weights(y, h, bins, features.shape[1]), pool_weights(x, w, bins, features.shape[2])
    return torch.einsum("kh,chw,lw->ckl", rows, features, columns)


class LiteralDimp18:
    """The network of a state dict; images are ``[H, W, 3]`` BGR uint8 crops, boxes (x, y, w, h) in their pixels."""

    def __init__(self, state: Mapping[str, Tensor]) -> None:
        self.state = {key: value.double() for key, value in state.items()}

    def _norm(self, x: Tensor, name: str) -> Tensor:
        mean, var, weight, bias = (
            self.state[f"{name}.{suffix}"].view(-1, *[1] * (x.dim() - 2))
            for suffix in ("running_mean", "running_var", "weight", "bias")
        )
        return (x - mean) / (var + 1e-5).sqrt() * weight + bias

    def _block(self, x: Tensor, name: str, stride: int = 1) -> Tensor:
        weight = {n: self.state[f"{name}.{n}.weight"] for n in ("conv1", "conv2")}
        out = self._norm(F.conv2d(x, weight["conv1"], stride=stride, padding=1), f"{name}.bn1").clamp(min=0)
        out = self._norm(F.conv2d(out, weight["conv2"], padding=1), f"{name}.bn2")
        if f"{name}.downsample.0.weight" in self.state:
            x = F.conv2d(x, self.state[f"{name}.downsample.0.weight"], stride=stride)
            x = self._norm(x, f"{name}.downsample.1")
        return (out + x).clamp(min=0)

    def backbone(self, image: np.ndarray) -> tuple[Tensor, Tensor]:
        """Return the features of ``layer2`` and ``layer3``, ``[1, C, H, W]``."""
        rgb = torch.from_numpy(image[..., ::-1].astype(np.float64)).permute(2, 0, 1)[None] / 255
        mean, std = (torch.tensor(v).double().view(3, 1, 1) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
        x = F.conv2d((rgb - mean) / std, self.state["feature_extractor.conv1.weight"], stride=2, padding=3)
        x = F.max_pool2d(self._norm(x, "feature_extractor.bn1").clamp(min=0), 3, 2, 1)
        out = []
        for layer, stride in ((1, 1), (2, 2), (3, 2)):
            for index in (0, 1):
                x = self._block(x, f"feature_extractor.layer{layer}.{index}", stride if index == 0 else 1)
            out.append(x)
        return out[1], out[2]

    def classification_features(self, stride16: Tensor) -> Tensor:
        """Return ``[1, 256, H, W]``, of fixed norm."""
        x = self._block(stride16, "classifier.feature_extractor.0")
        x = F.conv2d(x, self.state["classifier.feature_extractor.1.weight"], padding=1)
        _, channels, height, width = x.shape
        scale = (1 / (256 * 4 * 4)) ** 0.5
        return x * scale * (channels * height * width / ((x**2).sum() + 1e-5)).sqrt()

    def initial_filter(self, features: list[Tensor], boxes: list[Tensor]) -> Tensor:
        """Return the mean of what the target boxes hold, ``[1, 256, 4, 4]``."""
        name = "classifier.filter_initializer.filter_conv"
        weight, bias = self.state[f"{name}.weight"], self.state[f"{name}.bias"]
        pooled = [
            pool(F.conv2d(f, weight, bias, padding=1)[0], box, 4, 1 / 16)
            for f, box in zip(features, boxes, strict=True)
        ]
        return torch.stack(pooled).mean(0)[None]

    def residuals(self, weights: Tensor, features: Tensor, box: Tensor) -> Tensor:
        """Evaluate r = v * (m * s + (1 - m) * max(0, s) - y), ``[19, 19]``, of one picture."""
        cells = torch.arange(features.shape[-1] + 1, dtype=torch.float64)
        centre = (box[:2].double() + box[2:].double() / 2) / 16
        distance = ((cells - centre[0]) ** 2 + (cells[:, None] - centre[1]) ** 2).sqrt()
        knots = torch.arange(100, dtype=torch.float64).view(-1, 1, 1) * 0.1
        basis = (1 - (distance - knots).abs() / 0.1).clamp(min=0)
        basis[-1] = (1 + (distance - knots[-1]) / 0.1).clamp(0, 1)
        prefix = "classifier.filter_optimizer"
        y, m, v = (
            torch.einsum("n,nij->ij", self.state[f"{prefix}.{name}.weight"].flatten(), basis)
            for name in ("label_map_predictor", "target_mask_predictor.0", "spatial_weight_predictor")
        )
        m = 1 / (1 + (-m).exp())
        s = F.conv2d(features, weights, padding=2)[0, 0]
        return v * (m * s + (1 - m) * s.clamp(min=0) - y)

    def optimise(
        self, weights: Tensor, features: list[Tensor], boxes: list[Tensor], gamma: Tensor, steps: int
    ) -> list[Tensor]:
        """Return the iterates of steepest descent, the given filter first."""
        prefix = "classifier.filter_optimizer"
        reg = max(abs(self.state[f"{prefix}.filter_reg"].item()), 1e-3) ** 2
        length = float(self.state[f"{prefix}.log_step_length"].exp())

        def residuals(f: Tensor) -> Tensor:
            return torch.stack([self.residuals(f, x, box) for x, box in zip(features, boxes, strict=True)])

        def loss(f: Tensor) -> Tensor:
            return (gamma.view(-1, 1, 1) * residuals(f) ** 2).sum() + reg * (f**2).sum()

        iterates = [weights]
        for _ in range(steps):
            f = iterates[-1].detach().requires_grad_(True)
            (gradient,) = torch.autograd.grad(loss(f), f)
            g = gradient / 2
            _, h = torch.autograd.functional.jvp(residuals, f.detach(), g)
            curvature = (gamma.view(-1, 1, 1) * h**2).sum() + reg * (g * g).sum()
            alpha = (g * g).sum() / max(float(curvature), 1e-8)
            iterates.append((f - length * alpha * g).detach())
        return iterates

    def _conv(self, x: Tensor, name: str, padding: int = 1) -> Tensor:
        prefix = f"bb_regressor.{name}"
        x = F.conv2d(x, self.state[f"{prefix}.0.weight"], self.state[f"{prefix}.0.bias"], padding=padding)
        return self._norm(x, f"{prefix}.1").clamp(min=0)

    def _linear(self, x: Tensor, name: str) -> Tensor:
        prefix = f"bb_regressor.{name}"
        x = F.linear(x.flatten(1), self.state[f"{prefix}.linear.weight"], self.state[f"{prefix}.linear.bias"])
        return self._norm(x, f"{prefix}.bn").clamp(min=0)

    def modulation(self, backbone: tuple[Tensor, Tensor], box: Tensor) -> tuple[Tensor, Tensor]:
        """Return the two modulation vectors ``[256]``."""
        pooled3 = pool(self._conv(backbone[0], "conv3_1r")[0], box, 3, 1 / 8)[None]
        pooled4 = pool(self._conv(backbone[1], "conv4_1r")[0], box, 1, 1 / 16)[None]
        joint = torch.cat((self._conv(pooled3, "fc3_1r", padding=0), pooled4), dim=1)
        return tuple(self._conv(joint, name, padding=0).flatten() for name in ("fc34_3r", "fc34_4r"))

    def overlap_features(self, backbone: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        """Return the test branch's two feature maps ``[C, H, W]``."""
        return tuple(
            self._conv(self._conv(features, f"conv{n}_1t"), f"conv{n}_2t")[0]
            for n, features in zip((3, 4), backbone, strict=True)
        )

    def overlap(self, modulation: tuple[Tensor, Tensor], features: tuple[Tensor, Tensor], box: Tensor) -> float:
        """Predict ``2 * IoU - 1`` of a box."""
        modulated = [f * m.view(-1, 1, 1) for f, m in zip(features, modulation, strict=True)]
        pooled3, pooled4 = pool(modulated[0], box, 5, 1 / 8), pool(modulated[1], box, 3, 1 / 16)
        joint = torch.cat((self._linear(pooled3[None], "fc3_rt"), self._linear(pooled4[None], "fc4_rt")), dim=1)
        prefix = "bb_regressor.iou_predictor"
        return float(F.linear(joint, self.state[f"{prefix}.weight"], self.state[f"{prefix}.bias"]))

    def overlap_gradient(
        self, modulation: tuple[Tensor, Tensor], features: tuple[Tensor, Tensor], box: Tensor, step: float = 1e-5
    ) -> Tensor:
        """Return the gradient in the box by central differences, ``[4]``."""
        gradient = torch.zeros(4, dtype=torch.float64)
        for i in range(4):
            change = torch.zeros(4, dtype=torch.float64)
            change[i] = step
            above, below = (self.overlap(modulation, features, box.double() + c) for c in (change, -change))
            gradient[i] = (above - below) / (2 * step)
        return gradient
