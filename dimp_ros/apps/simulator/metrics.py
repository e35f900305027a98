# SPDX-License-Identifier: Apache-2.0
"""Figures of a closed loop, from its recording: how well it kept the target on its set point."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import NamedTuple, TypeVar

import numpy as np

BAND = 0.10
"""A target is on its set point within this share of the image's width across and of its height down."""
HOLD_SECONDS = 1.0
"""A loop has settled when the target enters the band and stays in it for so long."""
SEEN = 0.5
"""A target of which the image shows less than this share counts as hidden."""
REST = 0.005
"""A target at rest moves by less than this, in image widths and heights."""
STILL = 1e-6
"""A command whose components are all smaller is zero."""
STALE_SECONDS = 0.25
"""A state that is older than this, from the image's stamp on, is too old for a target that moves."""
RECOVERY_SECONDS = 0.5
"""After a state that was too old, the loop may take so long to return."""
SAME_SECONDS = 1e-3
"""Times within this are of the same image: messages hold ages in single precision."""


class ErrorRecord(NamedTuple):
    """Where the target truly was, relative to its set point: ``x``, ``y`` in image widths and heights.

    NaN where there was no target; ``visible`` is the share of it in sight.
    """

    time: float
    x: float
    y: float
    visible: float


class StateRecord(NamedTuple):
    """A state of the target, as published by the tracker.

    :param age: of the image then, seconds. :param x, y: where it saw the target, as in `Error`; NaN if nowhere.
    """

    time: float
    state: str
    confidence: float
    age: float
    x: float = math.nan
    y: float = math.nan

    @property
    def taken(self) -> float:
        """When the image was taken."""
        return self.time - self.age


class CommandRecord(NamedTuple):
    """A command, when it was given."""

    time: float
    twist: tuple[float, ...]

    @property
    def zero(self) -> bool:
        """Whether it stops the camera."""
        return max(map(abs, self.twist)) < STILL


Timed = TypeVar("Timed", ErrorRecord, StateRecord)


@dataclass
class LoopRecording:
    """What happened in a loop, on one clock in seconds, each list in order of time.

    Times are those of the event: an image's is its stamp, a state's and a command's that of their publication.

    :param size: width and height of the images, pixels. :param enabled: when the loop was closed.
    :param killed: when the tracker was killed; None if it was not.
    """

    size: tuple[int, int]
    errors: list[ErrorRecord] = field(default_factory=list)
    states: list[StateRecord] = field(default_factory=list)
    commands: list[CommandRecord] = field(default_factory=list)
    enabled: float = 0.0
    killed: float | None = None


