# SPDX-License-Identifier: Apache-2.0
"""Checkpoints in the reference implementation's layout: load, report, convert, track."""

import cv2
import numpy as np
import pytest
import torch
from helpers.reference_checkpoint import reference_shapes, reference_state, write_reference_checkpoint
from safetensors.torch import load_file

from dimp_ros.evaluation.trackers import TrackerSpec
from dimp_ros.model.checkpoints.checkpoint import load_model, read_weights
from dimp_ros.model.checkpoints.convert_cli import main
from dimp_ros.model.dimp import build_empty_model
from dimp_ros.tracker import DimpTracker, TrackerConfig


@pytest.fixture(scope="module")
def checkpoint18(tmp_path_factory):
    path = tmp_path_factory.mktemp("reference") / "dimp18.pth"
    return path, write_reference_checkpoint(path, "dimp18")


def used(state):
    """Return the entries that are computed with."""
    ends = ("feature_extractor.layer4.", "feature_extractor.fc.")
    return {k: v for k, v in state.items() if not k.startswith(ends) and not k.endswith("num_batches_tracked")}


@pytest.mark.parametrize("name", ["dimp18", "dimp50"])
def test_keys_and_shapes_are_those_of_the_specification(name):
    ours = {key: tuple(value.shape) for key, value in build_empty_model(name).state_dict().items()}
    theirs = reference_shapes(name)
    assert used(ours) == used(theirs)
    assert {key for key in ours if key.endswith("num_batches_tracked")} <= theirs.keys()


@pytest.mark.parametrize("name", ["dimp18", "dimp50"])
def test_a_checkpoint_loads_unchanged(tmp_path, name):
    path = tmp_path / "any name.pth"
    state = write_reference_checkpoint(path, name)
    model, info = load_model(str(path))
    assert info.architecture == name and not model.training
    assert info.mean == (0.485, 0.456, 0.406) and info.std == (0.229, 0.224, 0.225)
    loaded = model.state_dict()
    for key, value in used(state).items():
        assert torch.equal(loaded[key], value), key
    weights = read_weights(path)
    assert weights.unused.keys() == state.keys() - used(state).keys()
    assert weights.other == sorted(
        ["epoch", "actor_type", "net_type", "net_info", "constructor", "optimizer", "stats", "use_gpu"]
    )


def test_bare_tensors_in_a_pth_tar_file_are_accepted(tmp_path):
    state = reference_state("dimp18")
    path = tmp_path / "bare.pth.tar"
    torch.save(state, path)
    assert torch.equal(load_model(str(path))[0].feature_extractor.conv1.weight, state["feature_extractor.conv1.weight"])


def test_missing_unexpected_and_misshapen_keys_are_reported(tmp_path):
    state = reference_state("dimp18")
    missing = ["bb_regressor.fc4_rt.bn.running_var", "feature_extractor.layer2.1.conv2.weight"]
    for key in missing:
        del state[key]
    state["classifier.surplus"] = state["other\nsurplus"] = torch.zeros(1)
    state["classifier.filter_optimizer.filter_reg"] = torch.zeros(2)
    state["bb_regressor.iou_predictor.bias"] = torch.zeros(1, dtype=torch.int64)
    torch.save({"net": state}, tmp_path / "wrong.pth")
    with pytest.raises(ValueError, match="does not fit 'dimp18'") as error:
        load_model(str(tmp_path / "wrong.pth"))
    message = str(error.value)
    assert f"2 missing: {missing[0]}, {missing[1]}" in message
    assert "2 unexpected: classifier.surplus, other\\nsurplus" in message
    assert "classifier.filter_optimizer.filter_reg is [2], not [1]" in message
    assert "bb_regressor.iou_predictor.bias is torch.int64, not torch.float32" in message


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ([1, 2], "a list, not a dict"),
        ({"net": 5}, "'net' is a int"),
        ({"net": {"a": 5, "b": torch.zeros(1)}}, "none: a"),
        ({}, "empty"),
        ({"conv1.weight": torch.zeros(64, 3, 7, 7)}, r"none of its 1 tensors \(conv1.weight.*training can start"),
    ],
)
def test_other_content_is_refused_with_what_it_is(tmp_path, content, words):
    torch.save(content, tmp_path / "other.pth")
    with pytest.raises(ValueError, match=words):
        load_model(str(tmp_path / "other.pth"))


def test_an_expanded_tensor_is_refused_without_copying_it(tmp_path):
    state = reference_state("dimp18")
    state["classifier.filter_optimizer.filter_reg"] = torch.zeros(1).expand(2**35)
    torch.save({"net": state}, tmp_path / "large.pth")
    with pytest.raises(ValueError, match="filter_reg is"):
        load_model(str(tmp_path / "large.pth"))


def scene(x, y):
    """Draw a chequered target on a smooth ground."""
    rng = np.random.default_rng(1)
    image = cv2.resize(rng.integers(60, 200, (6, 8, 3), dtype=np.uint8), (320, 240), interpolation=cv2.INTER_CUBIC)
    image[y : y + 36, x : x + 40] = cv2.resize(rng.integers(0, 255, (4, 4, 3), dtype=np.uint8), (40, 36))
    return image


