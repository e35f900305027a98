# SPDX-License-Identifier: Apache-2.0
"""What the process does that `dimp_ros.tracker.graph_cache` starts."""

from __future__ import annotations

from typing import Any

import torch

from dimp_ros.tracker.config import TrackerConfig
from dimp_ros.tracker.device import limit_threads
from dimp_ros.tracker.tracker import DimpTracker


def compile_all(request: dict[str, Any]) -> None:
    """Run every stage of a tracker once; its backend compiles the graphs here, as torch is loaded."""
    limit_threads(request["threads"])
    torch.set_num_threads(1)  # only converts
    config = TrackerConfig(**request["config"])
    DimpTracker(request["model"], "cpu", config, precision=request["precision"], backend="openvino").warm_up()
