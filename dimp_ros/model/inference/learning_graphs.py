# SPDX-License-Identifier: Apache-2.0
"""Learning of a target as static graphs, with the conventions of `dimp_ros.model.inference.graphs`.

==================  ==================================================================================================
graph               inputs, then outputs
==================  ==================================================================================================
`InitialGraph`      ``samples`` ``[N, C, S/16, S/16]``, ``boxes`` ``[N, 4]``; ``filter``
`ModulationGraph`   ``stride8``, ``stride16``, ``boxes`` ``[1, 4]``; ``modulation8``, ``modulation16``
`PooledGraph`       ``stride8``, ``stride16`` of V views, ``boxes`` ``[V, P, 4]``; ``pooled8``, ``pooled16``
                    ``[V * P, K]``
`FitGraph`          ``pooled8``, ``pooled16``, ``modulation8``, ``modulation16``, ``overlaps`` ``[V * P]``, ``weights``
                    ``[V * P]``; ``gradient8`` ``[1, M8]``, ``gradient16`` ``[1, M16]``
`PointBoxGraph`     ``stride8``, ``stride16`` of three windows; ``edges`` ``[3, K, 4]``, ``overlaps`` ``[3, K]``
`UpdateGraph`       ``filter``, ``features`` ``[N, C, S/16, S/16]``, ``boxes`` ``[N, 4]``, ``weights`` ``[N]``;
                    ``updated`` ``[1, C, k, k]``
==================  ==================================================================================================
"""

from __future__ import annotations

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dimp_ros.model.backbone import Features
from dimp_ros.model.dimp import DimpNet
from dimp_ros.model.inference.graphs import OverlapMaps, StrideHead, correlate, stride_heads
from dimp_ros.model.optimizer import LossMaps
from dimp_ros.model.precise_roi_pool import bin_weights
from dimp_ros.model.sizes import STRIDE


class UpdateGraph(nn.Module):
    """One step of the filter's optimiser on samples (section 3.2), as `DiscriminativeOptimizer.step` takes it.

    Correlations have the fixed shapes that other runtimes ask for.

    :param net: in evaluation mode.
    """

    INPUTS: ClassVar = ("filter", "features", "boxes", "weights")
    OUTPUTS: ClassVar = ("updated",)

    def __init__(self, net: DimpNet) -> None:
        super().__init__()
        self.optimizer = net.classifier.filter_optimizer

    def forward(self, filter: Tensor, features: Tensor, boxes: Tensor, weights: Tensor) -> Tensor:
        """Return the next filter; ``weights`` of the samples sum to 1."""
        optimizer, gamma = self.optimizer, weights[:, None, None]
        scores, reg = correlate(features, filter), optimizer.regularization()
        maps = LossMaps(*(part[0] for part in optimizer.loss_maps(boxes[None], (scores.shape[-2], scores.shape[-1]))))
        residual, slope = optimizer.residuals(scores, maps)
        gradient = _correlate_adjoint(features, gamma * slope * residual, optimizer.kernel) + reg * filter
        squared = gradient.square().sum()
        curvature = (gamma * (slope * correlate(features, gradient)).square()).sum() + reg * squared
        length = optimizer.log_step_length.exp() * squared / curvature.clamp(min=optimizer.MIN_CURVATURE)
        return filter - length * gradient


