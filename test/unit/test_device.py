# SPDX-License-Identifier: Apache-2.0
"""Moving a tracker to another device in the middle of a track."""

from __future__ import annotations

import math
import os

import numpy as np
import pytest
import torch

from dimp_ros.tracker import DimpTracker, TrackerConfig
from dimp_ros.tracker.backend_choice import choose_precision
from dimp_ros.tracker.device import Device, choose_device, cpu_quota, default_threads, thread_count

CONFIG = TrackerConfig(not_found_threshold=-1.0)  # random weights: follow whatever scores highest


def frames(count: int) -> list[np.ndarray]:
    rng = np.random.default_rng(1)
    ground = rng.integers(0, 255, (120, 160, 3), dtype=np.uint8)
    return [np.roll(ground, 3 * n, axis=1) for n in range(count)]


def tensors(thing: object, seen: set[int]) -> list[torch.Tensor]:
    """Return the tensors inside of an object, its attributes and theirs."""
    if isinstance(thing, torch.Tensor):
        return [thing]
    if id(thing) in seen or isinstance(thing, (str, int, float, np.ndarray)):
        return []
    seen.add(id(thing))
    if isinstance(thing, (list, tuple)):
        inside = list(thing)
    else:
        inside = list(vars(thing).values()) if hasattr(thing, "__dict__") else []
    return [tensor for one in inside for tensor in tensors(one, seen)]


def test_everything_of_a_target_that_is_computed_with_moves():
    tracker = DimpTracker(weights="random", device="cpu", config=CONFIG)
    first, second = frames(2)
    tracker.init(first, (60, 40, 30, 30))
    tracker.update(second)
    target = tracker._targets["0"]
    found = tensors(target, set())
    assert len(found) >= 5 and all(tensor.device.type == "cpu" for tensor in found)
    target.move(lambda array: array.to("meta"))
    assert {tensor.device.type for tensor in tensors(target, set())} == {"meta"}


def test_a_tracker_that_is_moved_goes_on_where_it_was():
    stayed, moved = (DimpTracker(weights="random", device="cpu", config=CONFIG) for _ in range(2))
    pictures = frames(6)
    for tracker in (stayed, moved):
        tracker.init(pictures[0], (60, 40, 30, 30))
        tracker.update(pictures[1])
    moved.to("cpu")
    for picture in pictures[2:]:
        assert moved.update(picture).box == stayed.update(picture).box
    assert moved.device_bytes() is None, "what a program takes of the CPU's memory is for the system to tell"


def test_missing_device_is_refused_and_nothing_moves():
    tracker = DimpTracker(weights="random", device="cpu", config=CONFIG)
    pictures = frames(2)
    tracker.init(pictures[0], (60, 40, 30, 30))
    with pytest.raises(ValueError, match="tpu"):
        tracker.to("tpu")
    assert tracker.device.type == "cpu" and tracker.update(pictures[1]).box is not None


def test_auto_takes_half_precision_where_supported(monkeypatch):
    cpu, gpu = Device("cpu"), Device("cuda", 1)
    assert str(gpu) == "cuda:1" and choose_precision("auto", gpu) == "float16"
    for has, fuses, expected in ((True, True, "bfloat16"), (False, True, "float32"), (True, False, "float32")):
        monkeypatch.setattr("dimp_ros.tracker.backend_choice.multiplies_bfloat16", lambda has=has: has)
        monkeypatch.setattr("dimp_ros.model.inference.fused_conv.onednn_fuses", lambda _, fuses=fuses: fuses)
        assert choose_precision("auto", cpu) == expected
        assert choose_precision("auto", cpu, "openvino") == ("bfloat16" if has else "float32")
    assert choose_precision("float32", gpu) == "float32"


def test_a_computer_without_gpu_files_computes_on_the_cpu(monkeypatch):
    monkeypatch.setattr("dimp_ros.tracker.device.GPU_FILES", ("no-such-device",))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: pytest.fail("torch was asked"))
    assert choose_device("auto") == Device("cpu") and thread_count() >= 1


def test_a_precision_that_cannot_be_had_is_refused():
    with pytest.raises(ValueError, match="'int8' is unknown; choose auto, float32"):
        choose_precision("int8", Device("cpu"))
    with pytest.raises(ValueError, match="on a CPU choose auto"):
        choose_precision("float16", Device("cpu"))


@pytest.mark.parametrize(
    ("above", "own", "cores"),
    [("max 100000", "150000 100000", 1.5), ("200000 100000", "max 100000", 2.0), (None, None, math.inf)],
)
def test_the_least_quota_of_nested_control_groups_holds(above, own, cores, tmp_path):
    (tmp_path / "service" / "node").mkdir(parents=True)
    for folder, content in (("service", above), ("service/node", own)):
        if content is not None:
            (tmp_path / folder / "cpu.max").write_text(content + "\n")
    groups = tmp_path / "groups"
    groups.write_text("1:cpu:/\n0::/service/node\n")
    assert cpu_quota(tmp_path, groups) == cores
    assert cpu_quota(tmp_path, tmp_path / "missing") == math.inf


def test_default_threads_are_those_of_openmp_or_the_cores_of_the_process(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert default_threads() == 3
    monkeypatch.setenv("OMP_NUM_THREADS", "0")
    assert 1 <= default_threads() <= len(os.sched_getaffinity(0))
