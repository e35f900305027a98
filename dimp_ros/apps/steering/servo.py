# SPDX-License-Identifier: Apache-2.0
"""A node that keeps the camera in an arm's hand on a target: targets in, velocities of the camera out."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from dimp_ros.apps.steering.node import SteeringNode
from dimp_ros.apps.steering.servo_control import ServoConfig, ServoControl
from dimp_ros.ros_utils.spin import run


class Servo(SteeringNode[ServoConfig]):
    """Publishes geometry_msgs/TwistStamped on ``delta_twist_cmds``, in the optical frame; see `ServoControl`."""

    size_parameter = "set_point_size"

    def __init__(self, **node_options: Any) -> None:
        super().__init__("servo", ServoConfig, "delta_twist_cmds", **node_options)

    def make_control(self, config: ServoConfig) -> ServoControl:
        """Return the control law."""
        return ServoControl(config)


def main(args: Sequence[str] | None = None) -> int:
    """Run the servo until SIGINT or SIGTERM."""
    return run(lambda _finish: Servo(), args)


if __name__ == "__main__":
    sys.exit(main())
