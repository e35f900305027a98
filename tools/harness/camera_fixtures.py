# SPDX-License-Identifier: Apache-2.0
"""Cameras, and depth images of known objects in front of a wall, as plain objects with the fields of ROS messages."""

from __future__ import annotations

import array
from types import SimpleNamespace
from typing import Any

import numpy as np

from dimp_ros.geometry.camera import Camera

K = [600.0, 0.0, 322.0, 0.0, 610.0, 236.0, 0.0, 0.0, 1.0]


def header(stamp: float = 10.0, frame_id: str = "lens") -> SimpleNamespace:
    """Return a header with ``stamp`` in seconds."""
    ns = round(stamp * 1e9)
    return SimpleNamespace(stamp=SimpleNamespace(sec=ns // 10**9, nanosec=ns % 10**9), frame_id=frame_id)


def camera_info(
    size: tuple[int, int] = (640, 480),
    k: list[float] | None = None,
    p: list[float] | None = None,
    d: list[float] | None = None,
    model: str = "",
    roi: tuple[int, int, int, int] = (0, 0, 0, 0),
    binning: tuple[int, int] = (0, 0),
    frame_id: str = "lens",
) -> SimpleNamespace:
    """Return a CameraInfo; ``roi`` is (x_offset, y_offset, width, height)."""
    k = K if k is None else k
    region = SimpleNamespace(x_offset=roi[0], y_offset=roi[1], width=roi[2], height=roi[3], do_rectify=False)
    return SimpleNamespace(
        header=header(frame_id=frame_id),
        width=size[0],
        height=size[1],
        distortion_model=model,
        d=array.array("d", d or []),
        k=np.array(k),
        r=np.eye(3).ravel(),
        p=np.array([*k[:3], 0.0, *k[3:6], 0.0, *k[6:], 0.0] if p is None else p),
        binning_x=binning[0],
        binning_y=binning[1],
        roi=region,
    )


def depth_image(
    z: np.ndarray, encoding: str = "16UC1", big: bool = False, padding: int = 0, **head: Any
) -> SimpleNamespace:
    """Return depths ``z`` [height, width] in metres as an image message whose rows end with ``padding`` bytes."""
    kind = (">" if big else "<") + {"16UC1": "u2", "32FC1": "f4"}[encoding]
    with np.errstate(invalid="ignore"):
        pixels = (np.nan_to_num(z) * 1000).round().astype(kind) if encoding == "16UC1" else z.astype(kind)
    height, width = z.shape
    rows = np.full((height, width * pixels.itemsize + padding), 0xEE, np.uint8)
    rows[:, : width * pixels.itemsize] = np.ascontiguousarray(pixels).view(np.uint8).reshape(height, -1)
    return SimpleNamespace(
        header=header(**head),
        width=width,
        height=height,
        encoding=encoding,
        is_bigendian=int(big),
        step=rows.shape[1],
        data=array.array("B", rows.tobytes()),
    )


def scene(
    camera: Camera, place: tuple[float, float, float], size: tuple[float, float], wall: float = 8.0
) -> tuple[np.ndarray, tuple[float, float, float, float]]:
    """Return depths [height, width] of an upright plate before a wall, and the plate's box (x, y, w, h).

    Whether a pixel shows the plate is computed from the pixel's own direction.

    :param place: of the plate's middle in metres. :param size: its width and height in metres.
    """
    x, y, z = place
    half_w, half_h = size[0] / 2, size[1] / 2
    rays = camera.bearing(*np.meshgrid(np.arange(camera.width) + 0.5, np.arange(camera.height) + 0.5))
    at = rays / rays[..., 2:] * z
    on_plate = (np.abs(at[..., 0] - x) <= half_w) & (np.abs(at[..., 1] - y) <= half_h)
    rim = [(x + u * half_w, y + v * half_h, z) for u in (-1, 0, 1) for v in (-1, 0, 1)]
    pixels = camera.project(rim)
    low, high = pixels.min(0), pixels.max(0)
    return np.where(on_plate, z, wall), (low[0], low[1], high[0] - low[0], high[1] - low[1])
