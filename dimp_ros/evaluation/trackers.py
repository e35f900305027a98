# SPDX-License-Identifier: Apache-2.0
"""Build trackers for evaluation from their names on the command line."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import yaml
from numpy.typing import NDArray

from dimp_ros.evaluation.tracker_api import BenchmarkTracker, Prediction
from dimp_ros.geometry.box import Box
from dimp_ros.model.checkpoints.weights_file import find_weights

if TYPE_CHECKING:
    from dimp_ros.tracker import DimpTracker

_VARIANT = re.compile(r"@(?=[A-Za-z_][\w.]*=)")  # a path may hold other @ signs

ABLATIONS = (
    "",
    "@init_steps=0@update_steps=0@hard_negative_steps=0",
    "@init_steps=0",
    "@init_steps=2",
    "@init_steps=5",
    "@update_steps=0@hard_negative_steps=0",
    "@hard_negative_steps=0@hard_negative_rate=0.01",
    "@closer_looks=0",
    "@refine_steps=0",
    "@box_fit_steps=0@first_frame_correction=0",
)
"""Variants that `dimp-eval --ablate` compares: the model itself (10 steps on the first frame), the initialiser's
filter only, 0, 2 and 5 steps, no update after the first frame, hard negatives treated like any other frame, gradient
ascent without the box refiner and the reverse, no fit to the given box."""


class DimpBenchmark:
    """DimpTracker with the interface of `BenchmarkTracker`; the box is `TrackResult.last_box`."""

    def __init__(self, model: str, device: str, settings: Mapping[str, str], threads: int) -> None:
        from dimp_ros.tracker.device import limit_threads

        limit_threads(threads)
        self._tracker = load_tracker(model, device, settings)
        self._tracker.warm_up()

    def init(self, image: NDArray[np.uint8], box: Box) -> None:
        """Start on a target."""
        self._tracker.init(image, box)

    def update(self, image: NDArray[np.uint8]) -> Prediction:
        """Track the target in the next image."""
        result = self._tracker.update(image)
        return Prediction(result.last_box, result.box is not None, result.confidence)


def load_tracker(model: str, device: str, settings: Mapping[str, str]) -> DimpTracker:
    """Load a model with a variant's settings, `precision` and `backend` among them, on top of those of its weights."""
    from dimp_ros.tracker import DimpTracker

    own = dict(settings)
    precision, backend = own.pop("precision", "float32"), own.pop("backend", "torch")
    tracker = DimpTracker(model, _own_device(device), precision=precision, backend=backend)
    tracker.config = override(tracker.config, own)
    return tracker


def _own_device(device: str) -> str:
    """Give each process that torchrun started on this machine a GPU of its own, if there are enough."""
    local_rank = os.environ.get("LOCAL_RANK")
    if local_rank is None or device not in ("auto", "cuda"):
        return device
    import torch

    if not torch.cuda.is_available():
        return device
    return f"cuda:{int(local_rank) % torch.cuda.device_count()}"


