# SPDX-License-Identifier: Apache-2.0
"""Exported graphs compute what torch computes, describe themselves, and track without torch."""

from __future__ import annotations

import dataclasses
import errno
import json
import math
import resource
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from dimp_ros.apps.export import writer
from dimp_ros.apps.export.cli import main
from dimp_ros.apps.export.first_frame import FirstFrameGraph
from dimp_ros.apps.export.frame_graphs import FrameGraph, description, frame_graphs
from dimp_ros.apps.export.writer import write_onnx, write_openvino
from dimp_ros.geometry.box import Box, iou
from dimp_ros.model.checkpoints.checkpoint import load_model
from dimp_ros.model.dimp import build_model
from dimp_ros.model.inference.learning_graphs import UpdateGraph
from dimp_ros.tracker.config import TrackerConfig
from dimp_ros.tracker.crop import SearchWindow, crop
from dimp_ros.tracker.tracker import DimpTracker, config_of

onnxruntime = pytest.importorskip("onnxruntime", reason="the extra [export] is not installed")
pytest.importorskip("onnxscript", reason="the extra [export] is not installed")
EXAMPLE = Path(__file__).parents[2] / "examples" / "track_onnx.py"


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("export") / "graphs"
    assert main([str(folder)]) == 0
    return folder


def drawn_inputs(graph: FrameGraph) -> list[torch.Tensor]:
    """Draw inputs with three windows, views, samples or targets where their number is free."""
    generator = torch.Generator().manual_seed(1)
    drawn = []
    for name, example in zip(graph.inputs, graph.examples, strict=True):
        value = example[:1].repeat(3, *[1] * (example.dim() - 1)) if name in graph.dynamic else example
        noise = torch.randn(value.shape, generator=generator)
        if value.dtype == torch.uint8:
            drawn.append((noise * 60 + 127).clamp(0, 255).to(torch.uint8))
        elif name in ("weights", "length"):
            drawn.append(value / value.sum())
        else:
            drawn.append(value + noise * (4 if name == "boxes" else 0.1))
    return drawn


def check_against_torch(path: Path, graph: FrameGraph) -> None:
    session, inputs = onnxruntime.InferenceSession(path), drawn_inputs(graph)
    names = graph.inputs
    assert [port.name for port in session.get_inputs()] == list(names)
    assert [port.name for port in session.get_outputs()] == list(graph.outputs)
    found = session.run(None, {name: value.numpy() for name, value in zip(names, inputs, strict=True)})
    with torch.no_grad():
        expected = graph.module(*inputs)
    for value, wanted in zip(found, expected if isinstance(expected, tuple) else (expected,), strict=True):
        scale = float(wanted.abs().max())
        assert scale > 0
        np.testing.assert_allclose(value, wanted.numpy(), rtol=1e-3, atol=1e-3 * scale)


@pytest.mark.slow
def test_graphs_of_the_shipped_model_equal_torch(exported: Path) -> None:
    net, info = load_model("dimp_lite")
    graphs = frame_graphs(net.eval().requires_grad_(False), config_of(info))
    assert {"closer_look", "tokens"} < {graph.name for graph in graphs}  # as the shipped weights have a box refiner
    assert sorted(path.name for path in exported.iterdir()) == sorted(f"{graph.name}.onnx" for graph in graphs)
    for graph in graphs:
        check_against_torch(exported / f"{graph.name}.onnx", graph)


@pytest.mark.slow
def test_files_say_what_their_tensors_are(exported: Path) -> None:
    session = onnxruntime.InferenceSession(exported / "search.onnx")
    metadata = session.get_modelmeta().custom_metadata_map
    assert metadata["model"] == "dimp_lite" and "BGR, values 0..255" in metadata["tensor.images"]
    assert session.get_inputs()[0].shape == ["windows", 256, 256, 3]
    assert session.get_inputs()[0].type == "tensor(uint8)"
    settings = json.loads(metadata["settings"])
    assert TrackerConfig(**settings) == config_of(load_model("dimp_lite")[1])


def test_first_frame_graph_leads_to_the_trackers_filter() -> None:
    net, info = load_model("dimp_lite")
    config, box = config_of(info), Box(120, 90, 50, 40)
    noise = np.random.default_rng(0).integers(0, 256, (24, 32, 3), dtype=np.uint8)
    image = cv2.resize(noise, (320, 240), interpolation=cv2.INTER_CUBIC)
    tracker = DimpTracker("dimp_lite")
    tracker.init(image, box)
    window = SearchWindow.around(box.center, 2 * config.search_scale * math.sqrt(box.area), 2 * config.crop_size)
    inputs = torch.from_numpy(crop(image, window))[None], torch.tensor([window.box_to_crop(box)])
    with torch.no_grad():
        filter, samples, boxes, *_ = FirstFrameGraph(net.eval(), config)(*inputs)
        for _ in range(config.init_steps):
            filter = UpdateGraph(net)(filter, samples, boxes, torch.full((len(boxes),), 1 / len(boxes)))
    wanted = tracker.inspect()
    np.testing.assert_allclose(boxes, wanted.sample_boxes, atol=1e-3)
    for found, expected in ((samples, wanted.sample_features), (filter[0], wanted.filter)):
        assert np.linalg.norm(found.numpy() - expected) < 0.06 * np.linalg.norm(expected)


