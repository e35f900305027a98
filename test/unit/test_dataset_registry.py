# SPDX-License-Identifier: Apache-2.0
"""Data sets listed in configurations, and parts of them."""

import numpy as np
import pytest
import yaml
from test_compact import write_set
from test_dataset_video import write_got10k, write_lasot

from dimp_ros.datasets.base import Clip, DataSet, Still
from dimp_ros.datasets.registry import open_data_set, open_data_sets
from dimp_ros.datasets.subset import Subset


def test_a_configuration_lists_data_sets(tmp_path, monkeypatch):
    write_got10k(tmp_path / "GOT-10k")
    write_lasot(tmp_path / "LaSOT")
    write_set(tmp_path / "stills")
    (tmp_path / "mine.txt").write_text("kite-2\n")
    monkeypatch.setenv("IMAGES", str(tmp_path))
    entries = yaml.safe_load("""
        - {kind: got10k, root: GOT-10k, weight: 2}
        - {kind: lasot, root: $IMAGES/LaSOT, split: mine.txt}
        - {kind: compact, root: stills, weight: 0.5, max_stills: 2}
    """)
    got, lasot, stills = open_data_sets(entries, tmp_path)
    assert (got.weight, lasot.weight, stills.weight) == (2, 1, 0.5)
    assert len(got.data.clips()) == 3
    assert [clip.name for clip in lasot.data.clips()] == ["kite-2"]
    assert len(stills.data.stills()) == 2
    assert got.data.summary() == "GOT-10k: 0 stills, 3 clips of 9 frames, from: GOT-10k"


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"kind": "vot", "root": "x"}, "'vot' are not known; there are: clips, coco, compact"),
        (
            {"kind": "got10k", "root": "x", "parts": [1]},
            "got10k has no option parts; it has: exclude, name, max_stills",
        ),
        ({"kind": "got10k"}, "data set 1 is .*expected a mapping with kind and root"),
        ("got10k", "expected a mapping"),
        ({"kind": "got10k", "root": "x", "weight": 0}, "weight of data set 1 is 0; give a positive number"),
        ({"kind": "compact", "root": "stills", "max_frames": 0}, "max_frames is 0; it must be at least 1"),
    ],
)
def test_a_wrong_entry_is_refused_with_what_is_allowed(tmp_path, entry, message):
    write_set(tmp_path / "stills")
    with pytest.raises(ValueError, match=message):
        open_data_sets([entry], tmp_path)


class Numbers(DataSet):
    """Twelve stills and ten clips of twenty frames, each image of which is its number."""

    name = "numbers"

    def __init__(self):
        self._stills = [Still(str(i), lambda i=i: np.full((2, 2, 3), i, np.uint8), 2, 2) for i in range(12)]
        boxes = np.arange(80.0).reshape(20, 4)
        visible = np.arange(20) / 20
        self._clips = [Clip(str(i), lambda j: np.full((2, 2, 3), j, np.uint8), boxes, visible) for i in range(10)]

    def stills(self):
        """Return twelve."""
        return self._stills

    def clips(self):
        """Return ten."""
        return self._clips


def test_subset_is_evenly_spaced_and_keeps_boxes():
    part = Subset(Numbers(), stills=4, clips=2, frames=5)
    assert [still.name for still in part.stills()] == ["0", "4", "7", "11"]
    assert [clip.name for clip in part.clips()] == ["0", "9"]
    clip = part.clips()[1]
    assert len(clip) == 5
    for i in range(len(clip)):
        number = clip.read(i)[0, 0, 0]
        assert clip.boxes[i, 0] == 4 * number
        assert clip.visible[i] == number / 20
    assert [clip.read(i)[0, 0, 0] for i in (0, 4)] == [0, 19]
    assert len(Subset(Numbers(), stills=0, frames=100).stills()) == 0
    assert len(Subset(Numbers(), frames=100).clips()[0]) == 20


def test_an_option_reaches_the_reader(tmp_path):
    write_got10k(tmp_path / "GOT-10k")
    (tmp_path / "bad.txt").write_text("GOT-10k_Train_000001\n")
    data = open_data_set("got10k", tmp_path / "GOT-10k", exclude=tmp_path / "bad.txt", max_clips=1)
    assert [clip.name for clip in data.clips()] == ["GOT-10k_Train_000002"]
