# SPDX-License-Identifier: Apache-2.0
"""OpenVINO computes what PyTorch does, and compiled graphs are kept between starts."""

from __future__ import annotations

import importlib.util
import os

import numpy as np
import pytest
import torch

from dimp_ros.geometry.box import Box
from dimp_ros.model.checkpoints.network_source import NetworkSource
from dimp_ros.tracker import DimpTracker
from dimp_ros.tracker.backend_choice import choose_backend, make_backend
from dimp_ros.tracker.box_refinement import starting_boxes
from dimp_ros.tracker.config import TrackerConfig
from dimp_ros.tracker.device import Device
from dimp_ros.tracker.memory import SampleMemory
from dimp_ros.tracker.random_numbers import UniformNumbers
from dimp_ros.tracker.stage_timer import StageTimer

CPU = Device("cpu")
BOXES = np.array([[110, 115, 60, 55], [-20, 5, 60, 55], [250, 260, 70, 50]], np.float32)


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    pytest.importorskip("openvino")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        from dimp_ros.model.inference.openvino_graphs import cache_folder

        yield cache_folder()


@pytest.fixture(scope="module")
def source():
    return NetworkSource.find("dimp_lite")


@pytest.fixture(scope="module")
def backends(source, cache):
    """Return both backends; the weights have a box refiner and a head for points."""
    made = [make_backend(name, source, CPU, "float32", TrackerConfig()) for name in ("torch", "openvino")]
    assert all(one.has_box_refiner and one.has_point_box for one in made)
    return made


def crops(count: int, size: int = 288) -> list[np.ndarray]:
    return list(np.random.default_rng(0).integers(0, 255, (count, size, size, 3), dtype=np.uint8))


def assert_near(value: object, wanted: object, share: float = 1e-3) -> None:
    value, wanted = np.asarray(value), np.asarray(wanted)
    np.testing.assert_allclose(value, wanted, rtol=0, atol=share * float(np.abs(wanted).max()))


@pytest.mark.parametrize("count", [1, 3])
def test_features_and_scores_agree_with_torch(backends, count):
    filters = np.random.default_rng(1).standard_normal((count, 1, 256, 4, 4)).astype(np.float32) / 50
    results = [one.extract_and_score(crops(count), list(map(one.to_device, filters)), StageTimer()) for one in backends]
    (wanted, wanted_scores), (found, scores) = results
    for value, expected in zip(found, wanted, strict=True):
        assert_near(value, expected)
    assert_near(scores, wanted_scores)


def test_learned_target_agrees_with_torch(backends):
    kept = np.random.default_rng(0).random((2, 112)) < 0.8
    boxes, config = np.concatenate((BOXES, BOXES[:2])), TrackerConfig(box_fit_steps=5, box_fit_rate=0.05)
    results = []
    for backend in backends:
        features = backend.extract(crops(3))
        samples = backend.classification_features(features, kept, 0.8)
        filters = [backend.learn_filter(samples, boxes, steps) for steps in (0, 10)]
        memory = SampleMemory(backend.reserve(samples, 8), boxes, 0.25)
        for n in range(2):
            memory.add(samples[n], boxes[n], 0.1)
        updated = backend.update_filter(filters[-1], memory, 2)
        modulation = backend.modulation(features.rows([0]), BOXES[0])
        fitted = backend.fit_modulation(modulation, features, BOXES, config)
        results.append([samples, *filters, updated, backend.score(samples, updated), *modulation, *fitted])
    for wanted, found in zip(*results, strict=True):
        assert_near(found, wanted, 1e-2)
    assert not np.allclose(results[1][1], results[1][2]) and not np.allclose(results[1][-1], results[1][-3])


@pytest.mark.parametrize("box", [Box(110, 115, 60, 55), Box(2, 230, 50, 60), Box(30, 120, 220, 25)])
def test_refined_boxes_agree_with_torch(backends, box):
    config, random = TrackerConfig(), UniformNumbers(0)
    boxes = np.stack([starting_boxes(box, config, random) for _ in range(2)])
    for steps in (5, 0):
        results = []
        for backend in backends:
            features = backend.extract(crops(2))
            modulation = [backend.modulation(features.rows([n]), boxes[n, 0]) for n in range(2)]
            results.append(backend.refine_boxes(modulation, features, boxes, steps, 1.0))
        wanted, found = results
        assert bool(np.abs(wanted[0] - boxes).max() > 1) == bool(steps), "boxes move unless there are no steps"
        np.testing.assert_allclose(found[0], wanted[0], rtol=0, atol=0.05)
        np.testing.assert_allclose(found[1], wanted[1], rtol=0, atol=0.01)


def test_box_refiner_and_head_for_points_agree_with_torch(backends):
    inside = np.array([40, 42, 60, 55], np.float32)
    results = []
    for backend in backends:
        tokens = backend.target_tokens(crops(1, 144)[0], inside)
        closer, at_point = backend.look_closer(crops(2, 144), [tokens] * 2), backend.boxes_at_point(crops(3, 224))
        results.append([tokens, *closer, *at_point])
    for wanted, found in zip(*results, strict=True):
        assert_near(found, wanted)


