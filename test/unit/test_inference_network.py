# SPDX-License-Identifier: Apache-2.0
"""The folded network computes what the network does, for regions and whole maps, and follows new weights."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from dimp_ros.model.backbone import Features
from dimp_ros.model.dimp import ARCHITECTURES, build_model
from dimp_ros.model.inference.fused_conv import NONE, RELU, RELU6, FusedConvolution, fold_batch_norm, onednn_fuses
from dimp_ros.model.inference.network import InferenceNet
from dimp_ros.model.inference.region import Region

NETS = {}


def made_net(name):
    """Build a network whose batch norm does something."""
    if name not in NETS:
        torch.manual_seed(0)
        NETS[name] = build_model(name).eval().requires_grad_(False)
        for module in NETS[name].modules():
            if getattr(module, "running_mean", None) is not None:
                module.running_mean.normal_(0, 0.1)
                module.running_var.uniform_(0.5, 2)
                module.weight.uniform_(0.5, 1.5)
                module.bias.normal_(0, 0.2)
    return NETS[name]


def images(count=1, side=96):
    """Make noise for images."""
    generator = torch.Generator().manual_seed(3)
    return torch.randint(0, 256, (count, 3, side, side), generator=generator, dtype=torch.uint8)


def close(ours, expected, share):
    assert ours.dtype == torch.float32 and ours.shape == expected.shape
    assert float((ours - expected).abs().max()) < share * float(expected.abs().max())


@pytest.mark.parametrize(("dtype", "share"), [(torch.float32, 1e-4), (torch.bfloat16, 0.1)])
@pytest.mark.parametrize("name", sorted(ARCHITECTURES))
@torch.no_grad()
def test_every_map_is_that_of_the_network(name, dtype, share):
    net = made_net(name)
    fast = InferenceNet(net, dtype)
    expected, ours = net.extract(images(2)), fast.extract(images(2))
    for mine, theirs in zip(ours, expected, strict=True):
        close(mine.float(), theirs, share)
    close(fast.target_features(ours.stride16), net.classifier.features(expected.stride16), share)
    overlap = fast.overlap_features(ours, [None, None])
    for mine, theirs in zip(overlap, net.bb_regressor.features(expected), strict=True):
        close(mine, theirs, share)


@given(st.integers(0, 8), st.integers(0, 8), st.sampled_from((2, 4, 6, 8)))
@settings(max_examples=30, deadline=None)
@torch.no_grad()
def test_a_region_has_what_the_whole_map_has_there(column, row, size):
    """At the border of the maps as in their midst."""
    net = made_net("dimp_lite")
    generator = torch.Generator().manual_seed(4)
    c8, c16 = net.feature_extractor.channels
    maps = Features(torch.randn(1, c8, 20, 20, generator=generator), torch.randn(1, c16, 10, 10, generator=generator))
    region = Region(min(column, 10 - size), min(row, 10 - size), size)
    fast = InferenceNet(net)
    whole, part = fast.overlap_features(maps, [None]), fast.overlap_features(maps, [region])
    for full, cut, scale in zip(whole, part, (2, 1), strict=True):
        x, y, side = (scale * v for v in region)
        torch.testing.assert_close(cut, full[..., y : y + side, x : x + side], rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_several_images_have_their_own_regions():
    net = made_net("dimp_lite")
    fast, maps = InferenceNet(net), net.extract(images(2, 160))
    regions = [Region(0, 3, 4), Region(5, 1, 4)]
    both = fast.overlap_features(maps, regions)
    for n, region in enumerate(regions):
        alone = fast.overlap_features(Features(*(m[n : n + 1] for m in maps)), [region])
        for ours, expected in zip(both, alone, strict=True):
            torch.testing.assert_close(ours[n : n + 1], expected, rtol=1e-4, atol=1e-4)


def test_weights_that_were_written_to_are_noticed():
    torch.manual_seed(1)
    net = build_model("dimp_lite").eval().requires_grad_(False)
    fast = InferenceNet(net)
    assert fast.up_to_date()
    net.load_state_dict(build_model("dimp_lite").state_dict())
    assert not fast.up_to_date()
    fast = InferenceNet(net)
    net.bb_regressor.iou_predictor.bias = nn.Parameter(torch.zeros(1))
    assert not fast.up_to_date()


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("activation", [NONE, RELU, RELU6])
@torch.no_grad()
def test_fused_convolution_equals_its_parts(activation, fused):
    torch.manual_seed(2)
    conv, norm = nn.Conv2d(6, 12, 3, 2, 1, groups=3), nn.BatchNorm2d(12).eval()
    norm.running_mean.normal_()
    norm.running_var.uniform_(0.5, 2)
    ours = FusedConvolution(conv, norm, activation)
    if fused and not ours._onednn:
        pytest.skip("this torch has no fused convolution of oneDNN")
    ours._onednn = fused
    x, residual = 3 * torch.randn(2, 6, 9, 9), 3 * torch.randn(2, 12, 5, 5)
    act = {NONE: nn.Identity(), RELU: nn.ReLU(), RELU6: nn.ReLU6()}[activation]
    kept = residual.clone()
    torch.testing.assert_close(ours(x), act(norm(conv(x))), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(ours(x, residual), act(norm(conv(x)) + residual), rtol=1e-4, atol=1e-4)
    assert torch.equal(residual, kept)


def test_what_cannot_be_folded_is_refused():
    with pytest.raises(ValueError, match=r"call eval\(\)"):
        fold_batch_norm(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3))
    with pytest.raises(ValueError, match="'tanh' is unknown; choose one of"):
        FusedConvolution(nn.Conv2d(3, 3, 1), activation="tanh")


def test_a_torch_without_fused_convolutions_does_without(monkeypatch):
    onednn_fuses.cache_clear()
    monkeypatch.setattr(torch.ops, "mkldnn", object())
    assert onednn_fuses(torch.float32) is False
    onednn_fuses.cache_clear()
