# SPDX-License-Identifier: Apache-2.0
"""Programs for training and for the documentation write onto none of their inputs, however they are named."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from dimp_ros.training import box_refiner
from dimp_ros.training.frame_store import DATA, INDEX, build_frame_store

TOOLS = Path(__file__).parents[2] / "tools"


def _hard_link(path: Path) -> Path:
    link = path.with_name(f"hard{path.suffix}")
    os.link(path, link)
    return link


def _through_linked_folder(path: Path) -> Path:
    (path.parent / "folder").symlink_to(path.parent)
    return path.parent / "folder" / ".." / path.parent.name / path.name


NAMES: list[Callable[[Path], Path]] = [lambda path: path, _hard_link, _through_linked_folder]
names = pytest.mark.parametrize("name", NAMES)


def _given(folder: Path, name: str) -> Path:
    path = folder / name
    path.write_text("before")
    return path


@names
def test_refiner_is_not_exported_onto_its_base(
    tmp_path: Path, name: Callable[[Path], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    weights = _given(tmp_path, "base.safetensors")
    run = ["--folder", str(tmp_path / "run"), "--clips", str(tmp_path / "clips"), "--start", str(weights)]
    with pytest.raises(SystemExit):
        box_refiner.main([*run, "--export", str(name(weights))])
    assert "would overwrite --start" in capsys.readouterr().err and weights.read_text() == "before"


@names
@pytest.mark.parametrize(("tool", "suffix"), [("plot_training.py", ".png"), ("contact_sheet.py", ".jpg")])
def test_tool_does_not_overwrite_what_it_reads(
    tmp_path: Path, tool: str, suffix: str, name: Callable[[Path], Path]
) -> None:
    source = _given(tmp_path, f"source{suffix}")
    other = name(source)
    paths = [str(other), f"run={source}"] if tool == "plot_training.py" else [str(source), str(other)]
    done = subprocess.run([sys.executable, str(TOOLS / tool), *paths], capture_output=True, text=True, check=False)
    assert done.returncode and "would overwrite" in done.stderr and source.read_text() == "before"


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_weights_that_cannot_be_written_are_reported(tmp_path: Path, suffix: str) -> None:
    path = _given(tmp_path, f"weights{suffix}")
    limited = "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000)); "
    limited += "from dimp_ros.model.checkpoints.convert_cli import main; sys.exit(main(sys.argv[1:]))"
    command = [sys.executable, "-c", limited, "dimp_lite", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and "could not be written" in done.stderr
    assert os.listdir(tmp_path) == [path.name] and path.read_text() == "before"


def test_interrupted_frame_store_is_not_taken_for_the_old_one(tmp_path: Path) -> None:
    class Broken:
        def summary(self) -> str:
            return "other data"

        def stills(self) -> list[object]:
            raise KeyboardInterrupt

        clips = stills

    (tmp_path / INDEX).write_text(json.dumps({"summary": "data", "offsets": [0, 6], "videos": []}))
    (tmp_path / DATA).write_text("before")
    with pytest.raises(KeyboardInterrupt):
        build_frame_store(tmp_path, [Broken()])  # type: ignore[list-item]
    assert not (tmp_path / INDEX).exists()
