# SPDX-License-Identifier: Apache-2.0
"""Those who run against each other: our models with so many targets, the baseline, and OpenCV's trackers."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from benchmark.baseline import BaselineTracker
from benchmark.roofline import wait_for
from benchmark.sequences import BenchmarkVideo
from dimp_ros.model.checkpoints.weights_file import find_weights
from dimp_ros.model.dimp import ARCHITECTURES
from dimp_ros.tracker import DimpTracker, TargetState, TrackerConfig
from dimp_ros.tracker.backend_choice import choose_backend, choose_precision
from dimp_ros.tracker.device import choose_device
from dimp_ros.tracker.localization import Outcome
from dimp_ros.tracker.stage_timer import StageTimer

PRECISION = "float32"
"""What the baseline computes in, and the filter's optimiser whatever the networks do."""

AS_RANDOM: dict[str, Any] = {"not_found_threshold": -1.0, "distractor_threshold": 1.0, "hard_negative_threshold": 1.0}
"""Settings with which random weights do what trained ones do: follow, and learn at intervals."""


class Step(NamedTuple):
    """What a candidate says of a frame: milliseconds by stage, as far as it knows, and if the targets are in sight."""

    stage_ms: dict[str, float]
    followed: bool


class BenchmarkCandidate(Protocol):
    """Something that follows targets, and ends with the frame done: whatever a device does, it has waited for."""

    name: str
    targets: int

    def start(self, video: BenchmarkVideo, number: int) -> None:
        """Learn the targets from a frame."""
        ...

    def step(self, image: NDArray[np.uint8]) -> Step:
        """Follow them to the next frame."""
        ...


class ModelChoice(NamedTuple):
    """A model, where, in what type and by what it computes; ``weights`` as for `DimpTracker`."""

    model: str
    device: torch.device
    precision: str = PRECISION
    weights: str | None = None
    backend: str = "torch"

    @classmethod
    def find(cls, model: str, device: str, precision: str = PRECISION, backend: str = "torch") -> ModelChoice:
        """Choose a model by name or path, with random weights if none are shipped for the name; find out what is auto.

        :raises ValueError, FileNotFoundError: if there is no such model, file or device.
        """
        try:
            find_weights(model)
            weights = None
        except FileNotFoundError:
            if model not in ARCHITECTURES:
                raise
            weights = "random"
        chosen = choose_device(device)
        named = choose_backend(backend, chosen)
        return cls(model, torch.device(str(chosen)), choose_precision(precision, chosen, named), weights, named)

    @property
    def name(self) -> str:
        """What it is called in tables."""
        number = "" if self.precision == PRECISION else f" {self.precision}"
        return Path(self.model).stem + number + ("" if self.backend == "torch" else f" {self.backend}")

    def tracker(self, config: TrackerConfig | None = None) -> DimpTracker:
        """Make the tracker."""
        return DimpTracker(
            self.model,
            str(self.device),
            self._config(config),
            weights=self.weights,
            precision=self.precision,
            backend=self.backend,
        )

    def baseline(self, config: TrackerConfig | None = None) -> BaselineTracker:
        """Make the baseline, on the same device; it always computes in float32."""
        return BaselineTracker(self.model, self.device, self._config(config), weights=self.weights)

    def _config(self, config: TrackerConfig | None) -> TrackerConfig | None:
        """Have random weights follow and learn."""
        return TrackerConfig(**AS_RANDOM) if config is None and self.weights == "random" else config


class DimpCandidate:
    """`DimpTracker` with ``targets`` of them."""

    def __init__(self, choice: ModelChoice, targets: int) -> None:
        self.name = f"{choice.name}, {targets} target{'s' if targets > 1 else ''}"
        self.targets = targets
        self.tracker = choice.tracker()
        self._frames, self._device = 0, choice.device
        _wait_at_laps(choice.device)

    @property
    def window(self) -> float:
        """Side of the first target's search window, pixels of the image."""
        side = math.sqrt(self.tracker.inspect(self.tracker.targets[0]).box.area)
        return side * self.tracker.config.search_scale

    def start(self, video: BenchmarkVideo, number: int) -> None:
        """Learn the targets, one after the other."""
        self._frames = 0
        image = video.frame(number)
        for n, box in enumerate(video.boxes(number, self.targets)):
            self.tracker.init(image, box, target_id=str(n))
        wait_for(self._device)

    def step(self, image: NDArray[np.uint8]) -> Step:
        """Follow them; an update that improves the filters is called ``optimize``."""
        results = self.tracker.update_all(image).values()
        wait_for(self._device)
        self._frames += 1
        stages = dict(next(iter(results)).stage_ms)
        if self._frames % self.tracker.config.update_interval == 0 and "update" in stages:
            stages["optimize"] = stages.pop("update")
        return Step(stages, all(result.state is TargetState.TRACKING for result in results))


class Baseline:
    """The baseline with one target."""

    targets = 1

    def __init__(self, choice: ModelChoice) -> None:
        self.name = f"baseline {Path(choice.model).stem}"
        self.tracker = choice.baseline()

    def start(self, video: BenchmarkVideo, number: int) -> None:
        """Learn the target."""
        self.tracker.init(video.frame(number), video.boxes(number, 1)[0])
        wait_for(self.tracker.device)

    def step(self, image: NDArray[np.uint8]) -> Step:
        """Follow it."""
        result = self.tracker.update(image)
        wait_for(self.tracker.device)
        return Step(result.stage_ms, result.outcome in (Outcome.NORMAL, Outcome.HARD_NEGATIVE))


class OpenCVCandidate:
    """One of OpenCV's trackers, on the CPU."""

    targets = 1

    def __init__(self, name: str, folder: Path | None = None) -> None:
        from dimp_ros.evaluation.opencv_trackers import OpenCVBaseline

        self.name = name
        self._tracker = OpenCVBaseline(name, folder)

    def start(self, video: BenchmarkVideo, number: int) -> None:
        """Learn the target."""
        self._tracker.init(video.frame(number), video.boxes(number, 1)[0])

    def step(self, image: NDArray[np.uint8]) -> Step:
        """Follow it."""
        return Step({}, self._tracker.update(image).found)


@contextmanager
def stages_by_cpu_time() -> Iterator[None]:
    """Have stages tell how long this process was given a CPU instead of how long they took: for busy machines."""
    before = StageTimer.now
    StageTimer.now = staticmethod(time.process_time)
    try:
        yield
    finally:
        StageTimer.now = staticmethod(before)


def _wait_at_laps(device: torch.device) -> None:
    """Have the tracker's stages end when the device has done its part; on a GPU that costs them their overlap.

    The time of a whole frame suffers, too: by what the extra waits cost, some 10 microseconds each.
    """
    if device.type != "cuda" or getattr(StageTimer.record, "waits", False):
        return
    record = StageTimer.record

    def waiting(clock: StageTimer, stage: str) -> None:
        wait_for(device)
        record(clock, stage)

    waiting.waits = True  # type: ignore[attr-defined]
    StageTimer.record = waiting  # type: ignore[method-assign, assignment]
