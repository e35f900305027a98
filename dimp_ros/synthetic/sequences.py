# SPDX-License-Identifier: Apache-2.0
"""Synthetic sequences with true boxes from held-out images, for calibration and for tuning."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from dimp_ros.geometry.box import Box

SEED = 1_000_003
"""First part of each sequence's seed; differs from those of training."""

LENGTH = 32


class SyntheticFrame(NamedTuple):
    """A frame: BGR ``uint8 [H, W, 3]``, the target's box, and its visible share."""

    image: NDArray[np.uint8]
    box: Box
    visible: float


def synthetic_sequences(store: Path) -> Iterator[list[SyntheticFrame]]:
    """Yield sequences of `LENGTH` frames from a store's images without end, the same every time."""
    from dimp_ros.synthetic.image_store import Pixels, open_tables
    from dimp_ros.synthetic.renderer import SceneRenderer
    from dimp_ros.synthetic.scene_planner import ScenePlanner

    tables = open_tables(store)
    planner, renderer = ScenePlanner(tables), SceneRenderer(Pixels(store, tables))
    number = 0
    while True:
        rng = np.random.default_rng((SEED, number))
        number += 1
        scene = planner.plan(rng, np.linspace(0, 1, LENGTH, dtype=np.float64), clean=3)
        if scene is None or scene.visible[0] < 0.7 or min(scene.boxes[0, 2:]) < 10:
            continue
        images = np.ascontiguousarray(renderer.frames(scene).permute(0, 2, 3, 1).flip(-1).cpu().numpy())
        boxes = [Box(*(float(value) for value in box)) for box in scene.boxes]
        yield [SyntheticFrame(*values) for values in zip(images, boxes, scene.visible.tolist(), strict=True)]


def held_out_store(images: Path, folder: Path) -> Path:
    """Build a store in ``folder`` of the held-out images of a set in the compact format."""
    from dimp_ros.datasets.base import held_out
    from dimp_ros.datasets.registry import open_data_sets
    from dimp_ros.synthetic.image_store_writer import build_store

    return build_store(folder, open_data_sets([{"kind": "compact", "root": str(images.absolute())}]), held_out).folder
