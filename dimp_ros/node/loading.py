# SPDX-License-Identifier: Apache-2.0
"""Making the tracker that the parameters ask for; every way in which that fails names its remedy."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from dimp_ros.node.parameters import ParameterHandler
    from dimp_ros.node.target import Tracker

TrackerFactory: TypeAlias = "Callable[[ParameterHandler], Tracker]"


class TrackerUnavailable(RuntimeError):
    """The tracker cannot be made; the text is one line that says what to do."""


def load_tracker(parameters: ParameterHandler) -> Tracker:
    """Load the model, put it on its device and compute once with it, so that the first image is not slow.

    torch is imported here and nowhere earlier: a node that is not configured starts at once and needs no torch.

    :raises TrackerUnavailable: if torch or weights are missing, or a parameter is wrong.
    """
    try:
        from dimp_ros.tracker import DimpTracker
    except ModuleNotFoundError as error:
        raise TrackerUnavailable(
            f"Python module {error.name!r} is missing; install it for the Python that runs this node: "
            f"python3 -m pip install {error.name} (the README says more about torch)"
        ) from error
    model = parameters["model"]
    try:
        tracker = DimpTracker(model, parameters["device"], weights=parameters["weights"] or None)
        tracker.config = dataclasses.replace(tracker.config, **parameters.tracker_settings())
        tracker.warm_up()
    except (OSError, ValueError) as error:
        raise TrackerUnavailable(f"model {model!r} cannot be used: {error}") from error
    return tracker
