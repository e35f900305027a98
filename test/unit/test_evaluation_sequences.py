# SPDX-License-Identifier: Apache-2.0
"""Loading annotated sequences from disk."""

import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from dimp_ros.datasets.video import read_boxes
from dimp_ros.evaluation.layouts.registry import load_sequences


def make_sequence(folder: Path, lines: list[str], suffix: str = ".png", images: int | None = None) -> Path:
    (folder / "img").mkdir(parents=True)
    for index in range(len(lines) if images is None else images):
        cv2.imwrite(str(folder / "img" / f"{index + 1:08d}{suffix}"), np.full((8, 12, 3), 10 * index, np.uint8))
    (folder / "groundtruth.txt").write_text("\n".join(lines) + "\n")
    return folder


@pytest.mark.parametrize("suffix", [".png", ".webp", ".jpg"])
def test_a_sequence_has_images_in_order_and_a_box_for_each(tmp_path: Path, suffix: str) -> None:
    folder = make_sequence(tmp_path / "car", ["1,2,3,4"] * 11, suffix)
    (folder / "meta.json").write_text('{"dataset": "made here"}')
    (folder / "img" / "notes.txt").write_text("not an image")

    (sequence,) = load_sequences(tmp_path)

    assert (sequence.name, len(sequence), sequence.meta) == ("car", 11, {"dataset": "made here"})
    assert sequence.init_box == (1, 2, 3, 4)
    means = [float(sequence.image(index).mean()) for index in range(11)]
    assert means == pytest.approx([10 * index for index in range(11)], abs=2)
    assert sequence.image(0).shape == (8, 12, 3)


def test_a_line_with_nan_means_that_the_target_is_absent(tmp_path: Path) -> None:
    make_sequence(tmp_path / "s", ["1.5,2,3,4", "nan,nan,nan,nan", "1,NaN,3,4", "5\t6\t7\t8", "5 6 7 8"])

    boxes = load_sequences(tmp_path)[0].boxes

    assert np.isnan(boxes).all(axis=1).tolist() == [False, True, True, False, False]
    assert boxes[[0, 3, 4]].tolist() == [[1.5, 2, 3, 4], [5, 6, 7, 8], [5, 6, 7, 8]]


def test_sequences_come_by_name_or_in_the_order_asked_for(tmp_path: Path) -> None:
    for name in ("b", "a", "c"):
        make_sequence(tmp_path / name, ["1,2,3,4"])
    (tmp_path / "README.md").write_text("a file beside the sequences")

    assert [sequence.name for sequence in load_sequences(tmp_path)] == ["a", "b", "c"]
    assert [sequence.name for sequence in load_sequences(tmp_path, ["c", "a"])] == ["c", "a"]
    assert [sequence.name for sequence in load_sequences(tmp_path / "b")] == ["b"]
    with pytest.raises(ValueError, match=r"no sequence nope.*a, b, c"):
        load_sequences(tmp_path, ["nope"])


def test_sequence_without_first_box_is_refused(tmp_path: Path) -> None:
    make_sequence(tmp_path / "short" / "s", ["1,2,3,4"] * 3, images=2)
    make_sequence(tmp_path / "absent" / "s", ["nan,nan,nan,nan", "1,2,3,4"])
    make_sequence(tmp_path / "empty" / "s", ["1,2,0,4"])
    (tmp_path / "nothing").mkdir()

    with pytest.raises(ValueError, match="2 images need boxes of shape"):
        load_sequences(tmp_path / "short")
    for case in ("absent", "empty"):
        with pytest.raises(ValueError, match="first frame must exist and have a box"):
            load_sequences(tmp_path / case)
    with pytest.raises(ValueError, match="no sequence in"):
        load_sequences(tmp_path / "nothing")
    with pytest.raises(ValueError, match="no folder"):
        load_sequences(tmp_path / "not_there")


def test_a_damaged_file_is_named_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "groundtruth.txt"
    for text, reason in (("1,2,3,4\n1,2,three,4\n", "expected x,y,w,h.*three"), ("1,2,3\n", "line 1: expected 4")):
        path.write_text(text)
        with pytest.raises(ValueError, match=reason):
            read_boxes(path)
    sequence = load_sequences(make_sequence(tmp_path / "s", ["1,2,3,4"]))[0]
    sequence.frames[0].write_bytes(b"not an image")
    with pytest.raises(ValueError, match="cannot read the image"):
        sequence.image(0)


def test_importing_the_evaluation_loads_neither_torch_nor_ros() -> None:
    code = "import sys, dimp_ros.evaluation.cli, dimp_ros.apps.track.cli; print({'torch', 'rclpy'} & set(sys.modules))"

    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert result.stdout.strip() == "set()"
