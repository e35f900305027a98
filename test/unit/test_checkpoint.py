# SPDX-License-Identifier: Apache-2.0
"""Weights files: round trips, and errors for damaged and hostile ones."""

import json
import math
import os
import pickle
import struct

import pytest
import torch
from safetensors.torch import load_file, save_file

from dimp_ros.model.checkpoints.checkpoint import load_model, read_weights, save_weights
from dimp_ros.model.checkpoints.weights_file import NAMES, WeightsInfo, find_weights
from dimp_ros.model.dimp import ARCHITECTURES, build_model


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    torch.manual_seed(0)
    model = build_model("dimp_lite")
    path = tmp_path_factory.mktemp("weights") / "model.safetensors"
    save_weights(path, model, WeightsInfo("dimp_lite", mean=(0.5, 0.5, 0.5), licence="Apache-2.0"))
    return path, model


def test_weights_and_info_come_back(saved):
    path, model = saved
    loaded, info = load_model(str(path))
    assert info.architecture == "dimp_lite" and info.licence == "Apache-2.0"
    assert not loaded.training
    for key, value in model.state_dict().items():
        if not key.endswith("num_batches_tracked"):
            assert torch.equal(loaded.state_dict()[key], value), key


def test_half_precision_files_are_loaded_in_float32(saved, tmp_path):
    _, model = saved
    path = tmp_path / "half.safetensors"
    save_weights(path, model, WeightsInfo("dimp_lite"), torch.float16)
    loaded, _ = load_model(str(path))
    weight = loaded.state_dict()["bb_regressor.iou_predictor.weight"]
    assert weight.dtype == torch.float32
    torch.testing.assert_close(weight, model.bb_regressor.iou_predictor.weight.detach(), rtol=1e-3, atol=1e-6)


def test_file_has_the_reference_key_names_and_nothing_unused(saved):
    keys = load_file(saved[0]).keys()
    assert "classifier.feature_extractor.0.weight" in keys
    assert not [key for key in keys if "num_batches_tracked" in key or key.startswith("feature_extractor.fc")]


def test_missing_unexpected_and_misshapen_keys_are_named(saved, tmp_path):
    tensors = load_file(saved[0])
    del tensors["bb_regressor.iou_predictor.bias"]
    tensors["surplus"] = torch.zeros(1)
    tensors["classifier.filter_optimizer.filter_reg"] = torch.zeros(2)
    path = tmp_path / "wrong.safetensors"
    save_file(tensors, path, metadata={"dimp_ros": '{"architecture": "dimp_lite"}'})
    with pytest.raises(ValueError, match=r"missing: bb_regressor.iou_predictor.bias; .*surplus.*is \[2\], not \[1\]"):
        load_model(str(path))


def test_a_truncated_file_is_refused_with_a_remedy(saved, tmp_path):
    path = tmp_path / "cut.safetensors"
    path.write_bytes(saved[0].read_bytes()[:5000])
    with pytest.raises(ValueError, match="truncated"):
        load_model(str(path))