def test_compiled_graphs_are_kept_and_damaged_files_replaced(source, cache, monkeypatch):
    from dimp_ros.model.inference import graph_conversion, openvino_graphs

    def extract(may_convert: bool) -> np.ndarray:
        openvino_graphs._compiled.clear()
        if not may_convert:
            monkeypatch.setattr(graph_conversion, "convert", lambda *_: pytest.fail("converted again"))
        backend = make_backend("openvino", source, CPU, "float32", TrackerConfig(crop_size=96))
        return backend.extract(crops(1, 96)).stride16

    before = set(cache.glob("*.blob"))
    first = extract(may_convert=True)
    (added,) = set(cache.glob("*.blob")) - before
    content = added.read_bytes()
    added.write_bytes(content[: len(content) // 2])
    assert np.array_equal(extract(may_convert=True), first)
    assert added.stat().st_size > len(content) // 2  # OpenVINO's files differ by some bytes each time
    assert np.array_equal(extract(may_convert=False), first)


def compiled(width: int):
    """Return a small graph, compiled or read from the cache folder."""
    from dimp_ros.model.inference import openvino_graphs
    from dimp_ros.model.inference.graph_conversion import convert_module

    openvino_graphs._compiled.clear()
    layer = torch.nn.Linear(width, 1).requires_grad_(False)
    key = openvino_graphs.GraphKey("linear", (width,), "float32")
    return openvino_graphs.compile_graph(key, "", 1, lambda _: convert_module(layer, [torch.zeros(1, width)]))


@pytest.mark.parametrize("planted", ["fifo", "link to a fifo", "folder", "link", "other graph", "sparse"])
def test_planted_file_in_the_cache_costs_time_only(cache, monkeypatch, tmp_path, planted):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    precious, fifo = tmp_path / "precious", tmp_path / "fifo"
    precious.write_text("before")
    os.mkfifo(fifo)

    compiled(2)
    (path,) = (tmp_path / "cache").rglob("*.blob")
    compiled(3)
    (other,) = set(path.parent.iterdir()) - {path}
    content = other.read_bytes()
    path.unlink()
    match planted:
        case "fifo":
            os.mkfifo(path)
        case "folder":
            path.mkdir()
        case "other graph":
            path.write_bytes(content)
        case "sparse":
            with path.open("wb") as file:
                file.truncate(2**40)
        case _:
            path.symlink_to(precious if planted == "link" else fifo)
    assert tuple(compiled(2).inputs[0].shape) == (1, 2)
    assert planted == "folder" or (path.is_file() and not path.is_symlink())
    assert precious.read_text() == "before"


def test_old_graphs_are_deleted_and_no_other_files(cache, monkeypatch, tmp_path):
    from dimp_ros.model.inference import openvino_graphs

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    folder = openvino_graphs.cache_folder()
    folder.mkdir(parents=True)
    own = [f"{number:064x}.blob" for number in range(openvino_graphs.MOST_FILES + 12)] + [
        f".{0:064x}.{number:08x}.partial.blob" for number in range(9)
    ]
    others = ["mine.blob", "readme.txt", f"{0:064x}.blob.txt"]
    for name in own + others:
        (folder / name).write_text("")
        os.utime(folder / name, (0, 0))
    compiled(2)
    left = {path.name for path in folder.iterdir()}
    assert left >= set(others) and len(left) == openvino_graphs.MOST_FILES + len(others)


def test_cache_folder_that_cannot_be_written_is_no_error(source, cache, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    backend = make_backend("openvino", source, CPU, "float32", TrackerConfig(crop_size=128))
    assert backend.extract(crops(1, 128)).stride16.shape[-1] == 8


def test_new_weights_are_used_from_the_next_target_on(cache):
    config = TrackerConfig(crop_size=96, augment=False, init_steps=1, not_found_threshold=-1.0)
    tracker = DimpTracker("dimp_lite", "cpu", config, weights="random", backend="openvino")
    image = np.random.default_rng(0).integers(0, 256, (120, 160, 3), np.uint8)
    assert tracker.init(image, (60, 40, 30, 30)).peak != 0
    for parameter in tracker.net.classifier.parameters():
        parameter.zero_()
    assert tracker.init(image, (60, 40, 30, 30)).peak == 0


def test_tracker_follows_the_same_target_with_both_backends(cache):
    image = np.full((240, 320, 3), 90, np.uint8)
    image[:, ::16] = 140
    target = np.random.default_rng(1).integers(0, 255, (5, 4, 3), dtype=np.uint8).repeat(8, 0).repeat(8, 1)
    results = []
    for name in ("torch", "openvino"):
        tracker = DimpTracker("dimp_lite", "cpu", backend=name)
        assert tracker.backend == name
        boxes = []
        for n in range(6):
            frame = image.copy()
            frame[80 + n : 120 + n, 100 + 2 * n : 132 + 2 * n] = target
            result = tracker.update(frame) if n else tracker.init(frame, (100, 80, 32, 40))
            boxes.append(result.last_box)
        results.append(np.array(boxes))
    np.testing.assert_allclose(*results, atol=1.0)


def test_backend_that_cannot_be_used_is_refused_with_a_remedy(monkeypatch):
    with pytest.raises(ValueError, match=r"backend 'tflite' is unknown; choose one of auto, torch, openvino"):
        choose_backend("tflite", CPU)
    with pytest.raises(ValueError, match="computes on a CPU"):
        monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
        choose_backend("openvino", Device("cuda"))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match="pip install openvino"):
        DimpTracker("dimp_lite", "cpu", backend="openvino")


def test_auto_takes_openvino_on_a_cpu_where_it_is_installed(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    assert choose_backend("auto", CPU) == "openvino"
    assert choose_backend("auto", Device("cuda")) == "torch"
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert choose_backend("auto", CPU) == "torch"
