# SPDX-License-Identifier: Apache-2.0
"""Averaged weights are the weighted mean of each tensor, with the first file's metadata."""

import dataclasses

import pytest
import torch

from dimp_ros.model.checkpoints.checkpoint import read_weights, save_weights
from dimp_ros.model.checkpoints.weights_file import WeightsInfo
from dimp_ros.model.dimp import build_model
from dimp_ros.training.average_weights import average, main


def made(number):
    """Build a network of its own."""
    torch.manual_seed(number)
    return build_model("dimp_lite").eval()


def test_the_average_is_that_of_all_weights_and_statistics():
    one, other = made(1), made(2)
    name = "bb_regressor.fc3_rt.bn.running_mean"
    one.state_dict()[name].fill_(1.0)
    other.state_dict()[name].fill_(5.0)
    before = {key: value.clone() for key, value in one.state_dict().items()}
    mean = average([(0.75, one), (0.25, other)]).state_dict()
    assert mean[name].unique().tolist() == [2.0]
    for key, value in mean.items():
        if value.is_floating_point():
            torch.testing.assert_close(value, 0.75 * before[key] + 0.25 * other.state_dict()[key])


def test_wrong_shares_and_different_networks_are_refused():
    with pytest.raises(ValueError, match=r"\[0\.5, 0\.4\]; they must sum to 1"):
        average([(0.5, made(1)), (0.4, made(2))])
    with pytest.raises(ValueError, match="one architecture"):
        average([(0.5, made(1)), (0.5, build_model("dimp18"))])


def test_the_command_writes_a_file_that_names_its_parts(tmp_path, capsys):
    info = WeightsInfo("dimp_lite", training_data="images")
    for number in (1, 2):
        kept = dataclasses.replace(info, details={"seed": number})
        save_weights(tmp_path / f"{number}.safetensors", made(number), kept, torch.float16)
    out = tmp_path / "mean.safetensors"
    assert main([str(out), *(f"0.5={tmp_path / f'{number}.safetensors'}" for number in (1, 2))]) == 0
    mean = read_weights(out)
    assert mean.info.details == {"seed": 1, "average_of": {f"{tmp_path.name}/{n}.safetensors": 0.5 for n in (1, 2)}}
    key = "bb_regressor.fc3_rt.linear.weight"
    wanted = sum(read_weights(tmp_path / f"{number}.safetensors").tensors[key].float() for number in (1, 2)) / 2
    torch.testing.assert_close(mean.tensors[key].float(), wanted, rtol=0, atol=1e-4)
    with pytest.raises(SystemExit):
        main([str(out), f"1.0={tmp_path / 'none.safetensors'}"])
    assert "none.safetensors" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["avg.pth", "avg.pth.tar", "dimp_lite", "a.safetensors.old", ".safetensors"])
def test_a_name_that_is_read_as_something_else_is_refused(tmp_path, capsys, name):
    with pytest.raises(SystemExit, match=r"^2$"):
        main([str(tmp_path / name), "1=dimp_lite"])
    assert f"{name}: the name of a weights file must end in .safetensors" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