@dataclass(frozen=True)
class TrackerSpec:
    """A tracker to measure; can be pickled, and `make` builds the tracker in another process.

    `name`: a baseline (`kcf`, `csrt`, `mil`, `nanotrack_v1`, `nanotrack_v2`), one of our models by name, or
    `dimp:PATH` for a weights file. A model may be followed by settings of its own, as in
    ``dimp_lite@init_steps=0@update_steps=0``, so that one run holds several variants of it; `precision` and
    `backend` are settings too. `settings` override the configuration of all our models; a variant's own come on top.
    """

    name: str
    baselines: Path | None = None
    device: str = "auto"
    settings: Mapping[str, str] = field(default_factory=dict)

    @property
    def base(self) -> str:
        """The name without a variant's settings."""
        return _VARIANT.split(self.name)[0]

    @property
    def all_settings(self) -> dict[str, str]:
        """Settings of the tracker: those of all models, then the variant's own."""
        own = (item.partition("=") for item in _VARIANT.split(self.name)[1:])
        return {**self.settings, **{key: value for key, _, value in own}}

    @property
    def is_baseline(self) -> bool:
        """Whether this is one of OpenCV's trackers."""
        from dimp_ros.evaluation.opencv_trackers import BASELINES

        return self.base in BASELINES

    def make(self, threads: int = 1) -> BenchmarkTracker:
        """Build the tracker; raise BaselineUnavailable or ValueError, with the remedy, if that is impossible."""
        if self.is_baseline:
            from dimp_ros.evaluation.opencv_trackers import OpenCVBaseline

            if self.base != self.name:
                raise ValueError(f"{self.name}: {self.base} has no settings; only our models have variants")
            return OpenCVBaseline(self.name, self.baselines)
        return DimpBenchmark(self.model, self.device, self.all_settings, threads)

    @property
    def model(self) -> str:
        """The name or the path of our model's weights."""
        return self.base.removeprefix("dimp:")

    @property
    def weights(self) -> Path | None:
        """The file of our model's weights; None where there is none, and for a baseline."""
        if self.is_baseline:
            return None
        try:
            return find_weights(self.model)
        except (ValueError, OSError):  # perhaps a file that cannot be read as weights
            path = Path(self.model).expanduser()
            return path if path.is_file() else None

    def check(self) -> None:
        """Raise what `make` would raise for a missing baseline, setting or weights file, without loading a model."""
        if self.is_baseline:
            self.make()
            return
        if self.base.startswith("dimp:") and not Path(self.model).is_file():
            raise ValueError(f"no weights file {self.model}; give the path of an existing file after 'dimp:'")
        if self.weights is None:
            find_weights(self.model)  # says why there are none
        if settings := self.all_settings:
            from dimp_ros.tracker.backend_choice import choose_backend, choose_precision
            from dimp_ros.tracker.config import TrackerConfig
            from dimp_ros.tracker.device import choose_device

            if (precision := settings.pop("precision", None)) is not None:
                choose_precision(precision, choose_device(_own_device(self.device)))
            if (backend := settings.pop("backend", None)) is not None:
                choose_backend(backend, choose_device(_own_device(self.device)))
            override(TrackerConfig(), settings)

    def fingerprint(self) -> dict[str, Any]:
        """Return everything that a stored result depends on: name, device, settings, digest of the weights."""
        import cv2

        if self.is_baseline:
            return {"name": self.name, "opencv": cv2.__version__}
        digest = hashlib.sha256(self.weights.read_bytes()).hexdigest() if self.weights else None
        return {"name": self.name, "device": self.device, "settings": self.all_settings, "weights_sha256": digest}


def split_names(text: str) -> list[str]:
    """Split a comma-separated list of trackers; a comma inside brackets belongs to a variant's value."""
    parts, depth = [""], 0
    for character in text:
        depth += (character in "[(") - (character in "])")
        if character == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += character
    return [name for part in parts if (name := part.strip())]


def override(config: Any, settings: Mapping[str, str]) -> Any:
    """Return a copy of a frozen dataclass with fields replaced; texts are read as the type of the present value.

    :raises ValueError: for an unknown field or a value of another type.
    """
    names = [item.name for item in dataclasses.fields(config)]
    values = {}
    for key, text in settings.items():
        if key not in names:
            raise ValueError(f"no setting {key!r} in {type(config).__name__}; there are: {', '.join(names)}")
        values[key] = _parse(key, text, getattr(config, key))
    return dataclasses.replace(config, **values)


def _parse(key: str, text: str, current: Any) -> Any:
    """Read ``text`` as a value of the type of ``current``."""
    if isinstance(current, str):
        return text
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        value = None
    if isinstance(current, float) and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if isinstance(current, tuple) and isinstance(value, list):
        return tuple(value)
    if type(value) is not type(current):
        raise ValueError(f"{key}={text}: expected {type(current).__name__}, like {current!r}")
    return value
