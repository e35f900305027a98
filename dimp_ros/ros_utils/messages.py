# SPDX-License-Identifier: Apache-2.0
"""Conversion between the tracker's values and ROS messages: boxes, detections, estimates and images."""

from __future__ import annotations

import array
import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from sensor_msgs.msg import Image
from vision_msgs.msg import BoundingBox2D, Detection2D, Detection2DArray, ObjectHypothesisWithPose

from dimp_ros.geometry.box import Box
from dimp_ros.images.stamps import stamp_ns
from dimp_ros.msg import TargetState, TargetStateArray
from dimp_ros.tracker.result import TargetEstimate
from dimp_ros.tracker.result import TargetState as State

if TYPE_CHECKING:
    from std_msgs.msg import Header

TARGET_CLASS = "target"
"""class_id of every hypothesis: the tracker knows no classes."""

UPRIGHT_RADIANS = 1e-3
"""A box that is turned by less than this counts as upright: half a pixel at the corner of a box of 1000 pixels."""


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

    Whether it lies in the image, and is large enough, is for `check_box`.

    :param normalized: ``bbox`` is in fractions of the image's width and height.
    :raises ValueError: for a box that is not upright, and for pixels that are said to be fractions.
    """
    x, y, w, h = (bbox.center.position.x, bbox.center.position.y, *upright_size(bbox))
    if normalized:
        if all(map(math.isfinite, (x, y, w, h))) and max(map(abs, (x, y, w, h))) > 2.0:
            raise ValueError(
                f"bbox (cx, cy, w, h) = ({x:g}, {y:g}, {w:g}, {h:g}) is said to be normalized, but fractions of the "
                "image are 0 to 1; set normalized to false for pixels"
            )
        x, y, w, h = x * width, y * height, w * width, h * height
    return Box.from_center(x, y, w, h)


def upright_size(bbox: BoundingBox2D) -> tuple[float, float]:
    """Return width and height of a box that is upright; one turned by a quarter has them swapped.

    :raises ValueError: for any other ``theta``.
    """
    theta, quarter = bbox.center.theta, math.pi / 2
    if math.isfinite(theta) and abs(math.remainder(theta, quarter)) <= UPRIGHT_RADIANS:
        swapped = round(theta / quarter) % 2 == 1
        return (bbox.size_y, bbox.size_x) if swapped else (bbox.size_x, bbox.size_y)
    raise ValueError(
        f"bbox has theta {theta:g}; only upright boxes are followed: set theta to 0, or to a multiple of pi/2"
    )


def detections(header: Header, estimates: Iterable[TargetEstimate]) -> Detection2DArray:
    """Return the targets in sight as detections under the image's ``header``."""
    message = Detection2DArray(header=header)
    message.detections = [_detection(header, estimate) for estimate in estimates if estimate.box is not None]
    return message


def _detection(header: Header, estimate: TargetEstimate) -> Detection2D:
    hypothesis = ObjectHypothesisWithPose()
    hypothesis.hypothesis.class_id = TARGET_CLASS
    hypothesis.hypothesis.score = estimate.confidence
    return Detection2D(header=header, results=[hypothesis], bbox=bounding_box(estimate.box), id=estimate.target_id)


def target_state(header: Header, estimate: TargetEstimate) -> TargetState:
    """Return ``estimate`` as a message under the image's ``header``; its own stamp is not used."""
    message = TargetState(
        header=header,
        id=estimate.target_id,
        start=estimate.start,
        state=int(estimate.state),
        bbox=bounding_box(estimate.box),
        confidence=estimate.confidence,
        peak=estimate.peak,
        distractor_ratio=estimate.distractor_ratio,
        frames_since_seen=estimate.frames_since_seen,
        seconds_since_seen=estimate.seconds_since_seen,
        age=estimate.age,
    )
    if estimate.bearing is not None:
        message.bearing.x, message.bearing.y, message.bearing.z = estimate.bearing
    return message


def target_estimate(message: TargetState) -> TargetEstimate:
    """Return a message as an estimate, whatever it holds: the inverse of `target_state`.

    A state that does not exist counts as LOST. A box that is not finite, not upright, or has no extent is None, as is a
    bearing of zeros. The other numbers are passed on as received, NaN included.
    """
    centre, w, h = message.bbox.center.position, message.bbox.size_x, message.bbox.size_y
    box = Box.from_center(centre.x, centre.y, w, h)
    bearing = (message.bearing.x, message.bearing.y, message.bearing.z)
    return TargetEstimate(
        target_id=message.id,
        start=message.start,
        state=State(message.state) if message.state in set(State) else State.LOST,
        box=box if all(map(math.isfinite, box)) and w > 0 and h > 0 and message.bbox.center.theta == 0.0 else None,
        confidence=message.confidence,
        peak=message.peak,
        distractor_ratio=message.distractor_ratio,
        frames_since_seen=message.frames_since_seen,
        seconds_since_seen=message.seconds_since_seen,
        stamp=stamp_ns(message.header.stamp),
        age=message.age,
        bearing=bearing if any(bearing) else None,
    )


def target_estimates(message: TargetStateArray) -> list[TargetEstimate]:
    """Return the targets of one image, in their order; see `target_estimate`."""
    return [target_estimate(target) for target in message.targets]


def from_bgr(header: Header, picture: NDArray[np.uint8]) -> Image:
    """Return a HxWx3 uint8 BGR ``picture`` as a bgr8 message under ``header``.

    The data is set as an `array.array`: given a numpy array, rclpy checks every byte in Python.
    """
    height, width = picture.shape[:2]
    message = Image(header=header, height=height, width=width, encoding="bgr8", is_bigendian=0, step=3 * width)
    message.data = array.array("B", picture.tobytes())
    return message
