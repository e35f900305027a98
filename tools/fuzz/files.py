# SPDX-License-Identifier: Apache-2.0
"""Files whose parts disagree: masks of annotations, image files of a folder, records of MCAP, and videos."""

from __future__ import annotations

import os
import struct
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random

import cv2
import numpy as np
from harness.bag_fixtures import shots, write_ros2

from dimp_ros.datasets.masks import decode_runs, encode_runs, fill_polygons
from dimp_ros.images.files import read_image
from dimp_ros.images.video_structure import find_damage, mp4_length
from fuzz.bags import read_bag
from fuzz.contradictions import SIZES, encoded
from fuzz.draw import mutated, odd_float, odd_int, odd_thing
from fuzz.run import Attempt

_SUFFIXES = (".jpg", ".png", ".webp", ".tiff", ".bmp", ".ppm")
_FILMS = {".mp4": "mp4v", ".avi": "MJPG", ".mkv": "mp4v"}


@contextmanager
def files() -> Iterator[Attempt]:
    """Read files: refused with a reason, or read within the limits of time and memory."""
    cv2.setNumThreads(1)
    with tempfile.TemporaryDirectory(prefix="fuzz-files") as name:
        folder = Path(name)
        mcap = (write_ros2(folder / "valid", shots(4)) / "valid.mcap").read_bytes()
        films = {suffix: _film(folder / f"film{suffix}", codec) for suffix, codec in _FILMS.items()}
        kinds: tuple[Callable[[Random], bool], ...] = (
            _polygons,
            _runs,
            lambda draw: _image(draw, folder),
            lambda draw: read_bag(draw, _mcap(draw, mcap, folder / "bag.mcap")),
            lambda draw: _video(draw, films, folder),
        )
        yield lambda draw: draw.choice(kinds)(draw)


def _film(path: Path, codec: str) -> bytes:
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*codec), 25.0, (64, 48))
    for image in np.random.default_rng(0).integers(0, 256, (12, 48, 64, 3), np.uint8):
        writer.write(image)
    writer.release()
    return path.read_bytes()


def _sides(draw: Random) -> tuple[int, int]:
    """Return height and width, mostly of an ordinary image."""
    if draw.random() < 0.7:
        return draw.randint(1, 200), draw.randint(1, 200)
    return draw.choice(SIZES), draw.choice((*SIZES, -1, 2**31))


def _polygons(draw: Random) -> bool:
    """Fill polygons with corners that are far, not finite, many or no numbers."""
    height, width = _sides(draw)
    count = draw.choice((0, 1, 1, 2, 5, 5000))
    polygons: list[list[float]] = [
        [draw.uniform(-0.2, 1.2) * (height if i % 2 else width) for i in range(draw.choice((6, 8, 40)))]
        for _ in range(count)
    ]
    for polygon in polygons[:1] if draw.random() < 0.5 else ():
        polygon[draw.randrange(len(polygon))] = odd_thing(draw) if draw.random() < 0.2 else odd_float(draw)
        if draw.random() < 0.2:
            polygon *= draw.choice((3, 3000))
    try:
        mask = fill_polygons(polygons, height, width)
    except (ValueError, TypeError):
        return False
    assert mask.shape == (height, width) and mask.max(initial=0) <= 1
    return True


def _runs(draw: Random) -> bool:
    """Decode run lengths that are not those of the image."""
    height, width = _sides(draw)
    small = 0 < height * width < 10**6
    right = (
        encode_runs((np.random.default_rng(draw.randrange(9)).random((height, width)) < 0.1) * np.uint8(1))
        if small
        else "0"
    )
    counts = draw.choice(
        (
            right,
            right[: draw.randrange(len(right) + 1)],
            right * draw.choice((2, 50)),
            mutated(draw, right.encode()).decode("latin-1"),
            [height * width],
            [draw.randint(0, 50), height * width - draw.randint(0, 50)],
            [odd_int(draw, -(2**63), 2**63), odd_int(draw, 0, 2**32)],
            [odd_thing(draw)],
        )
    )
    try:
        mask = decode_runs(counts, height, width)
    except ValueError:
        return False
    assert mask.shape == (height, width) and mask.max(initial=0) <= 1
    return True


def _image(draw: Random, folder: Path) -> bool:
    """Read an image file that is longer than its image: sparse, with an end at its end, or with other bytes behind."""
    path = folder / f"1{draw.choice(_SUFFIXES)}"
    content = encoded(draw.choice(_SUFFIXES))
    path.write_bytes(content if draw.random() < 0.7 else mutated(draw, content))
    with path.open("r+b") as file:
        file.seek(draw.choice((0, 0, 10, 10**6, 2**26, 2**27, 2**29, 2**30, 2**33)), os.SEEK_END)
        file.write(draw.choice((b"", b"\0", b"\xff\xd9", content[-12:], content)))
    try:
        image = read_image(path)
    except ValueError as error:
        assert 20 < len(str(error)) < 2000
        return False
    assert image.dtype == np.uint8 and image.shape[2] == 3
    return True


def _mcap(draw: Random, whole: bytes, path: Path) -> Path:
    """Write an MCAP file without its index, in which a record's kind or length is another, or zeros begin."""
    content, places, at = bytearray(whole), [], 8
    while at < len(content) - 8:
        places.append(at)
        at += 9 + struct.unpack_from("<Q", content, at + 1)[0]
    content[content.index(b"ros2", places[0])] = ord("x")  # another profile: it is read without its index
    at = draw.choice(places)
    action = draw.randrange(5)
    if action == 0:
        content[at] = draw.choice((0, 2, 4, 5, 6, 11, 15, 0x41, 0x80, 0xFF))
    elif action == 1:
        length = struct.unpack_from("<Q", content, at + 1)[0]
        struct.pack_into(
            "<Q", content, at + 1, draw.choice((0, length - 1, length + 1, 2**20, 2**33, 2**63, 2**64 - 1))
        )
    elif action == 2:
        size = draw.choice((1, 500, 4096))
        content[at : at + size] = bytes(size)
    elif action == 3:  # within a chunk
        inner = places[1] + 9 + draw.randrange(100)
        content[inner] = draw.choice((0, 1, 5, 255))
    else:
        del content[draw.randrange(8, len(content)) :]
    path.write_bytes(content)
    return path


def _video(draw: Random, films: dict[str, bytes], folder: Path) -> bool:
    """Look for damage in a video that is cut off, has zeros in it, or other lengths; return whether it is whole."""
    suffix = draw.choice(list(films))
    content = bytearray(films[suffix])
    path = folder / f"damaged{suffix}"
    action = draw.randrange(4)
    if action == 0:
        del content[draw.randrange(len(content)) :]
    elif action == 1:
        at, size = draw.randrange(len(content)), draw.choice((1, 100, 4096))
        content[at : at + size] = bytes(size)
    elif action == 2:
        content = bytearray(mutated(draw, bytes(content)))
    path.write_bytes(content)
    length = mp4_length(path)
    assert length is None or length.hidden >= 0
    return not find_damage(path)
