# SPDX-License-Identifier: Apache-2.0
"""Numbers, splits and models of the programs for training and evaluation: a wrong one is refused in one line."""

import argparse
import json
import math

import pytest

from dimp_ros.evaluation import box_fit, redetection, vot
from dimp_ros.evaluation import cli as evaluation
from dimp_ros.evaluation import point_boxes as evaluated_points
from dimp_ros.evaluation.confidence import calibrate
from dimp_ros.evaluation.confidence import cli as confidence
from dimp_ros.files.arguments import number, whole
from dimp_ros.training import average_weights, box_refiner, point_boxes
from dimp_ros.training import cli as training

COUNTS, LENGTHS, RATES = ["0", "-1", "1.5", "nan", "x", ""], ["-1", "nan", "x"], ["0", "-1", "nan", "inf", "x"]
RUN = ["--folder", "run", "--clips", "clips"]
PROGRAMS = {
    "dimp-train": (training.main, ["c.yaml", "--folder", "run"], {"--steps": COUNTS, "--processes": ["-1", "x"]}),
    "dimp-train for": (training.main, ["c.yaml", "--folder", "run"], {"--minutes": LENGTHS}),
    "box_refiner": (box_refiner.main, RUN, {"--threads": COUNTS, "--learning-rate": RATES}),
    "box_refiner for": (box_refiner.main, RUN, {n: [*LENGTHS, "inf"] for n in ("--minutes", "--cool")}),
    "box_refiner backbone": (box_refiner.main, RUN, {"--backbone-rate": ["-1", "nan", "inf"]}),
    "points": (point_boxes.main, RUN, {"--threads": COUNTS, "--points": COUNTS, "--learning-rate": RATES}),
    "points for": (point_boxes.main, RUN, {n: [*LENGTHS, "inf"] for n in ("--minutes", "--extract-minutes")}),
    "point evaluation": (evaluated_points.main, RUN[2:], {"--points": COUNTS, "--threads": COUNTS}),
    "point threshold": (evaluated_points.main, RUN[2:], {"--threshold": ["-0.1", "2", "nan", "inf", "x"]}),
    "box_fit": (box_fit.main, ["--sequences", "s"], {"--threads": COUNTS}),
    "redetection": (redetection.main, ["--store", "s"], {"--threads": COUNTS, "--number": COUNTS, "--first": ["-1"]}),
    "vot": (vot.main, ["dimp_lite"], {"--threads": COUNTS}),
    "dimp-eval": (evaluation.main, ["--sequences", "s"], {"--threads": COUNTS, "--jobs": COUNTS}),
    "confidence": (confidence.main, ["--sequences", "s", "--out", "o"], {"--jobs": COUNTS}),
    "calibrate": (calibrate.main, ["w.safetensors", "--store", "s"], {"--sequences": [*COUNTS, "4"]}),
}


@pytest.mark.parametrize("program", PROGRAMS)
def test_a_wrong_number_is_one_line(program, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    main, arguments, wrong = PROGRAMS[program]
    for option, values in wrong.items():
        for value in values:
            with pytest.raises(SystemExit, match=r"^2$"):
                main([*arguments, f"{option}={value}"])
            assert f"argument {option}: expected a" in capsys.readouterr().err.splitlines()[-1]
    assert not list(tmp_path.iterdir())


def test_numbers_at_their_bounds_are_read():
    assert (whole()("1"), whole(0)("0"), number()("0"), number(0, 1)("1")) == (1, 0, 0.0, 1.0)
    assert number(most=math.inf)("inf") == math.inf and number(above=True)("1e-9") == 1e-9
    with pytest.raises(argparse.ArgumentTypeError, match="above 0, got '0'"):
        number(above=True)("0")


@pytest.mark.parametrize("part", ["-1=w", "nan=w", "2=w", "0=w", "x=w", "=w", "0.5", "0.5=", ""])
def test_a_wrong_share_is_one_line(part, capsys):
    with pytest.raises(SystemExit, match=r"^2$"):
        average_weights.main(["out.safetensors", "--", part])
    last = capsys.readouterr().err.splitlines()[-1]
    assert "argument SHARE=FILE: expected" in last and "_part" not in last


@pytest.fixture
def clips(tmp_path):
    """Write a listing of one film without a known box."""
    tracks = [{"id": "1", "boxes": [None, None]}]
    line = {"file": "a.mp4", "frames": 2, "width": 64, "height": 48, "split": "val", "tracks": tracks}
    (tmp_path / "clips.jsonl").write_text(json.dumps(line) + "\n")
    (tmp_path / "a.mp4").write_bytes(b"")
    return tmp_path


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--split", "nope"], "--split 'nope' is none of"),
        (["--model", "nope"], "model 'nope' is neither one of"),
        (["--model", "nope.safetensors"], "does not exist"),
        (["--device", "nope"], "device 'nope' is unknown"),
        (["--clips", "nope"], "no clips.jsonl in 'nope'"),
    ],
)
def test_what_points_cannot_be_evaluated_with_is_one_line(clips, capsys, arguments, said):
    assert evaluated_points.main(["--clips", str(clips), *arguments]) == 2
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1


@pytest.mark.parametrize("arguments", [["--sequences", "nope"], ["--sequences", "."]])
def test_sequences_that_cannot_be_measured_on_are_one_line(arguments, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for program in (box_fit, redetection, evaluation):
        assert program.main(arguments) == 2
        assert capsys.readouterr().err.count("\n") == 1


def test_a_wrong_tracker_of_the_toolkit_is_one_line(capsys):
    for wrong in (["nope"], ["dimp:nope.safetensors"], ["dimp_lite", "--set", "nope=1"]):
        assert vot.main(wrong) == 2
        assert capsys.readouterr().err.count("\n") == 1
