# SPDX-License-Identifier: Apache-2.0
"""Follow a target through a real video: tracker, video source and recorder; ends with the recorder.

The default video is fetched by ``make footage`` in the source checkout; start the demo from there.
"""

from pathlib import Path

from launch import LaunchContext, LaunchDescription
from launch.actions import DeclareLaunchArgument, IncludeLaunchDescription, OpaqueFunction, Shutdown
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch_ros.actions import Node

HERE = Path(__file__).resolve().parent
IMAGE = "/demo/image"
IN_FILE = "empty: as in demo_file"


def start_clients(context: LaunchContext) -> list[Node]:
    """Make the source and the recorder; an argument left empty does not override the parameter file."""
    given = {name: context.launch_configurations[name] for name in ("video", "rate", "target", "out")}
    demo_file = context.launch_configurations["demo_file"]
    source: dict[str, str | float | int] = {}
    recorder: dict[str, str | list[float]] = {}
    if given["video"]:
        # The images that the parameter file selects are those of its own video.
        source |= {"video": given["video"], "first_frame": 0, "last_frame": -1}
    if given["rate"]:
        source["rate"] = float(given["rate"])
    if given["target"]:
        recorder["box"] = [float(number) for number in given["target"].split(",")]
    if given["out"]:
        recorder["out"] = given["out"]
    remappings = [("image", IMAGE)]
    return [
        Node(
            package="dimp_ros",
            executable="video_source",
            name="video_source",
            parameters=[demo_file, *([source] if source else [])],
            remappings=remappings,
            output="screen",
        ),
        Node(
            package="dimp_ros",
            executable="demo",
            name="demo",
            parameters=[demo_file, *([recorder] if recorder else [])],
            remappings=remappings,
            output="screen",
            on_exit=Shutdown(reason="the demo is over"),
        ),
    ]


def generate_launch_description() -> LaunchDescription:
    """Declare the arguments, include the tracker and start its clients."""
    return LaunchDescription(
        [
            DeclareLaunchArgument(
                "demo_file",
                default_value=str(HERE.parent / "config" / "demo.yaml"),
                description="file with the parameters of video_source and demo",
            ),
            DeclareLaunchArgument("video", default_value="", description=f"video that is played; {IN_FILE}"),
            DeclareLaunchArgument(
                "target", default_value="", description=f"x,y,w,h of the target in the first image, pixels; {IN_FILE}"
            ),
            DeclareLaunchArgument(
                "out", default_value="", description=f"directory for annotated.mp4 and result.json; {IN_FILE}"
            ),
            DeclareLaunchArgument(
                "rate", default_value="", description=f"images a second, 0 for the video's own rate; {IN_FILE}"
            ),
            # Its own arguments, like model and device, can be given to the demo too.
            IncludeLaunchDescription(
                PythonLaunchDescriptionSource(str(HERE / "tracker.launch.py")),
                launch_arguments={"image": IMAGE, "namespace": ""}.items(),
            ),
            OpaqueFunction(function=start_clients),
        ]
    )