@dataclass(frozen=True)
class LoopFigures:
    """The figures of a loop; None where there was nothing to measure.

    :param settling_seconds: from the closing of the loop until the target was in the band for good (`HOLD_SECONDS`).
    :param within_share: of the images after that in which the target was in the band, 0..1. What is between a hiding
        and the settling after it does not count.
    :param median_error: of those images, the larger one of x and y, in image widths and heights; also the 95 % mark.
    :param uninformed_share: of those images, the share that does not count in the last three figures, since the newest
        state was older than `STALE_SECONDS` then or within `RECOVERY_SECONDS` before: no controller can make up for it.
    :param forward_acceleration: standard deviation of the change of the forward command a second at the times of the
        images that count, m/s².
    :param final_error_px: how far the target truly was from the set point in the last second before the end: mean
        distance, pixels. The next two are its parts.
    :param final_seen_error_px: the same of where the tracker saw it: all that a controller can do something about.
    :param final_box_error_px: the distance between both in the same images: by so much the tracker's boxes were off.
    :param losses: how often the tracker lost the target. :param stop_seconds: the longest time from that message until
        the command was zero. :param stop_after_hiding_seconds: the same from the image that shows less than half.
    :param resume_seconds: the longest time from the tracker's having it again until a command moved the camera; where
        the target was on its set point, and stayed there, no command was needed.
    :param resettling_seconds: the longest time from then until the target was in the band for good.
    :param kill_stop_seconds: from the death of the tracker until the command was zero for good.
    """

    settling_seconds: float | None
    within_share: float | None
    median_error: float | None
    error_95: float | None
    uninformed_share: float | None
    forward_acceleration: float | None
    final_error_px: float | None
    final_seen_error_px: float | None
    final_box_error_px: float | None
    losses: int
    stop_seconds: float | None
    stop_after_hiding_seconds: float | None
    resume_seconds: float | None
    resettling_seconds: float | None
    kill_stop_seconds: float | None
    age_ms_median: float | None

    @classmethod
    def of(cls, recording: LoopRecording) -> LoopFigures:
        """Take the figures of a recording."""
        end = math.inf if recording.killed is None else recording.killed
        errors = [one for one in recording.errors if recording.enabled <= one.time < end]
        states = [one for one in recording.states if recording.enabled <= one.time < end]
        settled = _settled(errors, recording.enabled)
        losses, finds = _losses(states)
        counted, resettling = _counted(errors, settled, finds)
        informed = _informed(counted, states)
        sizes = [max(abs(one.x), abs(one.y)) for one in informed]
        true, seen = _last_second(errors), _last_second(states)
        return cls(
            settling_seconds=_since(settled, recording.enabled),
            within_share=_rounded(float(np.mean([size <= BAND for size in sizes])), 4) if sizes else None,
            median_error=_rounded(float(np.median(sizes)), 4) if sizes else None,
            error_95=_rounded(float(np.percentile(sizes, 95)), 4) if sizes else None,
            uninformed_share=_rounded(1.0 - len(informed) / len(counted), 4) if counted else None,
            forward_acceleration=_acceleration(recording.commands, informed),
            final_error_px=_mean_distance([(one.x, one.y) for one in true], recording.size),
            final_seen_error_px=_mean_distance([(one.x, one.y) for one in seen], recording.size),
            final_box_error_px=_mean_distance(_differences(errors, seen), recording.size),
            losses=len(losses),
            stop_seconds=_longest(recording.commands, losses, zero=True),
            stop_after_hiding_seconds=_longest(recording.commands, _hidings(errors), zero=True),
            resume_seconds=_longest(recording.commands, _calls_to_move(errors, finds), zero=False),
            resettling_seconds=resettling,
            kill_stop_seconds=_stop_for_good(recording.commands, recording.killed),
            age_ms_median=_rounded(float(np.median([one.age for one in states])) * 1e3, 1) if states else None,
        )


def _rounded(value: float, digits: int) -> float:
    return round(value, digits)


def _since(time: float | None, start: float) -> float | None:
    return None if time is None else _rounded(time - start, 3)


def _in_band(error: ErrorRecord) -> bool:
    return abs(error.x) <= BAND and abs(error.y) <= BAND  # a NaN is not


def _settled(errors: Sequence[ErrorRecord], start: float) -> float | None:
    """Return when the target entered the band to stay for `HOLD_SECONDS`, at ``start`` or later."""
    entered: float | None = None
    for error in errors:
        if error.time < start:
            continue
        if not _in_band(error):
            entered = None
        elif entered is None:
            entered = error.time
        if entered is not None and error.time - entered >= HOLD_SECONDS:
            return entered
    return None


def _losses(states: Sequence[StateRecord]) -> tuple[list[float], list[float]]:
    """Return when the tracker reported that it lost the target, and when it reported it TRACKING again."""
    losses: list[float] = []
    finds: list[float] = []
    tracking = False
    for one in states:
        now = one.state == "TRACKING"
        if tracking and not now:
            losses.append(one.time)
        elif now and not tracking and losses:
            finds.append(one.time)
        tracking = now
    return losses, finds


def _calls_to_move(errors: Sequence[ErrorRecord], finds: Sequence[float]) -> list[float]:
    """Return those of ``finds`` after which the target was not at rest on its set point for `HOLD_SECONDS`."""
    calls = []
    for find in finds:
        after = [one for one in errors if find <= one.time <= find + HOLD_SECONDS]
        places = np.array([(one.x, one.y) for one in after]).reshape(-1, 2)
        if not all(map(_in_band, after)) or (len(after) > 1 and np.ptp(places, axis=0).max() > REST):
            calls.append(find)
    return calls


def _hidings(errors: Sequence[ErrorRecord]) -> list[float]:
    """Return the times of the images in which the target went out of sight."""
    return [later.time for earlier, later in pairwise(errors) if earlier.visible >= SEEN > later.visible]


