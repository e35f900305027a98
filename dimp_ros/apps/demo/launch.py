# SPDX-License-Identifier: Apache-2.0
"""Parameters of the two nodes of the demo, its launch arguments and programs. Imports neither launch nor rclpy."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dimp_ros.apps.recording.run_files import check_free
from dimp_ros.files.outputs import check_outputs
from dimp_ros.files.yaml_file import read_yaml
from dimp_ros.ros_utils.launch_arguments import (
    Argument,
    ArgumentError,
    Program,
    box,
    for_parameter,
    one_line,
    output_folder,
    overrides,
    parameter_file,
)
from dimp_ros.ros_utils.parameter_table import Parameter

FILE = "demo_file"
RESULTS = ("annotated.mp4", "result.json")
"""Files that the demo writes."""


def _fixed(name: str, default: Any, text: str, range: tuple[float, float] | None = None) -> Parameter:
    return Parameter(name, default, text, range, read_only=True)


SOURCE_PARAMETERS = (
    _fixed("video", "", "Path of a video file, or of a folder of images, played in the order of their names."),
    _fixed("rate", 0.0, "Images per second; 0 means the video's own rate, for a folder of images 30.", (0.0, 1000.0)),
    _fixed("first_frame", 0, "First image that is played, counted from 0.", (0, 2**31 - 1)),
    _fixed("last_frame", -1, "Last image that is played; -1 means the video's last.", (-1, 2**31 - 1)),
    _fixed("loop", False, "Start over after the last image instead of ending."),
    _fixed("paused", False, "Repeat the first image until ~/set_playing is called."),
    _fixed("wait_for_subscribers", 0, "Number of subscribers that the first image waits for.", (0, 1000)),
    _fixed("frame_id", "camera", "frame_id of the images."),
)

DEMO_PARAMETERS = (
    _fixed("box", (0.0,) * 4, "Target in the first image: x, y of the top-left corner, width, height, pixels."),
    _fixed("out", "build/demo", "Folder for annotated.mp4 and result.json."),
    _fixed("tracker", "tracker_node", "Name of the tracker's node."),
    _fixed("source", "video_source", "Name of the video source's node, which waits until the target is set."),
    _fixed("max_lost", 0, "Number of images in which the target may be lost before the demo fails.", (0, 2**31 - 1)),
    _fixed("patience", 60.0, "Seconds to wait for the first image and for the tracker.", (0.1, 3600.0)),
    _fixed("silence", 2.0, "Seconds without an image after which the video is over.", (0.1, 3600.0)),
)


def demo_arguments(config: Path) -> tuple[Argument, ...]:
    """Return the arguments of the demo beside the tracker's. :param config: folder of parameter files."""
    return (
        Argument(FILE, str(config / "demo.yaml"), "file with the parameters of video_source and demo", parameter_file),
        Argument("video", "", "video file or folder of images that is played", _video, FILE),
        Argument("target", "", "X,Y,W,H of the target in the first image, pixels", box, FILE),
        Argument("out", "", "folder for annotated.mp4 and result.json", output_folder, FILE),
        for_parameter(SOURCE_PARAMETERS, "rate", FILE),
    )


def demo_programs(values: Mapping[str, Any]) -> list[Program]:
    """Return video source and recorder as the values of the arguments ask for them.

    :raises ArgumentError: if the video that the parameter file names is not there, or would be overwritten.
    """
    source = overrides(values, "video", "rate", "use_sim_time")
    content = _content(values[FILE])
    if values["video"] is None:
        _require_footage(content, values[FILE])
    else:  # the images that the parameter file selects are those of its own video
        source |= {"first_frame": 0, "last_frame": -1}
    _check_output(values["out"] or _parameter(content, "out"), values["video"] or _parameter(content, "video"))
    recorder = overrides(values, "out", "use_sim_time")
    if values["target"] is not None:
        recorder["box"] = values["target"]
    shared: dict[str, Any] = {
        "files": (values[FILE],),
        "remappings": {"image": values["image"]},
        "namespace": values["namespace"],
        "log_level": values["log_level"],
    }
    return [
        Program("video_source", "video_source", parameters=source, ends_launch="failure", **shared),
        Program("demo", "demo", parameters=recorder, ends_launch="always", **shared),
    ]


def _video(text: str) -> str:
    """Read the path of a video or of a folder, or the index of a camera."""
    path = Path(text).expanduser()
    if text.isdecimal():
        return text
    if not path.exists():
        where = "" if path.is_absolute() else f" in {Path.cwd()}"
        raise ValueError(f"there is no such file or folder{where}")
    return str(path)


def _content(file: str) -> Any:
    """Return the content of a parameter file."""
    try:
        return read_yaml(file)
    except ValueError as error:
        raise ArgumentError(f"argument {FILE}:={file}: {error}") from error


def check_results(out: Path, video: Path) -> None:
    """Refuse a folder for the results in which they would overwrite the video, or be images of it.

    :raises ValueError: saying which. :raises OSError: if nothing can be written there.
    """
    files = [("out", path) for name in RESULTS if (path := out / name).exists()]
    check_outputs(files, [("video", video)], folders=[("out", out)])


def _check_output(out: Any, video: Any) -> None:
    """Check the results of values that may be of any type, see `check_results`, and that no other run writes there."""
    if not isinstance(out, str) or not isinstance(video, str):
        return
    try:
        folder = Path(out).expanduser()
        check_results(folder, Path(video).expanduser())
        check_free(folder, RESULTS, "out:=")
    except (ValueError, OSError) as error:
        raise ArgumentError(f"argument out:={one_line(out)}: {one_line(str(error), 600)}") from error


def _require_footage(content: Any, file: str) -> None:
    """Refuse a parameter file whose video is not there."""
    video = str(_parameter(content, "video") or "")
    try:
        _video(video)
    except ValueError as error:
        raise ArgumentError(
            f"video {video!r} of {file}: {error}; run `make footage` in the source checkout and start the demo there, "
            "or give video:=FILE target:=X,Y,W,H"
        ) from None


def _parameter(content: Any, name: str) -> Any:
    """Return the first value of a parameter called ``name`` anywhere in the content of a parameter file."""
    if not isinstance(content, dict):
        return None
    parameters = content.get("ros__parameters")
    if isinstance(parameters, dict) and name in parameters:
        return parameters[name]
    return next((found for value in content.values() if (found := _parameter(value, name)) is not None), None)
