# SPDX-License-Identifier: Apache-2.0
"""The targets of one stream: the tracker's results, checked, and when each target was last seen."""

from __future__ import annotations

import itertools
import math
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from dimp_ros.geometry.box import Box
from dimp_ros.images.picture import Picture
from dimp_ros.images.stamps import NANOSECONDS
from dimp_ros.tracker.config import TrackerConfig
from dimp_ros.tracker.result import TargetEstimate, TargetState, TrackResult


class Tracker(Protocol):
    """A tracker of several targets, as the node and `dimp-track` use it; `DimpTracker` is one."""

    config: TrackerConfig
    """Settings of the procedure; may be replaced between two images."""

    @property
    def device(self) -> object:
        """The device that computes; its ``str`` is shown to people."""

    def init(self, image: Picture, box: Sequence[float], *, target_id: str = ...) -> TrackResult:
        """Start a target in ``box``, (x, y, w, h) in pixels; one of this name starts over.

        :raises ValueError: if image or box cannot be used; a target of this name then goes on as before.
        """

    def find_box(self, image: Picture, point: tuple[float, float]) -> Box:
        """Return the box of the object at a point, in pixels.

        :raises ValueError: in words where no object stands out.
        """

    def update_all(self, image: Picture, only: Collection[str] | None = None) -> dict[str, TrackResult]:
        """Find targets, all or ``only`` some, in the next image; results by name."""

    def drop(self, target_id: str | None = None) -> None:
        """Drop a target, or all."""

    def warm_up(self) -> None:
        """Run every stage once, so that the first image is not slow."""

    def to(self, device: str) -> None:
        """Continue on another device, targets included."""

    def device_bytes(self) -> int | None:
        """Return the memory taken on the device; None where it is not known."""


@dataclass
class _Sighting:
    """Number of a target's start, when it was last TRACKING, and since when it is LOST; nanoseconds."""

    start: int
    seen: int
    frames_since: int = 0
    lost: int | None = None


