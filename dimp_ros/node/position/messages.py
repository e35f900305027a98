# SPDX-License-Identifier: Apache-2.0
"""A target's position as pose messages, and which target they are about."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from geometry_msgs.msg import Pose, PoseStamped, PoseWithCovarianceStamped

from dimp_ros.tracker.result import TargetState

if TYPE_CHECKING:
    from std_msgs.msg import Header

    from dimp_ros.geometry.ranging import Position
    from dimp_ros.tracker.result import TargetEstimate

UNKNOWN_ROTATION = 1e6
"""Variance of each angle of an orientation that is not known, square radians: no filter believes in it."""


def pose_target(estimates: Sequence[TargetEstimate], target_id: str = "") -> TargetEstimate | None:
    """Return the target whose pose may be published, None if there is none that a robot should go to.

    It must be TRACKING: a robot that is sent to a pose has no state to look at, so an UNCERTAIN one is not given.

    :param target_id: the target that poses are about. Empty: the only one; of several, none, since poses have no names
        and a robot would go now to this one, now to that.
    """
    chosen = [estimate for estimate in estimates if not target_id or estimate.target_id == target_id]
    if len(chosen) != 1 or chosen[0].state != TargetState.TRACKING or chosen[0].box is None:
        return None
    return chosen[0]


def pose_stamped(header: Header, position: Position) -> PoseStamped:
    """Return ``position`` under the image's ``header``, in its optical frame; the orientation is the identity."""
    return PoseStamped(header=header, pose=_pose(position))


def pose_with_covariance(header: Header, position: Position) -> PoseWithCovarianceStamped:
    """Return ``position`` with its covariance [6 x 6, row by row: x, y, z, and rotations about them]."""
    message = PoseWithCovarianceStamped(header=header)
    message.pose.pose = _pose(position)
    values = [0.0] * 36
    for row in range(3):
        values[6 * row : 6 * row + 3] = position.covariance[row].tolist()
        values[7 * (row + 3)] = UNKNOWN_ROTATION
    message.pose.covariance = values
    return message


def _pose(position: Position) -> Pose:
    pose = Pose()
    pose.position.x, pose.position.y, pose.position.z = position.x, position.y, position.z
    pose.orientation.w = 1.0
    return pose