@pytest.mark.slow
@pytest.mark.parametrize(("model", "names"), [("dimp18", ["refine"]), ("dimp50", ["search"])])
def test_graphs_of_the_papers_models_equal_torch(model: str, names: list[str], tmp_path: Path) -> None:
    torch.manual_seed(0)
    config = TrackerConfig(crop_size=96, refine_steps=1, proposals=3)
    graphs = {graph.name: graph for graph in frame_graphs(build_model(model).eval().requires_grad_(False), config)}
    assert list(graphs) == ["search", "first_frame", "update", "refine"]
    for name in names:
        path = tmp_path / f"{name}.onnx"
        write_onnx(path, graphs[name], description(graphs[name], model, config))
        check_against_torch(path, graphs[name])


@pytest.mark.slow
@pytest.mark.parametrize("name", ["search", "first_frame", "update", "closer_look"])
def test_openvino_file_computes_the_same(exported: Path, tmp_path: Path, name: str) -> None:
    openvino = pytest.importorskip("openvino", reason="OpenVINO is not installed")
    net, info = load_model("dimp_lite")
    graph = {one.name: one for one in frame_graphs(net.eval().requires_grad_(False), config_of(info))}[name]
    source, path = exported / f"{name}.onnx", tmp_path / f"{name}.xml"
    write_openvino(path, source, {"graph": name})
    model = openvino.Core().read_model(path)
    assert [port.get_any_name() for port in model.inputs] == list(graph.inputs)
    assert model.get_rt_info(["dimp_ros", "graph"]).value == name
    inputs = {port: value.numpy() for port, value in zip(graph.inputs, drawn_inputs(graph), strict=True)}
    compiled = openvino.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    expected = onnxruntime.InferenceSession(source).run(None, inputs)
    for value, wanted in zip(compiled(inputs).values(), expected, strict=True):
        np.testing.assert_allclose(value, wanted, rtol=1e-3, atol=1e-3 * float(np.abs(wanted).max()))


@pytest.mark.slow
def test_graph_that_cannot_be_written_is_an_os_error(exported: Path, tmp_path: Path) -> None:
    pytest.importorskip("openvino", reason="OpenVINO is not installed")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, before[1]))
    try:
        with pytest.raises(OSError, match="error"):
            write_openvino(tmp_path / "x.xml", exported / "update.onnx", {})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("file_format", ["onnx", "openvino"])
def test_export_to_a_full_disk_is_refused_in_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], file_format: str
) -> None:
    def full(path: Path, *_: object) -> None:
        path.write_text("half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(writer, "write_onnx", full)
    assert main([str(tmp_path / "out"), "--format", file_format]) == 2
    error = capsys.readouterr().err
    assert f"{tmp_path / 'out'} could not be written (No space left on device), nothing of it is left" in error
    assert not list(tmp_path.iterdir())


def write_video(path: Path, frames: int = 8) -> np.ndarray:
    """Write a video of a textured patch that moves over a blurred background; return its boxes."""
    rng = np.random.default_rng(0)
    background = cv2.GaussianBlur(rng.integers(0, 256, (240, 320, 3), dtype=np.uint8), (0, 0), 8)
    patch = cv2.resize(rng.integers(0, 256, (6, 7, 3), dtype=np.uint8), (56, 48), interpolation=cv2.INTER_CUBIC)
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 20, (320, 240))
    boxes = []
    for n in range(frames):
        image, (x, y) = background.copy(), (60 + 6 * n, 80 + 4 * n)
        image[y : y + 48, x : x + 56] = patch
        writer.write(image)
        boxes.append((x, y, 56, 48))
    writer.release()
    return np.array(boxes, float)


@pytest.mark.slow
def test_example_tracks_a_video_without_torch(exported: Path, tmp_path: Path) -> None:
    boxes = write_video(tmp_path / "video.avi")
    code = "import runpy, sys; sys.argv = sys.argv[1:]; runpy.run_path(sys.argv[0], run_name='__main__'); "
    code += "assert not {'torch', 'dimp_ros'} & set(sys.modules)"
    command = [sys.executable, "-c", code, str(EXAMPLE), str(exported), str(tmp_path / "video.avi"), "60,80,56,48"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = np.array([[float(number) for number in line.split()[1:5]] for line in done.stdout.splitlines()])
    assert found.shape == (len(boxes) - 1, 4)
    overlaps = iou(found, boxes[1:])
    assert overlaps.min() > 0.5 and overlaps.mean() > 0.7


def test_weights_are_not_exported_onto_themselves(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    weights = tmp_path / "own.safetensors"
    weights.write_text("before")
    assert main([str(weights), "--model", str(weights)]) == 2
    assert "would overwrite --model" in capsys.readouterr().err and weights.read_text() == "before"


def test_failed_export_leaves_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    taken = tmp_path / "taken"
    taken.mkdir()
    assert main([str(taken)]) == 2 and "exists already" in capsys.readouterr().err
    assert main([str(tmp_path / "new"), "--model", "dimp18"]) == 2
    assert [path.name for path in tmp_path.iterdir()] == ["taken"]


def test_settings_change_the_graphs() -> None:
    net = build_model("dimp_lite").eval()
    config = dataclasses.replace(TrackerConfig(), crop_size=192, proposals=4)
    graphs = {graph.name: graph for graph in frame_graphs(net, config)}
    assert graphs["search"].examples[0].shape[1] == 192 and graphs["refine"].examples[4].shape == (1, 4, 4)
