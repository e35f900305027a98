# SPDX-License-Identifier: Apache-2.0
"""A node that keeps a drone or a mobile robot on a target: targets in, velocities of the body out."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from typing import Any

from dimp_ros.apps.steering.follower_control import FollowConfig, FollowControl, camera_of_view
from dimp_ros.apps.steering.node import SteeringNode
from dimp_ros.apps.steering.safety import TargetObservation, fits_box
from dimp_ros.geometry.camera import Camera
from dimp_ros.ros_utils.config_dataclass import parameter_rows
from dimp_ros.ros_utils.spin import run


class Follower(SteeringNode[FollowConfig]):
    """Publishes geometry_msgs/TwistStamped on ``cmd_vel``, in the body frame; see `FollowControl`."""

    size_parameter = "desired_size"

    def __init__(self, **node_options: Any) -> None:
        super().__init__("follower", FollowConfig, "cmd_vel", **node_options)

    def make_control(self, config: FollowConfig) -> FollowControl:
        """Return the control law."""
        return FollowControl(config)

    def distance_of(self, observation: TargetObservation, camera: Camera) -> dict[str, float]:
        """Return `distance`, where a pose of the target tells it and it may be kept."""
        if observation.position is None or not fits_box(observation, camera):
            return {}
        low, high = next(row.range for row in parameter_rows(FollowConfig) if row.name == "distance") or (0.0, 0.0)
        return {"distance": min(max(math.hypot(*observation.position), low), high)}

    def camera_without_info(self, config: FollowConfig) -> Camera | None:
        """Return a perfect camera of the field of view that the parameters give, if they do."""
        if not (config.image_width and config.image_height and config.horizontal_fov):
            return None
        return camera_of_view(config.image_width, config.image_height, config.horizontal_fov)


def main(args: Sequence[str] | None = None) -> int:
    """Run the follower until SIGINT or SIGTERM."""
    return run(lambda _finish: Follower(), args)


if __name__ == "__main__":
    sys.exit(main())
