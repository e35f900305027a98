# SPDX-License-Identifier: Apache-2.0
"""The box of the object at a point: a head on the backbone's features of square windows centred on the point.

The cells of a window are compared with the cell at the point, which tells those of the object. The size of the object
is unknown, so windows of several sizes are computed, and the box of the highest predicted overlap is taken.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from dimp_ros.model.backbone import Features
from dimp_ros.model.iou_net import conv_block
from dimp_ros.model.sizes import POINT_SIZE, POINT_WINDOWS

CELLS = POINT_SIZE // 16


class PointBoxes(NamedTuple):
    """``edges`` ``Tensor[B, K, 4]``: left, top, right, bottom in window sides (0..1 is the window); ``quality``
    ``Tensor[B, K]``: logit of the predicted overlap; ``inside`` ``Tensor[B, CELLS * CELLS]``: logit that a cell lies in
    the box, for training.
    """

    edges: Tensor
    quality: Tensor
    inside: Tensor


def cell_centers() -> Tensor:
    """Return where the features at stride 16 look, x and y in window sides, ``Tensor[CELLS * CELLS, 2]``."""
    places = (torch.arange(CELLS) * 16 + 0.5) / POINT_SIZE
    rows, columns = torch.meshgrid(places, places, indexing="ij")
    return torch.stack((columns, rows), -1).view(-1, 2)


class PointBlock(nn.Module):
    """A residual block: a gate by the cell at the point, which tells which cells resemble it, and a convolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gate = nn.Linear(channels, channels)
        self.gated = nn.Conv2d(channels, channels, 1)
        self.convolution = conv_block(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``Tensor[B, C, CELLS, CELLS]`` to the same shape."""
        point = x[:, :, CELLS // 2, CELLS // 2]
        x = x + self.gated(x * self.gate(point).tanh()[..., None, None])
        out: Tensor = x + self.convolution(x)
        return out


class PointBoxHead(nn.Module):
    """Cells are compared with the cell at the point; what remains of each, with its place, tells edges and overlaps.

    The windows of a point are judged together: the small one tells if the object is larger, the large one if smaller.

    :param inputs: channels of the features at stride 8 and 16. :param channels: width. :param blocks: their number.
    :param maps: numbers that remain of each cell. :param hidden: width of the last layers.
    :param boxes: K boxes from each window, as a point may mean a part or the whole.
    """

    def __init__(
        self,
        inputs: tuple[int, int] = (40, 112),
        channels: int = 64,
        blocks: int = 1,
        maps: int = 6,
        hidden: int = 192,
        boxes: int = 2,
    ) -> None:
        super().__init__()
        self.boxes = boxes
        self.lateral8 = nn.Conv2d(inputs[0], channels, 3, 2, 1)
        self.lateral16 = nn.Conv2d(inputs[1], channels, 1)
        self.norm = nn.BatchNorm2d(channels)
        self.blocks = nn.Sequential(*(PointBlock(channels) for _ in range(blocks)))
        self.maps = nn.Sequential(nn.Conv2d(channels, maps, 1), nn.BatchNorm2d(maps), nn.ReLU())
        self.inside = nn.Conv2d(maps, 1, 1)
        self.mix = nn.Linear(maps * CELLS * CELLS, hidden)
        self.level = nn.Parameter(torch.zeros(len(POINT_WINDOWS), hidden))
        self.drop = nn.Dropout(0.2)
        self.joint = nn.Linear(len(POINT_WINDOWS) * hidden, hidden)
        self.edges = nn.Linear(2 * hidden, 4 * boxes)
        self.quality = nn.Linear(2 * hidden, boxes)
        nn.init.normal_(self.edges.weight, std=0.01)
        assert self.edges.bias is not None
        with torch.no_grad():  # boxes around the middle
            halves = 0.15 + 0.2 * torch.arange(boxes)[:, None]
            self.edges.bias.copy_((0.5 + halves * torch.tensor([-1.0, -1.0, 1.0, 1.0])).flatten())

    def forward(self, features: Features) -> PointBoxes:
        """Find boxes, given features of the windows of points, those of a point in the order of `POINT_WINDOWS`."""
        x = self.norm(self.lateral8(features.stride8) + self.lateral16(features.stride16)).relu()
        maps = self.maps(self.blocks(x))
        own = self.drop((self.mix(maps.flatten(1)).unflatten(0, (-1, len(POINT_WINDOWS))) + self.level).relu())
        joint = self.drop(self.joint(own.flatten(1)).relu())
        summary = torch.cat((own, joint[:, None].expand_as(own)), -1).flatten(0, 1)
        edges = self.edges(summary).unflatten(-1, (self.boxes, 4))
        return PointBoxes(edges, self.quality(summary), self.inside(maps).flatten(1))
