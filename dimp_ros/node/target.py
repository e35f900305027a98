# SPDX-License-Identifier: Apache-2.0
"""What the node knows about its target: the tracker's word on an image, plus when it was last found."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from dimp_ros.geometry import Box
from dimp_ros.node.history import NANOSECONDS
from dimp_ros.tracker.result import TargetState


class Tracker(Protocol):
    """The part of the tracker's contract that the node uses."""

    def init(self, image: NDArray[np.uint8], box: Sequence[float], *, target_id: str = ...) -> Any:
        """Take the target inside ``box``."""

    def update(self, image: NDArray[np.uint8]) -> Any:
        """Look for it in the next image."""

    def drop(self, target_id: str | None = None) -> Any:
        """Forget a target, or all."""

    def warm_up(self) -> Any:
        """Compute once, so that the first image is not slow."""


@dataclass(frozen=True)
class Reading:
    """Everything that is said about the target in one image; ``box`` is None while it is not in sight."""

    target_id: str = ""
    state: TargetState = TargetState.UNINITIALIZED
    box: Box | None = None
    confidence: float = 0.0
    peak: float = 0.0
    distractor_ratio: float = 0.0
    frames_since_seen: int = 0
    seconds_since_seen: float = 0.0


class TargetFollower:
    """Follows one target with a tracker and counts how long ago it was found. Used by one thread at a time."""

    def __init__(self, tracker: Tracker) -> None:
        self._tracker = tracker
        self._target_id: str | None = None
        self._seen_ns = 0
        self._frames_since_seen = 0

    @property
    def target_id(self) -> str | None:
        """Name of the target, None without one. May be read from any thread."""
        return self._target_id

    def init(self, image: NDArray[np.uint8], box: Sequence[float], target_id: str, stamp: int) -> Reading:
        """Take a new target in place of the old one, which stays if the tracker refuses with an exception.

        :param image: HxWx3 uint8 BGR. :param box: (x, y, w, h) in pixels. :param stamp: of the image, nanoseconds.
        """
        result = self._tracker.init(image, box, target_id=target_id)
        if self._target_id not in (None, target_id):
            self._tracker.drop(self._target_id)
        self._target_id = target_id
        self._seen_ns = stamp
        self._frames_since_seen = 0
        return self._reading(result, stamp)

    def follow(self, image: NDArray[np.uint8], stamp: int) -> Reading:
        """Look for the target in the next image; without a target nothing is computed."""
        if self._target_id is None:
            return Reading()
        return self._reading(self._tracker.update(image), stamp)

    def skip(self, stamp: int) -> Reading:
        """Count an image that is not looked at, and say what holds for it."""
        self._frames_since_seen += 1
        return self.unseen(stamp)

    def unseen(self, stamp: int) -> Reading:
        """Say what holds while nobody looks: LOST with a target, UNINITIALIZED without."""
        if self._target_id is None:
            return Reading()
        return Reading(target_id=self._target_id, state=TargetState.LOST, **self._since(stamp))

    def drop(self) -> None:
        """Forget the target."""
        self._target_id = None
        self._tracker.drop()

    def _reading(self, result: Any, stamp: int) -> Reading:
        assert self._target_id is not None
        state = TargetState(int(result.state))
        if state is TargetState.TRACKING:
            self._seen_ns = stamp
            self._frames_since_seen = 0
        else:
            self._frames_since_seen += 1
        in_sight = state in (TargetState.TRACKING, TargetState.UNCERTAIN) and result.box is not None
        return Reading(
            target_id=self._target_id,
            state=state,
            box=Box(*map(float, result.box)) if in_sight else None,
            confidence=float(result.confidence) if in_sight else 0.0,
            peak=float(result.peak),
            distractor_ratio=float(result.distractor_ratio),
            **self._since(stamp),
        )

    def _since(self, stamp: int) -> dict[str, Any]:
        """Return the age of the last sighting by image stamps; a clock that went back counts as no time at all."""
        return {
            "frames_since_seen": self._frames_since_seen,
            "seconds_since_seen": max(0, stamp - self._seen_ns) / NANOSECONDS,
        }