class TargetManager:
    """Follows targets with a tracker and keeps when each was last seen. Used by one thread at a time.

    Times are nanoseconds of the images' clock; `shift` compensates for a clock that was set (a bag that loops).

    :param first_start: number of the first start, 1 to 2³¹; each one after it has the next.
    """

    def __init__(self, tracker: Tracker, first_start: int = 1) -> None:
        self._tracker = tracker
        self._starts = itertools.count(first_start)
        self._sightings: dict[str, _Sighting] = {}
        self.stage_ms: dict[str, float] = {}
        """Time of each stage of the last update, milliseconds."""
        self.invalid = ""
        """Error for invalid results of the last update; empty if all were valid."""

    @property
    def ids(self) -> tuple[str, ...]:
        """Names of the targets, oldest first. May be read from any thread."""
        return tuple(self._sightings)

    def find_box(self, image: Picture, box: Box) -> Box:
        """Return ``box``; where it is a point, see `Box.is_point`, the box of the object there.

        :raises ValueError: in words where no object stands out.
        """
        return self._tracker.find_box(image, box.center) if box.is_point else box

    def init(self, image: Picture, box: Sequence[float], target_id: str, when: int) -> TargetEstimate:
        """Start a target; one of the same name starts over, and goes on if the tracker raises an exception.

        :param box: (x, y, w, h) in pixels. :param when: time of the image.
        """
        result = self._tracker.init(image, box, target_id=target_id)
        self._sightings[target_id] = _Sighting(next(self._starts), when)
        if error := _invalid(target_id, result):
            self.drop(target_id)
            raise RuntimeError(f"{error}; the target is not followed")
        return self._estimate(target_id, result, when)

    def follow(self, image: Picture, when: int, ids: Collection[str]) -> dict[str, TargetEstimate]:
        """Find targets in the next image, all at once; without targets nothing is computed.

        A target with an invalid result is left out, and `invalid` holds the error; the others are not affected.
        """
        self.invalid = ""
        if not ids:
            return {}
        results = self._tracker.update_all(image, ids)
        self.stage_ms = next((result.stage_ms for result in results.values()), {})
        errors = {target_id: _invalid(target_id, results[target_id]) for target_id in ids}
        self.invalid = "; ".join(filter(None, errors.values()))
        return {name: self._estimate(name, results[name], when) for name in ids if not errors[name]}

    def skip(self, target_id: str, when: int) -> TargetEstimate:
        """Count an image in which the target was not searched for, and return its estimate: LOST."""
        self._sightings[target_id].frames_since += 1
        return self.unseen(target_id, when)

    def unseen(self, target_id: str, when: int) -> TargetEstimate:
        """Return the estimate of a target that is not searched for: LOST."""
        return TargetEstimate(target_id=target_id, state=TargetState.LOST, **self._history(target_id, when))

    def drop(self, target_id: str) -> None:
        """Drop a target; an unknown one is ignored."""
        if self._sightings.pop(target_id, None) is not None:
            self._tracker.drop(target_id)

    def overdue(self, when: int, seconds: float) -> list[str]:
        """Return the targets that have been LOST for more than ``seconds``."""
        limit = seconds * NANOSECONDS
        return [name for name, one in self._sightings.items() if one.lost is not None and when - one.lost > limit]

    def pause(self) -> None:
        """Do not count the time until the next image as LOST: nobody searches."""
        for sighting in self._sightings.values():
            sighting.lost = None

    def shift(self, nanoseconds: int, ids: Iterable[str]) -> None:
        """Move the remembered times of targets after the images' clock was set by ``nanoseconds``."""
        for target_id in ids:
            sighting = self._sightings[target_id]
            sighting.seen += nanoseconds
            sighting.lost = None if sighting.lost is None else sighting.lost + nanoseconds

    def _estimate(self, target_id: str, result: TrackResult, when: int) -> TargetEstimate:
        sighting = self._sightings[target_id]
        state = result.state
        if state is TargetState.TRACKING:
            sighting.seen, sighting.frames_since = when, 0
        else:
            sighting.frames_since += 1
        if state is not TargetState.LOST:
            sighting.lost = None
        elif sighting.lost is None:
            sighting.lost = when
        in_sight = state in (TargetState.TRACKING, TargetState.UNCERTAIN) and result.box is not None
        return TargetEstimate(
            target_id=target_id,
            state=state if in_sight else TargetState.LOST,
            box=Box(*map(float, result.box)) if in_sight and result.box is not None else None,
            confidence=float(result.confidence) if in_sight else 0.0,
            peak=float(result.peak),
            distractor_ratio=float(result.distractor_ratio),
            **self._history(target_id, when),
        )

    def _history(self, target_id: str, when: int) -> dict[str, Any]:
        """Return the number of the start, and the age of the last sighting."""
        sighting = self._sightings[target_id]
        return {
            "start": sighting.start,
            "frames_since_seen": sighting.frames_since,
            "seconds_since_seen": max(0, when - sighting.seen) / NANOSECONDS,
        }


def _invalid(target_id: str, result: TrackResult) -> str:
    """Return the error for a result in sight whose numbers cannot be right; empty for a valid one.

    A network that overflows returns NaN, which a consumer would steer by.
    """
    if result.box is None or result.state not in (TargetState.TRACKING, TargetState.UNCERTAIN):
        return ""
    numbers = (*map(float, result.box), float(result.confidence), float(result.peak), float(result.distractor_ratio))
    if all(map(math.isfinite, numbers)) and numbers[2] > 0 and numbers[3] > 0:
        return ""
    shown = ", ".join(f"{number:g}" for number in numbers)
    return (
        f"the result for target {target_id!r} is invalid: (x, y, w, h, confidence, peak, distractor ratio) = ({shown}) "
        "must be finite, w and h above 0"
    )
