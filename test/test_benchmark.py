# SPDX-License-Identifier: Apache-2.0
"""The benchmark: its yardstick computes what the tracker does, its figures are right, and a guard on speed."""

from __future__ import annotations

import json
import math
import time

import numpy as np
import pytest
import torch

from dimp_ros.benchmark import cli
from dimp_ros.benchmark.agreement import Agreement, agreement
from dimp_ros.benchmark.ceilings import Ceilings, measure_ceilings, shortest
from dimp_ros.benchmark.contest import Plan, Timing, ratio, run
from dimp_ros.benchmark.contestants import ModelChoice, Naive, Ours, Step
from dimp_ros.benchmark.counts import StageWork, Work, stage_work
from dimp_ros.benchmark.footage import FolderFootage, MadeFootage
from dimp_ros.benchmark.naive import NaiveTracker, cut, float_frame
from dimp_ros.benchmark.naive_net import NaiveNet
from dimp_ros.benchmark.report import goals
from dimp_ros.geometry import Box
from dimp_ros.model.checkpoint import WEIGHTS_DIRECTORY
from dimp_ros.model.dimp import build_model
from dimp_ros.model.iou_net import overlap_and_gradient
from dimp_ros.tracker import DimpTracker, TrackerConfig
from dimp_ros.tracker.crop import SearchWindow, crop
from dimp_ros.tracker.localize import Outcome

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


# The yardstick


@pytest.mark.parametrize("name", ["dimp_lite", "dimp18", "dimp50"])
@torch.no_grad()
def test_the_yardsticks_networks_are_those_of_the_model(name):
    torch.manual_seed(0)
    net = build_model(name).eval()
    for module in net.modules():  # statistics of an untrained batch norm would hide a mistake in it
        if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
            module.running_mean.uniform_(-0.1, 0.1)
            module.running_var.uniform_(0.8, 1.2)
    naive = NaiveNet(net.state_dict(), name, CPU)
    images, boxes = torch.rand(2, 3, 96, 96) * 255, torch.tensor([[20.0, 30.0, 40.0, 30.0], [33.3, 21.0, 25.0, 41.5]])
    backbone, plain = net.extract(images), naive.backbone(images)
    for ours, theirs in zip(backbone, plain, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-4)
    features = net.classifier.features(backbone.stride16)
    torch.testing.assert_close(features, naive.classification_features(plain[1]), rtol=1e-3, atol=1e-5)
    first = net.classifier.filter_initializer(features[None], boxes[None])
    torch.testing.assert_close(first, naive.initial_filter(features, boxes), rtol=1e-3, atol=1e-5)
    gamma = torch.tensor([0.3, 0.7])
    learned = net.classifier.filter_optimizer(first, features[None], boxes[None], gamma[None], steps=3)[-1]
    torch.testing.assert_close(learned, naive.optimize(first, features, boxes, gamma, 3), rtol=1e-3, atol=1e-5)
    one = type(backbone)(*(maps[:1] for maps in backbone))
    modulation = net.bb_regressor.modulation(one, boxes[:1])
    others = naive.modulation(tuple(one), boxes[:1])
    for ours, theirs in zip(modulation, others, strict=True):
        torch.testing.assert_close(ours, theirs.flatten(1), rtol=1e-3, atol=1e-4)
    overlaps, _ = overlap_and_gradient(net.bb_regressor, modulation, net.bb_regressor.features(one), boxes[None])
    theirs = naive.overlap(others, naive.overlap_features(tuple(one)), boxes)
    torch.testing.assert_close(overlaps[0], theirs, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    ("window", "within"),
    [(SearchWindow(40, 30, 150, 96), 0.5), (SearchWindow(-30, 60, 96, 96), 0.5), (SearchWindow(40, 30, 200, 96), 3.0)],
)
def test_the_yardsticks_windows_show_what_the_trackers_do(window, within):
    image = MadeFootage((320, 240)).frame(0)
    expected = crop(image, window)[..., ::-1].astype(np.float32)
    got = cut(float_frame(image, CPU), window)[0].permute(1, 2, 0).numpy()
    assert np.abs(got - expected).mean() < within, "grey levels; more where pixels are averaged, over other areas"


@shipped
def test_the_yardstick_gives_the_trackers_boxes():
    footage, config = MadeFootage(), TrackerConfig.deterministic(update_interval=3)
    tracker, naive = DimpTracker(device="cpu", config=config), NaiveTracker("dimp_lite", CPU, config)
    box = footage.boxes(0, 1)[0]
    tracker.init(footage.frame(0), box)
    naive.init(footage.frame(0), box)
    for number in range(1, 8):
        image = footage.frame(number)
        ours, theirs = tracker.update(image), naive.update(image)
        assert theirs.outcome in (Outcome.NORMAL, Outcome.HARD_NEGATIVE)
        # The yardstick's window lies on whole pixels, which shifts what the network sees.
        assert np.abs(np.subtract(ours.last_box, theirs.box)).max() < 2.0
        assert abs(ours.peak - theirs.scores.max()) < 0.1
    filters = tracker.inspect().next_filter, naive.filter[0]
    assert torch.nn.functional.cosine_similarity(*(f.flatten() for f in filters), dim=0) > 0.99


