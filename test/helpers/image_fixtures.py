# SPDX-License-Identifier: Apache-2.0
"""A small synthetic set of training images in the compact format: red ellipses on noise."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from dimp_ros.datasets.masks import encode_runs

RED = (40, 40, 250)


def _noise(rng: np.random.Generator, width: int, height: int) -> np.ndarray:
    coarse = rng.integers(0, 120, (height // 20, width // 20, 3), dtype=np.uint8)
    return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)


def _ellipse(image: np.ndarray, centre: tuple[int, int], axes: tuple[int, int]) -> np.ndarray:
    mask = np.zeros(image.shape[:2], np.uint8)
    cv2.ellipse(mask, centre, axes, 0, 0, 360, 1, -1)
    image[mask > 0, :3] = RED
    return mask


def write_images(root: Path, stills: int = 4, clip_frames: int = 6) -> Path:
    """Write stills, cut-outs, a clip and a background into ``root``; return it."""
    (root / "images").mkdir(parents=True)
    rng = np.random.default_rng(0)
    lines = []

    def add(name: str, kind: str, image: np.ndarray, mask: np.ndarray | None, **more: Any) -> None:
        cv2.imwrite(str(root / "images" / f"{name}.webp"), image)
        instances = []
        if mask is not None:
            rle = {"size": list(mask.shape), "counts": encode_runs(mask)}
            instances = [{"bbox": list(cv2.boundingRect(mask)), "mask": rle, "category": "ellipse"}]
        record = {"id": name, "width": image.shape[1], "height": image.shape[0], "source": kind, "kind": kind}
        lines.append(json.dumps(record | {"instances": instances} | more))

    for i in range(stills):
        image = _noise(rng, 320, 240)
        add(f"still_{i}", "still", image, _ellipse(image, (150 + 5 * i, 110), (30 + 3 * (i % 4), 24)))
    for i in range(3):
        image = np.dstack((_noise(rng, 100, 80), np.zeros((80, 100), np.uint8)))
        mask = _ellipse(image, (50, 40), (35, 30))
        image[..., 3] = mask * 255
        add(f"cutout_{i}", "cutout", image, mask)
    for i in range(clip_frames):
        image = _noise(rng, 320, 240)
        mask = _ellipse(image, (100 + 10 * i, 120), (30, 26))
        add(f"clip_{i}", "clip", image, mask, clip="one", frame=2 * i)
    add("ground", "background", _noise(rng, 320, 240), None)
    (root / "annotations.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return root
