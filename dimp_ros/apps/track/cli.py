# SPDX-License-Identifier: Apache-2.0
"""The console script `dimp-track`: track targets through a video or a bag, without ROS."""

from __future__ import annotations

import argparse
import json
import math
import os
import re
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2

import dimp_ros
from dimp_ros.apps.bags.files import is_bag, recording_of
from dimp_ros.apps.bags.reader import ImageBag
from dimp_ros.apps.bags.writer import STORAGES, ResultBag
from dimp_ros.apps.recording.annotator import Annotator
from dimp_ros.apps.track.loop import (
    ENDING,
    WINDOW,
    Output,
    RunStatistics,
    Screen,
    failure_text,
    follow,
    handled_signals,
)
from dimp_ros.files.outputs import check_outputs, is_stream, write_text
from dimp_ros.files.program import command
from dimp_ros.geometry.box import Box
from dimp_ros.images.frame_source import Frame, Source, Span, VideoFileSource
from dimp_ros.images.stamps import NANOSECONDS
from dimp_ros.images.video import DEFAULT_FPS, BgrImage, Place
from dimp_ros.tracker.config_file import read_settings
from dimp_ros.tracker.result import TargetEstimate

if TYPE_CHECKING:
    from dimp_ros.tracker import DimpTracker

SHIPPED_WEIGHTS = Path(dimp_ros.__file__).parent / "weights"
EXAMPLES = """
examples:
  dimp-track ride.mp4 --init 320,180,60,90 --out tracked.mp4
  dimp-track ride.mp4 --point 350,225 --show
  dimp-track flight/ --topic /camera/image_raw --init 320,180,60,90 --out-bag flight_tracked
  dimp-track flight.bag --init-stamp 1700000000.25 --init car=320,180,60,90 --init bus=20,40,90,60 --json out.json
"""


def parse_box(text: str) -> Box:
    """Parse `x,y,w,h` in float pixels; raise ArgumentTypeError for an invalid box."""
    try:
        values = [float(value) for value in text.split(",")]
    except ValueError:
        values = []
    if len(values) != 4 or not all(map(math.isfinite, values)) or min(values[2:]) <= 0:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a box; give x,y,w,h in pixels: left edge, top edge, width > 0, height > 0"
        )
    return Box(*values)


def parse_target(text: str) -> tuple[str, Box]:
    """Parse `x,y,w,h` or `ID=x,y,w,h`; the name is empty if none is given."""
    name, equals, box = text.rpartition("=")
    if equals and not name:
        raise argparse.ArgumentTypeError(f"{text!r} has an empty name; give ID=x,y,w,h, or x,y,w,h alone")
    return name, parse_box(box)


def parse_point(text: str) -> tuple[str, Box]:
    """Parse `x,y` or `ID=x,y` as a box of no size; the name is empty if none is given."""
    name, equals, point = text.rpartition("=")
    try:
        values = [float(value) for value in point.split(",")]
    except ValueError:
        values = []
    if (equals and not name) or len(values) != 2 or not all(map(math.isfinite, values)):
        raise argparse.ArgumentTypeError(f"{text!r} is not a point; give x,y or ID=x,y in pixels")
    return name, Box(values[0], values[1], 0.0, 0.0)


def parse_place(text: str) -> Place:
    """Parse a frame's index, or seconds with the suffix s."""
    if text.isdecimal():
        return int(text)
    if re.fullmatch(r"\d+(\.\d*)?s", text):
        return float(text[:-1])
    raise argparse.ArgumentTypeError(
        f"expected a frame index of at least 0, or seconds after the first frame such as 12.5s, got {text!r}"
    )


def parse_stamp(text: str) -> int:
    """Parse a stamp in seconds as nanoseconds, exactly."""
    match = re.fullmatch(r"(\d+)(?:\.(\d{1,9}))?", text)
    if not match:
        raise argparse.ArgumentTypeError(f"expected seconds such as 1700000000.250000000, got {text!r}")
    return int(match[1]) * NANOSECONDS + int((match[2] or "").ljust(9, "0"))


