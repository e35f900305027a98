# SPDX-License-Identifier: Apache-2.0
"""Small inputs that are expensive to read: repeated scans, shared objects, colliding keys, compression bombs."""

from __future__ import annotations

import io
import json
import pickle
import struct
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random
from typing import Any

import cv2
import torch
from harness.bag_fixtures import shots, write_ros2

from fuzz.bags import read_bag
from fuzz.contradictions import decode, encoded, jpeg_segments, png_chunk, read_weights_file
from fuzz.run import Attempt

HASH_MODULUS = 2**61 - 1
"""Integers that differ by it have the same hash."""

BOMBS = (2**20, 2**25, 400 * 2**20)
"""What compression bombs unpack to, bytes."""

LARGE = ((8192, 6000), (60_000, 800), (7000, 7000), (2000, 1000))
"""Width and height of large images, at most 50 megapixels."""

_MCAP_MAGIC = b"\x89MCAP0\r\n"


@contextmanager
def complexity() -> Iterator[Attempt]:
    """Read what costs more than its size: refused, or read within the limits of time and memory."""
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(prefix="fuzz-complexity") as name:
        folder = Path(name)
        mcap = (write_ros2(folder / "valid", shots(4)) / "valid.mcap").read_bytes()
        kinds: tuple[Callable[[Random], bool], ...] = (
            lambda draw: decode(_many_scans(draw)),
            lambda draw: decode(_png_bomb(draw)),
            lambda draw: decode(_many_chunks(draw)),
            lambda draw: decode(_tiff_directories(draw)),
            lambda draw: decode(_large_header(draw)),
            lambda draw: read_weights_file(folder / "w.pth", _legacy(_pickle(draw))),
            lambda draw: read_weights_file(folder / "w.pth", _archive(draw)),
            lambda draw: read_weights_file(folder / "w.safetensors", _many_tensors(draw)),
            lambda draw: _mcap(draw, mcap, folder / "bag.mcap"),
            lambda draw: _metadata(draw, mcap, folder / "bag"),
        )
        yield lambda draw: draw.choice(kinds)(draw)


def _many_scans(draw: Random) -> bytes:
    """Return a progressive JPEG whose scans are repeated."""
    side = draw.choice((64, 256, 1000, 3000))
    content = encoded(".jpg", 64, 64, cv2.IMWRITE_JPEG_PROGRESSIVE, 1)
    segments = jpeg_segments(content)
    frame = next(index for index, segment in enumerate(segments) if segment[1] == 0xC2)
    header = bytearray(segments[frame])
    struct.pack_into(">HH", header, 5, side, side)
    segments[frame] = bytes(header)
    scans = segments[-1][:-2]
    last = scans[scans.rindex(b"\xff\xda") :]
    return b"\xff\xd8" + b"".join(segments[:-1]) + scans + last * draw.choice((1, 10, 100, 500)) + b"\xff\xd9"


