# SPDX-License-Identifier: Apache-2.0
"""The parts of a frame as static graphs: plain modules of tensors to tensors, for other runtimes to convert.

Images are ``uint8`` ``Tensor[N, S, S, 3]``, BGR, values 0..255, as OpenCV has them; boxes are (x, y, w, h) in their
pixels. Everything else is float32. Names of inputs and outputs are `INPUTS` and `OUTPUTS` of each class.

==================  ==================================================================================================
graph               inputs, then outputs
==================  ==================================================================================================
`SearchGraph`       ``images`` ``[N, S, S, 3]``, ``filters`` ``[N, C, k, k]``;
                    ``stride8`` ``[N, C8, S/8, S/8]``, ``stride16`` ``[N, C16, S/16, S/16]``,
                    ``features`` ``[N, C, S/16, S/16]``, ``scores`` ``[N, S/16 + 1, S/16 + 1]``
`RefinementGraph`   ``stride8``, ``stride16``, ``modulation8`` ``[N, M8]``, ``modulation16`` ``[N, M16]``,
                    ``boxes`` ``[N, P, 4]``, ``length`` ``[1]``;
                    ``refined`` ``[N, P, 4]``, ``overlaps`` ``[N, P]``
`TokensGraph`       ``images`` ``[N, 144, 144, 3]``, ``boxes`` ``[N, 4]``; ``tokens`` ``[N, T, D]``
`CloserLookGraph`   ``images`` ``[N, 144, 144, 3]``, ``tokens``; ``edges`` ``[N, 4]``, ``quality`` ``[N]``
==================  ==================================================================================================

`RefinementGraph` is `OverlapMaps`, which may be computed in bfloat16, then `Ascent`, which must be float32. Both take
``corner`` ``int64 [2]`` (row and column of the first cell) where they are limited to a square region of the window.
"""

from __future__ import annotations

import copy
import math
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dimp_ros.model.backbone import Backbone, EfficientNetLite0, Features, ResNet
from dimp_ros.model.classifier import InstanceL2Norm
from dimp_ros.model.dimp import DimpNet
from dimp_ros.model.inference.iou_gradient import folded_linear
from dimp_ros.model.iou_net import IoUNet, LinearBlock
from dimp_ros.model.sizes import STRIDE


class _Extractor(nn.Module):
    """Backbone features of BGR images: the channels of the first convolution are in their order."""

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        self.backbone = copy.deepcopy(backbone)
        assert isinstance(self.backbone, (EfficientNetLite0, ResNet))
        first = self.backbone.conv_stem if isinstance(self.backbone, EfficientNetLite0) else self.backbone.conv1
        first.weight = nn.Parameter(first.weight.detach().flip(1), requires_grad=False)
        for name, values in (("mean", backbone.mean), ("std", backbone.std)):
            self.register_buffer(name, 255 * torch.tensor(values[::-1]).view(1, 3, 1, 1), persistent=False)
        self.mean: Tensor
        self.std: Tensor

    def forward(self, images: Tensor) -> Features:
        """Map images ``Tensor[N, S, S, 3]`` to `Features`."""
        features: Features = self.backbone((images.permute(0, 3, 1, 2).float() - self.mean) / self.std)
        return features


class ClassifierGraph(nn.Module):
    """Classification features of backbone features ``stride16``; ``factors`` ``[N, C16]`` multiply its channels.

    :param net: in evaluation mode; its weights are copied.
    """

    INPUTS: ClassVar = ("stride16", "factors")
    OUTPUTS: ClassVar = ("features",)

    def __init__(self, net: DimpNet) -> None:
        super().__init__()
        *layers, norm = copy.deepcopy(net.classifier.feature_extractor)
        assert isinstance(norm, InstanceL2Norm)
        self.layers, self.scale = nn.Sequential(*layers), norm.scale

    def forward(self, stride16: Tensor, factors: Tensor | None = None) -> Tensor:
        """Return the features; without ``factors`` nothing is multiplied."""
        if factors is not None:
            stride16 = stride16 * factors[..., None, None]
        features: Tensor = self.layers(stride16)
        # As InstanceL2Norm, written so that OpenVINO 2026.2 does not invert the quotient under the root.
        energy = features.square().sum(dim=(1, 2, 3), keepdim=True) + 1e-5
        return features / (energy.sqrt() * (1 / (self.scale * math.sqrt(features[0].numel()))))


