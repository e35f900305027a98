# SPDX-License-Identifier: Apache-2.0
"""Image files: headers agree with the decoder, and no file exceeds the limits."""

from __future__ import annotations

import struct
import subprocess
import sys
import time
import zlib
from itertools import pairwise
from pathlib import Path
from random import Random

import cv2
import numpy as np
import pytest

from dimp_ros.images import decoder
from dimp_ros.images.decoder import MAX_MEMORY, MAX_SECONDS, check_file, decode_file
from dimp_ros.images.encodings import BadImage
from dimp_ros.images.files import read_image

NOISE = np.random.default_rng(0).integers(0, 255, (40, 56, 4), dtype=np.uint8)


def file_of(pixels: np.ndarray, suffix: str, *options: int) -> bytes:
    return cv2.imencode(suffix, pixels, options)[1].tobytes()


JPEG = file_of(NOISE[..., :3], ".jpg")
PNG = file_of(NOISE[..., :3], ".png")
TIFF = file_of(NOISE[..., :3], ".tiff")
FILES = [
    JPEG,
    PNG,
    TIFF,
    file_of(NOISE[..., 0], ".jpg", cv2.IMWRITE_JPEG_PROGRESSIVE, 1),
    file_of(NOISE[..., :3], ".jpg", cv2.IMWRITE_JPEG_PROGRESSIVE, 1),
    file_of(NOISE, ".png"),
    file_of(NOISE, ".webp"),
    file_of(NOISE[..., :3], ".webp", cv2.IMWRITE_WEBP_QUALITY, 70),
    file_of(NOISE[..., :3].astype(np.uint16), ".tiff"),
    file_of(NOISE[..., :3].astype(np.float32), ".tiff"),
]


def refused(file: bytes) -> str:
    """Return why a file is refused before it is decoded."""
    with pytest.raises(BadImage) as error:
        check_file(np.frombuffer(file, np.uint8))
    return str(error.value)


SOF = JPEG.index(b"\xff\xc0")
SMALL_FRAME = b"\xff\xc0\0\x11\x08\0\x10\0\x10" + JPEG[SOF + 9 : SOF + 19]
LARGE_FRAME = b"\xff\xc0\0\x11\x08\x7d\0\x7d\0" + JPEG[SOF + 9 : SOF + 19]
REST = JPEG[SOF + 19 :]


def png_chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def with_tiff_entries(*entries: bytes, twice: bool = False) -> bytes:
    """Return the TIFF with these entries instead of its own of the same tags, or beside them."""
    at = struct.unpack_from("<I", TIFF, 4)[0]
    count = struct.unpack_from("<H", TIFF, at)[0]
    tags = [entry[:2] for entry in entries]
    own = [TIFF[i : i + 12] for i in range(at + 2, at + 2 + 12 * count, 12)]
    kept = [entry for entry in own if twice or entry[:2] not in tags]
    merged = sorted([*kept, *entries], key=lambda entry: struct.unpack_from("<H", entry))
    directory = struct.pack("<H", len(merged)) + b"".join(merged) + bytes(4)
    return TIFF[:4] + struct.pack("<I", len(TIFF)) + TIFF[8:] + directory


def tiff_entry(tag: int, value: int) -> bytes:
    return struct.pack("<HHII", tag, 4, 1, value)


def _fake_segment(marker: bytes) -> bytes:
    """Return a JPEG that shows a small frame to who takes ``marker`` for a segment with a length."""
    hidden = LARGE_FRAME + REST
    return JPEG[:2] + marker + struct.pack(">H", 2 + len(LARGE_FRAME)) + LARGE_FRAME + SMALL_FRAME + hidden


HIDDEN = {
    "ff00": _fake_segment(b"\xff\0"),
    "reserved marker": _fake_segment(b"\xff\x02"),
    "second start": JPEG[:2] + b"\xff\xd8" + JPEG[2:],
    "two frames": JPEG[:SOF] + SMALL_FRAME + LARGE_FRAME + REST,
    "frame too long": JPEG[:SOF] + b"\xff\xc0\0\x14" + SMALL_FRAME[4:] + b"\0\0\0" + LARGE_FRAME + REST,
    "lossless frame": JPEG.replace(b"\xff\xc0", b"\xff\xc3"),
    "bytes between": JPEG[:SOF] + b"\0" + JPEG[SOF:],
    "png begins with text": PNG[:8] + png_chunk(b"tEXt", bytes(13)) + PNG[8:],
    "tiff with two widths": with_tiff_entries(tiff_entry(256, 30_000), twice=True),
}


