# SPDX-License-Identifier: Apache-2.0
"""What the node tells on /diagnostics: how images come in, how tracking goes, and whether the node itself is well."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from builtin_interfaces.msg import Time
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue

from dimp_ros.node.statistics import WINDOW_SECONDS, StreamStatistics
from dimp_ros.node.target import Reading
from dimp_ros.tracker.result import TargetState

OK, WARN, ERROR, STALE = DiagnosticStatus.OK, DiagnosticStatus.WARN, DiagnosticStatus.ERROR, DiagnosticStatus.STALE

RECENT_ERROR_SECONDS = 10.0
OLD_SECONDS, AHEAD_SECONDS = 5.0, 0.1
"""Ages beyond which stamps and the node's clock do not belong together."""


@dataclass(frozen=True)
class Snapshot:
    """The node at one moment.

    :param trouble: why it is not active, if so. :param notes: what is otherwise than the parameters say.
    :param silent: seconds since the last image. :param silence: why, if that is too long; else empty.
    :param held: images held, and their bytes. :param device_bytes: memory taken on the device, None if not known.
    :param position: what is wrong with camera_info or depth; else empty.
    """

    active: bool
    trouble: str
    notes: Sequence[str]
    model: str
    device: str
    device_bytes: int | None
    topic: str
    figures: StreamStatistics
    silent: float
    silence: str
    held: tuple[int, int]
    readings: Sequence[Reading] = ()
    late: Sequence[str] = ()
    enabled: bool = True
    position: str = ""


def diagnostics(name: str, stamp: Time, snapshot: Snapshot) -> DiagnosticArray:
    """Return three statuses: input, tracking and node.

    :param name: of the node, which begins the names of the statuses.
    """
    array = DiagnosticArray()
    array.header.stamp = stamp
    array.status = [
        _status(name, kind, part(snapshot), values(snapshot), snapshot.device)
        for kind, part, values in (
            ("input", judge_input, _input_values),
            ("tracking", judge_tracking, _tracking_values),
            ("node", judge_node, _node_values),
        )
    ]
    return array


def stamp_trouble(figures: StreamStatistics) -> str:
    """Say what is wrong with the images' stamps by the node's clock; empty if nothing is."""
    age = figures.age_median
    if age is None:
        return ""
    if age > OLD_SECONDS:
        return (
            f"stamps are {age:.3g} s older than the node's clock: set use_sim_time for a bag or a simulation, let the "
            "driver stamp its images, or set the machines' clocks alike"
        )
    if age < -AHEAD_SECONDS:
        return (
            f"stamps are {-age:.3g} s ahead of the node's clock: set the machines' clocks alike, or use_sim_time "
            "everywhere or nowhere"
        )
    return ""


def slowness(figures: StreamStatistics) -> str:
    """Say that images are passed over because inference is slower than the camera; empty if they are not."""
    if not figures.dropped or figures.processed_rate > 0.9 * figures.input_rate:
        return ""
    return (
        f"{figures.processed_rate:.3g} of {figures.input_rate:.3g} images a second are processed, always the newest: a "
        "lower camera rate, fewer targets or a faster device leave none out"
    )


def judge_input(snapshot: Snapshot) -> tuple[bytes, str]:
    """Return how well images come in, and what to do about it."""
    figures = snapshot.figures
    if not snapshot.active:
        return STALE, "not active: no images are taken"
    if snapshot.silence:
        level = WARN if figures.since_received is None else ERROR
        return level, f"no image for {snapshot.silent:.0f} s: {snapshot.silence}"
    if figures.since_received is None:
        return WARN, f"waiting for the first image on {snapshot.topic}"
    if trouble := stamp_trouble(figures):
        return WARN, trouble
    if figures.bad:
        return WARN, f"{figures.bad} images could not be used in the last {WINDOW_SECONDS:g} s: {figures.last_error}"
    return OK, f"{figures.input_rate:.3g} images a second"


