# SPDX-License-Identifier: Apache-2.0
"""OpenVINO computes what PyTorch does, and compiled graphs are kept between starts."""

from __future__ import annotations

import importlib.util
import os

import numpy as np
import pytest
import torch

from dimp_ros.geometry.box import Box
from dimp_ros.model.backbone import Features
from dimp_ros.model.checkpoints.checkpoint import load_model
from dimp_ros.tracker import DimpTracker
from dimp_ros.tracker.backend_choice import choose_backend, make_backend
from dimp_ros.tracker.box_refinement import starting_boxes
from dimp_ros.tracker.config import TrackerConfig
from dimp_ros.tracker.random_numbers import UniformNumbers
from dimp_ros.tracker.stage_timer import StageTimer

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    pytest.importorskip("openvino")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        from dimp_ros.model.inference.openvino_graphs import cache_folder

        yield cache_folder()


@pytest.fixture(scope="module")
def net():
    net = load_model("dimp_lite")[0].eval().requires_grad_(False)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net.add_box_refiner()
    assert net.box_refiner is not None
    net.box_refiner.eval().requires_grad_(False)
    return net


@pytest.fixture(scope="module")
def backends(net, cache):
    return [make_backend(name, net, CPU, torch.float32) for name in ("torch", "openvino")]


def crops(count: int, size: int = 288) -> list[np.ndarray]:
    return list(np.random.default_rng(0).integers(0, 255, (count, size, size, 3), dtype=np.uint8))


def assert_near(value: torch.Tensor, wanted: torch.Tensor, share: float = 1e-3) -> None:
    torch.testing.assert_close(value, wanted, rtol=0, atol=share * float(wanted.abs().max()))


@torch.inference_mode()
@pytest.mark.parametrize("count", [1, 3])
def test_features_and_scores_agree_with_torch(backends, count):
    filters = torch.randn((count, 256, 4, 4), generator=torch.Generator().manual_seed(1)) / 50
    wanted, found = (one.extract_and_score(crops(count), filters, StageTimer()) for one in backends)
    for value, expected in zip((*found.backbone, found.features), (*wanted.backbone, wanted.features), strict=True):
        assert_near(value, expected)
    assert_near(torch.tensor(found.scores), torch.tensor(wanted.scores))


@torch.inference_mode()
@pytest.mark.parametrize("box", [Box(110, 115, 60, 55), Box(2, 230, 50, 60), Box(30, 120, 220, 25)])
def test_refined_boxes_agree_with_torch(backends, net, box):
    backbone = backends[0].extract(crops(2))
    config, random = TrackerConfig(), UniformNumbers(0)
    boxes = np.stack([starting_boxes(box, config, random) for _ in range(2)])
    modulation = net.bb_regressor.modulation(backbone, torch.from_numpy(boxes[:, 0]))
    for steps in (5, 0):
        wanted, found = (one.refine_boxes(modulation, backbone, boxes, steps, 1.0) for one in backends)
        assert bool(np.abs(wanted[0] - boxes).max() > 1) == bool(steps), "boxes move unless there are no steps"
        np.testing.assert_allclose(found[0], wanted[0], rtol=0, atol=0.05)
        np.testing.assert_allclose(found[1], wanted[1], rtol=0, atol=0.01)


@torch.inference_mode()
def test_box_refiner_agrees_with_torch(backends, net):
    features = Features(*(maps.clone() for maps in backends[0].extract(crops(2, 144))))
    tokens = net.box_refiner.tokens(features, torch.tensor([[40.0, 42.0, 60.0, 55.0]] * 2))
    wanted, found = (one.look_closer(crops(2, 144), tokens) for one in backends)
    assert_near(found.edges, wanted.edges)
    assert_near(found.quality, wanted.quality)


def test_compiled_graphs_are_kept_and_damaged_files_replaced(net, cache, monkeypatch):
    from dimp_ros.model.inference import openvino_graphs

    def extract(may_convert: bool) -> torch.Tensor:
        openvino_graphs._compiled.clear()
        if not may_convert:
            monkeypatch.setattr(openvino_graphs, "convert", lambda *_: pytest.fail("converted again"))
        with torch.inference_mode():
            return make_backend("openvino", net, CPU, torch.float32).extract(crops(1, 96)).stride16

    before = set(cache.glob("*.blob"))
    first = extract(may_convert=True)
    (added,) = set(cache.glob("*.blob")) - before
    content = added.read_bytes()
    added.write_bytes(content[: len(content) // 2])
    assert torch.equal(extract(may_convert=True), first)
    assert added.stat().st_size > len(content) // 2  # OpenVINO's files differ by some bytes each time
    assert torch.equal(extract(may_convert=False), first)


def compiled(width: int):
    """Return a small graph, compiled or read from the cache folder."""
    from dimp_ros.model.inference import openvino_graphs

    openvino_graphs._compiled.clear()
    layer = torch.nn.Linear(width, 1).requires_grad_(False)
    source = openvino_graphs.GraphSource(lambda: layer, f"linear {width}", [torch.zeros(1, width)])
    return openvino_graphs.compile_graph(source, torch.float32, 1)


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
    own = [f"{number:064x}.blob" for number in range(60)] + [
        f".{0:064x}.{number:08x}.partial.blob" for number in range(9)
    ]
    others = ["mine.blob", "readme.txt", f"{0:064x}.blob.txt"]
    for name in own + others:
        (folder / name).write_text("")
        os.utime(folder / name, (0, 0))
    compiled(2)
    left = {path.name for path in folder.iterdir()}
    assert left >= set(others) and len(left) == openvino_graphs.MOST_FILES + len(others)


def test_cache_folder_that_cannot_be_written_is_no_error(net, cache, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with torch.inference_mode():
        assert make_backend("openvino", net, CPU, torch.float32).extract(crops(1, 128)).stride16.shape[-1] == 8


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
        choose_backend("openvino", torch.device("cuda"))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match="pip install openvino"):
        DimpTracker("dimp_lite", "cpu", backend="openvino")


def test_auto_takes_openvino_on_a_cpu_where_it_is_installed(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    assert choose_backend("auto", CPU) == "openvino"
    assert choose_backend("auto", torch.device("cuda")) == "torch"
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert choose_backend("auto", CPU) == "torch"
