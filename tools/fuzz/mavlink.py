# SPDX-License-Identifier: Apache-2.0
"""What comes over a MAVLink connection: for the camera, and from the autopilot that the node steers."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from random import Random
from typing import Any

from dimp_ros.apps.mavlink.autopilot import AutopilotControl
from dimp_ros.apps.mavlink.camera import Identity, TrackingCamera
from dimp_ros.apps.mavlink.link import dialect, make_codec, messages_in
from dimp_ros.apps.mavlink.tracking_commands import CommandAnswer, Done, Request
from dimp_ros.geometry.box import Box
from dimp_ros.tracker.result import TargetEstimate, TargetState
from fuzz.draw import mutated, odd_float, odd_int, odd_text
from fuzz.run import Attempt

SYSTEM, CAMERA, AUTOPILOT = 1, 100, 1
KEY = b"k" * 32
MOST_BUFFERED = 4096
"""Bytes of a stream that the decoder may keep: a message has at most 280, a read at most 2,048."""

MOST_ANSWERS = 8
"""Messages that one message may cause: an acknowledgement, one that was asked for, and four parts of a text."""

INTEGERS = {
    "uint8_t": (0, 2**8 - 1),
    "int8_t": (-(2**7), 2**7 - 1),
    "uint16_t": (0, 2**16 - 1),
    "int16_t": (-(2**15), 2**15 - 1),
    "uint32_t": (0, 2**32 - 1),
    "int32_t": (-(2**31), 2**31 - 1),
    "uint64_t": (0, 2**64 - 1),
    "int64_t": (-(2**63), 2**63 - 1),
}


class FuzzedTracker:
    """A tracker that accepts, refuses, or does not answer."""

    def __init__(self, draw: Random) -> None:
        self._draw, self.calls = draw, 0

    def _answer(self, done: Done) -> None:
        self.calls += 1
        kind = self._draw.randrange(4)
        if kind < 3:
            done(CommandAnswer(kind == 0, odd_text(self._draw) if kind else "", later=kind == 2))

    def rectangle(self, left: float, top: float, right: float, bottom: float) -> Request:
        """Accept a rectangle, which must be one."""
        assert 0.0 <= left < right <= 1.0 and 0.0 <= top < bottom <= 1.0, (left, top, right, bottom)
        return self._answer

    def point(self, x: float, y: float) -> Request:
        """Accept a point, which must be in the image."""
        assert 0.0 <= x <= 1.0 and 0.0 <= y <= 1.0, (x, y)
        return self._answer

    def stop(self, done: Done) -> None:
        """Stop."""
        self._answer(done)


class Wire:
    """Where a codec writes to."""

    def __init__(self) -> None:
        self.data = b""

    def write(self, data: bytes) -> None:
        """Keep what is sent."""
        self.data += bytes(data)


@contextmanager
def messages() -> Iterator[Attempt]:
    """Hand bytes and messages to a camera and to the control of an autopilot, which must work afterwards."""
    m = dialect()
    kinds = sorted(m.mavlink_map)
    yield lambda draw: _attempt(draw, m, kinds)


def _attempt(draw: Random, m: Any, kinds: list[int]) -> bool:
    now, key = [1000.0], KEY if draw.random() < 0.2 else None
    sent: list[Any] = []
    tracker = FuzzedTracker(draw)
    identity = Identity("vendor", "model", draw.choice(("", "rtsp://host/live")))
    camera = TrackingCamera(SYSTEM, CAMERA, identity, tracker, sent.append, clock=lambda: now[0])
    gimbal = draw.random() < 0.3
    control = AutopilotControl(SYSTEM, CAMERA, sent.append, gimbal=gimbal, clock=lambda: now[0])
    decoder, wire = make_codec(Wire(), SYSTEM, CAMERA, key), Wire()
    whole, taken, credible = draw.random() < 0.5, False, False
    for _ in range(draw.choice((1, 1, 2, 6))):
        wire.data = b""
        _send_one(draw, m, kinds, wire, key)
        data = mutated(draw, wire.data) if draw.random() < 0.4 and wire.data else wire.data
        data = draw.randbytes(draw.randrange(600)) if draw.random() < 0.05 else data
        for message in messages_in(decoder, data, whole=whole):
            taken = True
            credible |= _is_ready(m, message)
            before = len(sent)
            camera.on_message(message)
            control.on_message(message)
            assert len(sent) - before <= MOST_ANSWERS, f"{message.get_type()} caused {len(sent) - before} messages"
        assert len(decoder.buf) <= MOST_BUFFERED, len(decoder.buf)
        control.on_command((1.0, 0.5, 0.1, 0.0, 0.2, 0.3), now[0])
        now[0] += draw.choice((0.0, 0.05, 0.5, 3.0))
        camera.tick()
        control.tick()
    _check_sent(sent, credible)
    _check_works(m, camera, control, sent, now)
    return taken


def _send_one(draw: Random, m: Any, kinds: list[int], wire: Wire, key: bytes | None) -> None:
    """Write a message of any kind and sender, often of those that are looked at, with odd values in it."""
    likely = (0, 76, 75, 245)  # HEARTBEAT, COMMAND_LONG, COMMAND_INT, EXTENDED_SYS_STATE
    kind = m.mavlink_map[draw.choice(likely) if draw.random() < 0.8 else draw.choice(kinds)]
    sender = (SYSTEM, AUTOPILOT) if draw.random() < 0.6 else (draw.randrange(256), draw.randrange(256))
    values = [_value(draw, name, *field) for name, field in _fields(kind)]
    codec = make_codec(wire, *sender, key if draw.random() < 0.8 else None)
    try:
        codec.send(kind(*values), force_mavlink1=draw.random() < 0.05)
    except Exception:  # pymavlink cannot pack it: no other sender could
        wire.data = b""


def _fields(kind: Any) -> list[tuple[str, tuple[str, int]]]:
    """Return name, type and length of a message's fields, in the order of its constructor."""
    lengths = dict(zip(kind.ordered_fieldnames, kind.array_lengths, strict=True))
    types = dict(zip(kind.fieldnames, kind.fieldtypes, strict=True))
    return [(name, (types[name], lengths[name])) for name in kind.fieldnames]


