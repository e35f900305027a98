# SPDX-License-Identifier: Apache-2.0
"""Clips with tracks: for training, and as sequences for dimp-eval."""

import json
import pickle
import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import cv2
import numpy as np
import pytest

from dimp_ros.datasets.clips import ClipsDataSet
from dimp_ros.datasets.film import KEPT_FRAMES, Film
from dimp_ros.datasets.registry import open_data_set
from dimp_ros.evaluation.layouts.registry import load_sequences
from dimp_ros.evaluation.look_alikes import count_wrong, look_alike_table
from dimp_ros.evaluation.report import kind_table, summarize
from dimp_ros.evaluation.runner import SequenceResult, run_sequence
from dimp_ros.evaluation.tracker_api import Prediction

_CAPTURE = cv2.VideoCapture
STEP = 6
"""Brightness of frame i is STEP * i, so that a frame says which one it is, after compression, too."""


def write_film(path, frames, codec="MJPG"):
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*codec), 10, (64, 48))
    assert writer.isOpened()
    for number in range(frames):
        writer.write(np.full((48, 64, 3), STEP * number, np.uint8))
    writer.release()


def number_of(image):
    return round(float(image.mean()) / STEP)


def line(name, tracks, **more):
    return json.dumps(
        {"file": name, "frames": len(tracks[0]["boxes"]), "width": 64, "height": 48, **more, "tracks": tracks}
    )


class SkippingCapture:
    """A decoder that leaves out frame 3, as FFmpeg does with one that it cannot decode, and goes on."""

    def __init__(self, *args):
        self._real, self._count = _CAPTURE(*args), 0

    def grab(self):
        """Decode the next frame."""
        self._count += 1
        return self._real.grab() and (self._count != 4 or self._real.grab())

    def __getattr__(self, name):
        return getattr(self._real, name)


class Standing:
    """A tracker whose target does not move."""

    def init(self, image, box):
        """Take the box."""
        self.box = box

    def update(self, image):
        """Return it."""
        return Prediction(self.box)


def test_film_that_lacks_frames_is_refused(tmp_path, monkeypatch):
    """Its boxes would be those of other frames."""
    write_film(tmp_path / "a.mp4", 8, "mp4v")
    write_film(tmp_path / "b.avi", 8)
    whole = (tmp_path / "b.avi").read_bytes()

    def read(name, frames=8, first=0):
        boxes = [None] * first + [[10, 8, 20, 16]] * (frames - first)
        (tmp_path / "clips.jsonl").write_text(line(name, [{"id": "0", "boxes": boxes}]) + "\n")
        (clip,) = ClipsDataSet(tmp_path, split="").clips()
        (sequence,) = load_sequences(tmp_path)
        result = run_sequence(Standing(), sequence)
        try:
            numbers = [number_of(clip.read(index)) for index in range(frames)]
        except OSError as error:
            assert str(error) in result.error, "dimp-eval says so, too"
            with pytest.raises(OSError, match=re.escape(str(error))):
                clip.read(frames - 1)
            raise
        assert numbers == pytest.approx(list(range(frames)), abs=1) and result.error is None

    read("a.mp4")
    read("b.avi")
    for frames in (7, 9):
        with pytest.raises(OSError, match=f"has 8 frames, and there are boxes for {frames}; fetch"):
            read("a.mp4", frames)
    (tmp_path / "b.avi").write_bytes(whole[:-1500])
    with pytest.raises(OSError, match="is damaged, it was cut off at byte"):
        read("b.avi")
    monkeypatch.setattr(cv2, "VideoCapture", SkippingCapture)
    for first in (0, 5):
        with pytest.raises(OSError, match="after frame 2 comes 4: those between cannot be decoded"):
            read("a.mp4", first=first)


@pytest.fixture
def films(tmp_path):
    write_film(tmp_path / "a.avi", 5)
    write_film(tmp_path / "b.avi", 4)
    box = [10, 8, 20, 16]
    tracks = [
        {"id": "0", "category": "cat", "boxes": [None, box, None, [12, 8, 20, 16], None]},
        {"id": "1", "category": "", "boxes": [[1, 2, 9, 9]] * 5},
        {"id": "2", "boxes": [None] * 5},
    ]
    lines = [
        line("a.avi", tracks, split="val", kind="mask", source="x/y", licence="MIT"),
        line("b.avi", [{"id": "0", "boxes": [box] * 4}], split="train", kind="human"),
    ]
    (tmp_path / "clips.jsonl").write_text("\n".join(lines) + "\n")
    return tmp_path


def test_frames_are_numbered_from_the_first_in_any_order(tmp_path):
    write_film(tmp_path / "film.avi", 40)
    film = Film(tmp_path / "film.avi")
    assert [number_of(film(i)) for i in (0, 1, 5, 39, 38, 3, 39)] == [0, 1, 5, 39, 38, 3, 39]
    later = pickle.loads(pickle.dumps(Film(tmp_path / "film.avi", first=7)))
    assert number_of(later(2)) == 9
    with pytest.raises(OSError, match="frame 40 cannot be decoded; the file ends at frame 40"):
        film(40)
    with pytest.raises(FileNotFoundError, match="no film"):
        Film(tmp_path / "none.avi")(0)


