# SPDX-License-Identifier: Apache-2.0
"""The weights file of a run, which other programs may change: it is replaced only while it is as the run wrote it."""

from __future__ import annotations

import hashlib
from pathlib import Path

from dimp_ros.files.inputs import require_regular_file
from dimp_ros.files.outputs import write_bytes, write_text

HASH_SUFFIX = ".blake2b"


class ExportedFile:
    """A file that a run writes again and again, with the hash of what it wrote beside it.

    A run that is killed between its checkpoint and the export, or between the export and its hash, knows its file, too.

    :param announced: hash of what is written next, or was written last; it belongs into the run's checkpoint.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.announced = ""
        self._record = path.with_suffix(HASH_SUFFIX)

    @property
    def changed(self) -> bool:
        """Whether the file is there and not as the run wrote it."""
        return self.path.exists() and self.digest() not in (self.announced, self._recorded())

    @property
    def written(self) -> bool:
        """Whether what was announced has been written."""
        return self.announced == self._recorded()

    @property
    def remark(self) -> str:
        """What a user should know of a changed file."""
        return (
            f"{self.path} is not as this run wrote it (the confidence may have been fitted), and is kept; to have it "
            "written by the run, give it another name and repeat the command"
        )

    def digest(self) -> str:
        """Return the hash of the file."""
        return _hash(require_regular_file(self.path).read_bytes())

    def announce(self, content: bytes) -> None:
        """Note what is written next."""
        self.announced = _hash(content)

    def write(self, content: bytes) -> None:
        """Write what was announced."""
        write_bytes(self.path, content)
        write_text(self._record, f"{self.announced}\n")

    def _recorded(self) -> str:
        return self._record.read_text(errors="replace").strip() if self._record.is_file() else ""


def _hash(content: bytes) -> str:
    return hashlib.blake2b(content, digest_size=16).hexdigest()
