# SPDX-License-Identifier: Apache-2.0
"""Tokens and passphrases in files of their own."""

from __future__ import annotations

import stat
from pathlib import Path

from dimp_ros.files.inputs import read_small_file

MAX_BYTES = 4096
"""Largest file that is read: a token or a passphrase is short."""


def read_secret(name: str, path: Path) -> str:
    """Return the text in a file, without the white space around it.

    :param name: of the parameter that holds the path, for error texts.
    :raises ValueError: if the file is not a regular file, cannot be read, is empty, too large, not one line of
        printable characters, or may be read by others.
    """
    try:
        mode = path.stat().st_mode
        text = read_small_file(path, MAX_BYTES).decode("utf-8").strip() if stat.S_ISREG(mode) else ""
    except (OSError, ValueError) as error:
        raise ValueError(f"{name} {str(path)!r} cannot be read: {error}") from error
    if not stat.S_ISREG(mode):
        raise ValueError(f"{name} {str(path)!r} is not a regular file")
    if mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise ValueError(f"{name} {str(path)!r} may be read by others (mode {mode & 0o777:o}): chmod 600 it")
    if not text:
        raise ValueError(f"{name} {str(path)!r} is empty; fill it with: openssl rand -hex 16")
    if not text.isprintable():  # a byte order mark and other characters that nobody sees, and nobody types elsewhere
        raise ValueError(f"{name} {str(path)!r} must hold one line of printable characters: write it anew")
    return text
