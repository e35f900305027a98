# SPDX-License-Identifier: Apache-2.0
"""The node's messages on /diagnostics: its input, its tracking and the node itself."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from builtin_interfaces.msg import Time
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue

from dimp_ros.node.diagnostics.statistics import WINDOW_SECONDS, StreamStatistics
from dimp_ros.node.diagnostics.stream_checks import harmful, slowness, stall, stamp_trouble, transport_loss
from dimp_ros.ros_utils.text import shortened
from dimp_ros.tracker.result import TargetEstimate, TargetState

LOADING = "the model is being loaded, ask again in a moment"

OK, WARN, ERROR, STALE = DiagnosticStatus.OK, DiagnosticStatus.WARN, DiagnosticStatus.ERROR, DiagnosticStatus.STALE


@dataclass(frozen=True)
class Snapshot:
    """The node at one moment.

    :param status_error: why it is not active, if so. :param loading: the model is being loaded.
    :param notes: what differs from the parameters. :param silent: seconds since the last image. :param silence: why, if
        that is too long; else empty. :param held: images held, and their bytes.
    :param device_bytes: memory taken on the device, None if not known. :param position: what is wrong with camera_info
        or depth; else empty. :param inputs: what is wrong with the topics of the other inputs; else empty.
    :param publishers: what is wrong with those of the images, see `publisher_trouble`; else empty.
    :param namesakes: that another node has the same name; else empty.
    """

    active: bool
    status_error: str
    notes: Sequence[str]
    model: str
    device: str
    device_bytes: int | None
    topic: str
    figures: StreamStatistics
    silent: float
    silence: str
    held: tuple[int, int]
    estimates: Sequence[TargetEstimate] = ()
    late: Sequence[str] = ()
    enabled: bool = True
    position: str = ""
    inputs: str = ""
    publishers: str = ""
    namesakes: str = ""
    loading: bool = False


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


def judge_input(snapshot: Snapshot) -> tuple[bytes, str]:
    """Return the level and the message of the input."""
    figures = snapshot.figures
    if not snapshot.active:
        return STALE, "not active: no images are taken"
    if snapshot.silence:
        level = WARN if figures.since_received is None else ERROR
        return level, f"no image for {snapshot.silent:.0f} s: {snapshot.silence}"
    if figures.since_received is None:
        return WARN, f"waiting for the first image on {snapshot.topic}"
    if figures.bad:
        level = ERROR if figures.bad == figures.received else WARN
        return level, f"{figures.bad} of {figures.received} images could not be used: {figures.last_bad}"
    if problem := snapshot.publishers or stamp_trouble(figures) or transport_loss(figures):
        return WARN, problem
    return OK, f"{figures.input_rate:.3g} images a second"


def judge_tracking(snapshot: Snapshot) -> tuple[bytes, str]:
    """Return the level and the message of the tracking."""
    figures = snapshot.figures
    if not snapshot.active:
        return STALE, "not active: nothing is followed"
    if hanging := stall(figures):
        return ERROR, hanging
    if figures.failed:
        return ERROR, f"failed in {figures.failed} of {figures.processed} images: {figures.last_failure}; see the log"
    if not snapshot.enabled:
        return OK, "disabled; call ~/set_enabled to go on"
    if slow := slowness(figures):
        too_slow = harmful(figures)
        if too_slow or not snapshot.estimates:
            return (WARN if too_slow else OK), slow
    states = [estimate.state for estimate in snapshot.estimates]
    lost = [estimate.target_id for estimate in snapshot.estimates if estimate.state is TargetState.LOST]
    if lost:
        return WARN, f"lost: {', '.join(lost)}"
    return OK, f"{len(states)} target{'' if len(states) == 1 else 's'}" if states else "no target"


def judge_node(snapshot: Snapshot) -> tuple[bytes, str]:
    """Return the level and the message of the node itself."""
    if snapshot.loading:
        return STALE, LOADING
    if snapshot.status_error:
        return ERROR, snapshot.status_error
    if not snapshot.active:
        return STALE, "not active: configure and activate it"
    problems = (*snapshot.notes, snapshot.namesakes, snapshot.position, snapshot.inputs)
    if text := "; ".join(filter(None, problems)):
        return WARN, text
    return OK, "active"


def _status(
    name: str, kind: str, judgement: tuple[bytes, str], values: dict[str, object], hardware: str
) -> DiagnosticStatus:
    level, message = judgement
    return DiagnosticStatus(
        level=level,
        name=f"{name}: {kind}",
        message=shortened(message),
        hardware_id=hardware,
        values=[KeyValue(key=key, value=_text(value)) for key, value in values.items()],
    )


def _milliseconds(seconds: float | None) -> float:
    return math.nan if seconds is None else 1e3 * seconds


def _text(value: object) -> str:
    """Write a value for people: numbers short, unknown ones as such."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return "unknown" if math.isnan(value) else f"{value:.4g}"
    return shortened(str(value))


def _input_values(snapshot: Snapshot) -> dict[str, object]:
    figures = snapshot.figures
    return {
        "topic": snapshot.topic,
        "images received": figures.total.get("received", 0),
        "rate (Hz)": figures.input_rate,
        "jitter 95 % (ms)": _milliseconds(figures.jitter),
        f"skipped in {WINDOW_SECONDS:g} s": figures.dropped,
        f"refused in {WINDOW_SECONDS:g} s": figures.bad,
        f"stamps gone back in {WINDOW_SECONDS:g} s": figures.backward,
        "skipped": figures.total.get("dropped", 0),
        "refused": figures.total.get("bad", 0),
        "seconds since the last image": snapshot.silent,
        "images held": snapshot.held[0],
        "images held (MiB)": snapshot.held[1] / 2**20,
    }


def _tracking_values(snapshot: Snapshot) -> dict[str, object]:
    figures = snapshot.figures
    values: dict[str, object] = {
        "processed rate (Hz)": figures.processed_rate,
        "images processed": figures.total.get("processed", 0),
        "images failed": figures.total.get("failed", 0),
        "age median (ms)": _milliseconds(figures.age_median),
        "age 95 % (ms)": _milliseconds(figures.age_p95),
        "age max (ms)": _milliseconds(figures.age_max),
        "targets": len(snapshot.estimates),
    }
    values |= {f"stage {name} (ms)": ms for name, ms in figures.stage_ms.items()}
    for estimate in snapshot.estimates:
        late = ", catching up" if estimate.target_id in snapshot.late else ""
        values[f"target {estimate.target_id}"] = f"{estimate.state.name} {estimate.confidence:.2f}{late}"
    return values


def _node_values(snapshot: Snapshot) -> dict[str, object]:
    figures = snapshot.figures
    memory = snapshot.device_bytes
    return {
        "active": snapshot.active,
        "model": snapshot.model,
        "device": snapshot.device,
        "device memory (MiB)": "unknown" if memory is None else memory / 2**20,
        "enabled": snapshot.enabled,
        "last error": figures.last_error or "none",
        "last error (s ago)": (figures.since_error or 0.0) if figures.last_error else "never",
    }
