# SPDX-License-Identifier: Apache-2.0
"""Render the simulator's images, dimp_ros/apps/simulator/assets, from files of the Python package dm_control.

    pip install dm_control==1.0.50 mujoco        # in an environment of its own; and libosmesa6 of the system
    python tools/draw_dog.py .../site-packages/dm_control

The dog trots in place: each leg swings as a sine, diagonal legs together, and bends while it swings forward.
"""

from __future__ import annotations

import math
import os
import sys
from pathlib import Path
from typing import Any

os.environ.setdefault("MUJOCO_GL", "osmesa")

import cv2
import mujoco
import numpy as np

ASSETS = Path(__file__).resolve().parents[1] / "dimp_ros" / "apps" / "simulator" / "assets"
STRIDE, WIDTH, HEIGHT, FINER = 12, 460, 368, 3
SIDE_VIEW = 104.0
"""Azimuth of the camera, degrees: a little from ahead."""


def main(package: Path) -> None:
    """Write both images."""
    ASSETS.mkdir(parents=True, exist_ok=True)
    strip = np.concatenate(aligned(rendered(package / "suite")), axis=1)
    colours = strip[..., :3].astype(np.float32)
    grey = colours.mean(-1, keepdims=True)
    strip[..., :3] = np.clip((grey + (colours - grey) * 0.85) * 0.86, 0, 255)
    cv2.imwrite(str(ASSETS / "dog.webp"), strip, [cv2.IMWRITE_WEBP_QUALITY, 82])
    folder = package / "locomotion" / "arenas" / "assets" / "outdoor_natural"
    grass = cv2.imread(str(folder / "OutdoorGrassFloorD.png")).astype(np.float32)
    mean = grass.mean((0, 1))
    grass = (mean + (grass - mean) * 0.62) * (1.25, 1.0, 0.80) * 1.08 + (8, 14, 6)
    cv2.imwrite(str(ASSETS / "grass.webp"), np.clip(grass, 0, 255).astype(np.uint8), [cv2.IMWRITE_WEBP_QUALITY, 60])


def rendered(suite: Path) -> list[Any]:
    """Return the images of a stride, [HEIGHT, WIDTH, 4] BGR and opacity."""
    files = {path.name: path.read_bytes() for path in (suite / "dog_assets").iterdir()}
    files |= {f"./common/{path.name}": path.read_bytes() for path in (suite / "common").glob("*.xml")}
    model = mujoco.MjModel.from_xml_string((suite / "dog.xml").read_text(encoding="utf-8"), files)
    data = mujoco.MjData(model)
    model.vis.global_.offwidth, model.vis.global_.offheight = WIDTH * FINER, HEIGHT * FINER
    model.vis.global_.fovy = 24
    model.vis.headlight.ambient[:], model.vis.headlight.diffuse[:], model.vis.headlight.specular[:] = 0.5, 0.55, 0.05
    renderer = mujoco.Renderer(model, HEIGHT * FINER, WIDTH * FINER)
    options, camera = mujoco.MjvOption(), mujoco.MjvCamera()
    options.geomgroup[:] = 0  # the skin alone
    camera.distance, camera.azimuth, camera.elevation = 3.6, SIDE_VIEW, -3
    images = []
    for index in range(STRIDE):
        pose(model, data, 2.0 * math.pi * index / STRIDE)
        camera.lookat[:] = data.body("torso").xpos + np.array([-0.02, 0.0, -0.06])
        renderer.update_scene(data, camera, options)
        colours = renderer.render()[..., ::-1].astype(np.float32)
        renderer.enable_segmentation_rendering()
        renderer.update_scene(data, camera, options)
        skin = renderer.render()[..., 1:2] == int(mujoco.mjtObj.mjOBJ_SKIN)
        renderer.disable_segmentation_rendering()
        share = coarser(skin.astype(np.float32))
        images.append(
            np.dstack([coarser(colours * skin) / np.maximum(share, 1e-6), share * 255]).round().astype(np.uint8)
        )
    return images


def pose(model: Any, data: Any, phase: float) -> None:
    """Bend the joints as at a phase of the stride, 0 to 2 pi."""
    mujoco.mj_resetData(model, data)
    angles = {"mandible": 0.15 + 0.05 * math.sin(phase)}
    for side, hind, front in (("L", 0.0, math.pi), ("R", math.pi, 0.0)):
        swing, lift = math.sin(phase + hind), max(0.0, -math.cos(phase + hind))
        angles[f"hip_{side}_extend"] = -0.38 + 0.42 * swing
        angles[f"knee_{side}"], angles[f"ankle_{side}"] = -0.05 - 0.75 * lift, -0.1 - 0.55 * lift
        swing, lift = math.sin(phase + front), max(0.0, -math.cos(phase + front))
        angles[f"scapula_{side}_extend"] = -0.16 * swing
        angles[f"shoulder_{side}_extend"] = -0.32 * swing + 0.1 * lift
        angles[f"elbow_{side}"], angles[f"wrist_{side}"] = -0.1 - 0.85 * lift, -0.05 - lift
    for name, angle in angles.items():
        data.qpos[model.joint(name).qposadr[0]] = angle
    mujoco.mj_forward(model, data)


def coarser(image: Any) -> Any:
    """Return the means of FINER x FINER pixels."""
    return image.reshape(HEIGHT, FINER, WIDTH, FINER, -1).mean((1, 3))


def aligned(images: list[Any]) -> list[Any]:
    """Return the images with the feet on one line, cut to what any of them shows."""
    lowest = [np.flatnonzero((image[..., 3] > 127).any(1))[-1] for image in images]
    images = [np.roll(image, max(lowest) - low, axis=0) for image, low in zip(images, lowest, strict=True)]
    shown = np.max([image[..., 3] for image in images], axis=0) > 40
    rows, columns = np.flatnonzero(shown.any(1)), np.flatnonzero(shown.any(0))
    return [image[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1] for image in images]


if __name__ == "__main__":
    main(Path(sys.argv[1]))
