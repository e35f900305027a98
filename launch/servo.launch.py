# SPDX-License-Identifier: Apache-2.0
"""Keep the camera in an arm's hand on a target: the tracker, and the servo that makes velocities of its results.

``ros2 launch dimp_ros servo.launch.py image:=/camera/image_raw``; nothing moves before ~/set_enabled is called.
"""

from pathlib import Path

from dimp_ros.apps.steering.launch import steering_arguments, steering_program
from dimp_ros.node.launch import tracker_arguments, tracker_program
from dimp_ros.ros_utils.launch_arguments import Argument, topic

CONFIG = Path(__file__).resolve().parents[1] / "config"
OUTPUT = Argument(
    "twist",
    "servo_node/delta_twist_cmds",
    "topic of the velocities, in the camera's optical frame, as MoveIt Servo takes them",
    topic,
)
ARGUMENTS = (*tracker_arguments(CONFIG), *steering_arguments(CONFIG, "servo", OUTPUT))


def programs(values):
    """Return what is started."""
    tracker = [tracker_program(values)] if values["tracker"] else []
    return [*tracker, steering_program(values, "servo", "delta_twist_cmds", OUTPUT.name)]


def generate_launch_description():
    """Declare the arguments and start tracker and servo."""
    from dimp_ros.ros_utils.launch_description import describe

    return describe(ARGUMENTS, programs)
