# SPDX-License-Identifier: Apache-2.0
"""The closed form of the overlap's gradient equals autograd's, for all boxes."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dimp_ros.model.backbone import Features
from dimp_ros.model.dimp import build_model
from dimp_ros.model.inference.iou_gradient import OverlapHead
from dimp_ros.model.iou_net import Modulation, overlap_and_gradient

NETS = {}


def made_net(name):
    """Build an overlap network whose batch norm does something."""
    if name not in NETS:
        torch.manual_seed(0)
        net = build_model(name).bb_regressor.eval().requires_grad_(False).double()
        for module in net.modules():
            if getattr(module, "running_mean", None) is not None:
                module.running_mean.normal_(0, 0.1)
                module.running_var.uniform_(0.5, 2)
                module.weight.uniform_(0.5, 1.5)
                module.bias.normal_(0, 0.2)
        NETS[name] = net
    return NETS[name]


def made_target(net, batch=2):
    """Make features and modulation for ``batch`` targets."""
    generator = torch.Generator().manual_seed(1)
    c3, c4 = net.fc34_3r[0].out_channels, net.fc34_4r[0].out_channels
    maps = Features(
        torch.rand(batch, c3, 36, 36, generator=generator, dtype=torch.float64),
        torch.rand(batch, c4, 18, 18, generator=generator, dtype=torch.float64),
    )
    vectors = (torch.rand(batch, c, generator=generator, dtype=torch.float64) for c in (c3, c4))
    return Modulation(*vectors), maps


def compare(net, boxes):
    modulation, maps = made_target(net, len(boxes))
    overlap = OverlapHead(net).for_targets(modulation, maps)
    value, gradient = overlap.value_and_gradient(boxes)
    wanted, slope = overlap_and_gradient(net, modulation, maps, boxes)
    torch.testing.assert_close(value, wanted, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(gradient, slope, rtol=1e-7, atol=1e-10)
    torch.testing.assert_close(overlap(boxes), wanted, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", ["dimp_lite", "dimp18"])
def test_values_and_gradients_are_those_of_autograd(name):
    generator = torch.Generator().manual_seed(2)
    corner = torch.rand(2, 10, 2, generator=generator, dtype=torch.float64) * 200
    sides = torch.rand(2, 10, 2, generator=generator, dtype=torch.float64) * 120 + 8
    compare(made_net(name), torch.cat((corner, sides), -1))


@settings(max_examples=40, deadline=None)
@given(st.tuples(st.floats(-400, 400), st.floats(-400, 400), st.floats(0.5, 900), st.floats(0.5, 900)))
def test_boxes_may_lie_anywhere(box):
    """Partly or wholly outside the image too, where only a part of the features is touched."""
    compare(made_net("dimp_lite"), torch.tensor([[box]], dtype=torch.float64))


@pytest.mark.parametrize("box", [(50.0, 60, 0, 40), (50, 60, 40, -3), (0, 0, 0, 0)])
def test_a_degenerate_box_has_no_gradient(box):
    net = made_net("dimp_lite")
    modulation, maps = made_target(net, 1)
    boxes = torch.tensor([[box]], dtype=torch.float64)
    value, gradient = OverlapHead(net).for_targets(modulation, maps).value_and_gradient(boxes)
    torch.testing.assert_close(gradient, torch.zeros_like(gradient), rtol=0.0, atol=1e-12)  # -0 and 3e-20 on some CPUs
    torch.testing.assert_close(value, net(modulation, maps, boxes))


def test_a_network_in_training_mode_is_refused():
    with pytest.raises(ValueError, match=r"call eval\(\)"):
        OverlapHead(build_model("dimp_lite").bb_regressor.train())
