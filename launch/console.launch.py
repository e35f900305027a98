# SPDX-License-Identifier: Apache-2.0
"""Start the operator console: ``ros2 launch dimp_ros console.launch.py image:=/camera/image_raw``, beside a tracker."""

from pathlib import Path

from launch import LaunchContext, LaunchDescription
from launch.actions import DeclareLaunchArgument, OpaqueFunction
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node

CONFIG = Path(__file__).resolve().parents[1] / "config"
IN_FILE = "empty: as in params_file"


def start_console(context: LaunchContext) -> list[Node]:
    """Make the node; an argument left empty does not override the parameter file."""
    names = ("host", "port", "token_file", "tracker", "image_transport", "use_sim_time")
    given = {name: context.launch_configurations[name] for name in names}
    overrides: dict[str, str | int | bool] = {name: value for name, value in given.items() if value}
    if "port" in overrides:
        overrides["port"] = int(overrides["port"])
    if "use_sim_time" in overrides:
        overrides["use_sim_time"] = overrides["use_sim_time"] == "true"
    return [
        Node(
            package="dimp_ros",
            executable="console_node",
            name="console",
            namespace=LaunchConfiguration("namespace"),
            parameters=[LaunchConfiguration("params_file"), *([overrides] if overrides else [])],
            remappings=[("image", LaunchConfiguration("image"))],
            arguments=["--ros-args", "--log-level", LaunchConfiguration("log_level")],
            output="screen",
        )
    ]


def generate_launch_description() -> LaunchDescription:
    """Declare the arguments and start the console."""
    return LaunchDescription(
        [
            DeclareLaunchArgument("image", default_value="/camera/image_raw", description="topic of the images"),
            DeclareLaunchArgument(
                "host",
                default_value="",
                description=f"address that the page is served on; all but loopback addresses need a token; {IN_FILE}",
            ),
            DeclareLaunchArgument("port", default_value="", description=f"port of the page; {IN_FILE}"),
            DeclareLaunchArgument(
                "token_file", default_value="", description=f"file with the token that browsers must show; {IN_FILE}"
            ),
            DeclareLaunchArgument("tracker", default_value="", description=f"name of the tracker's node; {IN_FILE}"),
            DeclareLaunchArgument(
                "image_transport",
                default_value="",
                choices=["", "raw", "compressed"],
                description=f"compressed: images are taken from IMAGE/compressed; {IN_FILE}",
            ),
            DeclareLaunchArgument(
                "params_file",
                default_value=str(CONFIG / "console.yaml"),
                description="file with the node's parameters",
            ),
            DeclareLaunchArgument(
                "namespace", default_value="", description="namespace of the node, the tracker's as well"
            ),
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
            OpaqueFunction(function=start_console),
        ]
    )
