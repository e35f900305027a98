# SPDX-License-Identifier: Apache-2.0
"""Training of the box refiner: steps, continuation, export."""

import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import torch

from dimp_ros.model.checkpoints.checkpoint import load_model
from dimp_ros.model.checkpoints.weights_file import find_weights
from dimp_ros.training import box_refiner, point_boxes
from dimp_ros.training.box_pairs import PairBatch
from dimp_ros.training.box_refiner import prefetched, saved_on_error
from dimp_ros.training.refiner_trainer import BoxRefinerSettings, BoxRefinerTrainer, export
from dimp_ros.training.run_log import RunLog, read_state

ROOT = Path(__file__).resolve().parents[2]
SETTINGS = BoxRefinerSettings(references=2, searches=1, warm_up=1, uses=2)


def batch(seed):
    rng = np.random.default_rng(seed)
    windows = rng.integers(0, 255, (2, 2, 144, 144, 3), dtype=np.uint8)
    boxes = np.array([[36, 36, 72, 72], [30, 40, 84, 64]], np.float32)
    edges = np.array([[0.2, 0.3, 0.7, 0.8], [0.3, 0.2, 0.9, 0.7]], np.float32)
    return PairBatch(windows[0], boxes, windows[1], edges)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Train four steps on one example, whose features are computed once for two uses."""
    trainer = BoxRefinerTrainer(tmp_path_factory.mktemp("run"), SETTINGS, "dimp_lite")
    examples = trainer.examples(iter([batch(0)] * 4))
    losses = [trainer.train(next(examples)) for _ in range(8)]
    trainer.save()
    return trainer, losses


def test_the_loss_falls_and_early_layers_stay(run):
    trainer, losses = run
    assert losses[-1]["distance"] < 0.8 * losses[0]["distance"]
    net, _ = load_model("dimp_lite")
    pairs = zip(net.box_refiner.backbone.blocks, trainer.net.backbone.blocks, strict=True)
    stayed = [torch.equal(a.project_conv.weight, b.project_conv.weight) for a, b in pairs]
    assert stayed == [True] * 3 + [False] * 8


def test_a_run_goes_on_where_it_stopped(run):
    trainer, _ = run
    resumed = BoxRefinerTrainer(trainer.folder, SETTINGS, "dimp_lite")
    assert resumed.step == trainer.step == 8
    for key, value in trainer.average.items():
        assert torch.equal(resumed.average[key], value), key
    first = resumed.optimizer.state_dict()["state"][0]["exp_avg"]
    assert torch.equal(first, trainer.optimizer.state_dict()["state"][0]["exp_avg"])
    assert (trainer.folder / "checkpoint.pt").stat().st_size < 25e6


def test_a_run_goes_on_only_with_the_weights_that_it_began_with(run, tmp_path, capsys):
    trainer, _ = run
    export(trainer, "dimp_lite", other := tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match="did not begin with --start"):
        BoxRefinerTrainer(trainer.folder, SETTINGS, str(other))
    command = ["--folder", str(trainer.folder), "--clips", str(tmp_path / "clips")]
    (tmp_path / "clips").mkdir()
    with pytest.raises(SystemExit):
        box_refiner.main([*command, "--start", str(other)])
    assert "did not begin with --start" in capsys.readouterr().err.splitlines()[-1]
    assert box_refiner.main([*command, "--start", str(other), "--export", str(tmp_path / "out.safetensors")]) == 0
    (same := tmp_path / "same.safetensors").write_bytes(find_weights("dimp_lite").read_bytes())
    for start in (str(same), None):
        assert BoxRefinerTrainer(trainer.folder, SETTINGS, start).step == trainer.step
    (earlier := tmp_path / "earlier").mkdir()
    state = read_state(trainer.folder / "checkpoint.pt")
    del state["start"]
    torch.save(state, earlier / "checkpoint.pt")
    assert BoxRefinerTrainer(earlier, SETTINGS, str(other)).step == trainer.step


def test_the_export_is_a_model_with_a_refiner(run, tmp_path):
    trainer, _ = run
    export(trainer, "dimp_lite", tmp_path / "with.safetensors")
    net, info = load_model(str(tmp_path / "with.safetensors"))
    base, base_info = load_model("dimp_lite")
    assert net.box_refiner is not None
    torch.testing.assert_close(net.box_refiner.place, trainer.average["place"].half().float())
    assert info.tracker == base_info.tracker and not info.confidence_knots  # to be fitted anew
    assert torch.equal(net.bb_regressor.iou_predictor.weight, base.bb_regressor.iou_predictor.weight)


@pytest.mark.parametrize("module", [box_refiner, point_boxes])
def test_a_run_begins_in_a_folder_that_is_not_there_yet(module, tmp_path, monkeypatch):
    ran = []
    monkeypatch.setattr(module, "run", lambda *arguments: ran.append(arguments))
    (tmp_path / "clips").mkdir()
    assert module.main(["--folder", str(tmp_path / "new" / "run"), "--clips", str(tmp_path / "clips")]) == 0
    assert ran


def test_a_damaged_image_ends_a_run_with_its_checkpoint(tmp_path):
    class Damaged:
        def batch(self, count):
            raise ValueError("frames.bin: image 3 is damaged")

    trainer = BoxRefinerTrainer(tmp_path / "run", SETTINGS)
    trainer.train(batch(0))
    with pytest.raises(ValueError, match="image 3"):
        next(saved_on_error(trainer, trainer.examples(prefetched(Damaged(), 2))))
    assert (tmp_path / "run" / "checkpoint.pt").is_file()


def test_a_run_without_a_step_leaves_no_checkpoint(tmp_path, capsys):
    trainer = BoxRefinerTrainer(tmp_path / "run", SETTINGS)
    trainer.save()
    assert not list((tmp_path / "run").iterdir())
    with pytest.raises(ValueError, match="has taken no step yet; train it"):
        trainer.averaged()
    options = ["--folder", str(tmp_path / "run"), "--clips", str(tmp_path / "clips")]
    with pytest.raises(SystemExit):
        box_refiner.main([*options, "--export", str(tmp_path / "o.safetensors")])
    assert "has taken no step yet" in capsys.readouterr().err and not (tmp_path / "o.safetensors").exists()


def test_the_log_of_a_run_leaves_a_hard_link_alone(run, tmp_path):
    trainer, _ = run
    trainer.log(loss=1)
    os.link(trainer.folder / "log.jsonl", tmp_path / "backup")
    trainer.log(loss=2)
    assert len((tmp_path / "backup").read_text().splitlines()) == 1
    assert len((trainer.folder / "log.jsonl").read_text().splitlines()) == 2


@pytest.mark.parametrize("of", ["RunLog", "BoxRefinerTrainer"])
def test_the_log_of_a_run_goes_on_below_a_line_that_was_cut_off(tmp_path, of):
    (tmp_path / "log.jsonl").write_text('{"step": 50, "loss": 1}\n{"step": 100, "lo')
    if of == "RunLog":
        RunLog(tmp_path, 0).scalars(60, {"loss": 2}, "held_out")
    else:
        trainer = BoxRefinerTrainer.__new__(BoxRefinerTrainer)
        trainer.folder, trainer.step = tmp_path, 60
        trainer.log(loss=2)
    lines = (tmp_path / "log.jsonl").read_text().splitlines()
    assert lines[1] == '{"step": 100, "lo' and json.loads(lines[2])["step"] == 60
    tool = [sys.executable, str(ROOT / "tools" / "plot_training.py"), str(tmp_path / "o.png")]
    assert subprocess.run([*tool, f"run={tmp_path / 'log.jsonl'}"], check=False).returncode == 0


def test_drawing_ahead_ends_with_its_batches():
    class Sampler:
        def batch(self, count):
            return count

    before = threading.active_count()
    batches = prefetched(Sampler(), 3)
    assert [next(batches) for _ in range(9)] == [3] * 9 and threading.active_count() == before + 1
    batches.close()
    assert threading.active_count() == before
