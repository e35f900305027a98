# SPDX-License-Identifier: Apache-2.0
"""Views of synthetic scenes for the box refiner: the target on other backgrounds, bent, and partly covered."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dimp_ros.datasets.base import held_out
from dimp_ros.datasets.registry import open_data_sets
from dimp_ros.geometry.box import Box
from dimp_ros.images.closer_window import CloserWindow, crop_window
from dimp_ros.synthetic.image_store import Pixels, open_tables
from dimp_ros.synthetic.image_store_writer import build_store
from dimp_ros.synthetic.renderer import SceneRenderer
from dimp_ros.synthetic.scene_planner import SceneConfig, ScenePlanner

SCENES = SceneConfig(mix=(0.6, 0.4, 0.0), occluder=0.5, vanish=0.0, part=0.15, crowd=0.2)

RENDERED = 224
"""Side of the square that is rendered round a window, in pixels."""

SEEN_FIRST, SEEN_LATER = 0.75, 0.5
"""Least visible share of the target in the first frame and in the others."""


class SceneViews:
    """Draws scenes from an image store, see `dimp_ros.synthetic.image_store`.

    :param config: content of the scenes.
    :raises OSError, ValueError: if ``folder`` holds no store from which scenes can be made.
    """

    def __init__(self, folder: Path, config: SceneConfig = SCENES) -> None:
        tables = open_tables(folder)
        self._planner, self._renderer = ScenePlanner(tables, config), SceneRenderer(Pixels(folder, tables))

    def draw(
        self, rng: np.random.Generator, count: int, windows_of: Callable[[Sequence[Box]], Sequence[CloserWindow]]
    ) -> tuple[list[NDArray[np.uint8]], list[Box], list[CloserWindow]] | None:
        """Draw a scene and return ``count`` crops ``uint8 [size, size, 3]`` BGR, the true boxes and the windows.

        Nothing covers the target in the first frame. Returns None if the draw is unusable.

        :param windows_of: chooses each frame's window for the target's boxes.
        """
        scene = self._planner.plan(rng, rng.uniform(0, 1, count), clean=1)
        if scene is None or scene.visible[0] < SEEN_FIRST or scene.visible.min() < SEEN_LATER:
            return None
        boxes = [Box(*(float(v) for v in box)) for box in scene.boxes]
        windows = list(windows_of(boxes))
        if not windows:
            return None
        squares = np.array([_square(window) for window in windows])
        rendered = self._renderer.render([scene], [squares], (RENDERED, RENDERED))
        images = rendered.round_().clamp_(0, 255).byte().permute(0, 2, 3, 1).flip(-1).contiguous().numpy()
        crops = [
            crop_window(image, CloserWindow((w.x - x) / scale, (w.y - y) / scale, w.w / scale, w.h / scale, w.size))
            for image, w, (x, y, scale) in zip(images, windows, squares, strict=True)
        ]
        return crops, boxes, windows


def scene_store(images: Path, folder: Path) -> Path:
    """Build the image store of the stills in ``images`` (compact format) in ``folder``, or keep the one there."""
    data = open_data_sets([{"kind": "compact", "root": str(images.absolute())}])
    return build_store(folder, data, lambda name: not held_out(name), clip_frames=8).folder


def _square(window: CloserWindow) -> tuple[float, float, float]:
    """Return the square about a window: its corner, and image pixels per rendered pixel."""
    side = max(window.w, window.h)
    return window.x + (window.w - side) / 2, window.y + (window.h - side) / 2, side / RENDERED
