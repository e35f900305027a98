# SPDX-License-Identifier: Apache-2.0
"""The overlap network is fitted to the first frame's box."""

import numpy as np
import pytest
import torch

from dimp_ros.geometry.box import iou
from dimp_ros.model.backbone import Features
from dimp_ros.model.iou_net import IoUNet, Modulation
from dimp_ros.tracker import DimpTracker
from dimp_ros.tracker.box_adaptation import draw_proposals, fit_modulation, overlap
from dimp_ros.tracker.config import TrackerConfig
from dimp_ros.tracker.modulation_fit import PROPOSALS

BOXES = torch.tensor([[100.0, 110, 60, 40], [90, 120, 60, 40]])


def test_overlaps_are_those_of_boxes():
    generator = torch.Generator().manual_seed(0)
    proposals = draw_proposals(BOXES, generator)
    expected = iou(proposals.numpy(), BOXES[:, None].numpy())
    np.testing.assert_allclose(overlap(proposals, BOXES[:, None]).numpy(), expected, atol=1e-5)


def test_proposals_are_wrong_by_little_and_by_much():
    proposals = draw_proposals(BOXES, torch.Generator().manual_seed(0))
    assert proposals.shape == (2, PROPOSALS, 4)
    found = overlap(proposals, BOXES[:, None])
    assert found.max() > 0.9 and found.min() < 0.5
    assert (proposals[..., 2:] > 0).all()


@pytest.fixture(scope="module")
def example():
    torch.manual_seed(0)
    net = IoUNet((8, 16), (16, 16), (16, 16), 32).eval().requires_grad_(False)
    with torch.inference_mode():  # as the tracker calls it
        views = Features(torch.randn(2, 8, 36, 36), torch.randn(2, 16, 18, 18))
        modulation = net.modulation(Features(views.stride8[:1], views.stride16[:1]), BOXES[:1])
    return net, views, modulation


def loss(net, views, modulation):
    proposals = draw_proposals(BOXES, torch.Generator().manual_seed(7))  # others than those that were fitted
    both = Modulation(*(vector.expand(2, -1) for vector in modulation))
    truth = 2 * overlap(proposals, BOXES[:, None]) - 1
    return float((net(both, net.features(views), proposals) - truth).square().mean())


def test_the_prediction_fits_better_afterwards(example):
    net, views, modulation = example
    with torch.inference_mode():
        fitted = fit_modulation(net, modulation, views, BOXES, TrackerConfig(box_fit_steps=20))
        assert loss(net, views, fitted) < 0.7 * loss(net, views, modulation)
    assert all(a.shape == b.shape for a, b in zip(fitted, modulation, strict=True))


def test_without_steps_nothing_changes_and_a_seed_repeats(example):
    net, views, modulation = example
    same = fit_modulation(net, modulation, views, BOXES, TrackerConfig(box_fit_steps=0))
    assert all(torch.equal(a, b) for a, b in zip(same, modulation, strict=True))
    first, second = (fit_modulation(net, modulation, views, BOXES, TrackerConfig(box_fit_steps=3)) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    assert all(parameter.grad is None for parameter in net.parameters())


def test_a_single_view_with_dropout_copies_is_fitted():
    config = TrackerConfig(crop_size=96, augment=False, dropout_copies=2, init_steps=1, box_fit_steps=1)
    tracker = DimpTracker("dimp_lite", "cpu", config, weights="random")
    image = np.random.default_rng(0).integers(0, 256, (120, 160, 3), np.uint8)
    assert tracker.init(image, (60.0, 40.0, 30.0, 24.0)).box is not None