def has_display() -> bool:
    """Return whether a window can be opened."""
    if sys.platform.startswith("linux") and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        return False
    return re.search(r"GUI:\s+NONE", cv2.getBuildInformation()) is None


def select_box(image: BgrImage) -> Box:
    """Let the user drag a box on the image; raise ValueError if none is drawn."""
    box = Box(*(float(value) for value in cv2.selectROI(WINDOW, image, showCrosshair=False)))
    cv2.destroyWindow(WINDOW)
    if box.area <= 0:
        raise ValueError("no box was drawn; drag one around the target and press Enter, or give --init x,y,w,h")
    return box


class JsonLog:
    """A JSON file with an entry for each target and frame.

    :param header: returns the first fields of the file; called when the file is written.
    """

    def __init__(self, path: Path, header: Callable[[], dict[str, Any]]) -> None:
        self._path, self._header = path, header
        self._entries: list[dict[str, Any]] = []

    def add(self, frame: Frame, estimates: Sequence[TargetEstimate], milliseconds: float) -> None:
        """Add the estimates of a frame; ``milliseconds`` is the time of all targets together."""
        about: dict[str, Any] = {"frame": frame.index}
        if frame.origin is not None and frame.time:
            about["stamp_ns"] = frame.time
        if frame.problem:
            about["problem"] = frame.problem
        for estimate in estimates:
            entry = {
                "id": estimate.target_id,
                "state": estimate.state.name,
                "box": None if estimate.box is None else [round(value, 3) for value in estimate.box],
                "confidence": _finite(estimate.confidence),
                "peak": _finite(estimate.peak),
                "ms": round(milliseconds, 2),
            }
            self._entries.append({**about, **entry})

    def close(self) -> None:
        """Write the file."""
        if self._entries:
            write_text(self._path, json.dumps({**self._header(), "frames": self._entries}, indent=1))

    def discard(self) -> None:
        """Do nothing: nothing is written before `close`."""


def _finite(value: float) -> float | None:
    """Return a rounded number, None if it is not finite, which JSON cannot express."""
    return round(float(value), 4) if math.isfinite(value) else None


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(
        prog="dimp-track",
        description="Track targets through a video or the images of a bag; ROS is not needed.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add(
        "source",
        metavar="SOURCE",
        help="a video file, a folder of images, a camera's index, or a bag: a folder of rosbag2, .mcap, .db3, .bag",
    )
    add(
        "--init",
        type=parse_target,
        action="append",
        metavar="[ID=]x,y,w,h",
        help="box of the target in the first frame, in pixels from the top left corner; repeat it for further targets",
    )
    add(
        "--point",
        type=parse_point,
        action="append",
        metavar="[ID=]x,y",
        help="a point on the target in the first frame, in place of its box; the tracker finds the box",
    )
    add("--start", type=parse_place, default=0, metavar="N|SECs", help="first frame: index, or seconds such as 12.5s")
    add("--end", type=parse_place, metavar="N|SECs", help="frame to stop before (default: end of the source)")
    add("--out", type=Path, metavar="OUT.mp4", help="write a video with the targets drawn on it")
    add("--json", type=Path, metavar="OUT.json", help="write box, state and confidence of each frame")
    add("--show", action="store_true", help="show the result live in a window; q ends the run")
    add("--model", default="dimp_lite", help="name of a model or path of its weights (default: %(default)s)")
    add("--device", default="auto", help="auto, cpu, cuda or cuda:N (default: %(default)s)")
    add("--backend", default="auto", help="what runs the networks: auto, torch or openvino (default: %(default)s)")
    add("--tracker-config", type=Path, metavar="FILE.yaml", help="tracker settings, see docs/parameters.md")
    bags = parser.add_argument_group("bags (require the package rosbags: pip install rosbags)")
    add = bags.add_argument
    add("--topic", metavar="NAME", help="topic with sensor_msgs Image or CompressedImage (default: the only one)")
    add("--init-stamp", type=parse_stamp, metavar="SEC", help="start on the image whose header has this stamp")
    add("--out-bag", type=Path, metavar="FOLDER", help="write /detections, /target and /targets into a new rosbag2")
    add("--storage", choices=STORAGES, default=STORAGES[0], help="format of that bag (default: %(default)s)")
    add("--copy-images", action="store_true", help="copy the images into that bag")
    add("--draw-images", action="store_true", help="write images with the targets drawn on, as /debug_image/compressed")
    return parser


