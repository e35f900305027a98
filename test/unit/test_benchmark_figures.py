# SPDX-License-Identifier: Apache-2.0
"""Parts of the benchmark: operation counts, roofline, comparisons, test video."""

from __future__ import annotations

import math
import time

import numpy as np
import pytest
import torch
from benchmark.candidates import Step, stages_by_cpu_time
from benchmark.flops import Operation, StageWork, stage_work
from benchmark.roofline import Roofline, measure_roofline, shortest
from benchmark.sequences import ImageFolderVideo, SyntheticVideo
from benchmark.timing import Plan, Timing, ratio, run

from dimp_ros.geometry.box import Box
from dimp_ros.tracker import TrackerConfig
from dimp_ros.tracker.stage_timer import StageTimer

CPU = torch.device("cpu")

# Counts and roofline


def test_the_work_of_a_stage_is_that_of_its_layers():
    work = stage_work("dimp18", TrackerConfig(crop_size=288), targets=1, itemsize=4)
    # ResNet-18 has 1.814 G multiplications at 224 x 224, of which layer4 has 0.411
    assert work["backbone"].flops / 1e9 == pytest.approx(2 * (1.814 - 0.411) * (288 / 224) ** 2, rel=0.02)
    assert work["classify"].flops > 2 * 9 * 256 * 256 * 18 * 18 * 3  # three 3x3 convolutions of 256 channels
    assert work["upload"].upload == 288 * 288 * 3


def test_two_targets_double_operations_but_not_weights():
    one, two = (stage_work("dimp_lite", TrackerConfig(), targets=n) for n in (1, 2))
    for stage in ("backbone", "classify", "refine", "optimize"):
        assert two[stage].flops == pytest.approx(2 * one[stage].flops)
    assert one["backbone"].bytes < two["backbone"].bytes < 2 * one["backbone"].bytes


def test_half_the_bytes_of_a_number_are_half_the_bytes_moved():
    full, half = (stage_work("dimp_lite", TrackerConfig(), itemsize=n)["backbone"] for n in (4, 2))
    assert half.bytes == full.bytes / 2 and half.flops == full.flops


def test_the_floor_of_an_operation_is_the_ceiling_it_meets_first():
    roofline = Roofline(flops=100.0, bandwidth=10.0, upload=5.0)
    assert StageWork([Operation(200.0, 1.0)]).floor(roofline) == 2.0
    assert StageWork([Operation(200.0, 40.0), Operation(100.0, 0.0)]).floor(roofline) == 5.0
    assert StageWork([], upload=10.0).floor(roofline) == 2.0
    assert StageWork([], upload=10.0).floor(roofline._replace(upload=math.inf)) == 0.0


def test_ceilings_are_measured_and_the_better_one_counts():
    found = measure_roofline(CPU, torch.float32, seconds=0.02)
    assert found.flops > 1e8 and found.bandwidth > 1e8 and found.upload == math.inf
    assert found.best(Roofline(1.0, 1e20, 1.0)) == Roofline(found.flops, 1e20, math.inf)
    with pytest.raises(ValueError, match="seconds is 0"):
        measure_roofline(CPU, torch.float32, seconds=0)


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

    def start(self, video, number):
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


def test_candidates_alternate_and_ratios_are_of_medians():
    shown = []
    fast, slow = run(
        [Runner("fast", 0.002, shown), Runner("slow", 0.01, shown)],
        Numbered(),
        Plan(2, frames=4, block=2, warm=1, inits=2),
    )
    assert ratio(slow, fast).value > 1.5, "5 where the machine has nothing else to do"
    assert ratio(slow, fast).least <= ratio(slow, fast).value <= ratio(slow, fast).most
    assert [len(each) for each in fast.frames] == [4, 4] and len(fast.inits) == 2 and len(fast.stages["sleep"]) == 8
    assert fast.followed == slow.followed == 0.5
    assert [n for name, n in shown if name == "fast"] == [n for name, n in shown if name == "slow"]
    assert shown[6:12] == [("fast", 2), ("fast", 3), ("slow", 2), ("slow", 3), ("slow", 4), ("slow", 5)]


def test_a_ratio_tells_how_far_the_repeats_are_apart():
    slow = Timing("slow", [[10.0, 10.0], [30.0, 30.0]], cpu=[[4.0], [4.0]])
    fast = Timing("fast", [[5.0, 5.0], [10.0, 10.0]], cpu=[[1.0], [2.0]])
    assert ratio(slow, fast) == (2.5, 2.0, 3.0)
    assert ratio(slow, fast, cpu=True) == (3.0, 2.0, 4.0)


def test_what_sleeps_takes_time_but_not_of_the_cpu():
    (found,) = run([Runner("sleeper", 0.02, [])], Numbered(), Plan(1, frames=4, block=4, warm=1, inits=1))
    assert found.median >= 20.0 and np.median(found.cpu) < 10.0


@pytest.mark.parametrize("plan", [Plan(frames=10, block=8), Plan(repeats=0), Plan(inits=-1)])
def test_a_plan_that_cannot_be_run_is_refused(plan):
    with pytest.raises(ValueError, match="cannot be run"):
        run([], Numbered(), plan)


def test_stages_can_be_timed_by_cpu_time():
    def stages():
        clock = StageTimer()
        time.sleep(0.03)
        clock.record("sleep")
        return clock.stages["sleep"]

    with stages_by_cpu_time():
        assert stages() < 20
    assert stages() >= 30


# BenchmarkVideo


@pytest.mark.parametrize("size", [(320, 240), (640, 480), (1920, 1080)])
def test_patches_stay_apart_inside_and_unchanged(size):
    video = SyntheticVideo(size, side=40)
    for number in (0, 17, 59, 1000):
        boxes, image = video.boxes(number, 8), video.frame(number)
        assert image.shape == (size[1], size[0], 3)
        for n, box in enumerate(boxes):
            assert box.x >= 0 and box.y >= 0 and box.x + box.w <= size[0] and box.y + box.h <= size[1]
            for other in boxes[:n]:
                assert abs(box.x - other.x) >= box.w or abs(box.y - other.y) >= box.h
            x, y, w, h = map(int, box)
            first = video.boxes(0, 8)[n]
            expected = video.frame(0)[int(first.y) : int(first.y) + h, int(first.x) : int(first.x) + w]
            np.testing.assert_array_equal(image[y : y + h, x : x + w], expected)
    with pytest.raises(ValueError, match="count is 9"):
        video.boxes(0, 9)


def test_a_folders_images_are_shown_forwards_and_backwards(tmp_path):
    import cv2

    for n in range(3):
        cv2.imwrite(str(tmp_path / f"{n}.png"), np.full((40, 60, 3), 10 * n, np.uint8))
    video = ImageFolderVideo(tmp_path, Box(10, 10, 20, 20))
    assert [int(video.frame(n)[0, 0, 0]) for n in range(6)] == [0, 10, 20, 10, 0, 10]
    assert video.size == (60, 40) and video.boxes(0, 2) == [Box(10, 10, 20, 20)] * 2
    with pytest.raises(ValueError, match="inside"):
        ImageFolderVideo(tmp_path, Box(100, 100, 20, 20))
    (tmp_path / "none").mkdir()
    with pytest.raises(ValueError, match="no images"):
        ImageFolderVideo(tmp_path / "none", Box(10, 10, 20, 20))
