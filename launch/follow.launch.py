# SPDX-License-Identifier: Apache-2.0
"""Follow a target with a drone or a mobile robot: the tracker, and the follower that makes velocities of what it says.

``ros2 launch dimp_ros follow.launch.py image:=/camera/image_raw``; nothing moves before ~/set_enabled is called.
"""

from pathlib import Path

from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument

from dimp_ros.apps.steering.launch import steering_description


def generate_launch_description() -> LaunchDescription:
    """Describe tracker and follower."""
    topic = DeclareLaunchArgument(
        "cmd_vel",
        default_value="cmd_vel",
        description="topic of the velocities, geometry_msgs/TwistStamped in the body frame",
    )
    return steering_description(Path(__file__).resolve().parents[1], "follower", "cmd_vel", topic)
