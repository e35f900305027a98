# SPDX-License-Identifier: Apache-2.0
"""Values at and beyond the limits of their types, and mutated bytes, drawn from a seeded generator."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from random import Random
from typing import Any

_FLOATS = (0.0, -0.0, 1.0, -1.0, 0.5, 1e-300, 5e-324, 1e9, -1e9, 2.0**31, 2.0**53, 2.0**63, 1e18, 1e30, 1e150, 1.79e308)
_NONE = (float("nan"), float("inf"), float("-inf"))
_TEXTS = (
    "",
    " ",
    "'",
    '"',
    "\n",
    "a\tb\r\n",
    "%s %d {} {0}",
    "../../etc/passwd",
    "Überziel",
    "目标",
    "🎯" * 3,
    "e\u0301\u0301\u0301",
    "\u202eabc",
    "x" * 300,
    "0",
    "None",
    "nan",
)


def odd_float(draw: Random) -> float:
    """Return a double: not finite, a limit, any bits, or an ordinary one."""
    kind = draw.randrange(8)
    if kind < 2:
        return draw.choice(_NONE)
    if kind < 5:
        return draw.choice(_FLOATS) * draw.choice((1, -1))
    if kind == 5:
        bits: float = struct.unpack("<d", draw.randbytes(8))[0]
        return bits
    return draw.gauss(0.0, 10.0 ** draw.randrange(-3, 8))


def odd_int(draw: Random, low: int, high: int) -> int:
    """Return an integer in a type's range, mostly at its limits."""
    edges = [low, low + 1, -1, 0, 1, 2, 3, 255, 256, 2**15, 2**16, 2**31 - 1, 2**31, high - 1, high]
    number = draw.choice(edges) if draw.random() < 0.8 else draw.randint(low, high)
    return min(max(number, low), high)


def odd_text(draw: Random) -> str:
    """Return a string as a message may hold it: any Unicode but surrogates and zero, short or very long."""
    kind = draw.randrange(10)
    if kind < 7:
        return draw.choice(_TEXTS)
    if kind < 9:
        points = [draw.randrange(1, 0x11_0000) for _ in range(draw.randrange(40))]
        return "".join(chr(point) for point in points if not 0xD800 <= point < 0xE000)
    return draw.choice("xü目") * draw.choice((255, 4097, 70_000))


def odd_thing(draw: Random) -> Any:
    """Return an object that no message field holds."""
    things = (None, True, -1, 2**70, 0.5, float("nan"), "text", b"bytes", [], [1, 2], {}, object())
    return draw.choice(things)


def mutated(draw: Random, data: bytes, begin: int = 0) -> bytes:
    """Return ``data`` with bytes changed, deleted, duplicated or truncated, from ``begin`` on."""
    content = bytearray(data)
    for _ in range(draw.choice((1, 1, 1, 2, 3, 8))):
        if len(content) <= begin:
            break
        at = draw.randrange(begin, len(content))
        if draw.random() < 0.3:  # headers are at the beginning
            at = begin + draw.randrange(min(64, len(content) - begin))
        kind = draw.randrange(12)
        if kind < 4:
            content[at] = draw.choice((0, 1, 127, 128, 254, 255, draw.randrange(256)))
        elif kind < 7:
            content[at] ^= 1 << draw.randrange(8)
        elif kind == 7:
            word = struct.pack(draw.choice(("<I", ">I", "<Q")), draw.choice((0, 1, 2**31 - 1, 2**31, 2**32 - 1)))
            content[at : at + len(word)] = word
        elif kind == 8:
            del content[at : at + draw.randrange(1, 40)]
        elif kind == 9:
            content[at:at] = content[at : at + draw.randrange(1, 40)]
        elif kind == 10:
            content[at : at + draw.randrange(1, 200)] = draw.choice((b"\0", b"\xff", b"")) * draw.randrange(1, 200)
        else:
            del content[at:]
    return bytes(content)


def some(draw: Random, names: Sequence[str], most: int = 3) -> list[str]:
    """Return which of ``names`` are to be wrong: mostly one, sometimes none or several."""
    count = draw.choice((0, 1, 1, 1, 1, 2, most))
    return draw.sample(list(names), min(count, len(names)))
