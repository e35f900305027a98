# SPDX-License-Identifier: Apache-2.0
"""Graphed functions: one graph per set of shapes; a tracker that lives on recordings tracks the same.

The recordings here are made on the CPU, with the property of CUDA graphs that matters: fixed inputs and outputs.
"""

import numpy as np
import pytest
import torch

from dimp_ros.tracker import DimpTracker, TrackerConfig
from dimp_ros.tracker.cuda_graph import MOST_RECORDINGS, GraphedFunction, Recording


class Rerun:
    """Computes anew from the kept inputs into the kept outputs."""

    def __init__(self, function, inputs, outputs):
        self.function, self.inputs, self.outputs = function, inputs, outputs

    def replay(self):
        """Compute."""
        for kept, new in zip(self.outputs, self.function(*self.inputs), strict=True):
            kept.copy_(new)


def record(function, inputs):
    kept = [tensor.clone() for tensor in inputs]
    outputs = tuple(torch.full_like(out, float("nan")) for out in function(*kept))
    return Recording(kept, outputs, Rerun(function, kept, outputs))


@pytest.fixture
def everywhere(monkeypatch):
    """Let the CPU have recordings too; return how many have been made."""
    made = []
    monkeypatch.setattr(GraphedFunction, "records", lambda self, device: True)
    recorder = lambda function, inputs: made.append(function) or record(function, inputs)  # noqa: E731
    monkeypatch.setattr(GraphedFunction.__init__, "__defaults__", (recorder,))
    return made


def test_graph_is_captured_once_per_set_of_shapes(everywhere):
    double = GraphedFunction(lambda a, b: (2 * a + b,))
    for size in (1, 2, 2, 1):
        a, b = torch.arange(float(size)), torch.ones(size)
        assert torch.equal(double(a, b)[0], 2 * a + b)
    assert len(everywhere) == 2


def test_beyond_the_limit_functions_run_without_a_graph(everywhere):
    double = GraphedFunction(lambda a: (2 * a,))
    for size in range(1, MOST_RECORDINGS + 3):
        assert torch.equal(double(torch.ones(size))[0], torch.full((size,), 2.0))
    assert len(everywhere) == MOST_RECORDINGS


def test_uncapturable_function_runs_with_a_warning(everywhere, caplog):
    def fail(function, inputs):
        raise RuntimeError("operation not permitted when stream is capturing")

    double = GraphedFunction(lambda a: (2 * a,), fail)
    for _ in range(2):
        assert torch.equal(double(torch.ones(2))[0], torch.full((2,), 2.0))
    assert [record.message for record in caplog.records].count(caplog.records[0].message) == 1
    assert "no CUDA graph" in caplog.text


def test_without_a_gpu_nothing_is_recorded():
    def fail(function, inputs):
        raise AssertionError

    assert torch.equal(GraphedFunction(lambda a: (2 * a,), fail)(torch.ones(2))[0], torch.full((2,), 2.0))


def scene(number):
    rng = np.random.default_rng(1)
    picture = rng.integers(0, 120, (160, 200, 3), dtype=np.uint8)
    patches = rng.integers(100, 255, (2, 24, 28, 3), dtype=np.uint8)
    for patch, (x, y) in zip(patches, ((40 + 3 * number, 50), (120 - 2 * number, 90)), strict=True):
        picture[y : y + 24, x : x + 28] = patch
    return picture


def track():
    config = TrackerConfig(crop_size=96, not_found_threshold=-1.0, update_interval=2, augment=False)
    tracker = DimpTracker(weights="random", device="cpu", config=config)
    tracker.init(scene(0), (40, 50, 28, 24), target_id="a")
    results = [tracker.update_all(scene(1))]
    tracker.init(scene(1), (118, 90, 28, 24), target_id="b")
    results += [tracker.update_all(scene(n)) for n in range(2, 7)]
    return results


def test_tracker_with_cuda_graphs_tracks_as_without(request):
    expected = track()
    made = request.getfixturevalue("everywhere")
    ours = track()
    # Looking, climbing and improving; the first two for one target and for two.
    assert len(made) == 5
    for mine, theirs in zip(ours, expected, strict=True):
        for name in theirs:
            assert mine[name].peak == pytest.approx(theirs[name].peak, rel=1e-3, abs=1e-5)
            assert mine[name].box == pytest.approx(theirs[name].box, abs=0.05)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
def test_a_gpu_tracks_as_the_cpu():
    results = []
    for device, precision in (("cpu", "float32"), ("cuda", "auto")):
        tracker = DimpTracker(device=device, precision=precision)
        tracker.init(scene(0), (40, 50, 28, 24))
        results.append([tracker.update(scene(n)) for n in range(1, 12)])
    for ours, theirs in zip(*results, strict=True):
        assert ours.peak == pytest.approx(theirs.peak, abs=0.02 * theirs.peak)
        assert ours.box == pytest.approx(theirs.box, abs=0.5)
