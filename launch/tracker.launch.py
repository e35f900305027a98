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
    names = ("model", "device", "image_transport", "autostart", "use_sim_time")
    given = {name: context.launch_configurations[name] for name in names}
    overrides = {
        name: value == "true" if name in ("autostart", "use_sim_time") else value
        for name, value in given.items()
        if value
    }
    image = context.launch_configurations["image"]
    # Where drivers publish it: beside the image.
    beside = f"{image.rpartition('/')[0]}/camera_info" if "/" in image else "camera_info"
    return [
        Node(
            package="dimp_ros",
            executable="tracker_node",
            name="tracker_node",
            namespace=LaunchConfiguration("namespace"),
            parameters=[LaunchConfiguration("params_file"), *([overrides] if overrides else [])],
            remappings=[
                ("image", image),
                ("camera_info", context.launch_configurations["camera_info"] or beside),
                ("depth", LaunchConfiguration("depth")),
                ("init_detections", LaunchConfiguration("init_detections")),
            ],
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
                "camera_info", default_value="", description="topic of the camera's parameters; empty: beside the image"
            ),
            DeclareLaunchArgument(
                "depth",
                default_value="depth",
                description="topic of aligned depth images, used where use_depth is true",
            ),
            DeclareLaunchArgument(
                "init_detections",
                default_value="init_detections",
                description="topic of detections, vision_msgs/Detection2DArray, from which a target is taken",
            ),
            DeclareLaunchArgument(
                "image_transport",
                default_value="",
                choices=["", "raw", "compressed"],
                description=f"compressed: images are taken from IMAGE/compressed; {IN_FILE}",
            ),
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
