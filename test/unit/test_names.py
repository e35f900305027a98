# SPDX-License-Identifier: Apache-2.0
"""Names from data stay in the folder that they are written into."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dimp_ros.evaluation.got10k import write_got10k
from dimp_ros.evaluation.runner import SequenceResult, pair_file
from dimp_ros.evaluation.sequences import VideoSequence
from dimp_ros.files.names import file_name
from dimp_ros.geometry.box import Box

HOSTILE = ["../../evil", "/tmp/evil", "..", ".", "", "a/b", "a\0b", "a\nb\x1b[2J", "\udc80", "x" * 5000, ".hidden"]


def test_usual_names_are_kept() -> None:
    for name in ("Basketball", "bird1_1", "street.mp4#0", "GOT-10k_Val_000001", "dimp_lite@init_steps=0", "my clip"):
        assert file_name(name) == name


@given(st.text(), st.text())
def test_names_that_differ_stay_apart(first: str, second: str) -> None:
    assert first == second or file_name(first) != file_name(second)


@pytest.mark.parametrize("name", HOSTILE)
def test_results_stay_in_their_folder_whatever_the_names(tmp_path: Path, name: str) -> None:
    out = tmp_path / "out"
    result = SequenceResult(name, name, [Box(1, 1, 4, 4)], [True], [None], [1.0])
    result.save(pair_file(out, result.tracker, result.sequence))
    sequence = VideoSequence(name=name, frames=(Path("1.png"),), boxes=np.array([[1.0, 1, 4, 4]]))
    write_got10k(out / "GOT-10k", [result], [sequence])
    written = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(written) == 3 and all(len(path.relative_to(out).parts) in (3, 4) for path in written)
    assert len(list((out / "pairs").glob("*/*.json"))) == 1 and all(str(path).isprintable() for path in written)
