# SPDX-License-Identifier: Apache-2.0
"""A second run in the folder of one that goes on is refused; an export never replaces a run's own files."""

import os

import pytest

from dimp_ros.files.shared_folder import sole_run
from dimp_ros.training.cli import main
from dimp_ros.training.run_lock import check_export, check_resumable


def test_a_second_run_in_one_folder_is_refused(tmp_path, capsys):
    config, run = tmp_path / "config.yaml", tmp_path / "run"
    config.write_text("model: dimp_lite\n")
    with sole_run(run):
        assert main([str(config), "--images", str(tmp_path / "images"), "--folder", str(run)]) == 2
        assert not list(run.iterdir())
    assert "another run writes into" in capsys.readouterr().err


def test_the_folder_is_free_after_a_run(tmp_path):
    for _ in range(2):
        with sole_run(tmp_path):
            pass
    with pytest.raises(KeyError), sole_run(tmp_path):
        raise KeyError
    with sole_run(tmp_path):
        pass


@pytest.fixture
def run(tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    for name in ("checkpoint.pt", "log.jsonl", "head.pt", "features.bin"):
        (folder / name).write_bytes(b"state")
    return folder


@pytest.mark.parametrize("names", [["weights.safetensors"], ["config.yaml"], ["weights.safetensors", "config.yaml"]])
def test_results_without_their_checkpoint_are_not_replaced(tmp_path, capsys, names):
    config, run = tmp_path / "train.yaml", tmp_path / "run"
    config.write_text("model: dimp_lite\n")
    run.mkdir()
    for name in names:
        (run / name).write_bytes(b"of hours")
    assert main([str(config), "--images", str(tmp_path / "images"), "--folder", str(run), "--steps", "1"]) == 2
    assert {path.name: path.read_bytes() for path in run.iterdir()} == dict.fromkeys(names, b"of hours")
    assert f"has {' and '.join(names)} but no checkpoint.pt" in capsys.readouterr().err


@pytest.mark.parametrize("link", [False, True], ids=["file", "dangling link"])
def test_a_folder_is_resumable_with_its_checkpoint_or_without_results(run, link):
    check_resumable(run, "checkpoint.pt", ("weights.safetensors",))
    (run / "weights.safetensors").symlink_to("gone") if link else (run / "weights.safetensors").write_bytes(b"state")
    check_resumable(run, "checkpoint.pt", ("weights.safetensors",))
    (run / "checkpoint.pt").unlink()
    with pytest.raises(ValueError, match="another --folder"):
        check_resumable(run, "checkpoint.pt", ("weights.safetensors",))


@pytest.mark.parametrize("name", ["checkpoint.pt", "log.jsonl", "head.pt", "features.bin", "weights"])
def test_an_export_has_the_suffix_of_weights(run, name):
    with pytest.raises(ValueError, match=r"\.safetensors"):
        check_export(run / name, run)


@pytest.mark.parametrize("link", [os.link, os.symlink], ids=["hard link", "link"])
@pytest.mark.parametrize("name", ["checkpoint.pt", "features.bin"])
def test_an_export_does_not_replace_a_file_of_its_run(run, tmp_path, link, name):
    link(run / name, tmp_path / "out.safetensors")
    with pytest.raises(ValueError, match="would overwrite"):
        check_export(tmp_path / "out.safetensors", run)
    assert (run / name).read_bytes() == b"state"


def test_an_export_into_the_folder_of_its_run_is_taken(run):
    (run / "weights.safetensors").write_bytes(b"older")
    check_export(run / "weights.safetensors", run, None)
    check_export(None, run)
