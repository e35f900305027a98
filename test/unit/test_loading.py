# SPDX-License-Identifier: Apache-2.0
"""Creating the tracker from parameters: settings, fallback to the CPU, and errors with a remedy."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dimp_ros.node.tracker_loader import TrackerUnavailable, is_device_failure, is_out_of_memory, load_tracker

WEIGHTS = Path(__file__).resolve().parents[2] / "dimp_ros" / "weights" / "dimp_lite.safetensors"


class Parameters(dict):
    """Stands in for the node's parameter handler."""

    def __init__(self, settings: dict | None = None, **values: Any) -> None:
        super().__init__(
            {
                "model": "dimp_lite",
                "weights": "random",
                "device": "cpu",
                "precision": "float32",
                "backend": "torch",
                "threads": 0,
                "device_fallback": True,
                **values,
            }
        )
        self._settings = settings or {}
        self.notes: list[str] = []

    def tracker_settings(self) -> dict:
        """Return the settings that the user has changed."""
        return self._settings


def refusal(parameters: Parameters) -> str:
    """Return the line with which loading is refused; nothing may be noted then."""
    with pytest.raises(TrackerUnavailable) as error:
        load_tracker(parameters)
    assert "\n" not in str(error.value) and len(str(error.value)) < 500 and parameters.notes == []
    return str(error.value)


@pytest.fixture
def gpu(monkeypatch) -> Callable[[Exception | None], list[str]]:
    """Pretend that there is a GPU whose tracker fails on the first computation; return the devices that are tried."""
    pytest.importorskip("torch", reason="torch is not installed")
    import dimp_ros.tracker.device as devices
    from dimp_ros.tracker import DimpTracker

    tried: list[str] = []

    def fail_with(failure: Exception | None) -> list[str]:
        choose, build = devices.choose_device, DimpTracker.__init__

        def chosen(name: str) -> Any:
            return choose("cpu" if name.startswith(("cuda", "auto")) else name)

        def built(self: Any, model: str, device: str, **options: Any) -> None:
            tried.append(device)
            build(self, model, "cpu", **options)

        def warm_up(self: Any) -> None:
            if failure is not None and tried[-1] != "cpu":
                raise failure

        monkeypatch.setattr(devices, "choose_device", chosen)
        monkeypatch.setattr(DimpTracker, "__init__", built)
        monkeypatch.setattr(DimpTracker, "warm_up", warm_up)
        return tried

    return fail_with


def out_of_memory() -> Exception:
    torch = pytest.importorskip("torch", reason="torch is not installed")
    kind = getattr(torch, "OutOfMemoryError", None) or torch.cuda.OutOfMemoryError
    return kind("CUDA out of memory. Tried to allocate 20.00 MiB.\nGPU 0 has a total capacity of 2 GiB")


def test_without_torch_the_remedy_is_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    monkeypatch.delitem(sys.modules, "dimp_ros.tracker.tracker", raising=False)
    text = refusal(Parameters())
    assert "'torch' is missing" in text and "pip install torch" in text


@pytest.mark.parametrize(
    ("wrong", "word"),
    [
        ({"model": "/no/such/file.safetensors", "weights": ""}, "/no/such/file.safetensors"),
        ({"model": "dimp18", "weights": ""}, "give the path"),
        ({"model": "dimp_huge"}, "dimp_huge"),
        ({"device": "abacus"}, "choose auto, cpu, cuda"),
        ({"device": "cuda:x"}, "choose auto, cpu, cuda"),
        ({"weights": "heavy"}, "heavy"),
        ({"settings": {"best_boxes": 60}}, "best_boxes"),
    ],
)
def test_a_wrong_parameter_becomes_one_line_that_names_it(wrong, word):
    pytest.importorskip("torch", reason="torch is not installed")
    assert word in refusal(Parameters(**wrong))


@pytest.mark.parametrize("size", [0, 100, 100_000])
def test_truncated_weights_give_one_line_with_the_file(tmp_path, size):
    pytest.importorskip("torch", reason="torch is not installed")
    path = tmp_path / "cut.safetensors"
    path.write_bytes(WEIGHTS.read_bytes()[:size])
    text = refusal(Parameters(model=str(path), weights=""))
    assert str(path) in text and "fetch it again" in text


