# SPDX-License-Identifier: Apache-2.0
"""Start the tracker on an image topic: ``ros2 launch dimp_ros tracker.launch.py image:=/camera/image_raw``."""

from pathlib import Path

from launch import LaunchContext, LaunchDescription
from launch.actions import DeclareLaunchArgument, OpaqueFunction
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node

CONFIG = Path(__file__).resolve().parents[1] / "config"
IN_FILE = "empty: as in params_file"


def start_tracker(context: LaunchContext) -> list[Node]:
    """Make the node; an argument left empty does not override the parameter file."""
    given = {name: context.launch_configurations[name] for name in ("model", "device", "autostart", "use_sim_time")}
    overrides = {
        name: value == "true" if name in ("autostart", "use_sim_time") else value
        for name, value in given.items()
        if value
    }
    return [
        Node(
            package="dimp_ros",
            executable="tracker_node",
            name="tracker_node",
            namespace=LaunchConfiguration("namespace"),
            parameters=[LaunchConfiguration("params_file"), *([overrides] if overrides else [])],
            remappings=[("image", LaunchConfiguration("image"))],
            arguments=["--ros-args", "--log-level", LaunchConfiguration("log_level")],
            output="screen",
        )
    ]


def generate_launch_description() -> LaunchDescription:
    """Declare the arguments and start the tracker."""
    return LaunchDescription(
        [
            DeclareLaunchArgument("image", default_value="/camera/image_raw", description="topic of the images"),
            DeclareLaunchArgument(
                "params_file",
                default_value=str(CONFIG / "tracker.yaml"),
                description="file with the node's parameters",
            ),
            DeclareLaunchArgument(
                "model",
                default_value="",
                description=f"dimp_lite, dimp18, dimp50, or the path of a file with weights; {IN_FILE}",
            ),
            DeclareLaunchArgument(
                "device",
                default_value="",
                choices=["", "auto", "cpu", "cuda"],
                description=f"what computes; auto takes CUDA where there is one; {IN_FILE}",
            ),
            DeclareLaunchArgument("namespace", default_value="", description="namespace of the node and its topics"),
            DeclareLaunchArgument(
                "log_level",
                default_value="info",
                choices=["debug", "info", "warn", "error", "fatal"],
                description="least severe level that is logged",
            ),
            DeclareLaunchArgument(
                "use_sim_time",
                default_value="",
                choices=["", "true", "false"],
                description=f"whether time comes from the topic /clock; {IN_FILE}",
            ),
            DeclareLaunchArgument(
                "autostart",
                default_value="",
                choices=["", "true", "false"],
                description=f"whether the node configures and activates itself; {IN_FILE}",
            ),
            OpaqueFunction(function=start_tracker),
        ]
    )
