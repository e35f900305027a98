# SPDX-License-Identifier: Apache-2.0
"""What a compressed picture says of its size before anything of it is decoded, and whether its end is there."""

from __future__ import annotations

from collections.abc import Callable
from struct import Struct, error

from dimp_ros.images.encodings import BadImage

Size = tuple[int, int]
_JPEG_WITHOUT_LENGTH = {0x01, *range(0xD0, 0xD8)}  # TEM and restart markers
_JPEG_FRAMES = set(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # the rest are tables
_JPEG_SCAN = 0xDA
_JPEG_END = b"\xff\xd9"
_TIFF_WIDTH, _TIFF_HEIGHT = 256, 257
_TIFF_TYPES = {3: "H", 4: "I"}
_TIFF_LARGEST_DIRECTORY = 1000

_BIG_U16 = Struct(">H")
_BIG_U32_PAIR = Struct(">II")
_PNG_CHUNK = Struct(">I4s")
_LITTLE_U16_PAIR = Struct("<HH")
_LITTLE_U32 = Struct("<I")


def file_size_in_pixels(data: memoryview) -> tuple[str, Size]:
    """Return a compressed picture's format ("JPEG", "PNG", "WebP" or "TIFF"), and its width and height in pixels.

    :raises BadImage: for anything else, for a header that cannot be read, and for a file whose end is missing.
    """
    head = bytes(data[:16])
    found = next(((name, read) for name, begins, read in _FORMATS if begins(head)), None)
    if found is None:
        shown = head[:8].hex(" ") if head else "nothing"
        raise BadImage(f"data is no picture file: it begins with {shown}; send JPEG, PNG, WebP or TIFF")
    name, read = found
    try:
        width, height = read(data)
    except (error, IndexError) as failure:
        raise BadImage(f"the {name} file of {len(data)} bytes ends in its header; it was cut off") from failure
    if width < 1 or height < 1:
        raise BadImage(f"the {name} file says that it is {width} x {height} pixels; both sides must be at least 1")
    return name, (width, height)


def _cut_off(name: str, data: memoryview) -> BadImage:
    return BadImage(f"the {name} file of {len(data)} bytes has no end; it was cut off, send whole files")


def _jpeg(data: memoryview) -> Size:
    """Walk from marker to marker up to the scan; libjpeg fills up what a cut off file lacks with grey."""
    at, size = 2, None
    while True:
        if data[at] != 0xFF:
            raise BadImage(f"the JPEG file is damaged: byte {at} is {data[at]:#04x} where a marker must be")
        marker = data[at + 1]
        if marker == 0xFF:  # fill bytes may precede a marker
            at += 1
        elif marker in _JPEG_WITHOUT_LENGTH:
            at += 2
        else:
            if marker in _JPEG_FRAMES and size is None:
                height, width = Struct(">HH").unpack_from(data, at + 5)
                size = (width, height)
            if marker == _JPEG_SCAN or marker == 0xD9:
                break
            at += 2 + max(2, _BIG_U16.unpack_from(data, at + 2)[0])
    if size is None:
        raise BadImage("the JPEG file has no frame header before its scan; send a whole file")
    scan = data[at:]
    if _JPEG_END not in bytes(scan[-64:]) and _JPEG_END not in bytes(scan):  # it is nearly always in the last bytes
        raise _cut_off("JPEG", data)
    return size


def _png(data: memoryview) -> Size:
    """Walk from chunk to chunk up to the end: OpenCV allocates what a chunk says it holds, up to gigabytes."""
    width, height = _BIG_U32_PAIR.unpack_from(data, 16)
    at, kind = 8, b""
    while kind != b"IEND":
        if at + 12 > len(data):
            raise _cut_off("PNG", data)
        length, kind = _PNG_CHUNK.unpack_from(data, at)
        at += 12 + length
    if at > len(data):
        raise _cut_off("PNG", data)
    return width, height


def _webp(data: memoryview) -> Size:
    if len(data) < 8 + _LITTLE_U32.unpack_from(data, 4)[0]:
        raise _cut_off("WebP", data)
    kind = bytes(data[12:16])
    if kind == b"VP8X":
        return _u24(data, 24) + 1, _u24(data, 27) + 1
    if kind == b"VP8L":
        (bits,) = _LITTLE_U32.unpack_from(data, 21)
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    width, height = _LITTLE_U16_PAIR.unpack_from(data, 26)
    return width & 0x3FFF, height & 0x3FFF


def _u24(data: memoryview, at: int) -> int:
    return data[at] | data[at + 1] << 8 | data[at + 2] << 16


def _tiff(data: memoryview) -> Size:
    """Read the sides in the first directory; libtiff notices a missing end itself."""
    order = "<" if data[0] == ord("I") else ">"
    (directory,) = Struct(order + "I").unpack_from(data, 4)
    (entries,) = Struct(order + "H").unpack_from(data, directory)
    if entries > _TIFF_LARGEST_DIRECTORY:
        raise BadImage(f"the TIFF file's directory has {entries} entries; send a plain one")
    sides = {_TIFF_WIDTH: 0, _TIFF_HEIGHT: 0}
    for entry in range(directory + 2, directory + 2 + 12 * entries, 12):
        tag, kind = Struct(order + "HH").unpack_from(data, entry)
        if tag in sides and kind in _TIFF_TYPES:
            (sides[tag],) = Struct(order + _TIFF_TYPES[kind]).unpack_from(data, entry + 8)
    return sides[_TIFF_WIDTH], sides[_TIFF_HEIGHT]


_FORMATS: tuple[tuple[str, Callable[[bytes], bool], Callable[[memoryview], Size]], ...] = (
    ("JPEG", lambda head: head.startswith(b"\xff\xd8\xff"), _jpeg),
    ("PNG", lambda head: head.startswith(b"\x89PNG\r\n\x1a\n"), _png),
    ("WebP", lambda head: head.startswith(b"RIFF") and head[8:15] == b"WEBPVP8", _webp),
    ("TIFF", lambda head: head[:4] in (b"II*\0", b"MM\0*"), _tiff),
)
