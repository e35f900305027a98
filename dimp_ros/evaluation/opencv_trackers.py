# SPDX-License-Identifier: Apache-2.0
"""OpenCV's trackers as baselines: KCF, CSRT, MIL, and NanoTrack with its model files."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from dimp_ros.evaluation.tracker_api import BaselineUnavailable, Prediction
from dimp_ros.geometry.box import Box

CLASSES = {"kcf": "TrackerKCF", "csrt": "TrackerCSRT", "mil": "TrackerMIL"}
NANOTRACK = {"nanotrack_v1": "nanotrackv1", "nanotrack_v2": "nanotrackv2"}
BASELINES = (*CLASSES, *NANOTRACK)


def _find(class_name: str, member: str) -> Callable[..., Any]:
    """Return `create` or `Params` of a tracker class, by any of its names in this OpenCV."""
    for module in (cv2, getattr(cv2, "legacy", None)):
        inside = getattr(getattr(module, class_name, None), member, None)
        found: Callable[..., Any] | None = getattr(module, f"{class_name}_{member}", inside)
        if found is not None:
            return found
    raise BaselineUnavailable(f"OpenCV {cv2.__version__} here has no {class_name}; install opencv-contrib-python")


def _nanotrack_files(name: str, folder: Path | None) -> tuple[Path, Path]:
    """Return the backbone and head files of a NanoTrack version, found anywhere under `folder`."""
    if folder is None:
        raise BaselineUnavailable(f"{name} needs its model files; give the folder that holds them with --baselines DIR")
    files = []
    for part in ("backbone", "head"):
        matches = sorted(folder.rglob(f"*{NANOTRACK[name]}*{part}*.onnx"))
        if not matches:
            raise BaselineUnavailable(f"{name}: no *{NANOTRACK[name]}*{part}*.onnx under {folder}")
        files.append(matches[0])
    return files[0], files[1]


def baseline_factory(name: str, folder: Path | None = None) -> Callable[[], Any]:
    """Return a function that makes a new OpenCV tracker; raise BaselineUnavailable, with the remedy, if it cannot."""
    if name in CLASSES:
        return _find(CLASSES[name], "create")
    if name not in NANOTRACK:
        raise ValueError(f"unknown baseline {name!r}; known: {', '.join(BASELINES)}")
    create = _find("TrackerNano", "create")
    backbone, head = _nanotrack_files(name, folder)
    parameters = _find("TrackerNano", "Params")()
    parameters.backbone, parameters.neckhead = str(backbone), str(head)
    return lambda: create(parameters)


class OpenCVBaseline:
    """An OpenCV tracker with the interface of `BenchmarkTracker`; after a failure it repeats its last box."""

    def __init__(self, name: str, folder: Path | None = None) -> None:
        self._make = baseline_factory(name, folder)
        self._tracker: Any = None
        self._box = Box(math.nan, math.nan, math.nan, math.nan)

    def init(self, image: NDArray[np.uint8], box: Box) -> None:
        """Start on an HxWx3 BGR image; the box is rounded to whole pixels."""
        self._tracker = self._make()
        self._tracker.init(image, tuple(round(value) for value in box))
        self._box = box

    def update(self, image: NDArray[np.uint8]) -> Prediction:
        """Track the target in the next image."""
        found, rectangle = self._tracker.update(image)
        if found:
            self._box = Box(*(float(value) for value in rectangle))
        score = getattr(self._tracker, "getTrackingScore", None)
        return Prediction(self._box, bool(found), float(score()) if score is not None else None)
