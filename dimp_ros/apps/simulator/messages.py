# SPDX-License-Identifier: Apache-2.0
"""From the simulated world's values to ROS messages."""

from __future__ import annotations

import array
import math
from typing import TYPE_CHECKING

import numpy as np
from geometry_msgs.msg import PoseStamped
from numpy.typing import NDArray
from sensor_msgs.msg import CameraInfo, Image
from std_msgs.msg import Header

from dimp_ros.apps.simulator.world import CameraFields, Truth
from dimp_ros.geometry.camera import Camera
from dimp_ros.msg import TargetState
from dimp_ros.ros_utils.messages import bounding_box

if TYPE_CHECKING:
    from dimp_ros.apps.simulator.vehicles import Floats

TRUTH_ID = "truth"
LEAST_VISIBLE = 0.25
"""A target of which less is visible is LOST."""
WORLD_FRAME = "world"


def camera_info_message(header: Header, fields: CameraFields) -> CameraInfo:
    """Return the camera's parameters under the image's ``header``."""
    return CameraInfo(
        header=header,
        width=fields.width,
        height=fields.height,
        distortion_model=fields.distortion_model,
        d=fields.d,
        k=fields.k,
        r=fields.r,
        p=fields.p,
    )


def depth_message(header: Header, depth: NDArray[np.float32]) -> Image:
    """Return depths [H, W] in metres as a 32FC1 image."""
    height, width = depth.shape
    little = np.ascontiguousarray(depth, "<f4")
    message = Image(header=header, height=height, width=width, encoding="32FC1", is_bigendian=0, step=4 * width)
    message.data = array.array("B", little.tobytes())
    return message


def true_state(header: Header, truth: Truth, camera: Camera) -> TargetState:
    """Return the ground truth as a perfect tracker's state: TRACKING while enough of the target is visible, else LOST.

    The confidence, and the peak, are the share of it in sight.
    """
    message = TargetState(header=header, id=TRUTH_ID, state=TargetState.LOST)
    if truth.box is None or truth.visible < LEAST_VISIBLE:
        return message
    message.state = TargetState.TRACKING
    message.bbox = bounding_box(truth.box)
    message.confidence = message.peak = truth.visible
    message.bearing.x, message.bearing.y, message.bearing.z = camera.bearing(*truth.box.center).tolist()
    return message


def target_pose(header: Header, truth: Truth) -> PoseStamped:
    """Return where the target truly is, in the camera's optical frame; its axes are the camera's."""
    message = PoseStamped(header=header)
    place = message.pose.position
    place.x, place.y, place.z = truth.position.tolist()
    message.pose.orientation.w = 1.0
    return message


def camera_pose(header: Header, truth: Truth) -> PoseStamped:
    """Return where the camera is and how its optical frame is turned, in the frame ``world``."""
    message = PoseStamped(header=Header(stamp=header.stamp, frame_id=WORLD_FRAME))
    place, turn = message.pose.position, message.pose.orientation
    place.x, place.y, place.z = truth.camera_position.tolist()
    turn.x, turn.y, turn.z, turn.w = quaternion(truth.camera_rotation)
    return message


def quaternion(rotation: Floats) -> tuple[float, float, float, float]:
    """Return a rotation matrix [3, 3] as a unit quaternion x, y, z, w.

    Its largest component is computed first, from which the others follow without cancellation.
    """
    r = rotation
    squares = (  # four times the square of each component
        1.0 + r[0, 0] - r[1, 1] - r[2, 2],
        1.0 - r[0, 0] + r[1, 1] - r[2, 2],
        1.0 - r[0, 0] - r[1, 1] + r[2, 2],
        1.0 + r[0, 0] + r[1, 1] + r[2, 2],
    )
    products = (  # four times the products of each two components
        (squares[0], r[0, 1] + r[1, 0], r[0, 2] + r[2, 0], r[2, 1] - r[1, 2]),
        (r[0, 1] + r[1, 0], squares[1], r[1, 2] + r[2, 1], r[0, 2] - r[2, 0]),
        (r[0, 2] + r[2, 0], r[1, 2] + r[2, 1], squares[2], r[1, 0] - r[0, 1]),
        (r[2, 1] - r[1, 2], r[0, 2] - r[2, 0], r[1, 0] - r[0, 1], squares[3]),
    )
    largest = int(np.argmax(squares))
    scale = 2.0 * math.sqrt(squares[largest])
    x, y, z, w = (float(value) / scale for value in products[largest])
    return x, y, z, w
