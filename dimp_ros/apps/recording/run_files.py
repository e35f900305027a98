# SPDX-License-Identifier: Apache-2.0
"""The files of one run: they replace those of an earlier run together, or not at all."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from dimp_ros.files.json_file import read_object
from dimp_ros.files.outputs import check_outputs
from dimp_ros.files.shared_folder import sole_run

FIGURES = "result.json"
"""The file by which a folder is known as one of a recording's results."""
OWN_KEY = "rmw"
"""In the figures of every recording."""


def check_own(folder: Path, names: Sequence[str]) -> None:
    """Refuse a folder in which files of these names are not a recording's.

    :raises ValueError: naming the file, and what to do.
    """
    there = [path for name in names if (path := folder / name).exists()]
    if not there:
        return
    try:
        own = OWN_KEY in read_object(folder / FIGURES)
    except (OSError, ValueError):
        own = False
    if not own:
        raise ValueError(
            f"{there[0]} would be replaced, but no {FIGURES} of a recording lies beside it: move it away, or give "
            "another folder"
        )


def check_free(folder: Path, names: Sequence[str], option: str = "folder") -> None:
    """Refuse a folder before anything is started, as `RunFiles` would.

    :param option: names the folder on the command line.
    :raises ValueError: if another run writes there, or files of these names are not a recording's.
    """
    check_own(folder, names)
    if folder.is_dir():
        with sole_run(folder, option):
            pass


class RunFiles:
    """The files of one run in a folder, which no other run uses meanwhile.

    They have ``.partial`` before their suffix until `commit`, and keep it if the run ends early: the files of an
    earlier run stay as they are.

    :param names: of all files that a whole run has; one of them is `FIGURES`.
    :raises ValueError: if another run writes there, or files of these names are not a recording's.
    """

    def __init__(self, folder: Path, names: Sequence[str]) -> None:
        self.folder, self._names = folder, tuple(names)
        self._begun = False
        check_own(folder, names)
        self._held = ExitStack()
        self._held.enter_context(sole_run(folder, "folder"))

    def path(self, name: str) -> Path:
        """Return where to write one of the files."""
        assert name in self._names
        path = self.folder / name
        return path.with_name(f"{path.stem}.partial{path.suffix}")

    def begin(self) -> None:
        """Remove what an earlier run that ended early has left."""
        for name in self._names:
            self.path(name).unlink(missing_ok=True)
        self._begun = True

    def commit(self) -> list[Path]:
        """Give the files of a whole run their names, and return them: the figures last, without earlier ones before.

        :raises ValueError, OSError: if one is missing, or cannot be replaced; nothing is changed then.
        """
        finals = [self.folder / name for name in sorted(self._names, key=lambda name: name == FIGURES)]
        for path in finals:
            if not self.path(path.name).is_file():
                raise ValueError(f"{path.name} has not been written")
        check_outputs([("the result", path) for path in finals], [])
        (self.folder / FIGURES).unlink(missing_ok=True)
        for path in finals:
            shutil.move(self.path(path.name), path.resolve())
        return finals

    def kept(self) -> list[Path]:
        """Return the files of a run that ended early."""
        return [path for name in self._names if self._begun and (path := self.path(name)).exists()]

    def release(self) -> None:
        """Let other runs use the folder; one that was made and is empty is removed."""
        self._held.close()