@pytest.mark.parametrize("file", HIDDEN.values(), ids=HIDDEN)
def test_file_that_may_hide_its_size_is_refused(file: bytes) -> None:
    assert "damaged or of an unusual kind" in refused(file) or "where a marker must be" in refused(file)


COSTLY = {
    "tiff tile": with_tiff_entries(tiff_entry(322, 20_000), tiff_entry(323, 20_000)),
    "tiff strip": with_tiff_entries(tiff_entry(278, 2**31)),
    "16 bits": PNG[:8] + struct.pack(">I4sIIBBBBB", 13, b"IHDR", 7000, 7000, 16, 2, 0, 0, 0) + PNG[29:],
    "alpha of 16 bits": PNG[:8] + struct.pack(">I4sIIBBBBB", 13, b"IHDR", 5000, 5000, 16, 6, 0, 0, 0) + PNG[29:],
    "interlaced": PNG[:8] + struct.pack(">I4sIIBBBBB", 13, b"IHDR", 6000, 6000, 8, 2, 0, 0, 1) + PNG[29:],
}


@pytest.mark.parametrize("file", COSTLY.values(), ids=COSTLY)
def test_bytes_count_and_not_only_pixels(file: bytes) -> None:
    assert "MiB and" in refused(file)


def test_compressed_bytes_of_a_png_count() -> None:
    """Noise takes longer to inflate than one colour; a photograph of 4K is well within the limit."""

    def png(width: int, height: int, compressed: int) -> bytes:
        header = PNG[:8] + struct.pack(">I4sIIBBBBB", 13, b"IHDR", width, height, 8, 2, 0, 0, 0) + PNG[29:33]
        return header + png_chunk(b"IDAT", bytes(compressed)) + png_chunk(b"IEND", b"")

    assert check_file(np.frombuffer(png(5000, 5000, 1000), np.uint8)).seconds < MAX_SECONDS
    assert "MiB and" in refused(png(5000, 5000, 60_000_000))
    assert check_file(np.frombuffer(png(3840, 2160, 24_000_000), np.uint8)).seconds < 0.5 * MAX_SECONDS


def test_thousands_of_scans_are_refused() -> None:
    flat = file_of(np.full((1500, 1500), 90, np.uint8), ".jpg", cv2.IMWRITE_JPEG_PROGRESSIVE, 1)
    last = flat[flat.rindex(b"\xff\xc4") : -2]
    assert check_file(np.frombuffer(flat[:-2] + 50 * last + flat[-2:], np.uint8)).seconds < MAX_SECONDS
    assert "fewer scans" in refused(flat[:-2] + 900 * last + flat[-2:])
    assert "more than 1000 scans" in refused(flat[:-2] + 3000 * last + flat[-2:])


def test_scans_that_refine_others_count_more() -> None:
    noise = np.random.default_rng(0).integers(0, 255, (500, 500), np.uint8)
    file = file_of(noise, ".jpg", cv2.IMWRITE_JPEG_PROGRESSIVE, 1)
    scan = file[file.rindex(b"\xff\xda") : -2]  # refines all coefficients but the first
    approximation = 7 + 2 * scan[4]
    assert scan[approximation] == 0x10
    first = scan[:approximation] + b"\x00" + scan[approximation + 1 :]

    def seconds(added: bytes) -> float:
        return check_file(np.frombuffer(file[:-2] + 20 * added + file[-2:], np.uint8)).seconds

    assert seconds(scan) - seconds(first) == pytest.approx(20 * (40e-9 * len(scan) + 0.8e-9 * noise.size), rel=0.01)


