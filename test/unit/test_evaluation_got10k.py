# SPDX-License-Identifier: Apache-2.0
"""Result files in GOT-10k's format, and metrics against its official toolkit if installed."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from dimp_ros.evaluation import cli
from dimp_ros.evaluation.got10k import write_got10k
from dimp_ros.evaluation.layouts.registry import load_sequences
from dimp_ros.evaluation.report import summarize
from dimp_ros.evaluation.runner import SequenceResult, pair_file
from dimp_ros.evaluation.sequences import VideoSequence
from dimp_ros.geometry.box import Box

SIZE = (64, 48)


def make_data(root: Path, lengths: dict[str, int], split: str = "val") -> list[VideoSequence]:
    """Write sequences of GOT-10k's layout with random boxes, some of them over the edge, every fifth frame absent."""
    generator = np.random.default_rng(5)
    for name, length in lengths.items():
        folder = root / split / name
        folder.mkdir(parents=True)
        boxes = np.concatenate([generator.uniform(-6, 40, (length, 2)), generator.uniform(6, 30, (length, 2))], axis=1)
        boxes[0] = 10, 10, 20, 20
        cover = np.where(np.arange(length) % 5 == 4, 0, generator.integers(1, 9, length))
        for index in range(length):
            cv2.imwrite(str(folder / f"{index + 1:08d}.jpg"), np.zeros((SIZE[1], SIZE[0], 3), np.uint8))
        np.savetxt(folder / "groundtruth.txt", boxes if split == "val" else boxes[:1], fmt="%.4f", delimiter=",")
        if split == "val":
            np.savetxt(folder / "cover.label", cover, fmt="%d")
            np.savetxt(folder / "absence.label", cover == 0, fmt="%d")
            np.savetxt(folder / "cut_by_image.label", np.zeros(length), fmt="%d")
            (folder / "meta_info.ini").write_text(f"[METAINFO]\nresolution: {SIZE}\n")
    (root / split / "list.txt").write_text("\n".join(lengths))
    return load_sequences(root / split)


def make_results(sequences: list[VideoSequence], tracker: str = "ours") -> list[SequenceResult]:
    """Make tracks that wander off the truth."""
    generator = np.random.default_rng(6)
    results = []
    for sequence in sequences:
        boxes = np.nan_to_num(sequence.boxes, nan=12.0) + generator.normal(0, 3, (len(sequence), 4))
        boxes[:, 2:] = np.maximum(boxes[:, 2:], 2)
        plain = [sequence.init_box] + [Box(*row.round(3)) for row in boxes[1:]]
        found, none = [True] * len(sequence), [None] * len(sequence)
        results.append(
            SequenceResult(tracker, sequence.name, plain, found, none, [8.0] * len(sequence), image_size=SIZE)
        )
    return results


def test_a_track_is_written_in_the_data_sets_own_coordinates(tmp_path: Path) -> None:
    sequences = make_data(tmp_path, {"GOT-10k_Val_000001": 3})
    (result,) = make_results(sequences)
    result.milliseconds.pop()  # it stopped with an error in the last frame

    (folder,) = write_got10k(tmp_path / "out", [result], sequences)

    assert folder == tmp_path / "out" / "ours"
    lines = (folder / "GOT-10k_Val_000001" / "GOT-10k_Val_000001_001.txt").read_text().splitlines()
    assert lines[0] == "10.000,10.000,20.000,20.000" and len(lines) == 3
    assert result.boxes[1].x == pytest.approx(float(lines[1].split(",")[0]) - 1)
    times = (folder / "GOT-10k_Val_000001" / "GOT-10k_Val_000001_time.txt").read_text().split()
    assert times == ["0.00800000", "0.00800000", "0.00000000"]


def test_the_test_split_gives_files_and_no_figures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sequences = make_data(tmp_path / "in", {"GOT-10k_Test_000001": 4}, split="test")
    (result,) = make_results(sequences)
    result = replace(result, images=sequences[0].digest())
    result.save(pair_file(tmp_path / "run", result.tracker, result.sequence))

    arguments = ["--sequences", str(tmp_path / "in" / "test"), "--merge", str(tmp_path / "run")]
    assert cli.main([*arguments, "--out", str(tmp_path / "out")]) == 0

    printed = capsys.readouterr().out
    assert "withheld" in printed and "AUC" not in printed
    assert (tmp_path / "out/GOT-10k/ours/GOT-10k_Test_000001/GOT-10k_Test_000001_001.txt").is_file()
    assert not (tmp_path / "out/results.json").exists()


OFFICIAL = """
import json, sys
import matplotlib
matplotlib.use("Agg")
from got10k.experiments import ExperimentGOT10k
root, results, reports = sys.argv[1:]
report = ExperimentGOT10k(root, subset="val", result_dir=results, report_dir=reports).report(["ours"])
print(json.dumps(report["ours"]["overall"]))
"""


def test_average_overlap_equals_the_official_toolkit(tmp_path: Path) -> None:
    pytest.importorskip("got10k.experiments", reason="the package got10k (with six, which it forgets) is not installed")
    import json

    sequences = make_data(tmp_path, {"GOT-10k_Val_000001": 40, "GOT-10k_Val_000002": 9})
    results = make_results(sequences)
    write_got10k(tmp_path / "results" / "GOT-10k", results, sequences)

    run = subprocess.run(
        [sys.executable, "-c", OFFICIAL, str(tmp_path), str(tmp_path / "results"), str(tmp_path / "reports")],
        capture_output=True,
        text=True,
        check=True,
    )
    official = json.loads(run.stdout.splitlines()[-1])
    (figures,) = summarize(results, sequences)

    assert figures.ao == pytest.approx(official["ao"], abs=1e-6)
    assert figures.sr50 == pytest.approx(official["sr"], abs=1e-9)
    assert figures.average_overlap_success == pytest.approx(official["succ_curve"], abs=1e-9)


def test_success_and_precision_are_the_official_toolkits() -> None:
    metrics = pytest.importorskip("got10k.utils.metrics", reason="the package got10k is not installed")
    from dimp_ros.evaluation.metrics import center_error, overlap

    generator = np.random.default_rng(0)
    truth, predicted = (generator.uniform(2, 60, (500, 4)) for _ in range(2))
    predicted[:250] = truth[:250] + generator.normal(0, 1, (250, 4))

    assert overlap(predicted, truth) == pytest.approx(metrics.rect_iou(predicted.copy(), truth.copy()), abs=1e-9)
    # the toolkit's centre is half a pixel before ours in both boxes
    assert center_error(predicted, truth) == pytest.approx(metrics.center_error(predicted, truth), abs=1e-9)
