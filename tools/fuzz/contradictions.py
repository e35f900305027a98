# SPDX-License-Identifier: Apache-2.0
"""Files and messages in which two fields disagree: sizes, counts, types and names that each look right alone."""

from __future__ import annotations

import io
import json
import os
import shutil
import struct
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random
from types import SimpleNamespace

import cv2
import numpy as np
import torch
import yaml
from harness.bag_fixtures import shots, write_ros2
from safetensors.torch import save

from dimp_ros.images.compressed_image import compressed_picture
from dimp_ros.images.contrast import Contrast
from dimp_ros.images.conversion import to_picture
from dimp_ros.images.encodings import ENCODINGS, SUPPORTED_ENCODINGS, BadImage
from dimp_ros.model.checkpoints.checkpoint import read_weights
from fuzz.bags import read_bag
from fuzz.run import Attempt

SIZES = (0, 1, 2, 95, 96, 97, 255, 256, 1000, 7000, 10_000, 32_000, 65_535)
LONGEST_REASON = 1000


@contextmanager
def contradictions() -> Iterator[Attempt]:
    """Read what contradicts itself: refused with a reason, or read within the limits of time and memory."""
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(prefix="fuzz-contradictions") as folder:
        bag = write_ros2(Path(folder) / "valid", shots(4))
        kinds: tuple[Callable[[Random], bool], ...] = (
            lambda draw: decode(_jpeg(draw)),
            lambda draw: decode(_png(draw)),
            lambda draw: decode(_webp(draw)),
            lambda draw: decode(_tiff(draw)),
            _raw,
            lambda draw: read_weights_file(Path(folder) / "w.safetensors", _safetensors(draw)),
            lambda draw: read_weights_file(Path(folder) / "w.pth", _archive(draw)),
            lambda draw: _bag(draw, bag, Path(folder) / "bag"),
        )
        yield lambda draw: draw.choice(kinds)(draw)


def decode(content: bytes, text: str = "jpeg") -> bool:
    """Decode a compressed image as the node does and look at a window of it; return whether it is an image."""
    try:
        image = compressed_picture(SimpleNamespace(format=text, data=content, header=None), Contrast())
        region = image.region(0, 0, min(image.width, 50), min(image.height, 50))
        assert region.dtype == np.uint8 and region.shape[:2] == (min(image.height, 50), min(image.width, 50))
    except BadImage as error:
        assert 20 < len(str(error)) <= LONGEST_REASON, str(error)
        return False
    return True


def encoded(suffix: str, width: int = 96, height: int = 64, *parameters: int) -> bytes:
    """Return an image file of noise."""
    pixels = np.random.default_rng(width).integers(0, 256, (height, width, 3), np.uint8)
    return bytes(cv2.imencode(suffix, pixels, list(parameters))[1])


_JPEG, _PNG, _WEBP, _TIFF = (encoded(suffix) for suffix in (".jpg", ".png", ".webp", ".tiff"))


def jpeg_segments(content: bytes) -> list[bytes]:
    """Split a JPEG into its segments, each with its marker; the last one is the scan and the end."""
    at, segments = 2, []
    while content[at + 1] != 0xDA:
        end = at + 2 + int.from_bytes(content[at + 2 : at + 4], "big")
        segments.append(content[at:end])
        at = end
    return [*segments, content[at:]]


def _jpeg(draw: Random) -> bytes:
    """Return a JPEG whose frame header is changed, repeated, or hidden behind another one."""
    segments = jpeg_segments(_JPEG)
    frame = next(index for index, segment in enumerate(segments) if segment[1] in (0xC0, 0xC2))
    other = bytearray(segments[frame])
    struct.pack_into(">HH", other, 5, draw.choice(SIZES), draw.choice(SIZES))
    if draw.random() < 0.2:
        other[draw.choice((1, 4, 9))] = draw.choice((0xC1, 0xC2, 0xC9, 1, 2, 3, 8, 12, 16))
    action = draw.randrange(5)
    if action == 0:
        segments[frame] = bytes(other)
    elif action == 1:
        segments.insert(frame + draw.randrange(2), bytes(other))
    elif action == 2:  # a whole header inside of a comment
        comment = bytes(other) + segments[-1][:20]
        segments.insert(draw.randrange(frame + 1), b"\xff\xfe" + struct.pack(">H", 2 + len(comment)) + comment)
    elif action == 3:  # a segment that says that it is shorter than what it holds
        segments.insert(draw.randrange(frame + 1), b"\xff\xe1" + struct.pack(">H", draw.randrange(6)) + bytes(other))
    else:  # another image behind the first one, or in front of it
        whole = b"\xff\xd8" + b"".join([*segments[:frame], bytes(other), *segments[frame + 1 :]])
        return _JPEG + whole if draw.random() < 0.5 else whole[:-2] + _JPEG
    return b"\xff\xd8" + b"".join(segments)


