# SPDX-License-Identifier: Apache-2.0
"""Result files of the measuring programs: checked before minutes of measuring, written whole after them."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable
from pathlib import Path

from dimp_ros.files.outputs import Named, check_outputs, write_text


def prepare_folder(
    parser: argparse.ArgumentParser, folder: Path, files: Iterable[str], inputs: Iterable[Named] = ()
) -> None:
    """Make the folder of ``--out``, unless it or a file in it cannot be written or would overwrite an input.

    The program then ends with exit code 2.
    """
    read = list(inputs)
    try:
        check_outputs([], read, folders=[("--out", folder)])
        folder.mkdir(parents=True, exist_ok=True)
        check_outputs([(f"{file} of --out,", folder / file) for file in files], read)
    except (ValueError, OSError) as error:
        parser.error(str(error))


def write_results(label: str, folder: Path, names: tuple[str, str], figures: object, summary: str) -> int:
    """Print the summary, write figures as JSON and the summary to two files, and return the exit code."""
    print(summary, end="", flush=True)
    try:
        write_text(folder / names[0], json.dumps(figures, indent=1) + "\n")
        write_text(folder / names[1], summary)
    except OSError as error:
        print(f"{label}: {error}", file=sys.stderr)
        return 2
    return 0
