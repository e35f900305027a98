# SPDX-License-Identifier: Apache-2.0
"""Box refinement in one pass: where the target's edges are in a small window round it.

The target is known by one reference window and its box there. Features of an enlarged box are pooled to a grid of
tokens, so that each token stands for a place relative to the box that was given. Every cell of the search window
attends to the tokens, which tells it where on the target it lies, and votes for the four edges. The edges are the means
of the votes with learned weights, so that they are finer than a cell and may lie outside the window.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dimp_ros.model.backbone import Backbone, Features
from dimp_ros.model.iou_net import conv_block
from dimp_ros.model.precise_roi_pool import precise_roi_pool
from dimp_ros.model.sizes import CLOSER_SIZE

STRIDE = 8
GRID, ENLARGED = 8, 1.5


class RefinedBoxes(NamedTuple):
    """``edges`` ``Tensor[B, 4]``: left, top, right, bottom in window sides (0..1 is the window); ``quality``
    ``Tensor[B]``: logit of the predicted overlap.
    """

    edges: Tensor
    quality: Tensor


class CrossAttention(nn.Module):
    """Every cell of a feature map attends to the target's tokens."""

    def __init__(self, channels: int, token_channels: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(channels, channels)
        self.key = nn.Linear(token_channels, channels)
        self.value = nn.Linear(token_channels, channels)
        self.output = nn.Linear(channels, channels)

    def forward(self, x: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """Map ``Tensor[B, C, H, W]`` with tokens ``Tensor[B, T, K]`` to ``Tensor[B, C, H, W]``."""
        batch, channels, height, width = x.shape
        cells = x.permute(0, 2, 3, 1).reshape(batch, height * width, channels)  # no copy of channels_last
        query, key, value = (
            part.view(batch, -1, self.heads, channels // self.heads).transpose(1, 2)
            for part in (self.query(cells), self.key(keys), self.value(values))
        )
        attended = F.scaled_dot_product_attention(query, key, value).transpose(1, 2).reshape(cells.shape)
        out: Tensor = self.output(attended)
        return out.view(batch, height, width, channels).permute(0, 3, 1, 2)


class BoxRefiner(nn.Module):
    """Tokens of the target, two rounds of attention, and the votes, from features of small windows.

    The backbone is its own: what edges ask for differs from what a target among others asks for. Attention is at stride
    8, so that correspondence is fine; convolutions and votes are at stride 16, where they cost a quarter.

    :param backbone: becomes part of the module.
    :param channels: width at stride 8 and of the tokens. :param trunk: width at stride 16. :param heads: of attention.
    """

    def __init__(self, backbone: Backbone, channels: int = 64, trunk: int = 96, heads: int = 4) -> None:
        super().__init__()
        self.backbone = backbone
        stride8, stride16 = backbone.channels
        self.lateral8 = conv_block(stride8, channels, kernel=1, padding=0)
        self.lateral16 = conv_block(stride16, channels, kernel=1, padding=0)
        self.place = nn.Parameter(torch.randn(GRID * GRID, channels) * 0.5)
        self.attend8 = CrossAttention(channels, channels, heads)
        down = nn.Conv2d(channels, trunk, 3, 2, 1)
        self.down = nn.Sequential(down, nn.BatchNorm2d(trunk), nn.ReLU(inplace=True))
        self.semantic = conv_block(stride16, trunk, kernel=1, padding=0)
        self.trunk1 = conv_block(trunk, trunk)
        self.attend16 = CrossAttention(trunk, channels, heads)
        self.trunk2 = conv_block(trunk, trunk)
        self.trunk3 = conv_block(trunk, trunk)
        self.votes = nn.Conv2d(trunk, 8, 1)
        self.quality = nn.Sequential(nn.Linear(trunk, trunk), nn.ReLU(), nn.Linear(trunk, 1))
        nn.init.normal_(self.votes.weight, std=0.01)
        assert self.votes.bias is not None
        with torch.no_grad():  # a box in the middle
            self.votes.bias.copy_(torch.tensor([0.0] * 4 + [-0.2, -0.2, 0.3, 0.3]))
        cells = (torch.arange(CLOSER_SIZE // 16) * 16 + 0.5) / CLOSER_SIZE
        rows, columns = torch.meshgrid(cells, cells, indexing="ij")
        self.register_buffer("cells", torch.stack((columns, rows, columns, rows)).flatten(1), persistent=False)

    def fused(self, features: Features) -> Tensor:
        """Join both strides' features: ``Tensor[B, C, S / 8, S / 8]``."""
        upper = F.interpolate(self.lateral16(features.stride16), scale_factor=2.0, mode="nearest")
        joined: Tensor = self.lateral8(features.stride8) + upper
        return joined

    def tokens(self, reference: Features, boxes: Tensor) -> Tensor:
        """Return what is remembered of targets, ``Tensor[B, T, C]``.

        :param reference: the backbone's features of their windows. :param boxes: ``Tensor[B, 4]`` in window pixels.
        """
        size = boxes[:, 2:] * ENLARGED
        enlarged = torch.cat((boxes[:, :2] + (boxes[:, 2:] - size) / 2, size), 1)
        pooled = precise_roi_pool(self.fused(reference), enlarged[:, None], GRID, 1 / STRIDE)[:, 0]
        return pooled.flatten(2).transpose(1, 2)

    def forward(self, search: Features, tokens: Tensor) -> RefinedBoxes:
        """Find the targets' edges, given the backbone's features of the search windows."""
        placed = tokens + self.place
        x = self.fused(search)
        x = self.down(x + self.attend8(x, tokens, placed)) + self.semantic(search.stride16)
        x = x + self.trunk1(x)
        x = x + self.attend16(x, placed, placed)
        x = x + self.trunk2(x)
        x = x + self.trunk3(x)
        votes = self.votes(x).flatten(2)
        weights = votes[:, :4].softmax(-1)
        edges = (weights * (self.cells + votes[:, 4:])).sum(-1)
        summary = (x.flatten(2) * weights.mean(1, keepdim=True)).sum(-1)
        return RefinedBoxes(edges, self.quality(summary)[:, 0])


def box_losses(refined: RefinedBoxes, edges: Tensor) -> dict[str, Tensor]:
    """Return the parts of the loss.

    ``distance``: mean distance of the edges in target sizes; ``overlap``: 1 - GIoU; ``quality``: cross entropy of the
    predicted overlap. Windows without the target count for the last alone, with an overlap of 0.

    :param edges: the true ones, ``Tensor[B, 4]`` in window sides; nan where the window does not show the target.
    """
    shown = edges.isfinite().all(1)
    truth, found = edges[shown], refined.edges[shown]
    size = (truth[:, 2:] - truth[:, :2]).repeat(1, 2)
    distance = ((found - truth).abs() / size).sum() / max(truth.numel(), 1)
    overlap, generalized = giou(found, truth)
    target = torch.zeros_like(refined.quality).index_put((shown,), overlap.detach().to(refined.quality.dtype))
    quality = F.binary_cross_entropy_with_logits(refined.quality, target)
    return {"distance": distance, "overlap": (1 - generalized).sum() / max(len(truth), 1), "quality": quality}


def giou(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Return IoU and generalised IoU of boxes ``Tensor[B, 4]`` given by left, top, right, bottom."""
    inner = (torch.minimum(a[:, 2:], b[:, 2:]) - torch.maximum(a[:, :2], b[:, :2])).clamp(min=0).prod(1)
    outer = (torch.maximum(a[:, 2:], b[:, 2:]) - torch.minimum(a[:, :2], b[:, :2])).clamp(min=0).prod(1)
    areas = [(box[:, 2:] - box[:, :2]).clamp(min=0).prod(1) for box in (a, b)]
    union = areas[0] + areas[1] - inner
    overlap = inner / union.clamp(min=1e-9)
    return overlap, overlap - (outer - union) / outer.clamp(min=1e-9)
