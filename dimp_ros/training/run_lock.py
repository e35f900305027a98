# SPDX-License-Identifier: Apache-2.0
"""The files of a run, which replace no input and no result without a checkpoint."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from dimp_ros.files.outputs import Named, check_outputs
from dimp_ros.model.checkpoints.weights_file import require_safetensors


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
    require_safetensors("--export", export)
    own = [file for folder in folders if folder is not None and folder.is_dir() for file in folder.iterdir()]
    check_outputs(
        [("--export", export)], [("the run's", file) for file in own if file.suffix != export.suffix and file.is_file()]
    )