def png_chunk(kind: bytes, data: bytes) -> bytes:
    """Return a chunk with its length and checksum."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _png(draw: Random) -> bytes:
    """Return a PNG whose header does not fit its pixels: size, depth, colour, interlace, or two headers."""
    header = bytearray(_PNG[16:29])
    struct.pack_into(">II", header, 0, draw.choice(SIZES), draw.choice(SIZES))
    if draw.random() < 0.5:
        header[8:13] = bytes((draw.choice((1, 2, 4, 8, 16)), draw.choice((0, 2, 3, 4, 6)), 0, 0, draw.randrange(2)))
    first, rest = png_chunk(b"IHDR", bytes(header)), _PNG[33:]
    original = _PNG[8:33]
    order = draw.choice(([first], [first, original], [original, first]))
    return _PNG[:8] + b"".join(order) + rest


def _webp(draw: Random) -> bytes:
    """Return a WebP whose extended header, frame header and file size disagree."""
    frame = _WEBP[12:]
    width, height = draw.choice(SIZES[1:]), draw.choice(SIZES[1:])
    extended = b"VP8X" + struct.pack("<I", 10) + bytes((draw.choice((0, 2, 16)), 0, 0, 0))
    extended += (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    if draw.random() < 0.5:
        changed = bytearray(frame)
        struct.pack_into("<HH", changed, 14, width & 0x3FFF, height & 0x3FFF)
        frame = bytes(changed)
    body = b"WEBP" + (extended if draw.random() < 0.6 else b"") + frame
    length = len(body) + draw.choice((0, 0, 0, -8, 8, 2**31))
    return b"RIFF" + struct.pack("<I", length % 2**32) + body


def _tiff(draw: Random) -> bytes:
    """Return a TIFF with entries of its directory changed, repeated, or in another directory."""
    content = bytearray(_TIFF)
    (directory,) = struct.unpack_from("<I", content, 4)
    (count,) = struct.unpack_from("<H", content, directory)
    entries = [bytes(content[directory + 2 + 12 * index :][:12]) for index in range(count)]
    for _ in range(draw.choice((1, 1, 2))):
        entry = bytearray(draw.choice(entries))
        if draw.random() < 0.7:  # width, height, bits, samples, rows a strip, strip sizes
            tag = draw.choice((256, 257, 258, 277, 278, 279, 259, 317, 339))
            entry[:8] = struct.pack("<HHI", tag, draw.choice((3, 4, 4, 16)), draw.choice((1, 1, 1, 2, 1000)))
            struct.pack_into("<I", entry, 8, draw.choice((*SIZES, 2**31)))
        entries.insert(draw.randrange(len(entries) + 1), bytes(entry))
    following = draw.choice((0, 0, directory, len(content)))
    table = struct.pack("<H", len(entries)) + b"".join(entries) + struct.pack("<I", following)
    struct.pack_into("<I", content, 4, len(content))
    return bytes(content) + table


def _raw(draw: Random) -> bool:
    """Convert an image message whose width, height, step, encoding and data disagree by a little or by far."""
    encoding = draw.choice(SUPPORTED_ENCODINGS)
    layout, width, height = ENCODINGS[encoding], draw.randint(1, 20), draw.randint(1, 20)
    step = layout.row_bytes(width) + draw.choice((0, 3))
    size = step * layout.data_rows(height)
    message = SimpleNamespace(
        width=width, height=height, step=step, encoding=encoding, is_bigendian=0, data=bytes(size), header=None
    )
    field = draw.choice(("width", "height", "step", "encoding", "data", "swap"))
    if field == "swap":
        message.width, message.height, message.step = height * 1000, width, step
    elif field == "encoding":
        message.encoding = draw.choice(SUPPORTED_ENCODINGS)
    elif field == "data":
        message.data = bytes(max(0, size + draw.choice((-1, 1, -step, step, step * 1000))))
    else:
        factor = draw.choice((0, 1, 2, 2**16, 2**31))
        setattr(message, field, min(getattr(message, field) * factor + draw.choice((-1, 0, 1)), 2**32 - 1))
    try:
        image = to_picture(message, Contrast())
        assert image.width == message.width and image.height == message.height
        assert image.region(0, 0, 1, 1).size in (1, 3)
    except BadImage as error:
        assert 20 < len(str(error)) <= LONGEST_REASON, str(error)
        return False
    return True


def read_weights_file(path: Path, content: bytes) -> bool:
    """Read a weights file; return whether it was accepted."""
    path.write_bytes(content)
    try:
        weights = read_weights(path)
        assert sum(tensor.numel() for tensor in weights.tensors.values()) < 10**7
    except ValueError as error:
        assert 20 < len(str(error)) <= LONGEST_REASON + len(str(path)), str(error)[:2000]
        return False
    return True


def _safetensors(draw: Random) -> bytes:
    """Return a file whose shapes, types and offsets disagree with each other or with the data."""
    content = save({name: torch.zeros(2, 3) for name in "abc"}, metadata={"dimp_ros": "{}"})
    (size,) = struct.unpack_from("<Q", content)
    header = json.loads(content[8 : 8 + size])
    entry = header[draw.choice("abc")]
    action = draw.randrange(6)
    if action == 0:
        entry["shape"] = draw.choice(([3, 2], [2, 4], [6], [], [0], [2**62, 4], [2**32, 2**32], [-2, -3], [2.0, 3]))
    elif action == 1:
        entry["dtype"] = draw.choice(("F16", "F64", "I8", "BOOL"))
    elif action == 2:
        entry["data_offsets"] = header[draw.choice("abc")]["data_offsets"]
    elif action == 3:
        begin, end = entry["data_offsets"]
        entry["data_offsets"] = draw.choice(([end, begin], [begin, end + 4], [begin + 4, end + 4], [0, 2**63]))
    elif action == 4:
        header[draw.choice(("d", "__metadata__"))] = entry
    text = json.dumps(header).encode()
    if action == 5:
        return struct.pack("<Q", draw.choice((0, size - 1, size + 1, len(content), 2**63))) + content[8:]
    return struct.pack("<Q", len(text)) + text + content[8 + size :]


def _archive(draw: Random) -> bytes:
    """Return a PyTorch file whose archive disagrees with itself: sizes, names, two entries of one name."""
    stream = io.BytesIO()
    torch.save({"net": {"classifier.a": torch.zeros(2, 3), "bb_regressor.b": torch.ones(4)}}, stream)
    content = bytearray(stream.getvalue())
    action = draw.randrange(4)
    if action == 0:  # the directory says other sizes than the entries
        at = content.rindex(b"PK\1\2")
        struct.pack_into("<I", content, at + draw.choice((20, 24, 42)), draw.choice((0, 1, 2**16, 2**31, 2**32 - 1)))
        return bytes(content)
    with zipfile.ZipFile(stream) as archive:
        entries = [(name, archive.read(name)) for name in archive.namelist()]
    at = draw.randrange(len(entries))
    name, data = entries[at]
    if action == 1:
        entries.insert(draw.randrange(len(entries)), (name, draw.choice((b"", data[: len(data) // 2], data * 3))))
    elif action == 2:
        entries[at] = (name, data[: draw.randrange(len(data) + 1)] if draw.random() < 0.5 else data + bytes(64))
    else:
        folder = draw.choice(("other/", "../", "/", ""))
        entries[at] = (folder + name.partition("/")[2], data)
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", draw.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED))) as archive:
        for name, data in entries:
            archive.writestr(zipfile.ZipInfo(name), data)
    return stream.getvalue()


def _bag(draw: Random, valid: Path, folder: Path) -> bool:
    """Read a bag whose metadata.yaml disagrees with its files, or names other things than files."""
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(valid, folder)
    path = folder / "metadata.yaml"
    metadata = yaml.safe_load(path.read_text())
    about = metadata["rosbag2_bagfile_information"]
    key = draw.choice(("relative_file_paths", "storage_identifier", "message_count", "version", "compression_format"))
    if key == "relative_file_paths":
        name = draw.choice(("fifo", "folder", "missing", "../valid/valid.mcap", "/dev/zero", "/etc/passwd", "loop", ""))
        about[key] = draw.choice(([name], [name, *about[key]], [*about[key], *about[key]], [], name))
    else:
        about[key] = draw.choice(("sqlite3", "mcap", "zstd", 0, -1, 2**63, 99, None, [1]))
    os.mkfifo(folder / "fifo")
    (folder / "folder").mkdir()
    (folder / "loop").symlink_to("loop")
    path.write_text(yaml.safe_dump(metadata))
    if draw.random() < 0.1:
        path.unlink()
        (folder / draw.choice(("metadata.yaml", "more.mcap"))).symlink_to(folder / draw.choice(("fifo", "folder")))
    return read_bag(draw, folder)
