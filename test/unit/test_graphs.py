# SPDX-License-Identifier: Apache-2.0
"""The static graphs compute what the tracker's network computes."""

from __future__ import annotations

import pytest
import torch

from dimp_ros.model.checkpoints.checkpoint import load_model
from dimp_ros.model.inference.ascent import ascend
from dimp_ros.model.inference.graphs import Ascent, OverlapMaps, RefinementGraph, SearchGraph
from dimp_ros.model.inference.network import InferenceNet
from dimp_ros.model.target_filter import apply_filter

BOXES = torch.tensor([[[110.0, 110, 60, 55], [120, 115, 50, 70], [105, 118, 58, 52]]])


@pytest.fixture(scope="module")
def net():
    return load_model("dimp_lite")[0].eval().requires_grad_(False)


@pytest.fixture(scope="module")
def images():
    return torch.randint(0, 255, (1, 288, 288, 3), generator=torch.Generator().manual_seed(0)).to(torch.uint8)


@pytest.fixture(scope="module")
def backbone(net, images):
    with torch.no_grad():
        return net.extract(images.flip(-1).permute(0, 3, 1, 2))


@torch.no_grad()
def test_search_graph_equals_the_network(net, images, backbone):
    filters = torch.randn((1, 256, 4, 4), generator=torch.Generator().manual_seed(1)) / 50
    features = net.classifier.features(backbone.stride16)
    expected = (*backbone, features, apply_filter(features[:, None], filters)[:, 0])
    for value, wanted in zip(SearchGraph(net)(images, filters), expected, strict=True):
        torch.testing.assert_close(value, wanted, rtol=1e-3, atol=1e-3 * float(wanted.abs().max()))


@torch.no_grad()
def test_refinement_graph_ascends_as_the_tracker_does(net, backbone):
    modulation = net.bb_regressor.modulation(backbone, BOXES[:, 0])
    refined, overlaps = RefinementGraph(net.bb_regressor, 5)(*backbone, *modulation, BOXES, torch.ones(1))
    overlap = InferenceNet(net).overlap.for_targets(modulation, net.bb_regressor.features(backbone))
    expected, predicted = ascend(overlap, BOXES, 5, 1.0)
    assert (expected - BOXES).abs().max() > 1, "the boxes must move"
    torch.testing.assert_close(refined, expected, rtol=0, atol=1e-2)
    torch.testing.assert_close(overlaps, predicted, rtol=0, atol=1e-3)


@pytest.mark.parametrize("corner", [(4, 5), (0, 0), (10, 10), (0, 10)])
@torch.no_grad()
def test_maps_of_a_region_equal_that_part_of_the_whole_maps(net, backbone, corner):
    row, column = corner
    part = OverlapMaps(net.bb_regressor, 8)(*backbone, torch.tensor(corner))
    whole = OverlapMaps(net.bb_regressor)(*backbone)
    for value, maps, scale in zip(part, whole, (2, 1), strict=True):
        wanted = maps[..., row * scale : (row + 8) * scale, column * scale : (column + 8) * scale]
        torch.testing.assert_close(value, wanted, rtol=1e-3, atol=1e-3 * float(maps.abs().max()))


@torch.no_grad()
def test_ascent_in_a_region_equals_that_in_the_window(net, backbone):
    modulation = net.bb_regressor.modulation(backbone, BOXES[:, 0])
    corner = torch.tensor((4, 4))
    maps = OverlapMaps(net.bb_regressor, 10)(*backbone, corner)
    refined, overlaps = Ascent(net.bb_regressor, 5)(*maps, *modulation, BOXES, torch.ones(1), corner)
    expected, predicted = RefinementGraph(net.bb_regressor, 5)(*backbone, *modulation, BOXES, torch.ones(1))
    torch.testing.assert_close(refined, expected, rtol=0, atol=1e-2)
    torch.testing.assert_close(overlaps, predicted, rtol=0, atol=1e-3)
