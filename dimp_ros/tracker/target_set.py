# SPDX-License-Identifier: Apache-2.0
"""What the node knows about its targets: the tracker's word on an image, plus when each was last found."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from dimp_ros.geometry.box import Box
from dimp_ros.images.picture import Picture
from dimp_ros.images.stamps import NANOSECONDS
from dimp_ros.tracker.result import TargetState


class Tracker(Protocol):
    """The part of the tracker's contract that the node uses."""

    def init(self, image: Picture, box: Sequence[float], *, target_id: str = ...) -> Any:
        """Take the target inside ``box``; one of this name starts over, and stays if this fails."""

    def update_all(self, image: Picture, only: Collection[str] | None = None) -> dict[str, Any]:
        """Look for targets, all or ``only`` some, in the next image; results by name."""

    def drop(self, target_id: str | None = None) -> Any:
        """Forget a target, or all."""

    def warm_up(self) -> Any:
        """Compute once, so that the first image is not slow."""


@dataclass(frozen=True)
class TargetEstimate:
    """Everything that is said about a target in one image; ``box`` is None while it is not in sight."""

    target_id: str = ""
    state: TargetState = TargetState.UNINITIALIZED
    box: Box | None = None
    confidence: float = 0.0
    peak: float = 0.0
    distractor_ratio: float = 0.0
    frames_since_seen: int = 0
    seconds_since_seen: float = 0.0


@dataclass
class _Sighting:
    """When a target was found last, and since when it has been looked for in vain; nanoseconds."""

    seen: int
    frames_since: int = 0
    lost: int | None = None


class TargetManager:
    """Follows targets with a tracker and counts how long ago each was found. Used by one thread at a time.

    Times are nanoseconds of the images' clock. One that goes back (a bag that loops) is made up for by `shift`.
    """

    def __init__(self, tracker: Tracker) -> None:
        self._tracker = tracker
        self._sightings: dict[str, _Sighting] = {}
        self.stage_ms: dict[str, float] = {}
        """Time of each stage of the last update, milliseconds, as far as the tracker tells."""
        self.nonsense = ""
        """What of the last update's results could not be believed; empty if all could."""

    @property
    def ids(self) -> tuple[str, ...]:
        """Names of the targets, oldest first. May be read from any thread."""
        return tuple(self._sightings)

    def init(self, image: Picture, box: Sequence[float], target_id: str, when: int) -> TargetEstimate:
        """Take a target; one of the same name starts over, and goes on if the tracker refuses with an exception.

        :param box: (x, y, w, h) in pixels. :param when: time of the image.
        """
        result = self._tracker.init(image, box, target_id=target_id)
        self._sightings[target_id] = _Sighting(when)
        if wrong := _nonsense(target_id, result):
            self.drop(target_id)
            raise RuntimeError(f"{wrong}; the target is not followed")
        return self._reading(target_id, result, when)

    def follow(self, image: Picture, when: int, ids: Collection[str]) -> dict[str, TargetEstimate]:
        """Look for targets in the next image, all at once; without targets nothing is computed.

        A target whose result makes no sense is left out, and `nonsense` says why: the others are none the worse for it.
        """
        self.nonsense = ""
        if not ids:
            return {}
        results = self._tracker.update_all(image, ids)
        self.stage_ms = getattr(next(iter(results.values()), None), "stage_ms", {})
        wrong = {target_id: _nonsense(target_id, results[target_id]) for target_id in ids}
        self.nonsense = "; ".join(filter(None, wrong.values()))
        return {name: self._reading(name, results[name], when) for name in ids if not wrong[name]}

    def skip(self, target_id: str, when: int) -> TargetEstimate:
        """Count an image in which the target was not looked for, and say what holds for it."""
        self._sightings[target_id].frames_since += 1
        return self.unseen(target_id, when)

    def unseen(self, target_id: str, when: int) -> TargetEstimate:
        """Say what holds for a target while nobody looks: LOST."""
        return TargetEstimate(target_id=target_id, state=TargetState.LOST, **self._since(target_id, when))

    def drop(self, target_id: str) -> None:
        """Forget a target; one that is unknown is forgotten already."""
        if self._sightings.pop(target_id, None) is not None:
            self._tracker.drop(target_id)

    def overdue(self, when: int, seconds: float) -> list[str]:
        """Return the targets that have been looked for in vain for more than ``seconds``."""
        limit = seconds * NANOSECONDS
        return [name for name, one in self._sightings.items() if one.lost is not None and when - one.lost > limit]

    def pause(self) -> None:
        """Nobody looks for the targets for a while: that time does not count as looking in vain."""
        for sighting in self._sightings.values():
            sighting.lost = None

    def shift(self, nanoseconds: int, ids: Iterable[str]) -> None:
        """Move what is remembered of targets in time, after the images' clock was set by ``nanoseconds``."""
        for target_id in ids:
            sighting = self._sightings[target_id]
            sighting.seen += nanoseconds
            sighting.lost = None if sighting.lost is None else sighting.lost + nanoseconds

    def _reading(self, target_id: str, result: Any, when: int) -> TargetEstimate:
        sighting = self._sightings[target_id]
        state = TargetState(int(result.state))
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
            box=Box(*map(float, result.box)) if in_sight else None,
            confidence=float(result.confidence) if in_sight else 0.0,
            peak=float(result.peak),
            distractor_ratio=float(result.distractor_ratio),
            **self._since(target_id, when),
        )

    def _since(self, target_id: str, when: int) -> dict[str, Any]:
        """Return the age of the last sighting."""
        sighting = self._sightings[target_id]
        return {
            "frames_since_seen": sighting.frames_since,
            "seconds_since_seen": max(0, when - sighting.seen) / NANOSECONDS,
        }


def _nonsense(target_id: str, result: Any) -> str:
    """Say what cannot be true of a result that would be published as in sight; empty if it can.

    A network whose numbers have overflowed answers with NaN, which a consumer would steer by.
    """
    if result.box is None or int(result.state) not in (TargetState.TRACKING, TargetState.UNCERTAIN):
        return ""
    numbers = (*map(float, result.box), float(result.confidence), float(result.peak), float(result.distractor_ratio))
    if all(map(math.isfinite, numbers)) and numbers[2] > 0 and numbers[3] > 0:
        return ""
    shown = ", ".join(f"{number:g}" for number in numbers)
    return f"the tracker's numbers for target {target_id!r} make no sense: box (x, y, w, h), confidence ... = {shown}"
