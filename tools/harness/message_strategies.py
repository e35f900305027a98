# SPDX-License-Identifier: Apache-2.0
"""Image messages drawn by hypothesis, valid and invalid, for the tests and for long runs.

A long run: `@settings(max_examples=10**6, deadline=None) @given(raw_messages() | compressed_messages())` on `examine`.
"""

from __future__ import annotations

import array
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
from hypothesis import strategies as st

from dimp_ros.images.compressed_image import compressed_picture
from dimp_ros.images.contrast import Contrast
from dimp_ros.images.conversion import to_bgr, to_picture
from dimp_ros.images.encodings import ENCODINGS, SUPPORTED_ENCODINGS, BadImage

MAX_MEGAPIXELS = 1.0  # so that a header that says too much costs no time
_JUNK = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=9), st.binary(max_size=9), st.just([1, 2])
)


def raw_message(encoding: str, width: int, height: int, data: Any, padding: int = 0, big: int = 0) -> SimpleNamespace:
    """Return an image message whose rows end with ``padding`` bytes; ``data`` may be a generator of noise."""
    layout = ENCODINGS[encoding]
    step = layout.row_bytes(width) + padding
    if isinstance(data, np.random.Generator):
        data = array.array("B", data.bytes(step * layout.data_rows(height)))
    return SimpleNamespace(
        width=width, height=height, encoding=encoding, step=step, is_bigendian=big, data=data, header=None
    )


@st.composite
def good_messages(draw: st.DrawFn, encodings: tuple[str, ...] = SUPPORTED_ENCODINGS) -> SimpleNamespace:
    """Draw a message of noise in any encoding: any bits, including NaN, in either byte order, with padding."""
    return raw_message(
        draw(st.sampled_from(encodings)),
        draw(st.integers(1, 24)),
        draw(st.integers(1, 24)),
        np.random.default_rng(draw(st.integers(0, 2**32 - 1))),
        draw(st.integers(0, 9)),
        draw(st.integers(0, 1)),
    )


@st.composite
def raw_messages(draw: st.DrawFn) -> SimpleNamespace:
    """Draw a valid message with some fields replaced."""
    message = draw(good_messages())
    sizes = st.integers(-1, 30) | st.sampled_from([2**31, 2**32 - 1, 100_000, 2**70]) | _JUNK
    others = {
        "width": sizes,
        "height": sizes,
        "step": sizes,
        "is_bigendian": _JUNK,
        "encoding": st.sampled_from([*SUPPORTED_ENCODINGS, "8UC2", "bayer_rggb", "RGB8"])
        | st.text(max_size=12)
        | _JUNK,
        "data": st.binary(max_size=200) | st.lists(st.integers(0, 255), max_size=9) | _JUNK,
    }
    for name in draw(st.sets(st.sampled_from(sorted(others)), max_size=3)):
        setattr(message, name, draw(others[name]))
    if draw(st.integers(0, 30)) == 0:
        delattr(message, draw(st.sampled_from(sorted(others))))
    return message


FILES = [
    cv2.imencode(extension, pixels)[1].tobytes()
    for extension, pixels in [
        (".jpg", np.arange(32 * 24 * 3, dtype=np.uint8).reshape(24, 32, 3)),
        (".jpg", np.arange(32 * 24, dtype=np.uint8).reshape(24, 32)),
        (".png", np.arange(32 * 24 * 3, dtype=np.uint8).reshape(24, 32, 3)),
        (".png", np.arange(32 * 24, dtype=np.uint16).reshape(24, 32) * 80),
        (".webp", np.arange(32 * 24 * 3, dtype=np.uint8).reshape(24, 32, 3)),
        (".tiff", np.arange(32 * 24 * 3, dtype=np.float32).reshape(24, 32, 3)),
    ]
]


@st.composite
def compressed_messages(draw: st.DrawFn) -> SimpleNamespace:
    """Draw a compressed message: a file with some bytes changed, a truncated one, or something else."""
    content = bytearray(draw(st.sampled_from(FILES)))
    for _ in range(draw(st.sampled_from([0, 1, 1, 2, 6]))):
        at = draw(st.integers(0, len(content) - 1) | st.integers(0, min(60, len(content) - 1)))
        content[at] = draw(st.integers(0, 255))
    end = draw(st.just(len(content)) | st.integers(0, len(content)))
    beginnings = [b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"RIFF....WEBPVP8X", b"II*\0", b"MM\0*", b""]
    noise = st.tuples(st.sampled_from(beginnings), st.binary(max_size=80)).map(b"".join)
    texts = [
        "jpeg",
        "bgr8; jpeg compressed bgr8",
        "rgb8; png compressed",
        "bayer_rggb8; jpeg compressed",
        "mono16; png",
    ]
    message = SimpleNamespace(format=draw(st.sampled_from(texts)), data=bytes(content[:end]), header=None)
    odd = draw(st.integers(0, 9))
    if odd == 0:
        message.format = draw(st.just("16UC1; compressedDepth png") | st.text(max_size=20) | _JUNK)
    elif odd == 1:
        message.data = draw(noise | _JUNK)
    return message


def examine(message: SimpleNamespace) -> bool:
    """Decode a drawn message, and return whether it is an image.

    :raises AssertionError: for a picture that is not as it says; what is examined may raise nothing but `BadImage`.
    """
    levels = Contrast()
    try:
        if hasattr(message, "format"):
            picture = compressed_picture(message, levels, MAX_MEGAPIXELS)
        else:
            picture = to_picture(message, levels)
        assert picture.width >= 1 and picture.height >= 1
        whole = to_bgr(picture)
    except BadImage as error:
        assert 20 < len(str(error)) < 600, str(error)
        return False
    assert whole.dtype == np.uint8 and whole.shape == (picture.height, picture.width, 3)
    corner = picture.region(picture.width - 1, picture.height - 1, picture.width, picture.height)
    assert (corner.reshape(-1) == whole[-1, -1, : corner.size]).all()
    return True
