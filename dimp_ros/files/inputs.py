# SPDX-License-Identifier: Apache-2.0
"""Input files: only regular files and folders are opened, since a FIFO or a device may block or never end.

Files of the kernel, such as /proc/kmsg, count as devices: by their type they are regular.
"""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path

_KINDS = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a FIFO"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)
_HEAD_BYTES = 4096
_NUMBERED = re.compile(r"%(0?\d*d|[*?{\[])")
"""What FFmpeg takes for the numbers of images in a name; in one of these files it does not."""
_CONTAINERS = frozenset(
    ".3gp .avi .flv .m2ts .m4v .mkv .mov .mp4 .mpeg .mpg .mts .ogv .ts .webm .wmv".split()
)  # fmt: skip
KERNEL_FOLDERS = ("/proc", "/sys")


def require_regular_file(path: Path) -> Path:
    """Return ``path`` if it is a regular file or a link to one.

    :raises ValueError: for anything else that exists. :raises OSError: if nothing is there.
    """
    status = path.stat()
    mode = status.st_mode
    if stat.S_ISREG(mode) and _of_kernel(path, status.st_dev):
        raise ValueError(f"{path} is a file of the kernel; only regular files are read, copy the data into one")
    if not stat.S_ISREG(mode):
        kind = next((name for matches, name in _KINDS if matches(mode)), "no regular file")
        raise ValueError(f"{path} is {kind}; only regular files are read, copy the data into one")
    return path


def _of_kernel(path: Path, device: int) -> bool:
    """Tell whether a file lies in a file system of the kernel, wherever that is mounted."""
    if any(os.path.exists(folder) and os.stat(folder).st_dev == device for folder in KERNEL_FOLDERS):
        return True
    return os.path.realpath(path).startswith(tuple(f"{folder}/" for folder in KERNEL_FOLDERS))


def read_utf8(path: Path) -> str:
    """Return the text of a regular file in UTF-8, without the byte order mark that editors may add.

    :raises ValueError: for another encoding, naming the file. :raises OSError: if it cannot be read.
    """
    content = require_regular_file(path).read_bytes()
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is no text in UTF-8 (byte {error.start}); save it in this encoding") from error
    if "\0" in text:  # of UTF-16, say
        raise ValueError(f"{path} is no text in UTF-8 (it has zeros); save it in this encoding")
    return text


def require_inside(path: Path, folder: Path) -> Path:
    """Return a regular file that another file of ``folder`` names, if it really lies in that folder.

    :raises ValueError: for a path outside, and for anything that is no regular file.
    """
    if not path.resolve().is_relative_to(folder.resolve()):
        raise ValueError(f"{path} lies outside of {folder}; files that belong together must lie in one folder")
    return require_regular_file(path)


def opencv_path(path: Path | str) -> str:
    """Return an absolute path for OpenCV, whose FFmpeg takes what is before a colon for a protocol.

    :raises ValueError: for a name that is not UTF-8, on which OpenCV crashes, and for a FIFO or a device.
    """
    text = str(path)
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"{text!a} is not a UTF-8 name, which OpenCV needs; rename the file or folder") from error
    absolute = Path(text).absolute()
    if absolute.exists() and not absolute.is_dir():
        require_regular_file(absolute)
    return str(absolute)


def video_path(path: Path | str) -> str:
    """Return the path of a video for OpenCV if all its images are in the file itself.

    FFmpeg opens the files that a playlist names, and for ``%03d.png`` all images with such names: they would be inputs
    that nobody has named. It passes over ID3 tags before it looks what a file is.

    :raises ValueError: for these, and as `opencv_path`. :raises OSError: if the file cannot be read.
    """
    absolute = opencv_path(path)
    if _NUMBERED.search(absolute) and Path(absolute).suffix.lower() not in _CONTAINERS:
        raise ValueError(
            f"{path} is not a video: FFmpeg takes the name for several images; give their folder, or rename it"
        )
    with open(absolute, "rb") as file:
        head = file.read(_HEAD_BYTES)
        while head[:3] == b"ID3" and len(head) > 10:
            length = sum((byte & 0x7F) << shift for byte, shift in zip(head[6:10], (21, 14, 7, 0), strict=True))
            file.seek(length + 10 * (1 + (head[5] >> 4 & 1)) - len(head), os.SEEK_CUR)
            head = file.read(_HEAD_BYTES)
    if head.startswith((b"ffconcat", b"#EXTM3U", b"<")) or _is_text(head):
        raise ValueError(f"{path} is not a video but a text, such as a playlist; give the video itself")
    return absolute


def _is_text(head: bytes) -> bool:
    """Tell whether the beginning of a file is text; an empty one is not, nor uncompressed video with a head of text."""
    text = head.decode(errors="ignore")  # a character may be cut off at the end
    printable = all(one.isprintable() or one in "\t\r\n\f\ufeff" for one in text)
    return bool(head) and printable and len(head) - len(text.encode()) < 4 and not head.startswith(b"YUV4MPEG2")


def read_small_file(path: str | Path, limit: int) -> bytes:
    """Return the bytes of a regular file of at most ``limit`` bytes; a file that gives none now counts as empty.

    :raises OSError: if it cannot be read. :raises ValueError: if it is not a regular file, or larger.
    """
    with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode) or _of_kernel(Path(path), status.st_dev):
            raise ValueError(f"{str(path)!r} is not a regular file")
        data = file.read(limit + 1) or b""  # None where reading would wait
    if len(data) > limit:
        raise ValueError(f"{str(path)!r} has more than {limit} bytes, which is the most for such a file")
    return data