def _counted(
    errors: Sequence[ErrorRecord], settled: float | None, finds: Sequence[float]
) -> tuple[list[ErrorRecord], float | None]:
    """Return the errors in the settled state, and the longest time that settling again after a find took.

    A hiding ends the settled state; it is back when the loop has settled after the next find.
    """
    if settled is None:
        return [], None
    counted: list[ErrorRecord] = []
    longest: float | None = None
    since: float | None = settled
    for error in errors:
        if error.time < settled:
            continue
        if error.visible < SEEN:
            since = None
        elif since is None:
            index = bisect_right(finds, error.time) - 1
            hidden = counted[-1].time if counted else settled
            if index >= 0 and finds[index] > hidden:
                since = _settled(errors, finds[index])
                since = math.inf if since is None else since
                longest = max(longest or 0.0, since - finds[index])
        if since is not None and error.time >= since:
            counted.append(error)
    return counted, None if longest is None else _rounded(longest, 3)


def _informed(errors: Sequence[ErrorRecord], states: Sequence[StateRecord]) -> list[ErrorRecord]:
    """Return the errors of times at which the controller knew where the target was; see `LoopFigures`."""
    if not states:
        return list(errors)
    times = [one.time for one in states]
    informed, stale_until = [], -math.inf
    for error in errors:
        index = bisect_right(times, error.time) - 1
        if index < 0 or error.time - states[index].taken > STALE_SECONDS:
            stale_until = error.time + RECOVERY_SECONDS
        if error.time >= stale_until:
            informed.append(error)
    return informed


def _acceleration(commands: Sequence[CommandRecord], counted: Sequence[ErrorRecord]) -> float | None:
    """Return the standard deviation of the forward command's change a second, at the times of ``counted`` images."""
    times = [one.time for one in counted]
    changes = []
    for earlier, later in pairwise(commands):
        index = bisect_right(times, earlier.time) - 1
        seconds = later.time - earlier.time
        if index >= 0 and earlier.time - times[index] < STALE_SECONDS and seconds > 1e-3:
            changes.append((later.twist[0] - earlier.twist[0]) / seconds)
    return _rounded(float(np.std(changes)), 3) if len(changes) > 1 else None


def _last_second(moments: Sequence[Timed]) -> list[Timed]:
    return [one for one in moments if one.time >= moments[-1].time - 1.0]


def _differences(errors: Sequence[ErrorRecord], states: Sequence[StateRecord]) -> list[tuple[float, float]]:
    """Return (x, y) from where the target was to where it was seen, for the images in both."""
    times = [one.time for one in errors]
    found = []
    for one in states:
        index = bisect_right(times, one.taken + SAME_SECONDS) - 1
        if index >= 0 and one.taken - times[index] <= SAME_SECONDS:
            found.append((one.x - errors[index].x, one.y - errors[index].y))
    return found


def _mean_distance(places: Sequence[tuple[float, float]], size: tuple[int, int]) -> float | None:
    """Return the mean distance from (0, 0) of places in image widths and heights, pixels; None if one is not known."""
    distances = [math.hypot(x * size[0], y * size[1]) for x, y in places]
    return _rounded(float(np.mean(distances)), 3) if distances and math.isfinite(sum(distances)) else None


def _longest(commands: Sequence[CommandRecord], moments: Sequence[float], *, zero: bool) -> float | None:
    """Return the longest time from a moment to the next command that is zero, or is not; infinity if none came."""
    times = [one.time for one in commands]
    waits = []
    for moment in moments:
        following = commands[bisect_right(times, moment) :]
        first = next((one.time for one in following if one.zero == zero), math.inf)
        waits.append(first - moment)
    return _rounded(max(waits), 3) if waits else None


def _stop_for_good(commands: Sequence[CommandRecord], killed: float | None) -> float | None:
    """Return how long after ``killed`` the last command that was not zero came; infinity if they did not stop."""
    if killed is None:
        return None
    after = [one for one in commands if one.time > killed]
    if not after or not after[-1].zero:
        return math.inf
    moving = [one.time for one in after if not one.zero]
    first_zero = next((one.time for one in after if not moving or one.time > moving[-1]), math.inf)
    return _rounded(first_zero - killed, 3)
