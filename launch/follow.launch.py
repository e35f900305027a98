# SPDX-License-Identifier: Apache-2.0
"""Follow a target with a drone or a mobile robot: the tracker, and the follower that makes velocities of what it says.

``ros2 launch dimp_ros follow.launch.py image:=/camera/image_raw``; nothing moves before ~/set_enabled is called.
"""

from pathlib import Path

from launch import LaunchContext, LaunchDescription
from launch.actions import DeclareLaunchArgument, IncludeLaunchDescription, OpaqueFunction
from launch.conditions import IfCondition
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node

HERE = Path(__file__).resolve().parent


def start_follower(context: LaunchContext) -> list[Node]:
    """Make the node, beside the topics of the tracker of the same namespace."""
    image = context.launch_configurations["image"]
    # Where drivers publish it: beside the image.
    beside = f"{image.rpartition('/')[0]}/camera_info" if "/" in image else "camera_info"
    use_sim_time = context.launch_configurations["use_sim_time"]
    return [
        Node(
            package="dimp_ros",
            executable="follower_node",
            name="follower",
            namespace=LaunchConfiguration("namespace"),
            parameters=[
                LaunchConfiguration("follower_file"),
                *([{"use_sim_time": use_sim_time == "true"}] if use_sim_time else []),
            ],
            remappings=[
                ("camera_info", context.launch_configurations["camera_info"] or beside),
                ("cmd_vel", LaunchConfiguration("cmd_vel")),
            ],
            output="screen",
        )
    ]


def generate_launch_description() -> LaunchDescription:
    """Declare the arguments, include the tracker where it is wanted, and start the follower."""
    return LaunchDescription(
        [
            DeclareLaunchArgument("image", default_value="/camera/image_raw", description="topic of the images"),
            DeclareLaunchArgument(
                "camera_info", default_value="", description="topic of the camera's parameters; empty: beside the image"
            ),
            DeclareLaunchArgument(
                "cmd_vel",
                default_value="cmd_vel",
                description="topic of the velocities, geometry_msgs/TwistStamped in the body frame",
            ),
            DeclareLaunchArgument(
                "follower_file",
                default_value=str(HERE.parent / "config" / "follower.yaml"),
                description="file with the parameters of the follower",
            ),
            DeclareLaunchArgument(
                "tracker",
                default_value="true",
                choices=["true", "false"],
                description="whether the tracker is started too, with the arguments of tracker.launch.py",
            ),
            DeclareLaunchArgument("namespace", default_value="", description="namespace of the nodes and their topics"),
            DeclareLaunchArgument(
                "use_sim_time",
                default_value="",
                choices=["", "true", "false"],
                description="whether time comes from the topic /clock; empty: as in the files of parameters",
            ),
            # Its own arguments, like model and device, can be given here too.
            IncludeLaunchDescription(
                PythonLaunchDescriptionSource(str(HERE / "tracker.launch.py")),
                condition=IfCondition(LaunchConfiguration("tracker")),
            ),
            OpaqueFunction(function=start_follower),
        ]
    )