class Bomb:
    """Leaves a mark when it is unpickled."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return (open, (str(self.mark), "w"))


def test_a_pickle_is_never_run(tmp_path):
    mark = tmp_path / "it ran"
    for name in ("evil.safetensors", "evil.pth"):
        path = tmp_path / name
        path.write_bytes(pickle.dumps({"net": Bomb(mark)}))
        with pytest.raises(ValueError):
            load_model(str(path))
    assert not mark.exists()


def test_missing_files_are_reported_with_a_remedy(tmp_path):
    with pytest.raises(FileNotFoundError, match="check the path"):
        find_weights(str(tmp_path / "none.safetensors"))
    with pytest.raises(FileNotFoundError, match="no weights are shipped for 'dimp50'"):
        find_weights("dimp50")
    with pytest.raises(ValueError, match=r"dimp18, dimp50, dimp_lite.*\.safetensors, \.pth, \.pth\.tar"):
        find_weights("siamfc")


def test_values_beyond_half_precision_are_not_stored_in_it(tmp_path):
    model = build_model("dimp_lite")
    model.feature_extractor.bn0.running_var.fill_(1e6)
    with pytest.raises(ValueError, match=r"feature_extractor\.bn0\.running_var.*store them in float32"):
        save_weights(tmp_path / "half.safetensors", model, WeightsInfo("dimp_lite"), torch.float16)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_weights_that_are_not_finite_are_not_written(saved, tmp_path, monkeypatch, value, dtype):
    bias = saved[1].bb_regressor.iou_predictor.bias.data
    monkeypatch.setattr(saved[1].bb_regressor.iou_predictor.bias, "data", torch.full_like(bias, value))
    with pytest.raises(ValueError, match=r"iou_predictor\.bias: NaN or infinite"):
        save_weights(tmp_path / "new.safetensors", saved[1], WeightsInfo("dimp_lite"), dtype)
    assert not any(tmp_path.iterdir())


def test_weights_with_a_negative_variance_are_not_stored(tmp_path):
    model = build_model("dimp_lite")
    key = next(key for key in model.state_dict() if key.endswith("running_var"))
    model.state_dict()[key][0] = -1e-3
    with pytest.raises(ValueError, match="running_var: negative variances"):
        save_weights(tmp_path / "new.safetensors", model, WeightsInfo("dimp_lite"))


@pytest.mark.parametrize(
    ("entries", "words"),
    [
        ({"architecture": ["dimp_lite"]}, "architecture is"),
        ({"architecture": "damp_lite"}, "'damp_lite', which is not known here, only dimp18"),
        ({"crop_size": "large"}, "crop_size is 'large'"),
        ({"crop_size": 10**400}, "crop_size is 1000"),
        ({"search_scale": None}, "search_scale is None"),
        ({"search_scale": math.nan}, "search_scale is nan"),
        ({"confidence_knots": [[0, 0], [0, 1]]}, "knots are"),
        ({"confidence_knots": [[0, 0], [10**400, 1]]}, "knots are beyond"),
        ({"details": "DEEP"}, "nested too deeply"),
    ],
    ids=str,
)
def test_invalid_metadata_is_refused_with_the_file_name(tmp_path, entries, words):
    text = json.dumps({"architecture": "dimp_lite", **entries}).replace('"DEEP"', "[" * 100_000 + "]" * 100_000)
    path = tmp_path / "odd.safetensors"
    save_file({"surplus": torch.zeros(1)}, path, metadata={"dimp_ros": text})
    with pytest.raises(ValueError, match=words) as error:
        load_model(str(path))
    assert "odd.safetensors" in str(error.value)


def test_a_huge_safetensors_header_is_not_parsed(tmp_path):
    path = tmp_path / "huge.safetensors"
    header = json.dumps({f"t{n}": {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]} for n in range(30_000)})
    path.write_bytes(struct.pack("<Q", len(header)) + header.encode())
    with pytest.raises(ValueError, match=r"header has \d+ bytes; at most 1048576"):
        load_model(str(path))


@pytest.mark.parametrize("kind", ["keys", "long keys", "architecture", "entry"])
def test_error_texts_have_at_most_1000_characters(tmp_path, kind):
    tensors, info = {"surplus": torch.zeros(1)}, {"architecture": "dimp_lite"}
    if kind == "keys":
        tensors = {f"surplus {number}": torch.zeros(1) for number in range(3000)}
    elif kind == "long keys":
        tensors = {str(number) * 9000: torch.zeros(1) for number in range(9)}
    elif kind == "architecture":
        info["architecture"] = "a" * 100_000
    else:
        info["crop_size"] = "\n" * 100_000
    folder = tmp_path / ("f" * 200) / ("g" * 200)
    folder.mkdir(parents=True)
    save_file(tensors, folder / "odd.safetensors", metadata={"dimp_ros": json.dumps(info)})
    with pytest.raises(ValueError, match=r"odd\.safetensors") as error:
        load_model(str(folder / "odd.safetensors"))
    assert len(str(error.value)) <= 1000


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_a_fifo_is_not_opened(tmp_path, suffix):
    path = tmp_path / f"fifo{suffix}"
    os.mkfifo(path)
    with pytest.raises(ValueError, match="FIFO"):
        read_weights(path)


def test_names_of_the_models_are_known_without_torch():
    assert set(NAMES) == set(ARCHITECTURES)
