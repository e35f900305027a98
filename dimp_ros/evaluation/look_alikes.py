# SPDX-License-Identifier: Apache-2.0
"""How often a tracker is on another target than its own, in videos with several targets of one kind."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from dimp_ros.evaluation.metrics import annotated, overlap
from dimp_ros.evaluation.report import markdown_table
from dimp_ros.evaluation.runner import SequenceResult
from dimp_ros.evaluation.sequences import VideoSequence


class TrackCounts(NamedTuple):
    """Annotated frames without the first: all, those on a wrong track, and those reported as LOST."""

    frames: int
    wrong: int
    lost: int


def count_wrong(result: SequenceResult, sequence: VideoSequence) -> TrackCounts:
    """Count the frames on a wrong track: the reported box overlaps another target of the video more than its own.

    A frame in which the target is reported as LOST is not one of them.
    """
    counted = annotated(sequence.boxes)
    counted[0] = False
    own = overlap(result.boxes, sequence.boxes)
    other = np.max([overlap(result.boxes, boxes) for boxes in sequence.look_alikes], axis=0, initial=0.0)
    found = np.array(result.found)
    return TrackCounts(int(counted.sum()), int((counted & found & (other > own)).sum()), int((counted & ~found).sum()))


def look_alike_table(results: Sequence[SequenceResult], sequences: Sequence[VideoSequence]) -> str:
    """Return the share of frames on a wrong track, over the sequences with several targets of one kind.

    Empty where there is no such sequence.
    """
    alike = {sequence.name: sequence for sequence in sequences if len(sequence.look_alikes)}
    if not alike:
        return ""
    counts: dict[str, list[TrackCounts]] = {}
    for result in results:
        if result.sequence in alike:
            counts.setdefault(result.tracker, []).append(count_wrong(result, alike[result.sequence]))
    rows = []
    for tracker, own in counts.items():
        frames, wrong, lost = map(sum, zip(*own, strict=True))
        shares = (f"{100 * count / max(frames, 1):.2f}" for count in (wrong, lost))
        rows.append([tracker, str(len(own)), str(frames), *shares])
    return markdown_table(["several targets of one kind", "tracks", "frames", "wrong track, %", "LOST, %"], rows)