def _zlib_zeros(size: int) -> bytes:
    """Return about ``size`` zeros, compressed, without compressing all of them: one block again and again."""
    block, count = 2**16, max(1, size // 2**16)
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    packed = packer.compress(bytes(block)) + packer.flush(zlib.Z_FULL_FLUSH)
    checksum = (block * count % 65_521) << 16 | 1
    return b"\x78\xda" + packed * count + b"\3\0" + struct.pack(">I", checksum)


def _zstd_zeros(size: int) -> bytes:
    """Return about ``size`` zeros as a frame of run-length blocks."""
    block, count = 2**17, max(1, size // 2**17)
    run = ((block << 3 | 1 << 1).to_bytes(3, "little") + b"\0") * count
    return b"\x28\xb5\x2f\xfd\0\x38" + run + b"\1\0\0"


def _lz4_zeros(size: int) -> bytes:
    """Return about ``size`` zeros as a frame of one block again and again."""
    from lz4 import frame

    block, count = 2**22, max(1, size // 2**22)
    one = frame.compress(bytes(block), block_size=frame.BLOCKSIZE_MAX4MB, block_linked=False, store_size=False)
    return bytes(one[:7] + one[7:-4] * count + one[-4:])


def _black_png(width: int, height: int, depth: int) -> bytes:
    """Return a PNG of black lines, as many as 64 KiB blocks give."""
    header = struct.pack(">IIBBBBB", width, height, depth, 2, 0, 0, 0)
    pixels = _zlib_zeros((1 + width * 3 * depth // 8) * height + 2**16)
    parts = png_chunk(b"IHDR", header), png_chunk(b"IDAT", pixels), png_chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def _png_bomb(draw: Random) -> bytes:
    """Return a PNG whose pixels, text or profile unpack to far more than the image has."""
    data = _zlib_zeros(draw.choice(BOMBS))
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", 64, 64, 8, 2, 0, 0, 0))
    pixels = png_chunk(b"IDAT", zlib.compress(bytes(64 * (1 + 3 * 64))))
    extra = {
        "pixels": png_chunk(b"IDAT", data),
        "text": png_chunk(b"zTXt", b"Comment\0\0" + data) + pixels,
        "profile": png_chunk(b"iCCP", b"profile\0\0" + data) + pixels,
        "international": png_chunk(b"iTXt", b"Comment\0\1\0\0\0" + data) + pixels,
    }
    return b"\x89PNG\r\n\x1a\n" + header + extra[draw.choice(list(extra))] + png_chunk(b"IEND", b"")


def _many_chunks(draw: Random) -> bytes:
    """Return a PNG or JPEG with very many small parts."""
    count = draw.choice((1000, 50_000))
    if draw.random() < 0.5:
        segments = jpeg_segments(encoded(".jpg"))
        kind = draw.choice((b"\xff\xfe\0\2", b"\xff\xe1\0\2", b"\xff", b"\xff\xd0"))
        return b"\xff\xd8" + kind * count + b"".join(segments)
    content = encoded(".png")
    kind = draw.choice((b"tEXt", b"IDAT", b"sPLT", b"tIME"))
    return content[:33] + png_chunk(kind, b"") * count + content[33:]


def _tiff_directories(draw: Random) -> bytes:
    """Return a TIFF with a chain of directories, or with one that has very many entries or strips."""
    content = bytearray(encoded(".tiff"))
    (directory,) = struct.unpack_from("<I", content, 4)
    (count,) = struct.unpack_from("<H", content, directory)
    table = bytes(content[directory + 2 : directory + 2 + 12 * count])
    action = draw.randrange(3)
    if action == 0:
        copies = draw.choice((10, 1000))
        begin, size = len(content), 6 + len(table)
        struct.pack_into("<I", content, directory + 2 + 12 * count, begin)
        for index in range(copies):
            following = begin + size * ((index + 1) % copies if draw.random() < 0.1 else index + 1)
            content += struct.pack("<H", count) + table + struct.pack("<I", following if index < copies - 1 else 0)
        return bytes(content)
    entries = [table[index : index + 12] for index in range(0, len(table), 12)]
    if action == 1:
        entries += [struct.pack("<HHII", 65_000, 3, 1, 0)] * draw.choice((500, 5000, 50_000))
    else:
        strips = draw.choice((10_000, 2_000_000))
        entries = [entry for entry in entries if struct.unpack_from("<H", entry)[0] not in (273, 278, 279)]
        entries += [struct.pack("<HHII", tag, 4, strips, len(content)) for tag in (273, 279)]
        content += bytes(4 * min(strips, 100_000))
    struct.pack_into("<I", content, 4, len(content))
    return bytes(content) + struct.pack("<H", len(entries) % 2**16) + b"".join(sorted(entries)) + bytes(4)


def _large_header(draw: Random) -> bytes:
    """Return a small file of a black image that is about as large as is allowed."""
    return _black_png(*draw.choice(LARGE), draw.choice((8, 16)))


def _shared(draw: Random, depth: int) -> Any:
    """Return containers that hold the same container twice, ``depth`` times: 2 ** depth when they are walked."""
    value: Any = draw.choice((0, "text", b"bytes"))
    form = draw.choice(("list", "tuple", "dict", "mixed"))
    for level in range(depth):
        kind = ("list", "tuple", "dict")[level % 3] if form == "mixed" else form
        value = [value, value] if kind == "list" else (value, value) if kind == "tuple" else {"a": value, "b": value}
    return value


def _pickle(draw: Random) -> bytes:
    """Return a pickle that is small and expensive: shared, nested, colliding, or of huge numbers."""
    action = draw.randrange(7)
    if action == 0:
        return pickle.dumps({"net": {}, "other": _shared(draw, draw.choice((20, 40, 300)))}, 2)
    if action == 1:
        return pickle.dumps(_shared(draw, draw.choice((20, 40, 300))), 2)
    if action == 2:
        keys = [index * HASH_MODULUS for index in range(draw.choice((100, 3000)))]
        return pickle.dumps(draw.choice(({"net": dict.fromkeys(keys)}, dict.fromkeys(keys), set(keys))), 2)
    if action == 3:
        return b"\x80\2" + b"]" * draw.choice((1000, 100_000)) + b"a" * draw.choice((0, 1000, 99_999)) + b"."
    if action == 4:
        return pickle.dumps({"net": draw.choice((10**4000, -(10**100_000), "x" * 10**6, [0] * 10**5))}, 2)
    if action == 5:  # doubled on the stack again and again
        return b"\x80\2](" + b"2" * draw.choice((100, 100_000)) + b"e" + b"."
    keys = "".join(f"I{index * HASH_MODULUS}\nNs" for index in range(draw.choice((100, 20_000))))
    return b"\x80\2}" + keys.encode() + b"."


def _legacy(program: bytes) -> bytes:
    """Return a PyTorch file of the older layout around a pickle."""
    parts = (0x1950A86A20F9469CFC6C, 1001, {"protocol_version": 1001, "little_endian": True, "type_sizes": {}})
    return b"".join(pickle.dumps(part, 2) for part in parts) + program + pickle.dumps([], 2)


def _archive(draw: Random) -> bytes:
    """Return a PyTorch archive with an expensive pickle, very many entries, or one that unpacks to very much."""
    program, entries = _pickle(draw), 1
    if draw.random() < 0.5:
        stream = io.BytesIO()
        torch.save({"net": {f"a{index}": torch.zeros(1) for index in range(draw.choice((1, 100)))}}, stream)
        with zipfile.ZipFile(stream) as archive:
            program = archive.read("archive/data.pkl")
        entries = draw.choice((1, 1000, 3000))
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", program)
        archive.writestr("archive/version", b"3\n")
        for index in range(entries):
            archive.writestr(f"archive/data/{index}", bytes(4))
        if draw.random() < 0.3:
            archive.writestr("archive/data/bomb", bytes(2**25))
    return stream.getvalue()


def _many_tensors(draw: Random) -> bytes:
    """Return safetensors with very many tensors, long names, or deep or long metadata."""
    count = draw.choice((3, 1000, 20_000))
    width, sides = draw.choice((1, 1, 200)), 1000 if count == 3 else 1
    header: dict[str, Any] = {
        f"{index:0{width}d}": {"dtype": "F32", "shape": [0] * sides, "data_offsets": [0, 0]} for index in range(count)
    }
    deep = draw.choice((10, 10_000, 100_000))
    info = draw.choice(
        ("[" * deep + "]" * deep, json.dumps({"details": "x" * deep}), '{"a":' * deep + "1" + "}" * deep)
    )
    header["__metadata__"] = {"dimp_ros": info}
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text


def _mcap(draw: Random, valid: bytes, path: Path) -> bool:
    """Read an MCAP file with very many records, or with a chunk that unpacks to very much."""
    if draw.random() < 0.5:
        record = draw.choice((b"\x0f", b"\x0d", b"\x7f")) + struct.pack("<Q", 0)
        content = _MCAP_MAGIC + record * draw.choice((1000, 200_000)) + valid[len(_MCAP_MAGIC) :]
    else:
        content = _MCAP_MAGIC + _chunk_bomb(draw) * draw.choice((1, 3)) + valid[len(_MCAP_MAGIC) :]
    path.write_bytes(content[: draw.choice((len(content), -20))])
    return read_bag(draw, path)


def _chunk_bomb(draw: Random) -> bytes:
    """Return a chunk record whose content unpacks to far more than its size."""
    name = draw.choice((b"zstd", b"lz4", b""))
    size = draw.choice(BOMBS)
    data = {b"zstd": _zstd_zeros, b"lz4": _lz4_zeros, b"": bytes}[name](size if name else 1000)
    declared = draw.choice((size, 0, 1000, 2**62))
    body = struct.pack("<QQQII", 0, 0, declared, 0, len(name)) + name + struct.pack("<Q", len(data)) + data
    return b"\x06" + struct.pack("<Q", len(body)) + body


def _metadata(draw: Random, mcap: bytes, folder: Path) -> bool:
    """Read a bag whose metadata.yaml refers to itself again and again, or is nested deeply."""
    folder.mkdir(exist_ok=True)
    (folder / "bag.mcap").write_bytes(mcap)
    depth = draw.choice((5, 25, 1000))
    aliases = "\n".join(f"a{index}: &a{index} [*a{index - 1}, *a{index - 1}]" for index in range(1, depth))
    deep = "x: " + "[" * 10 * depth + "]" * 10 * depth
    merged = "\n".join(f"m{index}: &m{index} {{<<: [*m{index - 1}, *m{index - 1}]}}" for index in range(1, depth))
    text = draw.choice(("a0: &a0 [lol, lol]\n" + aliases, deep, "m0: &m0 {a: 1}\n" + merged, "x: " + "9" * 10**5))
    use = f"rosbag2_bagfile_information: *a{depth - 1}\n" if "a1: &a1" in text and draw.random() < 0.5 else ""
    (folder / "metadata.yaml").write_text(text + "\n" + use)
    return read_bag(draw, folder)