class FeatureGraph(nn.Module):
    """Features of search windows: `SearchGraph` without the correlation.

    :param net: in evaluation mode; its weights are copied.
    """

    INPUTS: ClassVar = ("images",)
    OUTPUTS: ClassVar = ("stride8", "stride16", "features")

    def __init__(self, net: DimpNet) -> None:
        super().__init__()
        self.extractor, self.classifier = _Extractor(net.feature_extractor), ClassifierGraph(net)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Extract features; see the table of this module."""
        stride8, stride16 = self.extractor(images)
        return stride8, stride16, self.classifier(stride16)


class ScoreGraph(nn.Module):
    """Scores of classification features."""

    INPUTS: ClassVar = ("features", "filters")
    OUTPUTS: ClassVar = ("scores",)

    def forward(self, features: Tensor, filters: Tensor) -> Tensor:
        """Correlate; see the table of this module."""
        return correlate(features, filters)


class SearchGraph(nn.Module):
    """Features and scores of search windows.

    :param net: in evaluation mode; its weights are copied.
    """

    INPUTS: ClassVar = ("images", "filters")
    OUTPUTS: ClassVar = ("stride8", "stride16", "features", "scores")

    def __init__(self, net: DimpNet) -> None:
        super().__init__()
        self.features = FeatureGraph(net)

    def forward(self, images: Tensor, filters: Tensor) -> tuple[Tensor, ...]:
        """Extract and correlate; see the table of this module."""
        stride8, stride16, features = self.features(images)
        return stride8, stride16, features, correlate(features, filters)


def correlate(features: Tensor, filters: Tensor) -> Tensor:
    """Equal `apply_filter`, for one filter an image, without a convolution whose weights are an input.

    :param features: ``Tensor[N, C, H, W]``. :param filters: ``Tensor[N, C, k, k]``, or one for all images.
    """
    kernel = filters.shape[-1]
    taps = filters.flatten(2).transpose(1, 2) @ features.flatten(2)  # every tap's response, [N, k * k, H * W]
    shifts = torch.eye(kernel * kernel).view(1, kernel * kernel, kernel, kernel)
    return F.conv2d(taps.unflatten(2, features.shape[-2:]), shifts, padding=kernel // 2)[:, 0]


class OverlapMaps(nn.Module):
    """The overlap network's feature maps, whole or of a square region.

    :param net: in evaluation mode; its weights are copied. :param cells: side of the region in cells of 16 pixels;
        None for the whole maps, ``corner`` is not an input then.
    """

    INPUTS: ClassVar = ("stride8", "stride16", "corner")
    OUTPUTS: ClassVar = ("maps8", "maps16")
    HALO: ClassVar = 2

    def __init__(self, net: IoUNet, cells: int | None = None) -> None:
        super().__init__()
        self.cells = cells
        self.stride8 = copy.deepcopy(nn.ModuleList([net.conv3_1t, net.conv3_2t]))
        self.stride16 = copy.deepcopy(nn.ModuleList([net.conv4_1t, net.conv4_2t]))

    def forward(self, stride8: Tensor, stride16: Tensor, corner: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return both maps; ``corner`` is the region's first row and column in cells, ``int64 [2]``."""
        if corner is None or self.cells is None:
            return self.stride8[1](self.stride8[0](stride8)), self.stride16[1](self.stride16[0](stride16))
        return (
            self._region(self.stride8, stride8, corner * 2, self.cells * 2),
            self._region(self.stride16, stride16, corner, self.cells),
        )

    def _region(self, layers: nn.ModuleList, maps: Tensor, corner: Tensor, size: int) -> Tensor:
        """Apply two 3x3 convolutions to a region and its halo; between them, what is outside the maps is zero."""
        halo, (height, width) = self.HALO, maps.shape[-2:]
        reach = torch.arange(-halo, size + halo)
        rows, columns = corner[0] + reach, corner[1] + reach
        inside = [((at >= 0) & (at < most)).float() for at, most in ((rows, height), (columns, width))]
        part = maps.index_select(2, rows.clamp(0, height - 1)).index_select(3, columns.clamp(0, width - 1))
        mask = (inside[0][:, None] * inside[1])[None, None]
        out: Tensor = layers[1](layers[0](part * mask) * mask)
        return out[..., halo:-halo, halo:-halo]


