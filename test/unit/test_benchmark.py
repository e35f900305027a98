# SPDX-License-Identifier: Apache-2.0
"""The benchmark: the baseline computes what the tracker does, tables show the measured values; a guard on speed."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from benchmark import cli
from benchmark.baseline import BaselineTracker, cut, float_frame
from benchmark.candidates import Baseline, DimpCandidate, ModelChoice
from benchmark.consistency import Consistency, consistency
from benchmark.report import acceptance_criteria
from benchmark.run import Scope, measure
from benchmark.sequences import SyntheticVideo
from benchmark.timing import Plan, ratio, run

from dimp_ros.model.checkpoints.weights_file import WEIGHTS_DIRECTORY
from dimp_ros.tracker import DimpTracker, TrackerConfig
from dimp_ros.tracker.crop import SearchWindow, crop
from dimp_ros.tracker.localization import Outcome

CPU = torch.device("cpu")
shipped = pytest.mark.skipif(
    not (WEIGHTS_DIRECTORY / "dimp_lite.safetensors").is_file(), reason="no dimp_lite weights are shipped"
)


@pytest.fixture(autouse=True)
def one_thread():
    """Compute with one thread: on a busy machine two wait for each other, and nothing that is timed holds still."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


# The baseline


@pytest.mark.parametrize(
    ("window", "within"),
    [(SearchWindow(40, 30, 150, 96), 0.5), (SearchWindow(-30, 60, 96, 96), 0.5), (SearchWindow(40, 30, 200, 96), 3.0)],
)
def test_baseline_crops_are_those_of_the_tracker(window, within):
    image = SyntheticVideo((320, 240)).frame(0)
    expected = crop(image, window)[..., ::-1].astype(np.float32)
    got = cut(float_frame(image, CPU), window)[0].permute(1, 2, 0).numpy()
    assert np.abs(got - expected).mean() < within, "grey levels; more where pixels are averaged, over other areas"


@shipped
def test_baseline_boxes_are_those_of_the_tracker():
    video, config = SyntheticVideo(), TrackerConfig.deterministic(update_interval=3, closer_looks=0)
    tracker, baseline = DimpTracker(device="cpu", config=config), BaselineTracker("dimp_lite", CPU, config)
    box = video.boxes(0, 1)[0]
    tracker.init(video.frame(0), box)
    baseline.init(video.frame(0), box)
    for number in range(1, 8):
        image = video.frame(number)
        ours, theirs = tracker.update(image), baseline.update(image)
        assert theirs.outcome in (Outcome.NORMAL, Outcome.HARD_NEGATIVE)
        # The baseline's window lies on whole pixels, which shifts what the network sees.
        assert np.abs(np.subtract(ours.last_box, theirs.box)).max() < 2.0
        assert abs(ours.peak - theirs.scores.max()) < 0.1
    filters = torch.from_numpy(tracker.inspect().next_filter), baseline.filter[0]
    assert torch.nn.functional.cosine_similarity(*(f.flatten() for f in filters), dim=0) > 0.99


@shipped
def test_tracker_is_faster_than_the_baseline():
    choice = ModelChoice.find("dimp_lite", "cpu")
    ours, baseline = run(
        [DimpCandidate(choice, 1), Baseline(choice)],
        SyntheticVideo(),
        Plan(repeats=3, frames=4, block=4, warm=2, inits=1),
    )
    assert ours.followed == baseline.followed == 1.0, "a lost target is other work"
    found = ratio(baseline, ours, cpu=True)
    assert found.value > GUARD, f"the baseline takes {found.value:.2f} times as long; it was more than {GUARD}"


@shipped
def test_openvino_is_not_slower_than_torch():
    pytest.importorskip("openvino")
    openvino, with_torch = run(
        [DimpCandidate(ModelChoice.find("dimp_lite", "cpu", backend=name), 1) for name in ("openvino", "torch")],
        SyntheticVideo(),
        Plan(repeats=3, frames=4, block=4, warm=2, inits=1),
    )
    assert openvino.followed == with_torch.followed == 1.0, "a lost target is other work"
    found = ratio(openvino, with_torch, cpu=True)
    assert found.value < BACKEND_GUARD, f"OpenVINO takes {found.value:.2f} of torch's time; it was {BACKEND_GUARD}"