@shipped
def test_guard_the_tracker_is_faster_than_the_yardstick():
    choice = ModelChoice.find("dimp_lite", "cpu")
    ours, naive = run(
        [Ours(choice, 1), Naive(choice)], MadeFootage(), Plan(repeats=3, frames=4, block=4, warm=2, inits=1)
    )
    assert ours.followed == naive.followed == 1.0, "a lost target is other work"
    found = ratio(naive, ours)
    assert found.value > GUARD, f"the yardstick takes {found.value:.2f} times as long; it was more than {GUARD}"


GUARD = 1.5
"""How many times as long the yardstick takes at least; with one thread on a busy machine 2.0 to 2.25 were measured."""

# Counts and ceilings


def test_the_work_of_a_stage_is_that_of_its_layers():
    work = stage_work("dimp18", TrackerConfig(crop_size=288), targets=1, itemsize=4)
    # ResNet-18 has 1.814 G multiplications at 224 x 224, of which layer4 has 0.411
    assert work["backbone"].flops / 1e9 == pytest.approx(2 * (1.814 - 0.411) * (288 / 224) ** 2, rel=0.02)
    assert work["classify"].flops > 2 * 9 * 256 * 256 * 18 * 18 * 3  # three 3x3 convolutions of 256 channels
    assert work["upload"].upload == 288 * 288 * 3


def test_twice_the_targets_are_twice_the_operations_but_not_twice_the_weights():
    one, two = (stage_work("dimp_lite", TrackerConfig(), targets=n) for n in (1, 2))
    for stage in ("backbone", "classify", "refine", "optimize"):
        assert two[stage].flops == pytest.approx(2 * one[stage].flops)
    assert one["backbone"].bytes < two["backbone"].bytes < 2 * one["backbone"].bytes


def test_half_the_bytes_of_a_number_are_half_the_bytes_moved():
    full, half = (stage_work("dimp_lite", TrackerConfig(), itemsize=n)["backbone"] for n in (4, 2))
    assert half.bytes == full.bytes / 2 and half.flops == full.flops


def test_the_floor_of_an_operation_is_the_ceiling_it_meets_first():
    ceilings = Ceilings(flops=100.0, bandwidth=10.0, upload=5.0)
    assert StageWork([Work(200.0, 1.0)]).floor(ceilings) == 2.0
    assert StageWork([Work(200.0, 40.0), Work(100.0, 0.0)]).floor(ceilings) == 5.0
    assert StageWork([], upload=10.0).floor(ceilings) == 2.0
    assert StageWork([], upload=10.0).floor(ceilings._replace(upload=math.inf)) == 0.0


def test_ceilings_are_measured_and_the_better_one_counts():
    found = measure_ceilings(CPU, torch.float32, seconds=0.02)
    assert found.flops > 1e8 and found.bandwidth > 1e8 and found.upload == math.inf
    assert found.best(Ceilings(1.0, 1e20, 1.0)) == Ceilings(found.flops, 1e20, math.inf)
    with pytest.raises(ValueError, match="seconds is 0"):
        measure_ceilings(CPU, torch.float32, seconds=0)


def test_the_shortest_time_is_of_one_call_however_short_that_is():
    calls = []
    assert 0 < shortest(lambda: calls.append(1), CPU, 0.01) < 1e-4
    assert len(calls) > 100


# Contests


class Runner:
    """Takes as long as told, and notes which frames it was shown."""

    targets = 1

    def __init__(self, name, seconds, shown):
        self.name, self.seconds, self.shown = name, seconds, shown

    def start(self, footage, number):
        """Note it."""
        self.shown.append((self.name, "start"))

    def step(self, image):
        """Sleep; every other frame is a success."""
        time.sleep(self.seconds)
        self.shown.append((self.name, int(image[0, 0, 0])))
        return Step({"sleep": self.seconds * 1e3}, int(image[0, 0, 0]) % 2 == 0)


class Numbered:
    """Frames that are their numbers."""

    size = (320, 240)

    def frame(self, number):
        """Return a frame."""
        return np.full((2, 2, 3), number, np.uint8)

    def boxes(self, number, count):
        """Return nothing."""
        return []


def test_contestants_see_the_same_frames_by_turns_and_ratios_are_of_medians():
    shown = []
    fast, slow = run(
        [Runner("fast", 0.002, shown), Runner("slow", 0.01, shown)],
        Numbered(),
        Plan(2, frames=4, block=2, warm=1, inits=2),
    )
    assert 3.0 < ratio(slow, fast).value < 5.5
    assert ratio(slow, fast).least <= ratio(slow, fast).value <= ratio(slow, fast).most
    assert [len(each) for each in fast.frames] == [4, 4] and len(fast.inits) == 2 and len(fast.stages["sleep"]) == 8
    assert fast.followed == slow.followed == 0.5
    assert [n for name, n in shown if name == "fast"] == [n for name, n in shown if name == "slow"]
    assert shown[6:12] == [("fast", 2), ("fast", 3), ("slow", 2), ("slow", 3), ("slow", 4), ("slow", 5)]


