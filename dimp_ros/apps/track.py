# SPDX-License-Identifier: Apache-2.0
"""The console script `dimp-track`: follow one target through a video, without ROS."""

from __future__ import annotations

import argparse
import json
import math
import os
import re
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from tqdm import tqdm

from dimp_ros.apps.overlay import draw_target
from dimp_ros.apps.video import Picture, Video, VideoWriter
from dimp_ros.geometry import Box

if TYPE_CHECKING:
    from dimp_ros.tracker import DimpTracker, TrackResult

DEFAULT_FPS = 25.0
WINDOW = "dimp-track"


def parse_box(text: str) -> Box:
    """Read `x,y,w,h` in float pixels; raise ArgumentTypeError if it is not a box."""
    try:
        values = [float(value) for value in text.split(",")]
    except ValueError:
        values = []
    if len(values) != 4 or not all(map(math.isfinite, values)) or min(values[2:]) <= 0:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a box; give x,y,w,h in pixels: left edge, top edge, width > 0, height > 0"
        )
    return Box(*values)


def _frame_index(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"expected a frame index of at least 0, got {text!r}")
    return int(text)


def has_display() -> bool:
    """Tell whether a window can be opened."""
    if sys.platform.startswith("linux") and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        return False
    return re.search(r"GUI:\s+NONE", cv2.getBuildInformation()) is None


def select_box(image: Picture) -> Box:
    """Let the person drag a box on the picture; raise ValueError if none is drawn."""
    box = Box(*(float(value) for value in cv2.selectROI(WINDOW, image, showCrosshair=False)))
    cv2.destroyWindow(WINDOW)
    if box.area <= 0:
        raise ValueError("no box was drawn; drag one round the target and press Enter, or give --init x,y,w,h")
    return box


def _entry(index: int, result: TrackResult, milliseconds: float) -> dict[str, Any]:
    """Return the JSON entry of a frame."""
    return {
        "frame": index,
        "state": result.state.name,
        "box": None if result.box is None else [round(float(value), 3) for value in result.box],
        "confidence": _finite(result.confidence),
        "peak": _finite(result.peak),
        "ms": round(milliseconds, 2),
    }


def _finite(value: float) -> float | None:
    """Return a number that JSON has a form for."""
    return round(float(value), 4) if math.isfinite(value) else None


def _track(
    tracker: DimpTracker, video: Video, box: Box | None, arguments: argparse.Namespace
) -> tuple[Box, list[dict[str, Any]]]:
    """Run the tracker over the video with everything that shows it; return the first box and an entry per frame."""
    writer = VideoWriter(arguments.out, video.fps or DEFAULT_FPS) if arguments.out else None
    end = min((value for value in (arguments.end, video.length) if value is not None), default=None)
    total = None if end is None else max(0, end - arguments.start)
    entries: list[dict[str, Any]] = []
    try:
        with tqdm(total=total, unit="frame", disable=None, file=sys.stderr) as bar:
            for index, image in video.frames(arguments.start, arguments.end):
                box = box or select_box(image)
                clock = time.perf_counter()
                result = tracker.update(image) if entries else tracker.init(image, box)
                entries.append(_entry(index, result, (time.perf_counter() - clock) * 1e3))
                bar.set_postfix_str(f"{result.state.name} {result.confidence:.2f}", refresh=False)
                bar.update()
                if (writer or arguments.show) and _show(image, result, writer, arguments.show):
                    break
    except KeyboardInterrupt:  # how one stops a camera: keep what there is
        print("dimp-track: interrupted", file=sys.stderr)
    finally:
        if writer:
            writer.close()
        if arguments.show:
            cv2.destroyAllWindows()
    if box is None or not entries:
        raise ValueError(f"no frame to start on: {video.source} has no readable frame {arguments.start}")
    return box, entries


def _show(image: Picture, result: TrackResult, writer: VideoWriter | None, window: bool) -> bool:
    """Draw the result and hand it to the video and the window; return True if the person wants to stop."""
    picture = draw_target(
        image.copy(),
        result.state.name,
        box=result.last_box,
        confidence=result.confidence,
        held=result.box is None,
    )
    if writer:
        writer.write(picture)
    if not window:
        return False
    cv2.imshow(WINDOW, picture)
    return cv2.waitKey(1) & 0xFF in (ord("q"), 27)


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(prog="dimp-track", description="Follow one target through a video.")
    parser.add_argument("video", metavar="VIDEO", help="a video file, a folder of pictures, or a camera's index")
    parser.add_argument("--init", type=parse_box, metavar="x,y,w,h", help="the target in the first frame, in pixels")
    parser.add_argument("--out", type=Path, metavar="OUT.mp4", help="write the video with the target drawn on it")
    parser.add_argument("--json", type=Path, metavar="OUT.json", help="write box, state and confidence of each frame")
    parser.add_argument("--model", default="dimp_lite", help="name of a model or path of its weights (%(default)s)")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N (default: %(default)s)")
    parser.add_argument("--start", type=_frame_index, default=0, metavar="N", help="first frame, from 0 (%(default)s)")
    parser.add_argument("--end", type=_frame_index, metavar="N", help="frame to stop before (default: the last)")
    parser.add_argument("--show", action="store_true", help="show it live in a window; q ends it")
    return parser


def _make_dimp(model: str, device: str) -> DimpTracker:
    from dimp_ros.tracker import DimpTracker

    return DimpTracker(model=model, device=device)


def _run(arguments: argparse.Namespace, make_tracker: Callable[[str, str], DimpTracker]) -> None:
    if arguments.end is not None and arguments.end <= arguments.start:
        raise ValueError(f"--end {arguments.end} must be greater than --start {arguments.start}")
    if arguments.show and not has_display():
        raise ValueError("--show needs a display; use --out OUT.mp4 to watch the result later")
    if arguments.init is None and not has_display():
        raise ValueError("no --init and no display to draw the box on; give the target as --init x,y,w,h in pixels")
    for path in (arguments.out, arguments.json):
        if path is not None and not path.parent.is_dir():
            raise ValueError(f"no folder {path.parent} to write {path.name} to")
    video = Video(arguments.video)
    box, entries = _track(make_tracker(arguments.model, arguments.device), video, arguments.init, arguments)
    if arguments.json is not None:
        header = {"video": video.source, "model": arguments.model, "init_box": list(box)}
        document = {**header, "fps": video.fps or DEFAULT_FPS, "frames": entries}
        arguments.json.write_text(json.dumps(document, indent=1), encoding="utf-8")
    lost = sum(entry["box"] is None for entry in entries)
    milliseconds = np.median([entry["ms"] for entry in entries[1:] or entries])
    print(f"{len(entries)} frames, target in sight in {len(entries) - lost}, median {milliseconds:.1f} ms a frame")


def main(argv: Sequence[str] | None = None, make_tracker: Callable[[str, str], DimpTracker] = _make_dimp) -> int:
    """Run the command with trackers from `make_tracker(model, device)`; return 0, or 2 for a request it refuses."""
    arguments = build_parser().parse_args(argv)
    try:
        _run(arguments, make_tracker)
    except (ValueError, OSError, ImportError) as error:
        print(f"dimp-track: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