def test_thread_count_applies_to_later_threads_too():
    import torch

    from dimp_ros.tracker.device import limit_threads

    before, seen = torch.get_num_threads(), []
    try:
        load_tracker(Parameters(threads=before + 1))
        worker = threading.Thread(target=lambda: seen.append(torch.get_num_threads()))
        worker.start()
        worker.join()
    finally:
        limit_threads(0)
        torch.set_num_threads(before)
    assert seen == [before + 1]


def test_changed_settings_reach_the_tracker_and_no_others():
    pytest.importorskip("torch", reason="torch is not installed")
    from dimp_ros.tracker import DimpTracker

    plain = DimpTracker("dimp_lite", "cpu", weights="random").config
    parameters = Parameters({"update_interval": 7})
    changed = load_tracker(parameters).config
    assert changed.update_interval == 7 and plain.update_interval != 7 and parameters.notes == []
    assert (changed.crop_size, changed.search_scale, changed.seed) == (plain.crop_size, plain.search_scale, plain.seed)


def test_no_gpu_falls_back_to_the_cpu_or_gives_the_remedy(monkeypatch):
    torch = pytest.importorskip("torch", reason="torch is not installed")
    if torch.cuda.is_available():
        pytest.skip("there is a GPU here")
    monkeypatch.setattr("dimp_ros.tracker.DimpTracker.warm_up", lambda _tracker: None)  # seconds on a busy machine
    parameters = Parameters(device="cuda:1")
    assert load_tracker(parameters).device.type == "cpu"
    (note,) = parameters.notes
    assert "the CPU is used" in note and "cuda:1" in note and "\n" not in note
    assert "device_fallback" in refusal(Parameters(device="cuda:1", device_fallback=False))
    plain = Parameters(device="auto")
    load_tracker(plain)
    assert plain.notes == [], "auto asks for no GPU"


@pytest.mark.parametrize(
    "failure",
    [
        None,
        RuntimeError("CUDA error: no kernel image is available for execution on the device\nCUDA kernel errors ..."),
        RuntimeError("CUDA driver initialization failed, you might not have a CUDA gpu."),
        RuntimeError("cuDNN error: CUDNN_STATUS_NOT_INITIALIZED"),
    ],
    ids=["out of memory", "no kernel", "driver", "cuDNN"],
)
@pytest.mark.parametrize("device", ["auto", "cuda"])
def test_failing_gpu_falls_back_to_the_cpu_or_gives_the_remedy(gpu, failure, device):
    failure = failure or out_of_memory()
    tried = gpu(failure)
    parameters = Parameters(device=device)
    parameters.notes.append("of an earlier try")
    load_tracker(parameters)
    assert tried == [device, "cpu"]
    (note,) = parameters.notes
    assert "the CPU is used" in note and str(failure).splitlines()[0] in note and "\n" not in note
    text = refusal(Parameters(device=device, device_fallback=False))
    assert "device to cpu" in text and ("memory" in text) == is_out_of_memory(failure)


def test_other_errors_do_not_fall_back_to_the_cpu(gpu):
    tried = gpu(KeyError("a mistake"))
    with pytest.raises(KeyError, match="a mistake"):
        load_tracker(Parameters(device="cuda"))
    assert tried == ["cuda"]
    tried.clear()
    assert "best_boxes" in refusal(Parameters({"best_boxes": 60}, device="cuda"))
    assert tried == ["cuda"]


def test_gpu_errors_are_recognised_without_torch(monkeypatch):
    allocator = RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`")
    assert is_out_of_memory(allocator) and is_device_failure(allocator)
    assert is_out_of_memory(type("OutOfMemoryError", (RuntimeError,), {})("whatever"))
    assert is_device_failure(AssertionError("Torch not compiled with CUDA enabled"))
    for other in (ValueError("no CUDA error here"), RuntimeError("sizes do not match"), MemoryError()):
        assert not is_out_of_memory(other) and not is_device_failure(other)