GUARD = 1.5
"""How many times as long the baseline takes at least; with one thread on a busy machine 2.0 to 2.25 were measured."""
BACKEND_GUARD = 1.1
"""Share of torch's time that OpenVINO takes at most; 0.62 (AVX2) to 0.72 (AVX-512) were measured with one thread."""

# Consistency, report, command line


@shipped
def test_consistency_compares_a_precision_with_float32():
    video = SyntheticVideo((320, 240), side=40)
    choice = ModelChoice("dimp_lite", CPU)
    assert consistency(choice, video, frames=1) == Consistency(0.0, 0.0)
    other = consistency(choice._replace(precision="bfloat16"), video, frames=2)
    assert 0 < other.scores < 0.2 and other.boxes > 0
    assert Consistency(0.019, 0.49).good and not Consistency(0.021, 0.1).good and not Consistency(0.001, 0.6).good


def test_acceptance_criteria_judge_the_measured_figures():
    row = {
        "size": "640x480",
        "model": "dimp_lite",
        "name": "dimp_lite, 1 target",
        "device": "cpu",
        "precision": "float32",
        "targets": 1,
        "baseline_ratio": {"value": 3.1},
        "times_csrt": {"value": 1.1},
        "median_ms": 15.0,
        "init_ms": 600.0,
    }
    second = row | {"targets": 2, "further_target": 0.61}
    half = row | {"precision": "bfloat16", "baseline_ratio": {"value": 2.9}, "init_ms": 200.0}
    gpu = row | {"device": "cuda", "model": "dimp50", "median_ms": 3.0, "p99_ms": 7.0}
    eight = gpu | {"targets": 8, "median_ms": 8.0}
    large = row | {"size": "1280x720", "times_first_size": {"value": 1.12}}
    rows = [row, second, half, gpu, eight, large, {"size": "640x480", "name": "kcf", "targets": 1}]
    consistency = {"model": "x", "device": "cuda", "scores": 0.01, "boxes": 0.2, "good": True}
    assert [goal.met for goal in acceptance_criteria({"rows": rows, "consistency": [consistency]})] == [
        *(True, False, True, False),  # float32: baseline, CSRT, time, init
        False,  # its second target
        *(False, False, True, True),
        *(True, False, False),  # a GPU's rate, p99, baseline
        True,  # eight targets
        False,  # larger images
        True,
    ]


@shipped
def test_command_line_writes_figures_and_tables(tmp_path, capsys):
    arguments = ["--sizes", "320x240", "--targets", "1,2", "--against", "kcf", "--quick", "--backend", "torch"]
    assert cli.main([*arguments, "--out", str(tmp_path)]) == 0
    result = json.loads((tmp_path / "bench.json").read_text())
    assert [row["name"] for row in result["rows"]] == [
        "dimp_lite, 1 target",
        "dimp_lite, 2 targets",
        "baseline dimp_lite",
        "kcf",
    ]
    single, double = result["rows"][:2]
    assert single["baseline_ratio"]["value"] > 0 and -1 < double["further_target"] < 2
    assert {"crop", "backbone", "classify", "refine", "optimize"} <= single["stages"].keys()
    assert single["stages"]["backbone"]["times_floor"] > 0.5
    tables = capsys.readouterr().out
    assert tables == (tmp_path / "bench.md").read_text() and "baseline's time / its" in tables


def test_image_sizes_are_compared_with_the_first():
    videos = [SyntheticVideo((320, 240)), SyntheticVideo((640, 480), side=40)]
    plan = Plan(repeats=1, frames=2, block=1, warm=1, inits=1)
    rows = measure(Scope([], peers=["kcf", "mil"], plan=plan), videos)["rows"]
    assert [row["size"] for row in rows] == ["320x240"] * 2 + ["640x480@40"] * 2
    for first, row in zip(rows[:2], rows[2:], strict=True):
        assert row["times_first_size"]["value"] == pytest.approx(row["median_ms"] / first["median_ms"])
        assert "times_first_size" not in first


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--targets", "2,4"], "1 must be among them"),
        (["--length", "9"], "multiple of"),
        (["--models", "dimp19"], "dimp19"),
        (["--frames", "nowhere"], "--box"),
        (["--sizes", "64x48"], "at least 320 x 240"),
    ],
)
def test_invalid_arguments_are_refused(arguments, message, capsys, tmp_path):
    assert cli.main([*arguments, "--out", str(tmp_path)]) == 2
    assert message in capsys.readouterr().err
