# SPDX-License-Identifier: Apache-2.0
"""The contract a tracker is measured through, and how a name on the command line becomes such a tracker."""

from __future__ import annotations

import ast
import dataclasses
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from dimp_ros.geometry import Box


class PeerUnavailable(RuntimeError):
    """A tracker cannot run on this machine; the message tells the remedy."""


class Prediction(NamedTuple):
    """What a tracker says about a frame: a box always, whether it believes in it, and how much if it can tell."""

    box: Box
    found: bool = True
    confidence: float | None = None


class BenchmarkTracker(Protocol):
    """The two calls of the field's toolkits. Pictures are HxWx3 uint8 BGR, boxes x, y, w, h in float pixels."""

    def init(self, image: NDArray[np.uint8], box: Box) -> None:
        """Start on the target in `box`, forgetting any earlier one."""
        ...

    def update(self, image: NDArray[np.uint8]) -> Prediction:
        """Follow the target to the next picture."""
        ...


class DimpBenchmark:
    """DimpTracker behind the benchmark contract: the last box believed in stands where the target is lost."""

    def __init__(self, model: str, device: str, settings: Mapping[str, str], threads: int) -> None:
        import torch

        from dimp_ros.tracker import DimpTracker

        torch.set_num_threads(threads)
        self._tracker = DimpTracker(model=model, device=device)
        self._tracker.config = override(self._tracker.config, settings)  # on top of what the weights ask for
        self._tracker.warm_up()

    def init(self, image: NDArray[np.uint8], box: Box) -> None:
        """Learn the target."""
        self._tracker.init(image, box)

    def update(self, image: NDArray[np.uint8]) -> Prediction:
        """Follow the target to the next picture."""
        result = self._tracker.update(image)
        return Prediction(result.last_box, result.box is not None, result.confidence)


@dataclass(frozen=True)
class TrackerSpec:
    """What to measure, in a form that travels to another process: `make` builds the tracker there.

    `name`: a peer (`kcf`, `csrt`, `mil`, `nanotrack_v1`, `nanotrack_v2`), a model of ours by name, or `dimp:PATH` for a
    weights file. `settings` override fields of the tracker's configuration and apply to our models only.
    """

    name: str
    peers: Path | None = None
    device: str = "auto"
    settings: Mapping[str, str] = field(default_factory=dict)

    @property
    def is_peer(self) -> bool:
        """Whether this is one of OpenCV's trackers."""
        from dimp_ros.evaluation.opencv_peers import PEERS

        return self.name in PEERS

    def make(self, threads: int = 1) -> BenchmarkTracker:
        """Build the tracker; raise PeerUnavailable or ValueError, with the remedy, if that is impossible."""
        if self.is_peer:
            from dimp_ros.evaluation.opencv_peers import OpenCVPeer

            return OpenCVPeer(self.name, self.peers)
        return DimpBenchmark(self.model, self.device, self.settings, threads)

    @property
    def model(self) -> str:
        """The name or the path of our model's weights."""
        return self.name.removeprefix("dimp:")

    def check(self) -> None:
        """Raise what `make` would raise for a peer or a weights file that is not there, without loading a model."""
        if self.is_peer:
            self.make()
        elif self.name.startswith("dimp:") and not Path(self.model).is_file():
            raise ValueError(f"no weights file {self.model}; give the path of an existing file after 'dimp:'")

    def fingerprint(self) -> dict[str, Any]:
        """Return what a stored result depends on, so that a resumed run never mixes results of different set-ups."""
        import cv2

        if self.is_peer:
            return {"name": self.name, "opencv": cv2.__version__}
        weights = Path(self.model)
        if not weights.is_file():
            weights = Path(__file__).parents[1] / "weights" / f"{self.model}.safetensors"
        digest = hashlib.sha256(weights.read_bytes()).hexdigest() if weights.is_file() else None
        return {"name": self.name, "device": self.device, "settings": dict(self.settings), "weights_sha256": digest}


def _parse(key: str, text: str, current: Any) -> Any:
    """Read `text` as a value of the type of `current`."""
    lowered = text.strip().lower()
    if isinstance(current, bool):
        if lowered in ("true", "1", "yes", "on"):
            return True
        if lowered in ("false", "0", "no", "off"):
            return False
        raise ValueError(f"{key}={text}: expected true or false")
    if isinstance(current, str):
        return text
    try:
        value = ast.literal_eval(text.strip())
    except (SyntaxError, ValueError) as error:
        raise ValueError(f"{key}={text}: expected a value like {current!r}") from error
    if isinstance(current, float) and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if isinstance(current, tuple) and isinstance(value, list):
        return tuple(value)
    if current is not None and type(value) is not type(current):
        raise ValueError(f"{key}={text}: expected {type(current).__name__}, like {current!r}")
    return value


def override(config: Any, settings: Mapping[str, str]) -> Any:
    """Return a copy of a frozen dataclass with fields replaced; `memory.size` reaches into a nested dataclass.

    Texts are read as the type of the field's present value. Raise ValueError for an unknown field or a wrong type.
    """
    for key, text in settings.items():
        head, _, rest = key.partition(".")
        names = [item.name for item in dataclasses.fields(config)]
        if head not in names:
            raise ValueError(f"no setting {key!r} in {type(config).__name__}; there are: {', '.join(names)}")
        current = getattr(config, head)
        if rest and not dataclasses.is_dataclass(current):
            raise ValueError(f"setting {head!r} has no part {rest!r}; give {head}=VALUE")
        value = override(current, {rest: text}) if rest else _parse(key, text, current)
        config = dataclasses.replace(config, **{head: value})
    return config
