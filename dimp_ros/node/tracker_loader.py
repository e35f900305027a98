# SPDX-License-Identifier: Apache-2.0
"""Makes the tracker that the parameters describe; every failure names its remedy."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from dimp_ros.ros_utils.parameters import ParameterHandler
    from dimp_ros.tracker.config import TrackerConfig
    from dimp_ros.tracker.target_set import Tracker

TrackerFactory: TypeAlias = "Callable[[ParameterHandler], Tracker]"

DEVICE_ERRORS = re.compile(
    r"CUDA error|CUDA driver|NVIDIA driver|cuDNN error|not compiled with CUDA"
    r"|(CUDA|CUDNN|CUBLAS|CUSOLVER)_(STATUS|ERROR)_"
)
"""Texts of torch's errors that are caused by the GPU, its driver or its libraries, not by the computation."""


class TrackerUnavailable(RuntimeError):
    """The tracker cannot be made; the text is one line with the remedy."""


class _DeviceMissing(ValueError):
    """The requested GPU does not exist."""


def load_tracker(parameters: ParameterHandler) -> Tracker:
    """Load the model, move it to its device and run it once, so that the first image is not slow.

    Where the GPU is missing, fails or has no memory left, the CPU is used if ``device_fallback`` is true, and
    ``parameters.notes`` says so. The tracker, and torch where the backend needs it, is imported here and not earlier: a
    node that is not configured starts at once.

    :raises TrackerUnavailable: if a Python module or weights are missing, or a parameter is wrong.
    """
    parameters.notes.clear()
    model, device = parameters["model"], parameters["device"]
    try:
        return _load(parameters, device)
    except Exception as error:
        if device == "cpu" or not parameters["device_fallback"] or not is_device_failure(error):
            raise _explained(model, device, error) from error
        note = f"the CPU is used, which is slower: {_blamed(device, error)}; repair it, or set device to cpu"
    # Outside of the except clause: the error's traceback keeps what was on the GPU.
    try:
        tracker = _load(parameters, "cpu")
    except Exception as error:
        raise _explained(model, "cpu", error) from error
    parameters.notes.append(note)
    return tracker


def tracker_config(parameters: ParameterHandler, tracker: Tracker) -> TrackerConfig:
    """Return the configuration of ``tracker`` with the settings of parameters and file."""
    return dataclasses.replace(tracker.config, **parameters.tracker_settings())


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether a GPU had no memory left; does not import torch."""
    if any(kind.__name__ == "OutOfMemoryError" for kind in type(error).__mro__):
        return True
    text = str(error)
    return isinstance(error, RuntimeError) and ("out of memory" in text.lower() or "STATUS_ALLOC_FAILED" in text)


def is_device_failure(error: BaseException) -> bool:
    """Return whether the GPU is the cause: it is missing, has no memory left, or it or its driver does not work."""
    if isinstance(error, _DeviceMissing) or is_out_of_memory(error):
        return True
    return isinstance(error, (RuntimeError, AssertionError)) and DEVICE_ERRORS.search(str(error)) is not None


def _load(parameters: ParameterHandler, device: str) -> Tracker:
    """Make a tracker on a device."""
    from dimp_ros.tracker import DimpTracker
    from dimp_ros.tracker.device import choose_device, default_threads, limit_threads

    try:
        choose_device(device)
    except ValueError as error:
        raise (_DeviceMissing if re.fullmatch(r"cuda(:\d+)?", device) else ValueError)(str(error)) from error
    limit_threads(parameters["threads"] or default_threads())
    tracker = DimpTracker(
        parameters["model"],
        device,
        weights=parameters["weights"] or None,
        # A CPU that replaces a GPU does not compute in float16.
        precision="auto" if device == "cpu" and parameters["precision"] == "float16" else parameters["precision"],
        backend=parameters["backend"],
    )
    tracker.config = tracker_config(parameters, tracker)
    tracker.warm_up()
    return tracker


def _blamed(device: str, error: BaseException) -> str:
    """Return what is wrong with a GPU."""
    if is_out_of_memory(error):
        return f"device {device!r} has no memory left ({_first_line(error)})"
    if isinstance(error, _DeviceMissing):
        return str(error)
    return f"device {device!r} does not work ({_first_line(error)})"


def _explained(model: str, device: str, error: Exception) -> Exception:
    """Return the error for the operator, or the error itself if no operator can fix it."""
    if is_device_failure(error):
        remedy = "free memory, take a smaller model" if is_out_of_memory(error) else "repair the GPU's driver or torch"
        return TrackerUnavailable(f"{_blamed(device, error)}: {remedy}, set device_fallback to true, or device to cpu")
    if isinstance(error, ModuleNotFoundError):
        return TrackerUnavailable(
            f"Python module {error.name!r} is missing; install it for the Python that runs this node: "
            f"python3 -m pip install {error.name} (the README says more about torch)"
        )
    if isinstance(error, ImportError) or type(error) is OSError:  # a library that torch or OpenVINO brings or needs
        return TrackerUnavailable(
            f"a library does not load ({_first_line(error)}): install torch and openvino anew for the Python that runs "
            "this node, as the README says"
        )
    if isinstance(error, MemoryError) or "can't allocate memory" in str(error):
        return TrackerUnavailable(f"there is no memory left for model {model!r}: free some, or take a smaller model")
    if isinstance(error, (OSError, ValueError)):
        return TrackerUnavailable(f"model {model!r} cannot be used: {_one_line(error)}")
    return error


def _first_line(error: BaseException) -> str:
    """Return the first line of an error's text, shortened."""
    return str(error).strip().split("\n", 1)[0][:200]


def _one_line(error: BaseException) -> str:
    """Return an error's text without line breaks."""
    return " ".join(str(error).split())
