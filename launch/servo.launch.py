# SPDX-License-Identifier: Apache-2.0
"""Keep the camera in an arm's hand on a target: the tracker, and the servo that makes velocities of what it says.

``ros2 launch dimp_ros servo.launch.py image:=/camera/image_raw``; nothing moves before ~/set_enabled is called.
"""

from pathlib import Path

from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument

from dimp_ros.apps.steering.launch import steering_description


def generate_launch_description() -> LaunchDescription:
    """Describe tracker and servo."""
    topic = DeclareLaunchArgument(
        "twist",
        default_value="/servo_node/delta_twist_cmds",
        description="topic of the velocities, in the camera's optical frame, as MoveIt Servo takes them",
    )
    return steering_description(Path(__file__).resolve().parents[1], "servo", "delta_twist_cmds", topic)