def test_threads_may_share_a_film(tmp_path):
    write_film(tmp_path / "film.avi", 40)
    film = Film(tmp_path / "film.avi")
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(lambda i: number_of(film(i)), range(40))) == list(range(40))
    assert len(film._kept) <= KEPT_FRAMES


def test_each_track_is_a_clip_and_the_others_its_distractors(films):
    data = ClipsDataSet(films, split="val")
    first, second = data.clips()  # the third has no box
    assert (first.name, first.category, first.source, first.licence) == ("a#0", "cat", "x/y", "MIT")
    assert first.visible.tolist() == [0, 1, 0, 1, 0]
    assert np.isnan(first.boxes[[0, 2, 4]]).all()
    assert first.boxes[3].tolist() == [12, 8, 20, 16]
    assert number_of(first.read(3)) == 3
    assert [boxes[0].tolist() for boxes in first.distractors[:1]] == [[1, 2, 9, 9]]
    assert len(first.distractors) == 2
    np.testing.assert_array_equal(second.distractors[0], first.boxes)
    assert data.stills() == ()


def test_training_takes_the_films_of_its_split(films):
    assert [clip.name for clip in open_data_set("clips", films).clips()] == ["b#0"]
    assert len(ClipsDataSet(films, split="", kinds=("mask",)).clips()) == 2
    with pytest.raises(ValueError, match="no film of split 'test'"):
        ClipsDataSet(films, split="test")
    with pytest.raises(FileNotFoundError, match=r"no clips\.jsonl"):
        ClipsDataSet(films / "nowhere")


@pytest.mark.parametrize(
    "damage", ['{"file": "a.avi"}', "[1]", "{", line("a.avi", [{"id": "0", "boxes": [[1, 2, 3]]}])]
)
def test_a_damaged_line_is_named(films, damage):
    with (films / "clips.jsonl").open("a") as file:
        file.write(damage + "\n")
    with pytest.raises(ValueError, match=r"clips\.jsonl, line 3: .*every line needs file"):
        ClipsDataSet(films)


def test_evaluation_takes_val_from_the_first_box_to_the_last(films):
    first, second = load_sequences(films)
    assert first.name == "a#0"
    assert first.meta["kind"] == "mask"
    assert first.init_box == (10, 8, 20, 16)
    assert len(first) == 3
    assert np.isnan(first.boxes[1]).all()
    assert [number_of(first.image(i)) for i in range(3)] == [1, 2, 3]
    assert len(second) == 5


def test_a_sequence_of_a_film_is_run_frame_by_frame(films):
    class Reader:
        """Says which frame it was shown, as the box's x."""

        def init(self, image, box):
            self.first = number_of(image)

        def update(self, image):
            from dimp_ros.geometry.box import Box

            return Prediction(Box(float(number_of(image)), 0.0, 1.0, 1.0))

    result = run_sequence(Reader(), load_sequences(films)[0])
    assert result.error is None
    assert [box.x for box in result.boxes] == [10, 2, 3]


def test_figures_by_kind_are_means_over_films(films):
    sequences = [sequence for sequence in load_sequences(films) if sequence.name == "a#1"]
    other = replace(sequences[0], name="c#0", meta={**sequences[0].meta, "film": "c"})
    sequences += [replace(other, name="c#1"), other]
    hit, miss = [list(sequences[0].boxes[0])] * 5, [[40.0, 40.0, 5.0, 5.0]] * 5
    results = [
        SequenceResult("t", name, boxes, [True] * 5, [None] * 5, [1.0] * 5)
        for name, boxes in (("a#1", hit), ("c#0", miss), ("c#1", miss))
    ]
    rows = kind_table(summarize(results, sequences), sequences).splitlines()
    assert [cell.strip() for cell in rows[2].split("|")[1:6]] == ["mask, t", "2", "3", f"{50 * 20 / 21:.1f}", "50.0"]


def test_frames_on_a_look_alike_are_counted(films):
    own, other = [10, 8, 20, 16], [40, 8, 20, 16]
    tracks = [
        {"id": "0", "category": "cat", "boxes": [own, own, own, None, own]},
        {"id": "1", "category": "cat", "boxes": [None, other, other, other, other]},
        {"id": "2", "category": "dog", "boxes": [other, None, None, None, None]},
    ]
    (films / "clips.jsonl").write_text(line("a.avi", tracks, split="val") + "\n")
    sequences = load_sequences(films)
    assert [sequence.look_alikes.shape for sequence in sequences] == [(2, 5, 4), (2, 4, 4)]
    found = [True, True, False, True, True]
    stray = SequenceResult("t", "a#0", [own, own, other, other, other], found, [None] * 5, [1.0] * 5)
    assert count_wrong(stray, sequences[0]) == (3, 1, 1)
    true = SequenceResult("t", "a#1", [other] * 4, [True] * 4, [None] * 4, [1.0] * 4)
    rows = look_alike_table([stray, true], sequences).splitlines()
    assert [cell.strip() for cell in rows[2].split("|")[1:-1]] == ["t", "2", "6", "16.67", "16.67"]


def test_films_with_one_target_of_a_kind_have_no_look_alikes(films):
    sequences = load_sequences(films)
    assert not any(len(sequence.look_alikes) for sequence in sequences)
    assert look_alike_table([], sequences) == ""
