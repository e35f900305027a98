# SPDX-License-Identifier: Apache-2.0
"""Messages over the WebSocket: images with their boxes, states and answers to the browser, requests from it."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from typing import Any, NamedTuple

MAX_BYTES = 4096
"""Longest message accepted from a browser, bytes."""

MAX_NAME = 255
"""Longest name of a target in characters, as in the tracker."""

_LAST_SECOND = 2**31 - 1


class BadMessage(ValueError):
    """An invalid message."""


class Login(NamedTuple):
    """The token; the first message."""

    token: str


class Ack(NamedTuple):
    """Acknowledges a status, or an image after it was decoded."""

    number: int


class Init(NamedTuple):
    """Start a target from a box: (x, y, w, h) in pixels of the image with this stamp.

    :param drop_number: of the last status that was shown when this was asked for; 0 if it is not told.
    """

    request: int
    stamp: tuple[int, int]
    box: tuple[float, float, float, float]
    target_id: str
    drop_number: int = 0


class Drop(NamedTuple):
    """Drop a target; an empty name means all. :param drop_number: as in `Init`."""

    request: int
    target_id: str
    drop_number: int = 0


class Enable(NamedTuple):
    """Enable or pause the tracker.

    :param pause_number: of the last status that was shown when this was asked for; 0 if it is not told.
    """

    request: int
    enabled: bool
    pause_number: int = 0


Message = Login | Ack | Init | Drop | Enable


def parse(text: str) -> Message:
    """Return the message in a text frame.

    :raises BadMessage: with the reason.
    """
    try:
        fields = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BadMessage(f"a message is not valid JSON: {type(error).__name__}") from error
    if not isinstance(fields, dict):
        raise BadMessage(f"a message must be an object, got {type(fields).__name__}")
    kind = fields.get("type")
    if kind == "ack":
        return Ack(_whole(fields, "number"))
    if kind == "login":
        return Login(_text(fields, "token"))
    if kind == "init":
        shown = _whole(fields, "drop_number", 0)
        return Init(_whole(fields, "request"), _stamp(fields), _box(fields), _text(fields, "id"), shown)
    if kind == "drop":
        return Drop(_whole(fields, "request"), _text(fields, "id"), _whole(fields, "drop_number", 0))
    if kind == "enable":
        enabled = fields.get("enabled")
        if not isinstance(enabled, bool):
            raise BadMessage("enabled must be true or false")
        return Enable(_whole(fields, "request"), enabled, _whole(fields, "pause_number", 0))
    raise BadMessage("type must be one of ack, login, init, drop, enable")


def pack_image(header: Mapping[str, Any], jpeg: bytes) -> bytes:
    """Return a binary message: the header's length (4 bytes, little-endian), the header as JSON, the JPEG."""
    text = json.dumps(header, separators=(",", ":"), allow_nan=False).encode()
    return struct.pack("<I", len(text)) + text + jpeg


def unpack_image(message: bytes) -> tuple[dict[str, Any], bytes]:
    """Return the header and the JPEG of `pack_image`."""
    (length,) = struct.unpack_from("<I", message)
    return json.loads(message[4 : 4 + length]), message[4 + length :]


def _whole(fields: Mapping[str, Any], name: str, default: int | None = None) -> int:
    value = fields.get(name, default)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= 2**53:
        raise BadMessage(f"{name} must be a whole number, 0 or more")
    return value


def _text(fields: Mapping[str, Any], name: str) -> str:
    value = fields.get(name)
    if not isinstance(value, str) or len(value) > MAX_NAME:
        raise BadMessage(f"{name} must be a text of {MAX_NAME} characters at most")
    try:
        value.encode()  # JSON can express half of a surrogate pair, a ROS message cannot
    except UnicodeEncodeError:
        raise BadMessage(f"{name} holds characters that are not valid Unicode") from None
    return value


def _stamp(fields: Mapping[str, Any]) -> tuple[int, int]:
    value = fields.get("stamp")
    if not isinstance(value, list) or len(value) != 2:
        raise BadMessage("stamp must be a list of seconds and nanoseconds")
    seconds, nanoseconds = (_whole({"stamp": item}, "stamp") for item in value)
    if seconds > _LAST_SECOND or nanoseconds >= 1_000_000_000:
        raise BadMessage(f"stamp must lie in 0 .. {_LAST_SECOND} s and 0 .. 999999999 ns")
    return seconds, nanoseconds


def _box(fields: Mapping[str, Any]) -> tuple[float, float, float, float]:
    value = fields.get("box")
    if not isinstance(value, list) or len(value) != 4:
        raise BadMessage("box must be a list of x, y, width and height")
    numbers = []
    for item in value:
        if isinstance(item, bool) or not isinstance(item, (int, float)):
            raise BadMessage("box must hold numbers")
        if not abs(item) <= 1e6:  # refuses NaN, too
            raise BadMessage("box must hold finite numbers of at most a million pixels")
        numbers.append(float(item))
    x, y, w, h = numbers
    return x, y, w, h