def test_a_ratio_tells_how_far_the_repeats_are_apart():
    slow, fast = Timing("slow", [[10.0, 10.0], [30.0, 30.0]]), Timing("fast", [[5.0, 5.0], [10.0, 10.0]])
    assert ratio(slow, fast) == (20.0 / 7.5, 2.0, 3.0)


@pytest.mark.parametrize("plan", [Plan(frames=10, block=8), Plan(repeats=0), Plan(inits=-1)])
def test_a_plan_that_cannot_be_run_is_refused(plan):
    with pytest.raises(ValueError, match="cannot be run"):
        run([], Numbered(), plan)


# Footage


@pytest.mark.parametrize("size", [(320, 240), (640, 480), (1920, 1080)])
def test_patches_stay_apart_and_inside_and_look_the_same_in_each_frame(size):
    footage = MadeFootage(size, side=40)
    for number in (0, 17, 59, 1000):
        boxes, image = footage.boxes(number, 8), footage.frame(number)
        assert image.shape == (size[1], size[0], 3)
        for n, box in enumerate(boxes):
            assert box.x >= 0 and box.y >= 0 and box.x + box.w <= size[0] and box.y + box.h <= size[1]
            for other in boxes[:n]:
                assert abs(box.x - other.x) >= box.w or abs(box.y - other.y) >= box.h
            x, y, w, h = map(int, box)
            first = footage.boxes(0, 8)[n]
            expected = footage.frame(0)[int(first.y) : int(first.y) + h, int(first.x) : int(first.x) + w]
            np.testing.assert_array_equal(image[y : y + h, x : x + w], expected)
    with pytest.raises(ValueError, match="count is 9"):
        footage.boxes(0, 9)


def test_a_folders_pictures_are_shown_there_and_back_again(tmp_path):
    import cv2

    for n in range(3):
        cv2.imwrite(str(tmp_path / f"{n}.png"), np.full((40, 60, 3), 10 * n, np.uint8))
    footage = FolderFootage(tmp_path, Box(10, 10, 20, 20))
    assert [int(footage.frame(n)[0, 0, 0]) for n in range(6)] == [0, 10, 20, 10, 0, 10]
    assert footage.size == (60, 40) and footage.boxes(0, 2) == [Box(10, 10, 20, 20)] * 2
    with pytest.raises(ValueError, match="inside"):
        FolderFootage(tmp_path, Box(100, 100, 20, 20))
    (tmp_path / "none").mkdir()
    with pytest.raises(ValueError, match="no pictures"):
        FolderFootage(tmp_path / "none", Box(10, 10, 20, 20))


# Agreement, report, command line


@shipped
def test_a_precision_is_compared_with_the_cpu_in_float32():
    footage = MadeFootage((320, 240), side=40)
    choice = ModelChoice("dimp_lite", CPU)
    assert agreement(choice, footage, frames=1) == Agreement(0.0, 0.0)
    other = agreement(choice._replace(precision="bfloat16"), footage, frames=2)
    assert 0 < other.scores < 0.2 and other.boxes > 0
    assert Agreement(0.019, 0.49).good and not Agreement(0.021, 0.1).good and not Agreement(0.001, 0.6).good


def test_what_is_wanted_is_judged_by_what_was_measured():
    row = {
        "size": "640x480",
        "model": "dimp_lite",
        "name": "dimp_lite, 1 target",
        "device": "cpu",
        "precision": "float32",
        "targets": 1,
        "naive_over_it": {"value": 3.1},
        "times_csrt": {"value": 1.1},
        "median_ms": 15.0,
        "init_ms": 600.0,
    }
    second = row | {"targets": 2, "further_target": 0.61}
    result = {"rows": [row, second, row | {"size": "1280x720"}], "agreement": [{"model": "x", "device": "cuda"}]}
    result["agreement"][0] |= {"scores": 0.01, "boxes": 0.2, "good": True}
    assert [goal.met for goal in goals(result)] == [True, False, True, False, False, True]


@shipped
def test_the_command_line_writes_figures_and_tables(tmp_path, capsys):
    arguments = ["--sizes", "320x240", "--targets", "1,2", "--against", "kcf", "--quick"]
    assert cli.main([*arguments, "--out", str(tmp_path)]) == 0
    result = json.loads((tmp_path / "bench.json").read_text())
    assert [row["name"] for row in result["rows"]] == [
        "dimp_lite, 1 target",
        "dimp_lite, 2 targets",
        "naive dimp_lite",
        "kcf",
    ]
    single, double = result["rows"][:2]
    assert single["naive_over_it"]["value"] > 0 and -1 < double["further_target"] < 2
    assert {"crop", "backbone", "classify", "refine", "optimize"} <= single["stages"].keys()
    assert single["stages"]["backbone"]["times_floor"] > 0.5
    tables = capsys.readouterr().out
    assert tables == (tmp_path / "bench.md").read_text() and "naive's time / its" in tables


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
def test_arguments_that_nothing_can_be_made_of_are_refused(arguments, message, capsys, tmp_path):
    assert cli.main([*arguments, "--out", str(tmp_path)]) == 2
    assert message in capsys.readouterr().err
