# SPDX-License-Identifier: Apache-2.0
"""The folder of a run: two runs in one would overwrite each other's checkpoints; files that replace no input."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from dimp_ros.files.outputs import Named, check_outputs


@contextmanager
def sole_run(folder: Path) -> Iterator[None]:
    """Hold the folder of a run, which is made if it is missing; the system releases it when the process dies.

    A file system without locks is used without one.

    :raises ValueError: if another run holds it.
    """
    made = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):  # this file system has no locks
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise ValueError(f"another run writes into {folder}: end it, or give another --folder") from None
        yield
    finally:
        if made:
            with suppress(OSError):  # a run that was refused leaves nothing; a folder with files stays
                folder.rmdir()
        os.close(descriptor)


def check_run(
    folder: Path,
    files: Iterable[str],
    inputs: Iterable[Named],
    *,
    stores: Iterable[Named] = (),
    export: Path | None = None,
) -> None:
    """Refuse a run whose files, stores or exported weights would replace what it reads.

    :param files: names of what is written in ``folder``. :param inputs: see `check_outputs`; weights as `find_weights`
        finds them, for a name is not the path of its file. :param stores: folders of decoded images.
    :raises ValueError: with the remedy. :raises OSError: if something cannot be read or written.
    """
    inputs, stores = list(inputs), list(stores)
    check_outputs([("--export", export)], inputs, folders=[("--folder", folder), *stores])
    check_export(export, folder, *(path for _, path in stores))
    if folder.is_dir():
        check_outputs([("--folder", folder / name) for name in files], inputs)


def check_resumable(folder: Path, checkpoint: str, results: Iterable[str]) -> None:
    """Refuse a folder that has results and no checkpoint: a run would begin anew there and replace them.

    :param results: names of files that a run replaces, and writes after its first checkpoint only.
    :raises ValueError: with the remedy.
    """
    found = [name for name in results if os.path.lexists(folder / name)]
    if found and not (folder / checkpoint).exists():
        raise ValueError(
            f"{folder} has {' and '.join(found)} but no {checkpoint}: a new run would replace them; "
            f"copy the run's {checkpoint} there to resume it, or give another --folder"
        )


def check_export(export: Path | None, *folders: Path | None) -> None:
    """Refuse an export of weights that has another suffix, or would replace a file of a run's folders.

    :raises ValueError: with the remedy. :raises OSError: if a folder cannot be read.
    """
    if export is None:
        return
    if export.suffix != ".safetensors":
        raise ValueError(f"--export {export}: the name of a weights file must end in .safetensors")
    own = [file for folder in folders if folder is not None and folder.is_dir() for file in folder.iterdir()]
    check_outputs(
        [("--export", export)], [("the run's", file) for file in own if file.suffix != export.suffix and file.is_file()]
    )
