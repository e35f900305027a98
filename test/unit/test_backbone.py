# SPDX-License-Identifier: Apache-2.0
"""Backbones: shapes, key names, and receptive field centres."""

import pytest
import torch

from dimp_ros.model.backbone import EfficientNetLite0, resnet18, resnet50
from dimp_ros.model.dimp import build_model


@pytest.mark.parametrize(
    ("make", "channels"), [(resnet18, (128, 256)), (resnet50, (512, 1024)), (EfficientNetLite0, (40, 112))]
)
def test_features_have_the_specified_strides_and_channels(make, channels):
    net = make().eval()
    with torch.no_grad():
        features = net(torch.zeros(1, 3, 96, 64))
    assert net.channels == channels
    assert features.stride8.shape == (1, channels[0], 12, 8)
    assert features.stride16.shape == (1, channels[1], 6, 4)


@pytest.mark.parametrize("make", [resnet18, EfficientNetLite0])
def test_shift_by_a_stride_shifts_features_by_one_pixel(make):
    torch.manual_seed(0)
    net = make().eval()
    scene = torch.randn(1, 3, 320, 320)
    with torch.no_grad():
        here, there = net(scene[..., :256, :256]), net(scene[..., 16:272, 16:272])
    inner = slice(6, -6)  # away from the padding
    torch.testing.assert_close(
        here.stride16[..., 1:, 1:][..., inner, inner], there.stride16[..., :-1, :-1][..., inner, inner]
    )


def test_feature_pixels_are_centred_on_multiples_of_the_stride():
    """With all weights of a convolution alike, what a stride-16 feature looks at is centred on pixel 16 * i."""
    net = EfficientNetLite0().eval()  # not a ResNet: the gradient of its max pooling depends on ties
    for module in net.modules():
        if isinstance(module, torch.nn.Conv2d):
            torch.nn.init.constant_(module.weight, 1 / module.weight[0].numel())
    image = torch.full((1, 3, 288, 288), 0.1, requires_grad=True)
    net(image).stride16[0, 0, 9, 9].backward()
    reach = image.grad[0].sum((0, 1))
    centre = float((reach * torch.arange(288.0)).sum() / reach.sum())
    assert centre == pytest.approx(9 * 16, abs=0.51)


def test_the_reference_implementations_key_names_are_accepted():
    keys = build_model("dimp18").state_dict().keys()
    for expected in (
        "feature_extractor.conv1.weight",
        "feature_extractor.layer3.1.bn2.running_mean",
        "feature_extractor.layer2.0.downsample.0.weight",
        "classifier.filter_initializer.filter_conv.bias",
        "classifier.filter_optimizer.log_step_length",
        "classifier.filter_optimizer.filter_reg",
        "classifier.filter_optimizer.label_map_predictor.weight",
        "classifier.filter_optimizer.target_mask_predictor.0.weight",
        "classifier.filter_optimizer.spatial_weight_predictor.weight",
        "classifier.feature_extractor.0.bn2.weight",
        "classifier.feature_extractor.1.weight",
        "bb_regressor.conv3_1r.0.weight",
        "bb_regressor.fc34_4r.1.running_var",
        "bb_regressor.fc3_rt.linear.weight",
        "bb_regressor.fc4_rt.bn.bias",
        "bb_regressor.iou_predictor.weight",
    ):
        assert expected in keys
    state = build_model("dimp50").state_dict()
    assert state["classifier.feature_extractor.0.weight"].shape == (512, 1024, 3, 3)
    assert state["classifier.filter_optimizer.label_map_predictor.weight"].shape == (1, 100, 1, 1)
    assert state["feature_extractor.layer1.0.downsample.0.weight"].shape == (256, 64, 1, 1)
    assert state["bb_regressor.fc3_rt.linear.weight"].shape == (256, 256 * 25)


def test_an_unknown_model_is_refused_with_the_known_names():
    with pytest.raises(ValueError, match="dimp18, dimp50, dimp_lite"):
        build_model("dimp34")