def _value(draw: Random, name: str, kind: str, length: int) -> Any:
    if kind == "char":
        return odd_text(draw).encode()[: length or 1]
    values = [_number(draw, name, kind) for _ in range(max(length, 1))]
    return values if length else values[0]


def _number(draw: Random, name: str, kind: str) -> Any:
    usual: dict[str, tuple[int, ...]] = {
        "target_system": (SYSTEM,),
        "target_component": (CAMERA, CAMERA, 0),
        "command": (2005, 2004, 2010, 511, 512, 521, 522, 525, 527, 2504),
        "autopilot": (3, 12, 8, 0),
        "type": (2, 10, 1, 22, 6),
        "custom_mode": (4, 15, 6 << 16, 0),
        "base_mode": (129, 1, 128, 0),
        "system_status": (4, 3, 5),
        "landed_state": (0, 1, 2, 3, 4),
    }
    if name in usual and draw.random() < 0.8:
        return draw.choice(usual[name])
    if kind in INTEGERS:
        return odd_int(draw, *INTEGERS[kind])
    if name.startswith("param") and draw.random() < 0.7:
        return draw.choice((0.0, 0.25, 0.5, 1.0, 259.0, 275.0, -1.0, 1e5))
    return odd_float(draw)


def _is_ready(m: Any, message: Any) -> bool:
    """Return whether a message may be an autopilot's that lets commands pass: written down here a second time."""
    if message.get_type() != "HEARTBEAT" or (message.get_srcSystem(), message.get_srcComponent()) != (1, 1):
        return False
    mode = {3: (4, 15), 12: (6,)}.get(message.autopilot, ())
    number = message.custom_mode if message.autopilot == 3 else message.custom_mode >> 16 & 255
    return number in mode and bool(message.base_mode & m.MAV_MODE_FLAG_SAFETY_ARMED)


def _check_sent(sent: list[Any], credible: bool) -> None:
    """Check that motion needs a credible heartbeat, that all values are finite, and that nothing else is commanded."""
    for one in sent:
        kind = one.get_type()
        if kind == "SET_POSITION_TARGET_LOCAL_NED":
            values = one.vx, one.vy, one.vz, one.yaw_rate
        elif kind == "GIMBAL_MANAGER_SET_PITCHYAW":
            values = one.pitch_rate, one.yaw_rate, 0.0, 0.0
        else:
            assert kind != "COMMAND_LONG" or (one.command == 1001 and credible), one
            continue
        assert all(map(math.isfinite, values)) and (credible or not any(values)), one


def _check_works(m: Any, camera: TrackingCamera, control: AutopilotControl, sent: list[Any], now: list[float]) -> None:
    """Check that valid messages are obeyed afterwards."""
    now[0] += 10.0
    for mode in (0, 4):
        beat = m.MAVLink_heartbeat_message(2, 3, 129, mode, 4, 3)
        flying = m.MAVLink_extended_sys_state_message(0, 2)
        for message in (beat, flying):
            message._header.srcSystem, message._header.srcComponent = SYSTEM, AUTOPILOT
            control.on_message(message)
    control.on_command((1.0, 0.0, 0.0, 0.0, 0.0, 0.5), now[0])
    assert not control.tick(), control.refusal()
    before = len(sent)
    ask = m.MAVLink_command_long_message(SYSTEM, CAMERA, m.MAV_CMD_REQUEST_MESSAGE, 0, 259.0, 0, 0, 0, 0, 0, 0)
    ask._header.srcSystem, ask._header.srcComponent = 255, 190
    camera.on_message(ask)
    assert [one.get_type() for one in sent[before:]] == ["COMMAND_ACK", "CAMERA_INFORMATION"]
    camera.on_estimate(TargetEstimate("mavlink", TargetState.TRACKING, Box(1.0, 2.0, 3.0, 4.0), 0.9), (64, 48))
    camera.tick()
    for one in sent:
        one.pack(make_codec(Wire(), SYSTEM, CAMERA, None))  # all of it can be sent
