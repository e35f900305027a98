# SPDX-License-Identifier: Apache-2.0
"""Making the tracker that the parameters ask for; every way in which that fails names its remedy."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from dimp_ros.node.parameters import ParameterHandler
    from dimp_ros.node.target import Tracker

TrackerFactory: TypeAlias = "Callable[[ParameterHandler], Tracker]"


class TrackerUnavailable(RuntimeError):
    """The tracker cannot be made; the text is one line that says what to do."""


def load_tracker(parameters: ParameterHandler) -> Tracker:
    """Load the model, put it on its device and compute once with it, so that the first image is not slow.

    Where the GPU is missing or has no memory left, the CPU takes over if ``device_fallback`` says so, which is noted in
    ``parameters.notes``. torch is imported here and nowhere earlier: a node that is not configured starts at once and
    needs no torch.

    :raises TrackerUnavailable: if torch or weights are missing, or a parameter is wrong.
    """
    parameters.notes.clear()
    device = parameters["device"]
    try:
        return _load(parameters, device)
    except Exception as error:
        missing = isinstance(error, ValueError) and device.startswith("cuda") and "CUDA" in str(error)
        if not parameters["device_fallback"] or device == "cpu" or not (missing or is_out_of_memory(error)):
            raise _explained(parameters["model"], error) from error
        parameters.notes.append(f"the CPU is used instead of {device!r} ({_first_line(error)})")
    try:
        return _load(parameters, "cpu")
    except Exception as error:
        raise _explained(parameters["model"], error) from error


def tracker_config(parameters: ParameterHandler, tracker: Any) -> Any:
    """Return the tracker's configuration with the parameters that were given, the others as they are in ``tracker``."""
    return dataclasses.replace(tracker.config, **parameters.tracker_settings())


def is_out_of_memory(error: BaseException) -> bool:
    """Tell whether a GPU had no memory left, or what it runs on has stopped working; no torch is needed to ask."""
    names = {kind.__name__ for kind in type(error).__mro__}
    return "OutOfMemoryError" in names or (isinstance(error, RuntimeError) and "out of memory" in str(error).lower())


def _load(parameters: ParameterHandler, device: str) -> Tracker:
    from dimp_ros.tracker import DimpTracker

    tracker = DimpTracker(parameters["model"], device, weights=parameters["weights"] or None)
    tracker.config = tracker_config(parameters, tracker)
    tracker.warm_up()
    return tracker


def _explained(model: str, error: Exception) -> Exception:
    """Return what to tell an operator, or the error itself where it is none that one can mend."""
    if isinstance(error, ModuleNotFoundError):
        return TrackerUnavailable(
            f"Python module {error.name!r} is missing; install it for the Python that runs this node: "
            f"python3 -m pip install {error.name} (the README says more about torch)"
        )
    if is_out_of_memory(error):
        return TrackerUnavailable(
            f"the GPU has no memory left for model {model!r} ({_first_line(error)}): free some, set device_fallback to true, "
            "or device to cpu"
        )
    if isinstance(error, (OSError, ValueError)):
        return TrackerUnavailable(f"model {model!r} cannot be used: {error}")
    return error


def _first_line(error: BaseException) -> str:
    """Return the beginning of an error's text; CUDA's run over many lines."""
    return str(error).strip().split("\n", 1)[0][:200]