def _make_dimp(model: str, device: str, backend: str) -> DimpTracker:
    from dimp_ros.tracker import DimpTracker

    return DimpTracker(model=model, device=device, precision="auto", backend=backend)


def _given(arguments: argparse.Namespace) -> list[tuple[str, Box]]:
    """Return the names and boxes of --init, then those of --point."""
    return [*(arguments.init or ()), *(arguments.point or ())]


def _boxes(arguments: argparse.Namespace) -> dict[str, Box]:
    """Return the boxes by name; a target without a name gets its index in the list."""
    boxes: dict[str, Box] = {}
    for number, (name, box) in enumerate(_given(arguments)):
        name = name or str(number)
        if name in boxes:
            raise ValueError(f"two targets are called {name!r}; give each its own name: ID=x,y,w,h or ID=x,y")
        boxes[name] = box
    return boxes


def _check(arguments: argparse.Namespace, span: Span, bag: bool) -> None:
    """Raise ValueError for arguments that are known to be wrong before anything is read."""
    span.check()
    if span.stamp is not None and span.start:
        raise ValueError("--start and --init-stamp both say where to start; give one of them")
    for_bags = {"--topic": arguments.topic, "--init-stamp": span.stamp, "--out-bag": arguments.out_bag}
    given = [option for option, value in for_bags.items() if value is not None]
    if given and not bag and not Path(arguments.source).exists():
        raise ValueError(f"no such file or folder: {arguments.source}")
    if given and not bag:
        raise ValueError(f"{given[0]} is for bags; {arguments.source} is no folder of rosbag2, .mcap, .db3 or .bag")
    for option, value in {"--copy-images": arguments.copy_images, "--draw-images": arguments.draw_images}.items():
        if value and arguments.out_bag is None:
            raise ValueError(f"{option} writes into the bag of --out-bag, which is not given")
    if arguments.show and not has_display():
        raise ValueError("--show needs a display; use --out OUT.mp4 to watch the result later")
    if not _given(arguments) and not has_display():
        raise ValueError(
            "no --init and no display to draw the box on; give the target as --init x,y,w,h or --point x,y in pixels"
        )
    if arguments.out is not None and is_stream(arguments.out):
        raise ValueError(f"--out {arguments.out} is no regular file; a video is written to a file")
    outputs = [("--out", arguments.out), ("--json", arguments.json)]
    weights = [("the weights", Path(arguments.model).expanduser()), ("the weights", SHIPPED_WEIGHTS)]
    inputs = [("SOURCE", Path(arguments.source)), *weights]
    if bag:
        inputs += [("SOURCE's", path) for path in recording_of(Path(arguments.source))]
    if arguments.tracker_config is not None:
        inputs.append(("--tracker-config", arguments.tracker_config))
    check_outputs(outputs, inputs, new_folders=[("--out-bag", arguments.out_bag)])


