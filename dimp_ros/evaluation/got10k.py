# SPDX-License-Identifier: Apache-2.0
"""Results in the format of GOT-10k's toolkit and server."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from dimp_ros.evaluation.runner import SequenceResult
from dimp_ros.evaluation.sequences import VideoSequence
from dimp_ros.files.names import file_name
from dimp_ros.files.outputs import write_text


def write_got10k(folder: Path, results: Iterable[SequenceResult], sequences: Sequence[VideoSequence]) -> list[Path]:
    """Write ``TRACKER/NAME/NAME_001.txt`` and ``NAME_time.txt`` under `folder`; return the trackers' folders.

    A line is a box ``x,y,w,h`` in the coordinates of the data set's files (1-based for GOT-10k), or the seconds of
    its frame; 0 after the tracker has failed, which the toolkit leaves out of the speed.
    """
    by_name = {sequence.name: sequence for sequence in sequences}
    written: dict[Path, None] = {}
    for result in results:
        origin = by_name[result.sequence].origin
        tracker, name = folder / file_name(result.tracker), file_name(result.sequence)
        path = tracker / name / f"{name}_001.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        lines = [f"{box.x + origin:.3f},{box.y + origin:.3f},{box.w:.3f},{box.h:.3f}\n" for box in result.boxes]
        write_text(path, "".join(lines))
        seconds = [value / 1e3 for value in result.milliseconds]
        seconds += [0.0] * (len(result.boxes) - len(seconds))
        times = path.with_name(f"{name}_time.txt")
        write_text(times, "".join(f"{value:.8f}\n" for value in seconds))
        written[tracker] = None
    return list(written)
