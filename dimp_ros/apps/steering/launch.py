# SPDX-License-Identifier: Apache-2.0
"""What the launch files of the follower and of the servo share: the tracker, and one of the two beside it."""

from __future__ import annotations

from pathlib import Path

from launch import LaunchContext, LaunchDescription
from launch.actions import DeclareLaunchArgument, IncludeLaunchDescription, OpaqueFunction
from launch.conditions import IfCondition
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node


def steering_description(
    share: Path, controller: str, topic: str, argument: DeclareLaunchArgument
) -> LaunchDescription:
    """Declare the arguments, include the tracker where it is wanted, and start the controller.

    :param share: folder of the package's ``launch`` and ``config``. :param controller: ``follower`` or ``servo``.
    :param topic: of its velocities, as its code calls it. :param argument: that names the topic they go to.
    """

    def start(context: LaunchContext) -> list[Node]:
        image = context.launch_configurations["image"]
        # Where drivers publish it: beside the image.
        beside = f"{image.rpartition('/')[0]}/camera_info" if "/" in image else "camera_info"
        use_sim_time = context.launch_configurations["use_sim_time"]
        return [
            Node(
                package="dimp_ros",
                executable=f"{controller}_node",
                name=controller,
                namespace=LaunchConfiguration("namespace"),
                parameters=[
                    LaunchConfiguration(f"{controller}_file"),
                    *([{"use_sim_time": use_sim_time == "true"}] if use_sim_time else []),
                ],
                remappings=[
                    ("camera_info", context.launch_configurations["camera_info"] or beside),
                    (topic, LaunchConfiguration(argument.name)),
                ],
                output="screen",
            )
        ]

    return LaunchDescription(
        [
            DeclareLaunchArgument("image", default_value="/camera/image_raw", description="topic of the images"),
            DeclareLaunchArgument(
                "camera_info", default_value="", description="topic of the camera's parameters; empty: beside the image"
            ),
            argument,
            DeclareLaunchArgument(
                f"{controller}_file",
                default_value=str(share / "config" / f"{controller}.yaml"),
                description=f"file with the parameters of the {controller}",
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
                PythonLaunchDescriptionSource(str(share / "launch" / "tracker.launch.py")),
                condition=IfCondition(LaunchConfiguration("tracker")),
            ),
            OpaqueFunction(function=start),
        ]
    )
