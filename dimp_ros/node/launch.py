# SPDX-License-Identifier: Apache-2.0
"""Launch arguments of the tracker node, for each launch file that starts it. Imports neither launch nor rclpy."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dimp_ros.ros_utils.launch_arguments import (
    Argument,
    Program,
    beside,
    boolean,
    common_arguments,
    device,
    for_parameter,
    model,
    or_empty,
    overrides,
    parameter_file,
    topic,
)
from dimp_ros.ros_utils.parameter_table import NODE_PARAMETERS

FILE = "params_file"


def tracker_arguments(config: Path, image: str = "camera/image_raw") -> tuple[Argument, ...]:
    """Return the arguments of the tracker. :param config: folder of parameter files. :param image: default topic."""
    return (
        Argument("image", image, "topic of the images", topic),
        Argument("camera_info", "", "topic of the camera's parameters; empty: beside the image", or_empty(topic)),
        Argument("depth", "depth", "topic of aligned depth images, used where use_depth is true", topic),
        Argument(
            "init_detections",
            "init_detections",
            "topic of detections, vision_msgs/Detection2DArray, from which a target is taken",
            topic,
        ),
        for_parameter(NODE_PARAMETERS, "image_transport", FILE, "compressed: images are taken from IMAGE/compressed"),
        Argument(FILE, str(config / "tracker.yaml"), "file with the parameters of the tracker", parameter_file),
        Argument("model", "", "dimp_lite, dimp18, dimp50, or the path of a file with weights", model, FILE),
        Argument("device", "", "what computes: auto (CUDA where there is one), cpu, cuda, cuda:N", device, FILE),
        Argument("autostart", "", "whether the tracker configures and activates itself", boolean, FILE),
        *common_arguments(),
    )


def tracker_program(values: Mapping[str, Any], ends_launch: str = "") -> Program:
    """Return the tracker node as the values of `tracker_arguments` ask for it."""
    image = values["image"]
    return Program(
        executable="tracker_node",
        name="tracker_node",
        files=(values[FILE],),
        parameters=overrides(values, "model", "device", "image_transport", "autostart", "use_sim_time"),
        remappings={
            "image": image,
            "camera_info": values["camera_info"] or beside(image, "camera_info"),
            "depth": values["depth"],
            "init_detections": values["init_detections"],
        },
        namespace=values["namespace"],
        log_level=values["log_level"],
        ends_launch=ends_launch,
    )
