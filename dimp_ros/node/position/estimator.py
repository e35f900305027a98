# SPDX-License-Identifier: Apache-2.0
"""Positions of targets from boxes, camera_info and depth images."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from dimp_ros.geometry.box import Box
from dimp_ros.geometry.camera import Camera
from dimp_ros.geometry.ranging import Position, Range, foreground, position, range_from_depth, range_from_width
from dimp_ros.node.position.depth_buffer import DepthBuffer, depths_inside
from dimp_ros.ros_utils.text import shortened

if TYPE_CHECKING:
    from sensor_msgs.msg import CameraInfo, Image
    from std_msgs.msg import Header

_MOST_PIXELS = 1e6


class PositionEstimator:
    """Keeps the camera and the latest depths, and estimates where a box is. May be used from any thread.

    No method raises, whatever is received: the result is None, and `complaint` says what is wrong.

    :param rectified: images are rectified: P of the camera_info describes them, otherwise K and D.
    :param target_width: metres; where there is no depth, the range follows from it. 0: then there is no range.
    :param depth_tolerance: seconds between the stamps of an image and of the depth image used for it, at most.
    :param max_depth_bytes: memory for depth images; the newest is held however large it is.
    """

    def __init__(
        self,
        *,
        rectified: bool = False,
        target_width: float = 0.0,
        depth_tolerance: float = 0.05,
        max_depth_bytes: int = 64 * 2**20,
    ) -> None:
        self._rectified = rectified
        self._target_width = target_width
        self._tolerance = depth_tolerance
        self._depths = DepthBuffer(max_depth_bytes)
        self._lock = threading.Lock()  # of what is replaced as a whole, below; computed with outside of it
        self._content: tuple[Any, ...] | None = None  # what the last camera_info held
        self._calibrated: Camera | None = None
        self._frame = ""
        self._resized: Camera | None = None  # for the size of the last image
        self._troubles: dict[str, str] = {}

    @property
    def complaint(self) -> str:
        """What is wrong with camera_info and depth at this moment, in at most 1,000 characters; empty if nothing is."""
        with self._lock:
            return shortened("; ".join(text for text in self._troubles.values() if text))

    def on_camera_info(self, info: CameraInfo) -> None:
        """Take a camera_info; one that says the same as the last costs next to nothing."""
        camera, trouble, content, frame = None, "", None, ""
        try:
            content = _content(info)
            if content == self._content:
                return
            frame = info.header.frame_id
            camera = Camera.from_info(info, rectified=self._rectified)
        except Exception as error:
            trouble = f"camera_info: {_text(error)}"
        with self._lock:
            self._content, self._calibrated, self._frame, self._resized = content, camera, frame, None
            self._troubles = {"camera": trouble, "depth": self._troubles.get("depth", "")}

    def on_depth(self, depth: Image) -> None:
        """Take a depth image; it is read only where and when a position is asked for."""
        try:
            self._depths.add(depth)
        except Exception as error:
            self._say("depth", f"depth: {_text(error)}")

    def clear(self) -> None:
        """Forget camera, depth images and problems."""
        self._depths.clear()
        with self._lock:
            self._content, self._calibrated, self._frame, self._resized = None, None, "", None
            self._troubles = {}

    def bearing(
        self, header: Header, width: int, height: int, box: Sequence[float]
    ) -> tuple[float, float, float] | None:
        """Return the unit vector from the camera to the middle of ``box`` in the optical frame; None if unknown.

        :param header: of the image. :param width: of the image in pixels. :param box: (x, y, w, h) in its pixels.
        """
        try:
            camera = self._camera(header, width, height)
            if camera is None:
                return None
            x, y, z = camera.bearing(*_checked(box).center).tolist()
            self._say("box", "")
            return x, y, z
        except Exception as error:
            self._say("box", f"bearing: {_text(error)}")
            return None

    def position(self, header: Header, width: int, height: int, box: Sequence[float]) -> Position | None:
        """Return where the target in ``box`` is in the image's optical frame, None if its range is not known.

        The range is measured if depth images come in and one fits; else it follows from the target's width, if given.

        :param header: of the image. :param width: of the image in pixels. :param box: (x, y, w, h) in its pixels.
        """
        try:
            camera = self._camera(header, width, height)
            if camera is None:
                return None
            pixels = _checked(box)
            self._say("box", "")
            found = self._measured(header, camera, pixels)
            if found is None and self._target_width > 0.0:
                found = range_from_width(camera, pixels, self._target_width)
            return None if found is None else position(camera, pixels, found)
        except Exception as error:
            self._say("box", f"position: {_text(error)}")
            return None

    def _camera(self, header: Header, width: int, height: int) -> Camera | None:
        """Return the camera of an image of this size."""
        with self._lock:
            calibrated, camera, frame = self._calibrated, self._resized, self._frame
        if calibrated is None:
            if len(self._depths) and not self._content:
                self._say("camera", "depth images come in, but no camera_info: the range has no direction")
            return None
        if camera is None or (camera.width, camera.height) != (width, height):
            try:
                camera = calibrated.resized(width, height)
            except ValueError as error:
                self._say("size", f"camera_info: {error}")
                return None
            with self._lock:
                self._resized = camera if self._calibrated is calibrated else None
        foreign = frame and header.frame_id and frame != header.frame_id
        self._say("camera", _foreign("camera_info", frame, header.frame_id, "of this camera") if foreign else "")
        self._say("size", "")
        return camera

    def _measured(self, header: Header, camera: Camera, box: Box) -> Range | None:
        """Return the range from a depth image; where there is none, keep the reason."""
        nearest = self._depths.nearest(header.stamp)
        if nearest is None:
            return None
        depth, late = nearest
        found, trouble = None, ""
        try:
            if abs(late) > self._tolerance:
                trouble = (
                    f"the nearest depth image is {abs(late):.3g} s {'newer' if late > 0 else 'older'} than the image, "
                    f"more than depth_tolerance, {self._tolerance:g} s: see that both have the same clock"
                )
            elif depth.header.frame_id != header.frame_id:
                trouble = _foreign("depth", depth.header.frame_id, header.frame_id, "aligned to the image")
            else:
                seen = foreground(depths_inside(depth, box, camera.width, camera.height))
                found = range_from_depth(camera, box, seen) if seen is not None else None
                if found is None:
                    trouble = "there is no surface in the depth image where the target is"
        except Exception as error:
            trouble = _text(error)
        self._say("depth", f"depth: {trouble}" if trouble else "")
        return found

    def _say(self, about: str, trouble: str) -> None:
        """Keep a problem, or remove it."""
        if self._troubles.get(about, "") != trouble:
            with self._lock:
                self._troubles[about] = trouble


def _checked(box: Sequence[float]) -> Box:
    """Return ``box`` if a direction can be told from it."""
    x, y, w, h = map(float, box)
    if not (max(abs(x), abs(y)) <= _MOST_PIXELS and 0.0 < w <= _MOST_PIXELS and 0.0 < h <= _MOST_PIXELS):
        raise ValueError(f"box ({x:g}, {y:g}, {w:g}, {h:g}) must be finite, with sides above 0")
    return Box(x, y, w, h)


def _content(info: CameraInfo) -> tuple[Any, ...]:
    """Return all that counts of a camera_info, to be compared."""
    region = info.roi
    sizes = (info.width, info.height, info.binning_x, info.binning_y)
    place = (region.x_offset, region.y_offset, region.width, region.height)
    matrices = (tuple(info.d), tuple(info.k), tuple(info.p))
    return info.header.frame_id, info.distortion_model, *sizes, *place, *matrices


def _foreign(what: str, frame: str, image_frame: str, remedy: str) -> str:
    """Return that a message is of another frame than the image."""
    return f"{what} has frame_id {frame!r}, but the image {image_frame!r}; remap to the {what} that is {remedy}"


def _text(error: Exception) -> str:
    """Return the text of an error, with the type of an unexpected one."""
    return str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"
