# SPDX-License-Identifier: Apache-2.0
"""Image messages: valid ones with a field or some bytes changed, raw and compressed."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from random import Random
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
from harness.message_strategies import FILES, examine, raw_message

from dimp_ros.images.encodings import SUPPORTED_ENCODINGS
from fuzz.draw import mutated, odd_int, odd_text, odd_thing, some
from fuzz.run import Attempt

_PNG_BEGIN = 8
_NAMES = (*SUPPORTED_ENCODINGS, "8UC2", "32SC3", "bayer_rggb", "RGB8", "mono12", "")
_FORMATS = (
    "jpeg",
    "png",
    "",
    "bgr8; jpeg compressed bgr8",
    "rgb8; png compressed",
    "bayer_rggb8; jpeg compressed",
    "mono16; png",
    "16UC1; compressedDepth png",
    "32FC1; tiff",
)


@contextmanager
def raw_images() -> Iterator[Attempt]:
    """Convert sensor_msgs/Image."""
    cv2.setNumThreads(1)
    yield lambda draw: examine(raw_image(draw))


@contextmanager
def compressed_images() -> Iterator[Attempt]:
    """Decode sensor_msgs/CompressedImage."""
    cv2.setNumThreads(1)
    yield lambda draw: examine(compressed_image(draw))


def raw_image(draw: Random) -> SimpleNamespace:
    """Return an image of noise in any encoding, mostly with one field that contradicts the others."""
    noise = np.random.default_rng(draw.getrandbits(63))
    side = 40 if draw.random() < 0.95 else 400
    encoding = draw.choice(SUPPORTED_ENCODINGS)
    message = raw_message(
        encoding, draw.randint(1, side), draw.randint(1, side), noise, draw.choice((0, 0, 1, 7)), draw.randrange(2)
    )
    message.data = _filled(draw, message.data)
    wrong: dict[str, Any] = {
        "width": lambda: odd_int(draw, 0, 2**32 - 1),
        "height": lambda: odd_int(draw, 0, 2**32 - 1),
        "step": lambda: draw.choice((message.step + 1, message.step - 1, odd_int(draw, 0, 2**32 - 1))),
        "is_bigendian": lambda: odd_int(draw, 0, 255),
        "encoding": lambda: draw.choice(_NAMES) if draw.random() < 0.8 else odd_text(draw),
        "data": lambda: message.data[: draw.randrange(len(message.data) + 1)],
    }
    for name in some(draw, list(wrong)) if draw.random() < 0.6 else ():
        setattr(message, name, wrong[name]() if draw.random() < 0.95 else odd_thing(draw))
    return message


def _filled(draw: Random, data: Any) -> Any:
    """Return data of the same length, sometimes one repeated byte: zeros, NaN, or one huge number."""
    if draw.random() < 0.8:
        return data
    return type(data)(data.typecode, bytes([draw.choice((0, 1, 127, 128, 255))]) * len(data))


def compressed_image(draw: Random) -> SimpleNamespace:
    """Return an image file, mostly with some bytes changed; PNG keeps valid checksums."""
    content = draw.choice(FILES)
    if content.startswith(b"\x89PNG") and draw.random() < 0.7:
        content = _png(draw, content)
    elif draw.random() < 0.9:  # most changes behind the header leave an image that can be decoded
        content = mutated(draw, content, len(content) // 3 if draw.random() < 0.4 else 0)
    message = SimpleNamespace(format=draw.choice(_FORMATS[:7]), data=content, header=None)
    for name in some(draw, ("format", "data")) if draw.random() < 0.1 else ():
        setattr(message, name, draw.choice((draw.choice(_FORMATS), odd_text(draw), odd_thing(draw))))
    return message


def _png(draw: Random, content: bytes) -> bytes:
    """Return a PNG file with a chunk mutated, inserted or moved, and valid checksums."""
    chunks, at = [], _PNG_BEGIN
    while at < len(content):
        (length,) = struct.unpack_from(">I", content, at)
        chunks.append((content[at + 4 : at + 8], content[at + 8 : at + 8 + length]))
        at += 12 + length
    which = draw.randrange(len(chunks))
    kind, data = chunks[which]
    action = draw.randrange(8)
    if action == 0:
        chunks.insert(which, (draw.choice((b"PLTE", b"tRNS", b"gAMA", b"eXIf", b"acTL", b"iCCP")), draw.randbytes(12)))
    elif action == 1:
        chunks.append(chunks.pop(which))
    elif kind == b"IDAT" and action < 6:  # filtered pixels inside valid compressed data
        chunks[which] = (kind, zlib.compress(mutated(draw, zlib.decompress(data))))
    else:
        chunks[which] = (kind, mutated(draw, data))
    parts = [content[:_PNG_BEGIN]]
    for kind, data in chunks:
        parts += [struct.pack(">I", len(data)), kind, data, struct.pack(">I", zlib.crc32(kind + data))]
    return b"".join(parts)