def judge_tracking(snapshot: Snapshot) -> tuple[bytes, str]:
    """Return how well the targets are followed, and what to do about it."""
    figures = snapshot.figures
    if not snapshot.active:
        return STALE, "not active: nothing is followed"
    if figures.last_error and (figures.since_error or 0.0) < RECENT_ERROR_SECONDS and not figures.bad:
        return ERROR, f"{(figures.since_error or 0.0):.0f} s ago: {figures.last_error}; the log has more"
    if not snapshot.enabled:
        return OK, "disabled; call ~/set_enabled to go on"
    if slow := slowness(figures):
        return (WARN if (figures.age_p95 or 0.0) > 0.5 else OK), slow
    states = [reading.state for reading in snapshot.readings]
    lost = [reading.target_id for reading in snapshot.readings if reading.state is TargetState.LOST]
    if lost:
        return WARN, f"lost: {', '.join(lost)}"
    return OK, f"{len(states)} targets" if states else "no target"


def judge_node(snapshot: Snapshot) -> tuple[bytes, str]:
    """Return whether the node is as it should be."""
    if snapshot.trouble:
        return ERROR, snapshot.trouble
    if not snapshot.active:
        return STALE, "not active: configure and activate it"
    if remarks := [*snapshot.notes, *([snapshot.position] if snapshot.position else [])]:
        return WARN, "; ".join(remarks)
    return OK, "active"


def _status(
    name: str, kind: str, judgement: tuple[bytes, str], values: dict[str, object], hardware: str
) -> DiagnosticStatus:
    level, message = judgement
    return DiagnosticStatus(
        level=level,
        name=f"{name}: {kind}",
        message=message,
        hardware_id=hardware,
        values=[KeyValue(key=key, value=_text(value)) for key, value in values.items()],
    )


def _milliseconds(seconds: float | None) -> float:
    return math.nan if seconds is None else 1e3 * seconds


def _text(value: object) -> str:
    """Write a value for people: numbers short, unknown ones as such."""
    if isinstance(value, float):
        return "unknown" if math.isnan(value) else f"{value:.4g}"
    return str(value)


def _input_values(snapshot: Snapshot) -> dict[str, object]:
    figures = snapshot.figures
    return {
        "topic": snapshot.topic,
        "images received": figures.total.get("received", 0),
        "rate (Hz)": figures.input_rate,
        f"passed over in {WINDOW_SECONDS:g} s": figures.dropped,
        f"refused in {WINDOW_SECONDS:g} s": figures.bad,
        "seconds since the last image": snapshot.silent,
        "images held": snapshot.held[0],
        "images held (MiB)": snapshot.held[1] / 2**20,
    }


def _tracking_values(snapshot: Snapshot) -> dict[str, object]:
    figures = snapshot.figures
    values: dict[str, object] = {
        "processed rate (Hz)": figures.processed_rate,
        "age median (ms)": _milliseconds(figures.age_median),
        "age 95 % (ms)": _milliseconds(figures.age_p95),
        "age max (ms)": _milliseconds(figures.age_max),
        "targets": len(snapshot.readings),
    }
    values |= {f"stage {name} (ms)": ms for name, ms in figures.stage_ms.items()}
    for reading in snapshot.readings:
        late = ", catching up" if reading.target_id in snapshot.late else ""
        values[f"target {reading.target_id}"] = f"{reading.state.name} {reading.confidence:.2f}{late}"
    return values


def _node_values(snapshot: Snapshot) -> dict[str, object]:
    figures = snapshot.figures
    memory = snapshot.device_bytes
    return {
        "model": snapshot.model,
        "device": snapshot.device,
        "device memory (MiB)": "unknown" if memory is None else memory / 2**20,
        "enabled": snapshot.enabled,
        "last error": figures.last_error or "none",
        "last error (s ago)": (figures.since_error or 0.0) if figures.last_error else "never",
    }
