# SPDX-License-Identifier: Apache-2.0
"""Training data sets by name, as configurations list them: ``- {kind: got10k, root: /data/GOT-10k, weight: 2}``."""

from __future__ import annotations

import inspect
import math
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from dimp_ros.datasets.base import DataSet
from dimp_ros.datasets.clips import ClipsDataSet
from dimp_ros.datasets.coco import CocoDataSet
from dimp_ros.datasets.compact import CompactDataSet
from dimp_ros.datasets.got10k import Got10kDataSet
from dimp_ros.datasets.lasot import LasotDataSet
from dimp_ros.datasets.subset import Subset
from dimp_ros.datasets.trackingnet import TrackingNetDataSet

KINDS: dict[str, Callable[..., DataSet]] = {
    "clips": ClipsDataSet,
    "coco": CocoDataSet,
    "compact": CompactDataSet,
    "got10k": Got10kDataSet,
    "lasot": LasotDataSet,
    "trackingnet": TrackingNetDataSet,
}
LIMITS = ("max_stills", "max_clips", "max_frames")
PATHS = ("root", "split", "exclude")


class WeightedDataSet(NamedTuple):
    """A data set and its relative sampling weight."""

    data: DataSet
    weight: float


def open_data_set(kind: str, root: Path | str, **options: Any) -> DataSet:
    """Open a data set; annotations are read now or on first use, images on use.

    :param kind: one of `KINDS`. :param root: its folder.
    :param options: those of the kind's class, and ``max_stills``, ``max_clips``, ``max_frames`` (of each clip) to take
        only so many, evenly spaced.
    :raises ValueError: if a kind or an option is not known, or something is damaged.
    :raises OSError: if something is missing.
    """
    if kind not in KINDS:
        raise ValueError(f"data sets of kind {kind!r} are not known; there are: {', '.join(sorted(KINDS))}")
    known = [name for name in inspect.signature(KINDS[kind]).parameters if name != "root"]
    if unknown := sorted(options.keys() - {*known, *LIMITS}):
        raise ValueError(f"{kind} has no option {', '.join(unknown)}; it has: {', '.join([*known, *LIMITS])}")
    limits = {name.removeprefix("max_"): options.pop(name) for name in LIMITS if name in options}
    data = KINDS[kind](Path(root).expanduser(), **options)
    return Subset(data, **limits) if limits else data


def open_data_sets(entries: Sequence[Mapping[str, Any]], base: Path | str = ".") -> list[WeightedDataSet]:
    """Open the data sets of a configuration: mappings of ``kind``, ``root``, ``weight`` (default 1) and options.

    :param base: folder that relative paths start from. ``~`` and ``$VARIABLES`` are expanded.
    :raises ValueError: if an entry is not such a mapping. :raises OSError: if something is missing.
    """
    opened = []
    for number, entry in enumerate(entries, 1):
        if not isinstance(entry, Mapping) or not {"kind", "root"} <= entry.keys():
            raise ValueError(
                f"data set {number} is {entry!r}; expected a mapping with kind and root, as in "
                "{kind: got10k, root: /data/GOT-10k, weight: 2}"
            )
        options = dict(entry)
        weight = options.pop("weight", 1)
        if not isinstance(weight, (int, float)) or not (0 < weight < math.inf):
            raise ValueError(f"weight of data set {number} is {weight!r}; give a positive number, or leave the set out")
        opened.append(WeightedDataSet(open_data_set(**resolve_paths(options, base)), float(weight)))
    return opened


def resolve_paths(entry: Mapping[str, Any], base: Path | str) -> dict[str, Any]:
    """Return a data set's entry with absolute paths; ``split`` is a path for LaSOT only."""
    resolved = dict(entry)
    for name in PATHS:
        value = resolved.get(name)
        if not value or (name == "split" and entry.get("kind") != "lasot"):
            continue
        resolved[name] = str(Path(base) / Path(os.path.expandvars(value)).expanduser())
    return resolved
