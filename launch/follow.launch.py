# SPDX-License-Identifier: Apache-2.0
"""Follow a target with a drone or a mobile robot: the tracker, and the follower that makes velocities of its results.

``ros2 launch dimp_ros follow.launch.py image:=/camera/image_raw``; nothing moves before ~/set_enabled is called.
"""

from pathlib import Path

from dimp_ros.apps.steering.launch import steering_arguments, steering_program
from dimp_ros.node.launch import tracker_arguments, tracker_program
from dimp_ros.ros_utils.launch_arguments import Argument, topic

CONFIG = Path(__file__).resolve().parents[1] / "config"
OUTPUT = Argument("cmd_vel", "cmd_vel", "topic of the velocities, geometry_msgs/TwistStamped in the body frame", topic)
ARGUMENTS = (*tracker_arguments(CONFIG), *steering_arguments(CONFIG, "follower", OUTPUT))


def programs(values):
    """Return what is started."""
    tracker = [tracker_program(values)] if values["tracker"] else []
    return [*tracker, steering_program(values, "follower", "cmd_vel", OUTPUT.name)]


def generate_launch_description():
    """Declare the arguments and start tracker and follower."""
    from dimp_ros.ros_utils.launch_description import describe

    return describe(ARGUMENTS, programs)