def test_a_tracker_runs_on_a_checkpoint(checkpoint18):
    path, _ = checkpoint18
    tracker = DimpTracker(str(path), "cpu", TrackerConfig(not_found_threshold=-1.0, augment=False))
    tracker.init(scene(120, 90), (120, 90, 40, 36))
    for step in range(1, 4):
        result = tracker.update(scene(120 + 3 * step, 90))
        assert np.isfinite(result.last_box).all() and np.isfinite(result.peak)
    # the optimiser's initial parameters do their work even over random features: the target stands out
    assert result.peak > 0.1
    assert abs(result.last_box.center[0] - (140 + 9)) < 16 and abs(result.last_box.center[1] - 108) < 16


def test_evaluation_takes_a_checkpoint_by_path(checkpoint18):
    spec = TrackerSpec(f"dimp:{checkpoint18[0]}", device="cpu", settings={"augment": "false", "dropout_copies": "0"})
    spec.check()
    tracker = spec.make()
    tracker.init(scene(120, 90), (120, 90, 40, 36))
    assert np.isfinite(tracker.update(scene(120, 90)).box).all()


# Conversion


def same(first, second):
    assert first.keys() == second.keys()
    for key in first:
        assert first[key].dtype == second[key].dtype and torch.equal(first[key], second[key]), key


def test_converting_there_and_back_changes_no_bit(checkpoint18, tmp_path, capsys):
    path, state = checkpoint18
    ours, back, again = (tmp_path / name for name in ("ours.safetensors", "back.pth", "again.safetensors"))
    assert main([str(path), str(ours)]) == 0
    captured = capsys.readouterr().out
    assert "dimp18, 161 tensors" in captured and "stats" in captured
    assert all(part in captured for part in ("feature_extractor.layer4 (30)", "fc (2)", "num_batches_tracked (28)"))
    assert main([str(ours), str(back)]) == 0
    assert "as zeros: " in capsys.readouterr().out
    content = torch.load(back, weights_only=True)
    same(used(content["net"]), used(state))
    assert {key: value.shape for key, value in content["net"].items()}.keys() == used(state).keys() | content[
        "net"
    ].keys()
    assert main([str(back), str(again)]) == 0
    same(load_file(again), load_file(ours))
    assert load_model(str(again))[1] == load_model(str(ours))[1]


def test_converted_checkpoint_has_every_original_key(checkpoint18, tmp_path):
    path, state = checkpoint18
    ours, zeros, filled = (tmp_path / name for name in ("ours.safetensors", "zeros.pth", "filled.pth"))
    assert main([str(path), str(ours)]) == main([str(ours), str(zeros)]) == 0
    content = torch.load(zeros, weights_only=True)["net"]
    assert {k: tuple(v.shape) for k, v in content.items()} == {k: tuple(v.shape) for k, v in state.items()}
    assert not content["feature_extractor.fc.weight"].any()
    assert zeros.stat().st_size < path.stat().st_size * 0.8
    assert main([str(ours), str(filled), "--like", str(path)]) == 0
    same(dict(torch.load(filled, weights_only=True)["net"]), dict(state))


def test_half_precision_is_exact_in_half_precision(checkpoint18, tmp_path):
    path, state = checkpoint18
    ours, back = tmp_path / "half.safetensors", tmp_path / "half.pth"
    assert main([str(path), str(ours), "--half"]) == main([str(ours), str(back), "--half"]) == 0
    assert ours.stat().st_size < 22 * 2**20
    expected = {key: value.half() if value.is_floating_point() else value for key, value in used(state).items()}
    same(used(torch.load(back, weights_only=True)["net"]), expected)
    assert load_model(str(back))[0].feature_extractor.conv1.weight.dtype == torch.float32


def test_weights_and_their_info_survive_the_reference_layout(tmp_path, capsys):
    there = tmp_path / "lite.pth"
    assert main(["dimp_lite", str(there)]) == 0
    assert "no such part: box_refiner, point_box" in capsys.readouterr().out
    net, info = load_model(str(there))
    original, known = load_model("dimp_lite")
    assert info == known
    same(dict(net.state_dict()), dict(original.state_dict()))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["{path}", "{folder}/out.onnx"], "must end in"),
        (["{path}", "{path}"], "overwrite"),
        (["nothing.pth", "{folder}/out.pth"], "does not exist"),
        (["{path}", "{folder}/out.safetensors", "--like", "{path}"], "--like"),
        (["{folder}/broken.pth", "{folder}/out.safetensors"], "broken.pth"),
    ],
)
def test_refused_conversions_write_nothing(checkpoint18, tmp_path, capsys, arguments, words):
    (tmp_path / "broken.pth").write_bytes(checkpoint18[0].read_bytes()[:100_000])
    names = {"path": checkpoint18[0], "folder": tmp_path}
    assert main([argument.format(**names) for argument in arguments]) == 2
    assert words in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["broken.pth"]


def test_checkpoint_of_a_training_run_is_refused_with_a_remedy(tmp_path):
    path = tmp_path / "checkpoint.pt"
    torch.save({"config": {}, "step": 3, "model": {}, "average": {}, "optimizer": {}}, path)
    with pytest.raises(ValueError, match=r"weights\.safetensors from the same folder"):
        load_model(str(path))
