# SPDX-License-Identifier: Apache-2.0
"""Headers of image files: size and cost of decoding, read before anything is decoded.

Headers are read as OpenCV's decoders (libjpeg, libpng, libwebp, libtiff) read them, and content that they would skip or
guess is refused: otherwise a file could declare a small size here and a large one there. Pillow is no alternative: its
parser differs from these decoders, too. OpenCV gives no size before it has decoded.
"""

from __future__ import annotations

import re
import time
import zlib
from collections.abc import Callable
from struct import Struct, error
from typing import NamedTuple

from dimp_ros.images.encodings import BadImage


class FileHeader(NamedTuple):
    """Size and cost of an image file.

    ``format``: "JPEG", "PNG", "WebP" or "TIFF". ``width``, ``height`` in pixels. ``memory``: largest number of
    bytes for decoding and conversion to 8 bits. ``seconds``: estimated time on one core of a desktop computer.
    """

    format: str
    width: int
    height: int
    memory: int
    seconds: float


FREE_BYTES, BYTES_OF_PIXEL = 2**26, 32
"""A file may have the former and the latter for each pixel; phones append a film to a photograph."""
MAX_PARTS = 100_000
"""Chunks of a PNG, segments of a JPEG's header and tiles of a TIFF at most; each takes time."""

MAX_SCANS = 1000
"""Scans of a JPEG; a progressive one has about ten."""

_JPEG_WITHOUT_LENGTH = {0x01, *range(0xD0, 0xD8)}  # TEM and restart markers
_JPEG_FRAMES = {0xC0, 0xC1, 0xC2}  # baseline, extended and progressive; arithmetic coding needs no bytes for its time
_JPEG_SEGMENTS = {0xC4, 0xCC, 0xDB, 0xDC, 0xDD, 0xFE, *range(0xE0, 0xF0)}  # tables, comments, applications' data
_JPEG_SCAN, _JPEG_LAST = 0xDA, 0xD9
_JPEG_END = b"\xff\xd9"
_PIECE = 2**20
_PNG_CHANNELS = {0: 1, 2: 3, 3: 4, 4: 4, 6: 4}
_PNG_MOST_OTHERS = 1000
"""Chunks without pixels: for each, libpng may print a line."""
_PNG_COMPRESSED = (b"zTXt", b"iTXt", b"iCCP")
_DEFLATE_RATIO = 1032
_PNG_LARGEST_TEXT = 8_000_000
"""Bytes to which libpng inflates a chunk at most."""
_PNG_TEXT_SHARE = 25
"""Time of a compressed byte that gives no text, in that of a byte of text."""
_PNG_BYTE_SECONDS = 9e-9
"""Of a byte of pixels and of a compressed byte, which is inflated twice. Noise, few values and flat
images of 20 to 49 megapixels took 0.2 to 1.0 of the estimate on a busy AMD EPYC."""
_PNG_INFLATE_SECONDS, _PNG_HARMLESS_SECONDS = 2.5e-9, 0.3
"""A byte's time; the surplus of a file that is not looked for."""
_PNG_SECONDS = 0.5
"""Of inflating; some of a stream's bytes take time and give no pixels."""
_PNG_PIECE, _PNG_COMPRESSED_PIECE = 2**18, 2**16
_PNG_HEADER = Struct(">I4sIIBBBBB")
_PNG_CHUNK = Struct(">I4s")
_WEBP_ANIMATION = 0x02
_TIFF_WIDTH, _TIFF_HEIGHT, _TIFF_BITS, _TIFF_COMPRESSION, _TIFF_SAMPLES = 256, 257, 258, 259, 277
_TIFF_STRIP_ROWS, _TIFF_TILE_WIDTH, _TIFF_TILE_HEIGHT = 278, 322, 323
_TIFF_TAGS = (256, 257, 258, 259, 277, 278, 322, 323)
_TIFF_COMPRESSIONS = {1: 0.0, 2: 0.0, 3: 0.0, 4: 0.0, 5: 3e-9, 8: 75e-9, 32773: 3e-9, 32946: 75e-9}
"""Seconds of a byte at most: none, CCITT, LZW, deflate, PackBits, deflate. Files within the file (JPEG) are refused."""
_TIFF_TYPES = {3: "H", 4: "I"}
_TIFF_LARGEST_DIRECTORY = 1000

_BIG_U16 = Struct(">H")
_JPEG_FRAME = Struct(">HBHHB")
_LITTLE_U16_PAIR = Struct("<HH")
_LITTLE_U32 = Struct("<I")