@pytest.mark.parametrize(
    "file",
    [
        JPEG[:2] + b"\xff" * 3_000_000 + JPEG[2:],
        JPEG[:2] + b"\xff\xd0" * 2_000_000 + JPEG[2:],
        PNG[:33] + 2000 * png_chunk(b"tEXt", b"") + PNG[33:],
        PNG[:33] + 200_000 * png_chunk(b"IDAT", b"") + PNG[33:],
        with_tiff_entries(tiff_entry(322, 1), tiff_entry(323, 1), tiff_entry(256, 3000), tiff_entry(257, 3000)),
    ],
    ids=["fill bytes", "restart markers", "texts", "chunks", "tiles"],
)
def test_number_of_parts_is_bounded(file: bytes) -> None:
    refused(file)


def test_animations_are_refused() -> None:
    assert "animated" in refused(PNG[:33] + png_chunk(b"acTL", bytes(8)) + PNG[33:])
    animated = b"RIFF" + struct.pack("<I", 30) + b"WEBPVP8X" + struct.pack("<IB", 10, 2) + bytes(29)
    assert "animated" in refused(animated)


def test_header_and_decoder_agree_on_changed_files() -> None:
    draw, decoded = Random(0), 0
    pieces = [b"\xff", b"\xff\0", b"\xff\x01", b"\xff\xc0", b"\xff\xd0", b"\xff\x02", b"\0\0", b"\xff\xd8"]
    for _ in range(6000):
        file = bytearray(draw.choice(FILES))
        for _ in range(draw.choice((1, 1, 2, 3))):
            at = draw.randrange(2, min(len(file), draw.choice((40, 200, 700, 10_000))))
            length = draw.choice((0, 0, 1, 2))
            file[at : at + length] = draw.choice((bytes([draw.randrange(256)]), draw.choice(pieces), b""))
        content = np.frombuffer(bytes(file), np.uint8)
        try:
            header = check_file(content, 1.0)
            pixels = decode_file(content, header)
        except BadImage as error:
            assert "but holds" not in str(error)
        else:
            assert pixels.shape[:2] == (header.height, header.width)
            decoded += 1
    assert decoded > 500


WORST = """
import sys, time
from types import SimpleNamespace
import cv2, numpy as np
from dimp_ros.images.compressed_image import compressed_picture
from dimp_ros.images.conversion import to_bgr
from dimp_ros.images.decoder import check_file
def peak():
    return int(next(line for line in open("/proc/self/status") if line.startswith("VmHWM")).split()[1]) * 1024
data = open(sys.argv[1], "rb").read()
to_bgr(compressed_picture(SimpleNamespace(format="", data=cv2.imencode(".png", np.zeros((9, 9), np.uint8))[1])))
before = peak()
to_bgr(compressed_picture(SimpleNamespace(format="", data=data)))
print(peak() - before, check_file(np.frombuffer(data, np.uint8)).memory)
"""


@pytest.mark.parametrize(
    ("suffix", "shape", "dtype", "options"),
    [
        (
            ".jpg",
            (5900, 5900, 3),
            "uint8",
            (cv2.IMWRITE_JPEG_PROGRESSIVE, 1, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, 0x111111),
        ),
        (".png", (4200, 4200, 3), "uint16", ()),
        (".tiff", (2900, 2900, 3), "float32", ()),
    ],
)
def test_memory_stays_below_half_a_gigabyte(
    tmp_path: Path, suffix: str, shape: tuple[int, ...], dtype: str, options: tuple[int, ...]
) -> None:
    path = tmp_path / f"x{suffix}"
    path.write_bytes(file_of(np.zeros(shape, dtype), suffix, *options))
    result = subprocess.run([sys.executable, "-c", WORST, path], capture_output=True, text=True, check=True)
    taken, announced = (int(value) for value in result.stdout.split())
    assert taken <= min(MAX_MEMORY, 1.1 * announced)


def test_damaged_file_does_not_cost_the_next_one(monkeypatch: pytest.MonkeyPatch) -> None:
    content = np.frombuffer(PNG, np.uint8)
    header = check_file(content)
    with monkeypatch.context() as patch:
        patch.setattr(decoder.cv2, "imdecode", lambda *_: (_ for _ in ()).throw(MemoryError))
        with pytest.raises(BadImage, match="cannot be decoded"):
            decode_file(content, header)
    assert decode_file(content, header).shape == (40, 56, 3)