class Ascent(nn.Module):
    """Gradient ascent of boxes on the predicted overlap, all steps unrolled (section 3.5).

    Boxes must be in float32 throughout. The gradient is that of `dimp_ros.model.inference.iou_gradient`.

    :param net: in evaluation mode, with float32 weights. :param steps: number of steps.
    """

    INPUTS: ClassVar = ("maps8", "maps16", "modulation8", "modulation16", "boxes", "length", "corner")
    OUTPUTS: ClassVar = ("refined", "overlaps")

    def __init__(self, net: IoUNet, steps: int) -> None:
        super().__init__()
        self.steps = steps
        self.heads = stride_heads(net)
        self.register_buffer("weight", net.iou_predictor.weight.detach().clone())  # [1, 2 * hidden]
        self.register_buffer("bias", net.iou_predictor.bias.detach().clone())
        self.weight: Tensor
        self.bias: Tensor

    def forward(
        self,
        maps8: Tensor,
        maps16: Tensor,
        modulation8: Tensor,
        modulation16: Tensor,
        boxes: Tensor,
        length: Tensor,
        corner: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Return the boxes, and the overlap predicted before each one's last step.

        :param corner: of the region that the maps are of, row and column in cells.
        """
        offset = torch.zeros(4) if corner is None else F.pad(corner.float().flip(0) * STRIDE, (0, 2))
        boxes = boxes - offset
        lines = [
            maps.permute(0, 2, 3, 1) * vector[:, None, None]
            for maps, vector in ((maps8, modulation8), (maps16, modulation16))
        ]
        value, gradient = self._value_and_gradient(lines, boxes)
        for step in range(self.steps):
            if step:
                value, gradient = self._value_and_gradient(lines, boxes)
            boxes = boxes + length * gradient * boxes[..., 2:].repeat(1, 1, 2)
        return boxes + offset, value

    def _value_and_gradient(self, lines: list[Tensor], boxes: Tensor) -> tuple[Tensor, Tensor]:
        """Predict ``Tensor[B, P]``, and differentiate each prediction in its own box, ``Tensor[B, P, 4]``."""
        heads = [head for head in self.heads if isinstance(head, StrideHead)]
        pooled = [head.pool(maps, boxes) for head, maps in zip(heads, lines, strict=True)]
        hidden = [head.hidden(region.flatten(2)) for head, (region, *_) in zip(heads, pooled, strict=True)]
        weights = self.weight.chunk(2, 1)
        values = [(part * weight).sum(-1) for part, weight in zip(hidden, weights, strict=True)]
        slopes = [(part > 0).float() * weight for part, weight in zip(hidden, weights, strict=True)]
        gradients = [
            head.gradient(slope, maps, *rest)
            for head, slope, maps, (_, *rest) in zip(heads, slopes, lines, pooled, strict=True)
        ]
        return values[0] + values[1] + self.bias, gradients[0] + gradients[1]


class StrideHead(nn.Module):
    """Pooling and linear layer of one stride, with batch norm folded in, and their derivative in the boxes."""

    def __init__(self, layer: LinearBlock, bins: int, scale: float) -> None:
        super().__init__()
        self.bins, self.scale = bins, scale
        matrix, offset = folded_linear(layer, bins)
        self.register_buffer("matrix", matrix.clone())  # [k * k * C, hidden]
        self.register_buffer("offset", offset.clone())
        self.matrix: Tensor
        self.offset: Tensor

    def hidden(self, pooled: Tensor) -> Tensor:
        """Map ``Tensor[B, P, k * k * C]`` to ``Tensor[B, P, hidden]``."""
        return F.relu(pooled @ self.matrix + self.offset)

    def pool(self, maps: Tensor, boxes: Tensor) -> tuple[Tensor, ...]:
        """Pool ``maps`` ``[B, H, W, C]``: regions ``[B, P, k, k, C]``, rows, and the weights with their derivatives."""
        batch, height, width, channels = maps.shape
        along_x, by_x, by_w = self._weights(boxes[..., 0:1], boxes[..., 2:3], width)
        along_y, by_y, by_h = self._weights(boxes[..., 1:2], boxes[..., 3:4], height)
        rows = along_y.flatten(1, 2) @ maps.flatten(2)  # [B, P * k, W * C]
        rows = rows.view(batch, -1, self.bins, width, channels)
        return along_x[:, :, None] @ rows, rows, along_x, by_x, by_y, by_w, by_h

    def gradient(self, slope: Tensor, maps: Tensor, rows: Tensor, along_x: Tensor, *derivatives: Tensor) -> Tensor:
        """Turn derivatives in the hidden layer ``[B, P, hidden]`` into those in the boxes ``[B, P, 4]``."""
        batch, count, bins, width, channels = rows.shape
        region = (slope @ self.matrix.T).view(batch, count, bins, bins, channels)
        in_x = (region @ rows.transpose(-2, -1)).sum(2)  # [B, P, k, W]
        lines = (along_x.transpose(-2, -1)[:, :, None] @ region).view(batch, count * bins, width * channels)
        in_y = (lines @ maps.flatten(2).transpose(1, 2)).view(batch, count, bins, -1)  # [B, P, k, H]
        parts = [
            (along * derivative).sum((-2, -1))
            for along, derivative in zip((in_x, in_y, in_x, in_y), derivatives, strict=True)
        ]
        return torch.stack(parts, -1)

    def _weights(self, start: Tensor, length: Tensor, pixels: int) -> tuple[Tensor, Tensor, Tensor]:
        """Return the weights of pixels in bins, and their derivatives in start and length: ``[B, P, k, pixels]`` each.

        The weight is the difference of the hat function's integral at the ends of a bin, over the bin's length.
        """
        share = torch.arange(self.bins + 1, dtype=torch.float32) / self.bins
        ends = (start + length * share) * self.scale  # [B, P, k + 1]
        away = (ends[..., None] - torch.arange(pixels, dtype=torch.float32)).clamp(-1, 1)
        hat = 1 - away.abs()
        integral = away * (0.5 + 0.5 * hat)
        inverse = torch.where(length > 0, 1 / length, torch.zeros_like(length))[..., None]
        factor = inverse * (self.bins / self.scale)
        weights = (integral[..., 1:, :] - integral[..., :-1, :]) * factor
        factor = factor * self.scale
        moved = hat * share[:, None]
        by_start = (hat[..., 1:, :] - hat[..., :-1, :]) * factor
        by_length = (moved[..., 1:, :] - moved[..., :-1, :]) * factor - weights * inverse
        return weights, by_start, by_length


def stride_heads(net: IoUNet) -> nn.ModuleList:
    """Return pooling and linear layer of both strides."""
    parts = ((net.fc3_rt, net.pool3_t), (net.fc4_rt, net.pool4_t))
    return nn.ModuleList([StrideHead(layer, pool.output_size, pool.spatial_scale) for layer, pool in parts])


class RefinementGraph(nn.Module):
    """`OverlapMaps` and `Ascent` in one graph, on the whole maps."""

    INPUTS: ClassVar = ("stride8", "stride16", "modulation8", "modulation16", "boxes", "length")
    OUTPUTS: ClassVar = ("refined", "overlaps")

    def __init__(self, net: IoUNet, steps: int) -> None:
        super().__init__()
        self.maps, self.ascent = OverlapMaps(net), Ascent(net, steps)

    def forward(
        self,
        stride8: Tensor,
        stride16: Tensor,
        modulation8: Tensor,
        modulation16: Tensor,
        boxes: Tensor,
        length: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """Return the boxes, and the overlap predicted before each one's last step."""
        maps8, maps16 = self.maps(stride8, stride16)
        refined, overlaps = self.ascent(maps8, maps16, modulation8, modulation16, boxes, length)
        return refined, overlaps


class TokensGraph(nn.Module):
    """What the box refiner remembers of targets."""

    INPUTS: ClassVar = ("images", "boxes")
    OUTPUTS: ClassVar = ("tokens",)

    def __init__(self, net: DimpNet) -> None:
        super().__init__()
        assert net.box_refiner is not None
        self.extractor, self.refiner = _Extractor(net.box_refiner.backbone), copy.deepcopy(net.box_refiner)

    def forward(self, images: Tensor, boxes: Tensor) -> Tensor:
        """Return the tokens; see the table of this module."""
        return self.refiner.tokens(self.extractor(images), boxes)


class CloserLookGraph(nn.Module):
    """The box refiner on windows of its own."""

    INPUTS: ClassVar = ("images", "tokens")
    OUTPUTS: ClassVar = ("edges", "quality")

    def __init__(self, net: DimpNet) -> None:
        super().__init__()
        assert net.box_refiner is not None
        self.extractor, self.refiner = _Extractor(net.box_refiner.backbone), copy.deepcopy(net.box_refiner)

    def forward(self, images: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Return edges and quality; see the table of this module."""
        edges, quality = self.refiner(self.extractor(images), tokens)
        return edges, quality
