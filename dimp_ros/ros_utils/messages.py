# SPDX-License-Identifier: Apache-2.0
"""Between the tracker's values and ROS messages: boxes, detections and the target's state."""

from __future__ import annotations

import array
import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from sensor_msgs.msg import Image
from vision_msgs.msg import BoundingBox2D, Detection2D, Detection2DArray, ObjectHypothesisWithPose

from dimp_ros.geometry.box import Box, check_box
from dimp_ros.msg import TargetState

if TYPE_CHECKING:
    from std_msgs.msg import Header

    from dimp_ros.tracker.target_set import TargetEstimate

TARGET_CLASS = "target"
"""class_id of every hypothesis: the tracker follows whatever it is shown and knows no classes."""

MIN_SIDE = 1.0
"""Sides below a pixel are refused here, at once; what the tracker's model needs beyond that, it says itself."""


def bounding_box(box: Sequence[float] | None) -> BoundingBox2D:
    """Return (x, y, w, h), top-left corner first, as a message with its centre; None gives the zero-size box."""
    message = BoundingBox2D()
    if box is not None:
        pixels = Box(*map(float, box))
        message.center.position.x, message.center.position.y = pixels.center
        message.size_x, message.size_y = pixels.w, pixels.h
    return message


def requested_box(bbox: BoundingBox2D, normalized: bool, width: int, height: int) -> Box:
    """Return the box of a request as (x, y, w, h) in pixels of a ``width`` x ``height`` image.

    :param normalized: ``bbox`` is in fractions of the image's width and height.
    :raises ValueError: for a rotated box, and for one that no target can be followed from, with the remedy.
    """
    values = (bbox.center.position.x, bbox.center.position.y, bbox.size_x, bbox.size_y)
    if bbox.center.theta != 0.0:
        raise ValueError(f"bbox has theta {bbox.center.theta:g}; only upright boxes are followed: set theta to 0")
    if normalized:
        if all(math.isfinite(value) for value in values) and max(abs(value) for value in values) > 2.0:
            shown = ", ".join(f"{value:g}" for value in values)
            raise ValueError(
                f"bbox (cx, cy, w, h) = ({shown}) is said to be normalized, but fractions of the image are 0 to 1; "
                "set normalized to false for pixels"
            )
        scale = (width, height, width, height)
        values = tuple(value * side for value, side in zip(values, scale, strict=True))
    return check_box(Box.from_center(*values), width, height, min_side=MIN_SIDE)


def detections(header: Header, readings: Iterable[TargetEstimate]) -> Detection2DArray:
    """Return the targets in sight as detections under the image's ``header``."""
    message = Detection2DArray(header=header)
    message.detections = [_detection(header, reading) for reading in readings if reading.box is not None]
    return message


def _detection(header: Header, reading: TargetEstimate) -> Detection2D:
    hypothesis = ObjectHypothesisWithPose()
    hypothesis.hypothesis.class_id = TARGET_CLASS
    hypothesis.hypothesis.score = reading.confidence
    return Detection2D(header=header, results=[hypothesis], bbox=bounding_box(reading.box), id=reading.target_id)


def target_state(
    header: Header, reading: TargetEstimate, age: float, bearing: tuple[float, float, float] | None = None
) -> TargetState:
    """Return ``reading`` as a message under the image's ``header``.

    :param age: the image's, in seconds. :param bearing: unit vector in the optical frame, None where it is not known.
    """
    message = TargetState(
        header=header,
        id=reading.target_id,
        state=int(reading.state),
        bbox=bounding_box(reading.box),
        confidence=reading.confidence,
        peak=reading.peak,
        distractor_ratio=reading.distractor_ratio,
        frames_since_seen=reading.frames_since_seen,
        seconds_since_seen=reading.seconds_since_seen,
        age=age,
    )
    if bearing is not None:
        message.bearing.x, message.bearing.y, message.bearing.z = bearing
    return message


def from_bgr(header: Header, picture: NDArray[np.uint8]) -> Image:
    """Return a HxWx3 uint8 BGR ``picture`` as a bgr8 message under ``header``.

    The data is set as an `array.array`: given a numpy array, rclpy checks every byte in Python.
    """
    height, width = picture.shape[:2]
    message = Image(header=header, height=height, width=width, encoding="bgr8", is_bigendian=0, step=3 * width)
    message.data = array.array("B", picture.tobytes())
    return message