TEXT = zlib.compress(bytes(7_900_000), 9)
SURPLUS = PNG[:33] + png_chunk(b"IDAT", zlib.compress(bytes(500_000_000), 1)) + png_chunk(b"IEND", b"")
TEXTS = {
    "zTXt": png_chunk(b"zTXt", b"k\0\0" + TEXT),
    "iTXt": png_chunk(b"iTXt", b"k\0\1\0\0\0" + TEXT),
    "iCCP": png_chunk(b"iCCP", b"k\0\0" + TEXT),
}


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
@pytest.mark.parametrize("at", [33, -12])
def test_compressed_texts_count(text: bytes, at: int) -> None:
    assert check_file(np.frombuffer(PNG[:at] + text + PNG[at:], np.uint8)).seconds < 0.1
    assert "s to decode" in refused(PNG[:at] + 100 * text + PNG[at:])


@pytest.mark.parametrize("parts", [1, 2, 50])
def test_data_beyond_the_pixels_are_not_inflated(parts: int) -> None:
    at = SURPLUS.index(b"IDAT") + 4
    data = SURPLUS[at:-16]
    cuts = [len(data) * n // parts for n in range(parts + 1)]
    chunks = b"".join(png_chunk(b"IDAT", data[a:b]) for a, b in pairwise(cuts))
    content = np.frombuffer(SURPLUS[:33] + chunks + SURPLUS[-12:], np.uint8)
    started = time.process_time()
    with pytest.raises(BadImage, match="hold more than its pixels"):
        decode_file(content, check_file(content))
    assert time.process_time() - started < 0.3


@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("width", [1201, 800])
def test_large_png_without_a_surplus_is_decoded(kind: type, channels: int, width: int) -> None:
    pixels = np.random.default_rng(1).integers(0, 255, (900, width, channels)).astype(kind).squeeze()
    content = np.frombuffer(file_of(pixels, ".png", cv2.IMWRITE_PNG_COMPRESSION, 1), np.uint8)
    assert np.array_equal(decode_file(content, check_file(content), flags=cv2.IMREAD_UNCHANGED), pixels)


def _bmp(header: bytes) -> bytes:
    return b"BM" + bytes(8) + struct.pack("<I", 14 + len(header) + 1024) + header + bytes(1024) + b"\0\1"


PLAIN = {
    "bmp of runs": _bmp(struct.pack("<IiiHHIIiiII", 40, 30_000, 30_000, 1, 8, 1, 0, 0, 0, 256, 0)),
    "bmp from the top": _bmp(struct.pack("<IiiHHIIiiII", 40, 30_000, -30_000, 1, 8, 1, 0, 0, 0, 256, 0)),
    "bmp of OS/2": _bmp(struct.pack("<IHHHH", 12, 30_000, 30_000, 1, 8)),
    "bmp cut off": b"BM" + bytes(10),
    "bits": b"P4 #x 1 1\n30000\t#\r30000\n" + bytes(2**20),
    "text": b"P3\n30000 30000 255\n1 1 1",
    "gif": b"GIF89a" + struct.pack("<HHBBB", 30_000, 30_000, 0xF0, 0, 0) + bytes(6),
    "radiance": b"#?RADIANCE\nFORMAT=32-bit_rle_rgbe\n\n-Y 30000 +X 30000\n",
    "big tiff": b"II+\0\x08\0\0\0" + bytes(64),
    "empty": b"",
}


@pytest.mark.parametrize("content", PLAIN.values(), ids=PLAIN)
@pytest.mark.parametrize("suffix", [".png", ".bmp", ".ppm"])
def test_files_of_a_folder_are_bounded_in_every_format(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes, suffix: str
) -> None:
    path = tmp_path / f"image{suffix}"
    path.write_bytes(content)
    monkeypatch.setattr(cv2, "imdecode", lambda *_: pytest.fail("decoded"))
    with pytest.raises(ValueError, match="cannot read the image"):
        read_image(path)


@pytest.mark.parametrize("suffix", [".bmp", ".ppm", ".pgm", ".pbm"])
def test_plain_files_of_a_folder_are_read(tmp_path: Path, suffix: str) -> None:
    pixels = NOISE[..., :3] if suffix in (".bmp", ".ppm") else NOISE[..., 0] // 128 * 255
    path = tmp_path / "image.png"  # the content counts
    path.write_bytes(file_of(pixels, suffix))
    assert read_image(path).shape == (40, 56, 3)


EMPTY_BLOCKS = bytes.fromhex(
    "04c081000000000090ff6b100007020000000040feaf41001c080000000000f9bf060170200000000000e4ff1a"
)
"""Four blocks of deflate that take long to read and give nothing."""


def slow_stream(content: bytes) -> bytes:
    """Return ``content`` compressed, after 8 MB that give nothing."""
    deflate = zlib.compressobj(9, zlib.DEFLATED, -15)
    last = deflate.compress(content) + deflate.flush()
    return b"\x78\x01" + 200_000 * EMPTY_BLOCKS + last + struct.pack(">I", zlib.adler32(content))


def slow_tiff() -> bytes:
    data = slow_stream(bytes(900 * 900))
    tags = [(256, 900), (257, 900), (258, 8), (259, 8), (262, 1), (273, 8), (277, 1), (278, 900), (279, len(data))]
    data += bytes(len(data) % 2)
    directory = struct.pack("<H", len(tags)) + b"".join(tiff_entry(*tag) for tag in tags) + bytes(4)
    return b"II*\0" + struct.pack("<I", 8 + len(data)) + data + directory


def slow_png(parts: int) -> bytes:
    data = slow_stream(bytes(41 * 57 * 4))
    cuts = [len(data) * n // parts for n in range(parts + 1)]
    return PNG[:33] + b"".join(png_chunk(b"IDAT", data[a:b]) for a, b in pairwise(cuts)) + png_chunk(b"IEND", b"")


SLOW = {
    "png, one part": slow_png(1),
    "png, many parts": slow_png(300),
    "png, profile": PNG[:33] + png_chunk(b"iCCP", b"k\0\0" + 2 * slow_stream(b"")) + PNG[33:],
    "tiff": slow_tiff() + slow_stream(b""),
}


@pytest.mark.parametrize("file", SLOW.values(), ids=SLOW)
def test_slow_file_is_refused_or_takes_what_was_estimated(file: bytes) -> None:
    content = np.frombuffer(file, np.uint8)
    taken = []
    for _ in range(3):
        started, estimate = time.process_time(), 0.0
        try:
            header = check_file(content)
            estimate = header.seconds
            decode_file(content, header)
        except BadImage as error:
            assert "long to decompress" in str(error) or "s to decode" in str(error)
        taken.append((time.process_time() - started) / max(estimate, MAX_SECONDS / 2))
    assert min(taken) < 2.5


@pytest.mark.parametrize(
    ("suffix", "options"),
    [(".webp", (cv2.IMWRITE_WEBP_QUALITY, 100)), (".jpg", (cv2.IMWRITE_JPEG_PROGRESSIVE, 1))],
)
def test_estimate_counts_the_bytes_of_a_dense_file(suffix: str, options: tuple[int, ...]) -> None:
    noise = np.random.default_rng(2).integers(0, 255, (600, 800, 3), dtype=np.uint8)
    dense, flat = (check_file(np.frombuffer(file_of(p, suffix, *options), np.uint8)) for p in (noise, noise // 255))
    assert dense.seconds > 1.8 * flat.seconds


def test_tiff_that_holds_a_file_of_another_kind_is_refused() -> None:
    for compression in (6, 7, 34712, 50_000, 50_001):
        assert "compression" in refused(with_tiff_entries(struct.pack("<HHIHH", 259, 3, 1, compression, 0)))


def test_jpeg_with_arithmetic_coding_is_refused() -> None:
    assert "cannot be there" in refused(JPEG.replace(b"\xff\xc0", b"\xff\xc9"))
