# SPDX-License-Identifier: Apache-2.0
"""The overlap network: shapes, modulation, gradients in the boxes."""

import pytest
import torch

from dimp_ros.model.backbone import Features
from dimp_ros.model.dimp import build_model
from dimp_ros.model.iou_net import Modulation


@pytest.fixture(scope="module")
def net():
    torch.manual_seed(0)
    return build_model("dimp_lite").bb_regressor.eval().requires_grad_(False)


def features(pictures, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return Features(
        torch.randn(pictures, 40, 36, 36, generator=generator), torch.randn(pictures, 112, 18, 18, generator=generator)
    )


BOX = torch.tensor([100.0, 110, 60, 50])


def test_every_proposal_of_every_image_gets_a_score(net):
    modulation = net.modulation(features(2), BOX.expand(2, 4))
    assert modulation.stride8.shape == (2, 128) and modulation.stride16.shape == (2, 128)
    proposals = BOX + torch.randn(2, 7, 4)
    assert net(modulation, net.features(features(2, 1)), proposals).shape == (2, 7)


def test_images_of_a_batch_are_scored_independently(net):
    modulation = net.modulation(features(2), BOX.expand(2, 4))
    test, proposals = features(2, 1), BOX + torch.randn(2, 5, 4)
    both = net(modulation, net.features(test), proposals)
    second = net(
        Modulation(*(m[1:] for m in modulation)), net.features(Features(*(f[1:] for f in test))), proposals[1:]
    )
    torch.testing.assert_close(both[1:], second, rtol=1e-3, atol=1e-4)


def test_multiplying_pooled_regions_is_multiplying_channels(net):
    modulation = net.modulation(features(1), BOX[None])
    test, proposals = net.features(features(1, 1)), BOX + torch.randn(1, 5, 4)
    scaled = Features(
        test.stride8 * modulation.stride8[..., None, None], test.stride16 * modulation.stride16[..., None, None]
    )
    ones = Modulation(torch.ones(1, 128), torch.ones(1, 128))
    torch.testing.assert_close(net(modulation, test, proposals), net(ones, scaled, proposals), rtol=1e-3, atol=1e-4)


def test_the_gradient_in_a_box_agrees_with_finite_differences():
    torch.manual_seed(0)
    net = build_model("dimp_lite").bb_regressor.eval().requires_grad_(False).double()
    modulation = net.modulation(Features(*(f.double() for f in features(1))), BOX[None].double())
    test = net.features(Features(*(f.double() for f in features(1, 1))))
    box = BOX[None, None].double().requires_grad_(True)
    assert torch.autograd.gradcheck(lambda b: net(modulation, test, b), box, eps=1e-5, atol=1e-5)