def has_header(data: memoryview) -> bool:
    """Return whether a file has the signature of a format that `read_header` reads."""
    head = bytes(data[:16])
    return any(begins(head) for _, begins, _ in _FORMATS)


def read_header(data: memoryview) -> FileHeader:
    """Return the header of an image file.

    :raises BadImage: for other files, for a header that is invalid or ambiguous, and for a truncated file.
    """
    head = bytes(data[:16])
    found = next(((name, read) for name, begins, read in _FORMATS if begins(head)), None)
    if found is None:
        shown = head[:8].hex(" ") if head else "nothing"
        raise BadImage(f"data is no image file: it begins with {shown}; send JPEG, PNG, WebP or TIFF")
    name, read = found
    try:
        header = read(data)
    except (error, IndexError) as failure:
        raise BadImage(f"the {name} file of {len(data)} bytes ends in its header; it was cut off") from failure
    if header.width < 1 or header.height < 1:
        size = f"{header.width} x {header.height}"
        raise BadImage(f"the {name} file says that it is {size} pixels; both sides must be at least 1")
    check_length(name, len(data), header.width, header.height)
    return header


def check_length(name: str, length: int, width: int, height: int) -> None:
    """Raise BadImage for a file that is much longer than its pixels."""
    most = FREE_BYTES + BYTES_OF_PIXEL * width * height
    if length > most:
        raise BadImage(
            f"the {name} file of {width} x {height} pixels has {length} bytes, and may have {most}; save "
            "the image alone"
        )


def _cut_off(name: str, data: memoryview) -> BadImage:
    return BadImage(f"the {name} file of {len(data)} bytes has no end; it was cut off, send whole files")


def _damaged(name: str, what: str) -> BadImage:
    return BadImage(f"the {name} file is damaged or of an unusual kind: {what}; send a plain one")


def _jpeg(data: memoryview) -> FileHeader:
    """Walk from marker to marker up to the first scan. A truncated file is refused: libjpeg would fill it with grey."""
    at, frame = 2, None
    for _ in range(MAX_PARTS):
        marker = data[at + 1]
        if data[at] != 0xFF:
            raise _damaged("JPEG", f"byte {at} is {data[at]:#04x} where a marker must be")
        if marker == 0xFF:  # fill bytes may precede a marker
            at += 1
        elif marker in _JPEG_WITHOUT_LENGTH:
            at += 2
        elif marker in (_JPEG_SCAN, _JPEG_LAST):
            break
        elif marker in _JPEG_FRAMES and frame is None:
            frame = _JPEG_FRAME.unpack_from(data, at + 2)
            if frame[0] != 8 + 3 * frame[4]:
                raise _damaged("JPEG", f"a frame of {frame[4]} components has a header of {frame[0]} bytes")
            progressive = marker == 0xC2
            at += 2 + frame[0]
        elif marker in _JPEG_SEGMENTS and (length := _BIG_U16.unpack_from(data, at + 2)[0]) >= 2:
            at += 2 + length
        else:  # libjpeg would refuse it, or skip FF 00 byte by byte
            raise _damaged("JPEG", f"byte {at} begins a segment {marker:#04x} that cannot be there")
    else:
        raise _damaged("JPEG", f"its header has more than {MAX_PARTS} parts")
    if frame is None:
        raise BadImage("the JPEG file has no frame header before its scan; send a whole file")
    height, width, components = frame[2:]
    check_length("JPEG", len(data), width, height)
    if _JPEG_END not in bytes(data[max(at, len(data) - 64) :]) and not _count(_JPEG_END, data, at):
        raise _cut_off("JPEG", data)  # the end is nearly always in the last bytes
    scans, refining, refining_bytes = _jpeg_scans(data, at)
    pixels, channels = width * height, 1 if components == 1 else 3
    kept = 2 * components if progressive or scans > 1 else 0  # coefficients of all blocks, until the last scan
    scanned = (0.4 * components * scans + 0.8 * refining) * pixels * 1e-9 + refining_bytes * 40e-9
    seconds = 2.3e-9 * pixels * channels + scanned + len(data) * (21e-9 if kept else 7e-9)
    return FileHeader("JPEG", width, height, pixels * (channels + kept), seconds)