def _track(arguments: argparse.Namespace, make_tracker: Callable[[str, str], Any]) -> tuple[RunStatistics, list[str]]:
    """Run the tracker as the arguments say; outputs are finished also if the tracker fails.

    :return: the statistics of the run, and a line for each incomplete input or output.
    """
    span, bag = Span(arguments.start, arguments.end, arguments.init_stamp), is_bag(arguments.source)
    _check(arguments, span, bag)
    settings = read_settings(arguments.tracker_config) if arguments.tracker_config else {}
    boxes = _boxes(arguments)
    with ExitStack() as opened:
        source: Source
        outputs: list[Output] = []
        if bag:
            source = images = opened.enter_context(ImageBag(arguments.source, arguments.topic))
            if arguments.out_bag is not None:
                outputs.append(_result_bag(arguments, images))
        else:
            source = VideoFileSource(arguments.source)
        shown = _print_notes(source, 0)
        fps = source.fps or DEFAULT_FPS
        if arguments.out or arguments.show:
            outputs.append(Screen(arguments.out, fps, _annotator(arguments), window=arguments.show))
        if arguments.json is not None:
            outputs.append(JsonLog(arguments.json, lambda: _header(source, arguments.model, boxes, fps)))
        for output in outputs:
            opened.callback(output.discard)
        try:
            tracker = make_tracker(arguments.model, arguments.device)
            tracker.config = replace(tracker.config, **settings)
            statistics = follow(tracker, source, span, boxes, outputs, select_box)
        except BaseException:
            for line in _finish(outputs):
                print(f"dimp-track: {line}", file=sys.stderr)
            raise
        unwritten = _finish(outputs)
        _print_notes(source, shown)
    return statistics, [line for line in (source.damage, *statistics.unwritten, *unwritten) if line]


def _print_notes(source: Source, shown: int) -> int:
    """Print the notes about a source but the first ``shown`` ones; return how many there are."""
    for note in source.notes[shown:]:
        print(f"dimp-track: {note}", file=sys.stderr)
    return len(source.notes)


def _finish(outputs: Sequence[Output]) -> list[str]:
    """Put every output under its name; return the error texts. Signals wait: a second one must not cost the results."""
    for number in ENDING:
        signal.signal(number, signal.SIG_IGN)
    failures = []
    for output in outputs:
        try:
            output.close()
        except Exception as error:
            output.discard()
            failures.append(failure_text(error))
    return failures


def _header(source: Source, model: str, boxes: Mapping[str, Box], fps: float) -> dict[str, Any]:
    """Return the first fields of the JSON file."""
    return {
        **source.describe(),
        "model": model,
        "init_boxes": {name: list(box) for name, box in boxes.items()},
        "fps": fps,
    }


def _annotator(arguments: argparse.Namespace) -> Annotator:
    """Return the annotator; it writes names if there are several targets or one was given a name."""
    return Annotator(names=any(name or number for number, (name, _) in enumerate(_given(arguments))))


def _result_bag(arguments: argparse.Namespace, images: ImageBag) -> ResultBag:
    notes = {
        "written_by": f"dimp-track of dimp_ros {dimp_ros.__version__}",
        "model": arguments.model,
        "images": f"{images.topic.name} of {Path(images.name).name}",
    }
    annotator = _annotator(arguments) if arguments.draw_images else None
    copy, storage = arguments.copy_images, arguments.storage
    return ResultBag(arguments.out_bag, images, storage, copy_images=copy, annotator=annotator, notes=notes)


@command("dimp-track")
def main(argv: Sequence[str] | None = None, make_tracker: Callable[[str, str], Any] | None = None) -> int:
    """Run the command with trackers from `make_tracker(model, device)`; None for `DimpTracker`.

    Return 0; 1 if the source is damaged and only a part of it was used, or an output could not be written; 2 if the
    request is refused; 130 after a signal before the first frame.
    """
    arguments = build_parser().parse_args(argv)
    before = {number: signal.getsignal(number) for number in ENDING}
    for number in handled_signals():
        signal.signal(number, signal.default_int_handler)  # as Ctrl-C: results are kept
    try:
        statistics, incomplete = _track(arguments, make_tracker or partial(_make_dimp, backend=arguments.backend))
    except (ValueError, RuntimeError, OSError, ImportError) as error:
        print(f"dimp-track: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("dimp-track: interrupted before the first frame, nothing was written", file=sys.stderr)
        return 130
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    for line in (*statistics.warnings(), *incomplete):
        print(f"dimp-track: {line}", file=sys.stderr)
    print(statistics.text())
    return 1 if incomplete else 0


if __name__ == "__main__":
    sys.exit(main())
