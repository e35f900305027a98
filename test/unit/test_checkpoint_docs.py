# SPDX-License-Identifier: Apache-2.0
"""docs/checkpoints.md: its script runs, its table of switches equals the preset, its links exist."""

import re
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from helpers.reference_checkpoint import reference_state

from dimp_ros.tracker.config import DETERMINISTIC, TrackerConfig

PAGE = Path(__file__).resolve().parents[2] / "docs" / "checkpoints.md"
TEXT = PAGE.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def steps(tmp_path_factory):
    """Run the page's script on a checkpoint with random weights; return what it stored and printed."""
    folder = tmp_path_factory.mktemp("docs")
    (code,) = [block for block in re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL) if "sys.argv" in block]
    (folder / "steps.py").write_text(code)
    state = reference_state("dimp18")
    # Over random features the filter falls far short of its label, and nothing would be found: ask for more.
    state["classifier.filter_optimizer.label_map_predictor.weight"].mul_(20)
    torch.save({"net": state}, folder / "dimp18.pth")
    rng = np.random.default_rng(0)
    scene = cv2.resize(rng.integers(0, 255, (15, 20, 3), dtype=np.uint8), (320, 240), interpolation=cv2.INTER_CUBIC)
    cv2.imwrite(str(folder / "1.png"), scene)
    cv2.imwrite(str(folder / "2.png"), np.roll(scene, 2, axis=1))
    command = [sys.executable, "steps.py", "dimp18.pth", "1.png", "2.png", "120,90,60,50", "out.npz"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    with np.load(folder / "out.npz") as stored:
        return dict(stored), done.stdout


def test_the_script_stores_every_step(steps):
    stored, printed = steps
    assert stored["filter iterates"].shape == (11, 256, 4, 4)
    assert stored["first features"].shape == (1, 256, 18, 18)
    assert stored["second scores"].shape == (19, 19)
    assert stored["modulation 8"].shape == stored["modulation 16"].shape == (1, 256)
    assert stored["gradient"].shape == (1, 4) and np.abs(stored["gradient"]).max() > 0
    assert len(stored["sample weights"]) in (13, 14)
    assert all(np.isfinite(value).all() for value in stored.values())
    assert "second scores: [19, 19]" in printed


def test_the_table_of_switches_is_the_preset():
    rows = re.findall(r"^\| `(\w+)`(?:, `(\w+)`)? \| ([^|]*) \| ([^|]*) \|", TEXT, re.MULTILINE)
    named = {}
    for first, second, default, off in rows:
        names = [name for name in (first, second) if name]
        for name, standard, value in zip(names, default.split(","), off.split(","), strict=True):
            assert float(eval(standard, {})) == pytest.approx(getattr(TrackerConfig(), name)), name
            named[name] = float(value)
    assert named == DETERMINISTIC


def test_linked_files_exist():
    links = re.findall(r"\]\((?!https?:)([^)#]+)\)", TEXT)
    assert links and [link for link in links if not (PAGE.parent / link).exists()] == []