def _correlate_adjoint(features: Tensor, residuals: Tensor, kernel: int) -> Tensor:
    """Equal `apply_filter_adjoint` for ``features`` ``[N, C, H, W]`` and ``residuals`` ``[N, H', W']``."""
    taps = kernel * kernel
    shifts = torch.eye(taps).view(taps, 1, kernel, kernel).flip(-2, -1)
    shifted = F.conv2d(residuals[:, None], shifts, padding=kernel - 1 - kernel // 2)  # [N, k * k, H, W]
    gradient = (shifted.flatten(2) @ features.flatten(2).transpose(1, 2)).sum(0)  # [k * k, C]
    return gradient.T.reshape(1, -1, kernel, kernel)


class InitialGraph(nn.Module):
    """The initial filter of a target's samples (section 3.3).

    It equals `FilterInitializer`: a convolution, pooling in the target's box, and the mean over samples. All three are
    linear, so that the convolution comes last here, on what is pooled once for each of its taps: 300 times less work.

    :param net: in evaluation mode.
    """

    INPUTS: ClassVar = ("samples", "boxes")
    OUTPUTS: ClassVar = ("filter",)

    def __init__(self, net: DimpNet) -> None:
        super().__init__()
        initializer = net.classifier.filter_initializer
        self.kernel = initializer.kernel
        assert initializer.filter_conv.bias is not None
        # [C, C', 3, 3] to [C, 3 * 3 * C']
        self.register_buffer("matrix", initializer.filter_conv.weight.detach().permute(0, 2, 3, 1).flatten(1))
        self.register_buffer("bias", initializer.filter_conv.bias.detach().clone())
        self.matrix: Tensor
        self.bias: Tensor

    def forward(self, samples: Tensor, boxes: Tensor) -> Tensor:
        """Return the filter; see the table of this module."""
        height, width = samples.shape[-2:]
        x, y, w, h = (boxes / STRIDE).unbind(-1)
        along_x, along_y = bin_weights(x, w, self.kernel, width), bin_weights(y, h, self.kernel, height)  # [N, k, W]
        rows = torch.einsum("naih,nchw->naicw", _shifted(along_y), samples)
        pooled = torch.einsum("nbjw,naicw->abcij", _shifted(along_x), rows) / samples.shape[0]
        filter = self.matrix @ pooled.flatten(0, 2).flatten(1)  # [C, 3 * 3 * C'] @ [3 * 3 * C', k * k]
        inside = torch.einsum("ni,nj->ij", along_y.sum(-1), along_x.sum(-1)) / samples.shape[0]
        return (filter + self.bias[:, None] * inside.flatten()).view(1, -1, self.kernel, self.kernel)


def _shifted(weights: Tensor) -> Tensor:
    """Return weights of pixels ``[N, k, W]`` for the taps of a 3x3 convolution along an axis, ``[N, 3, k, W]``."""
    before, after = F.pad(weights[..., 1:], (0, 1)), F.pad(weights[..., :-1], (1, 0))
    return torch.stack((before, weights, after), 1)


class ModulationGraph(nn.Module):
    """The overlap network's modulation vectors.

    :param net: in evaluation mode.
    """

    INPUTS: ClassVar = ("stride8", "stride16", "boxes")
    OUTPUTS: ClassVar = ("modulation8", "modulation16")

    def __init__(self, net: DimpNet) -> None:
        super().__init__()
        self.overlap = net.bb_regressor

    def forward(self, stride8: Tensor, stride16: Tensor, boxes: Tensor) -> tuple[Tensor, Tensor]:
        """Return the vectors; see the table of this module."""
        modulation8, modulation16 = self.overlap.modulation(Features(stride8, stride16), boxes)
        return modulation8, modulation16


class PointBoxGraph(nn.Module):
    """Boxes of the object at a point, from features of the windows around it.

    :param net: in evaluation mode.
    """

    INPUTS: ClassVar = ("stride8", "stride16")
    OUTPUTS: ClassVar = ("edges", "overlaps")

    def __init__(self, net: DimpNet) -> None:
        super().__init__()
        assert net.point_box is not None
        self.head = net.point_box

    def forward(self, stride8: Tensor, stride16: Tensor) -> tuple[Tensor, Tensor]:
        """Return edges and predicted overlaps; see the table of this module."""
        boxes = self.head(Features(stride8, stride16))
        return boxes.edges, boxes.quality.sigmoid()


class PooledGraph(nn.Module):
    """What the overlap network pools in boxes, before modulation.

    :param net: in evaluation mode.
    """

    INPUTS: ClassVar = ("stride8", "stride16", "boxes")
    OUTPUTS: ClassVar = ("pooled8", "pooled16")

    def __init__(self, net: DimpNet) -> None:
        super().__init__()
        self.maps, self.heads = OverlapMaps(net.bb_regressor), stride_heads(net.bb_regressor)

    def forward(self, stride8: Tensor, stride16: Tensor, boxes: Tensor) -> tuple[Tensor, ...]:
        """Return the pooled features, channels last; see the table of this module."""
        maps = self.maps(stride8, stride16)
        return tuple(
            head.pool(part.permute(0, 2, 3, 1), boxes)[0].flatten(0, 1).flatten(1)
            for head, part in zip(self.heads, maps, strict=True)
            if isinstance(head, StrideHead)
        )


class FitGraph(nn.Module):
    """The gradient of the overlap network's error in the modulation vectors, in closed form.

    The error is the weighted sum of squared differences between predicted and given ``overlaps``, ``2 * IoU - 1``.

    :param net: in evaluation mode.
    """

    INPUTS: ClassVar = ("pooled8", "pooled16", "modulation8", "modulation16", "overlaps", "weights")
    OUTPUTS: ClassVar = ("gradient8", "gradient16")

    def __init__(self, net: DimpNet) -> None:
        super().__init__()
        self.heads, predictor = stride_heads(net.bb_regressor), net.bb_regressor.iou_predictor
        self.register_buffer("weight", predictor.weight.detach().clone())
        self.register_buffer("bias", predictor.bias.detach().clone())
        self.weight: Tensor
        self.bias: Tensor

    def forward(
        self,
        pooled8: Tensor,
        pooled16: Tensor,
        modulation8: Tensor,
        modulation16: Tensor,
        overlaps: Tensor,
        weights: Tensor,
    ) -> tuple[Tensor, ...]:
        """Return the gradients; see the table of this module."""
        pooled, vectors, parts = (pooled8, pooled16), (modulation8, modulation16), self.weight.chunk(2, 1)
        heads = [head for head in self.heads if isinstance(head, StrideHead)]
        hidden = [
            head.hidden(own * vector.repeat(1, head.bins**2))
            for head, own, vector in zip(heads, pooled, vectors, strict=True)
        ]
        predicted = sum((own * part).sum(-1) for own, part in zip(hidden, parts, strict=True)) + self.bias
        slope = (2 * weights * (predicted - overlaps))[:, None]
        return tuple(
            (((own > 0).float() * part * slope @ head.matrix.T) * given).sum(0).view(head.bins**2, -1).sum(0)[None]
            for head, own, part, given in zip(heads, hidden, parts, pooled, strict=True)
        )