def _jpeg_scans(data: memoryview, begin: int) -> tuple[int, int, int]:
    """Return the number of scans from ``begin`` on, and of those that refine earlier ones the number and the bytes.

    Those add a bit to coefficients that are known, and cost the most.
    """
    scans = refining = refining_bytes = refined_from = 0
    for scan in re.finditer(rb"\xff\xda", data[begin:]):  # entropy-coded data contain no FF DA
        scans, at = scans + 1, begin + scan.start()
        if scans > MAX_SCANS:
            raise _damaged("JPEG", f"it has more than {MAX_SCANS} scans")
        refining_bytes += at - refined_from if refined_from else 0
        components = data[at + 4]
        refines = data[at + 7 + 2 * components] >> 4  # the high bits of the approximation
        refining, refined_from = refining + bool(refines), at if refines else 0
    return scans, refining, refining_bytes + (len(data) - refined_from if refined_from else 0)


def _count(pair: bytes, data: memoryview, begin: int) -> int:
    """Count a pair of bytes from ``begin`` on, without a copy of the whole."""
    return sum(bytes(data[at : at + _PIECE + 1]).count(pair) for at in range(begin, len(data), _PIECE))


def _png(data: memoryview) -> FileHeader:
    """Walk from chunk to chunk up to the end: OpenCV allocates the declared length of a chunk, up to gigabytes."""
    length, kind, width, height, depth, color, _, _, interlaced = _PNG_HEADER.unpack_from(data, 8)
    if (length, kind) != (13, b"IHDR") or color not in _PNG_CHANNELS or interlaced > 1:
        raise _damaged("PNG", "it does not begin with a valid IHDR chunk")
    channels, at, texts, others, compressed = _PNG_CHANNELS[color], 8, 0, 0, 0
    for _ in range(MAX_PARTS):
        if at + 12 > len(data):
            raise _cut_off("PNG", data)
        length, kind = _PNG_CHUNK.unpack_from(data, at)
        at += 12 + length
        others += kind != b"IDAT"
        compressed += length if kind == b"IDAT" else 0
        if others > _PNG_MOST_OTHERS:
            break
        if kind == b"tRNS":
            channels = 4
        elif kind in _PNG_COMPRESSED:
            texts += min(_DEFLATE_RATIO * length, _PNG_LARGEST_TEXT) + _PNG_TEXT_SHARE * length
        elif kind == b"acTL":
            raise _damaged("PNG", "it is animated")
        elif kind == b"IEND":
            break
    if kind != b"IEND":
        raise _damaged("PNG", f"it has more than {MAX_PARTS} chunks, or {_PNG_MOST_OTHERS} that hold no pixels")
    if at > len(data):
        raise _cut_off("PNG", data)
    size = width * height * channels * (2 if depth == 16 else 1)
    seconds = (size + compressed) * _PNG_BYTE_SECONDS * (1 + interlaced) + texts * 4e-9
    return FileHeader("PNG", width, height, size * 5 // 2, seconds)


def check_png_data(data: memoryview, seconds: float) -> None:
    """Refuse a PNG whose compressed data hold more than its pixels, which libpng would drop, or take too long.

    Inflating takes a part of the time of decoding, and is left out where it could not cost much.

    :param data: of a file that `read_header` has read. :param seconds: estimated there.
    :raises BadImage: for data with a surplus, or that take longer than ``seconds`` and half a second to inflate.
    """
    width, height, depth, color, _, _, interlaced = _PNG_HEADER.unpack_from(data, 8)[2:]
    parts, at, kind = [], 8, b""
    while kind != b"IEND":
        length, kind = _PNG_CHUNK.unpack_from(data, at)
        if kind == b"IDAT":
            content = data[at + 8 : at + 8 + length]
            parts += [content[i : i + _PNG_COMPRESSED_PIECE] for i in range(0, length, _PNG_COMPRESSED_PIECE)]
        at += 12 + length
    if sum(map(len, parts)) * _DEFLATE_RATIO * _PNG_INFLATE_SECONDS < _PNG_HARMLESS_SECONDS:
        return
    bits = depth * {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[color]
    left = height * (1 + (width * bits + 7) // 8)
    if interlaced:  # at most: seven passes, each with rows that begin anew
        left += 2 * 7 * (height + 8)
    inflater, end = zlib.decompressobj(), time.thread_time() + max(seconds, _PNG_SECONDS)
    for part in parts:
        rest: bytes | memoryview = part
        while rest and not inflater.eof:
            try:
                left -= len(inflater.decompress(rest, _PNG_PIECE))
            except zlib.error:  # the decoder says what is damaged, and reads no further
                return
            if left < 0:
                raise _damaged("PNG", "its compressed data hold more than its pixels")
            if time.thread_time() > end:
                raise _damaged("PNG", f"its {len(data)} bytes take too long to decompress")
            rest = inflater.unconsumed_tail


def _webp(data: memoryview) -> FileHeader:
    if len(data) < 8 + _LITTLE_U32.unpack_from(data, 4)[0]:
        raise _cut_off("WebP", data)
    kind = bytes(data[12:16])
    if kind == b"VP8X":
        if data[20] & _WEBP_ANIMATION:
            raise _damaged("WebP", "it is animated")
        width, height = _u24(data, 24) + 1, _u24(data, 27) + 1
    elif kind == b"VP8L":
        (bits,) = _LITTLE_U32.unpack_from(data, 21)
        width, height = (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    else:
        width, height = (side & 0x3FFF for side in _LITTLE_U16_PAIR.unpack_from(data, 26))
    pixels = width * height
    of_pixel, of_byte = (20e-9, 15e-9) if kind == b"VP8L" else (16e-9, 50e-9)
    return FileHeader("WebP", width, height, 8 * pixels, pixels * of_pixel + len(data) * of_byte)


def _u24(data: memoryview, at: int) -> int:
    return data[at] | data[at + 1] << 8 | data[at + 2] << 16


def _tiff(data: memoryview) -> FileHeader:
    """Read the first directory; libtiff detects truncation itself. A strip or tile may be larger than the image."""
    tags = _tiff_tags(data)
    width, height = tags.get(_TIFF_WIDTH, 0), tags.get(_TIFF_HEIGHT, 0)
    bits, samples, compression = tags.get(_TIFF_BITS, 1), tags.get(_TIFF_SAMPLES, 1), tags.get(_TIFF_COMPRESSION, 1)
    if compression not in _TIFF_COMPRESSIONS:
        raise _damaged("TIFF", f"its compression is {compression}; LZW is 5")
    columns, rows = width, tags.get(_TIFF_STRIP_ROWS, height)
    if _TIFF_TILE_WIDTH in tags or _TIFF_TILE_HEIGHT in tags:
        columns, rows = tags.get(_TIFF_TILE_WIDTH, 0), tags.get(_TIFF_TILE_HEIGHT, 0)
    elif rows == 2**32 - 1:
        rows = height
    if width and height and (not columns or not rows or -(-width // columns) * -(-height // rows) > MAX_PARTS):
        raise _damaged("TIFF", f"it is divided into parts of {columns} x {rows} pixels")
    pixels = max(width, columns) * max(height, rows)
    size = pixels * max(4, samples * -(-bits // 8))
    memory = size * 5 if bits > 16 else size * 5 // 2
    seconds = size * 7e-9 + len(data) * _TIFF_COMPRESSIONS[compression]
    return FileHeader("TIFF", width, height, memory, seconds)


def _tiff_tags(data: memoryview) -> dict[int, int]:
    """Return the values of `_TIFF_TAGS` in the first directory, the largest of several."""
    order = "<" if data[0] == ord("I") else ">"
    (directory,) = Struct(order + "I").unpack_from(data, 4)
    (entries,) = Struct(order + "H").unpack_from(data, directory)
    if entries > _TIFF_LARGEST_DIRECTORY:
        raise _damaged("TIFF", f"its directory has {entries} entries")
    tags: dict[int, int] = {}
    for entry in range(directory + 2, directory + 2 + 12 * entries, 12):
        tag, kind, count = Struct(order + "HHI").unpack_from(data, entry)
        if tag not in _TIFF_TAGS:
            continue
        if tag in tags or kind not in _TIFF_TYPES or not 1 <= count <= (16 if tag == _TIFF_BITS else 1):
            raise _damaged("TIFF", f"tag {tag} has {count} values of type {kind}, or is there twice")
        values = Struct(f"{order}{count}{_TIFF_TYPES[kind]}")
        place = entry + 8 if values.size <= 4 else Struct(order + "I").unpack_from(data, entry + 8)[0]
        tags[tag] = max(values.unpack_from(data, place))
    return tags


_FORMATS: tuple[tuple[str, Callable[[bytes], bool], Callable[[memoryview], FileHeader]], ...] = (
    ("JPEG", lambda head: head.startswith(b"\xff\xd8\xff"), _jpeg),
    ("PNG", lambda head: head.startswith(b"\x89PNG\r\n\x1a\n"), _png),
    ("WebP", lambda head: head.startswith(b"RIFF") and head[8:15] == b"WEBPVP8", _webp),
    ("TIFF", lambda head: head[:4] in (b"II*\0", b"MM\0*"), _tiff),
)
