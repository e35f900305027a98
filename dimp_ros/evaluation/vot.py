# SPDX-License-Identifier: Apache-2.0
"""Trackers for the official VOT toolkit, which starts this program and communicates over TraX.

``python -m dimp_ros.evaluation.vot dimp_lite`` is the `command` of a tracker in the toolkit's ``trackers.ini``; see
``config/vot_trackers.ini``. Needs the package vot-trax. One target, given and reported as a rectangle.
"""

from __future__ import annotations

import argparse
import math
import os
import select
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from dimp_ros.evaluation.cli import setting
from dimp_ros.evaluation.tracker_api import BaselineUnavailable, BenchmarkTracker, Prediction
from dimp_ros.evaluation.trackers import TrackerSpec
from dimp_ros.files.arguments import whole
from dimp_ros.geometry.box import Box
from dimp_ros.images.files import read_image

GONE_SECONDS = 1.0
"""How long the program waits for a request after its client has closed the connection."""


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m dimp_ros.evaluation.vot",
        description="Track for the VOT toolkit, over TraX on stdin and stdout.",
    )
    parser.add_argument("tracker", help="as for dimp-eval: a model of ours, NAME@KEY=VALUE, dimp:PATH, kcf, csrt ...")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda (default: auto)")
    parser.add_argument("--baselines", type=Path, metavar="DIR", help="folder that holds NanoTrack's ONNX files")
    parser.add_argument("--threads", type=whole(), default=1, metavar="N", help="threads of the CPU (default: 1)")
    parser.add_argument(
        "--set", type=setting, action="append", default=[], metavar="KEY=VALUE", help="a field of the configuration"
    )
    return parser


def _box_of(objects: Any) -> Box:
    """Return the one target's rectangle; raise ValueError for none, several, or another shape."""
    if not objects or len(objects) != 1:
        raise ValueError(f"one target is tracked at a time, got {len(objects or ())}; use a single-object experiment")
    region, _ = objects[0]
    if region.type != "rectangle":
        raise ValueError(f"the target is a {region.type}, a rectangle is needed")
    return Box(*(float(value) for value in region.bounds()))


def serve(server: Any, make: Callable[[], BenchmarkTracker], rectangle: Callable[..., Any]) -> None:
    """Serve requests until the client quits.

    `server` is a `trax.Server`, or anything with its `wait` and `status`; `make` builds the tracker at the
    first target; `rectangle` makes TraX's region from x, y, w, h. The confidence, if there is one, is the object's
    property of that name. Raise ValueError for a request outside of the protocol.
    """
    tracker: BenchmarkTracker | None = None
    while True:
        request = server.wait()
        if request.type == "initialize":
            box = _box_of(request.objects)
            tracker = tracker or make()
            tracker.init(read_image(Path(request.image["color"].path())), box)
            prediction = Prediction(box)
        elif request.type == "frame":
            if tracker is None or request.objects:
                raise ValueError("a frame needs one target, given before it; use a single-object experiment")
            prediction = tracker.update(read_image(Path(request.image["color"].path())))
        else:
            return
        properties = {} if prediction.confidence is None else {"confidence": f"{prediction.confidence:.4f}"}
        server.status([(rectangle(*prediction.box), properties)])


class _Watched:
    """A `trax.Server` that ends the program once the client has gone without ``quit``.

    The library would wait on for ever, at full load, whatever has ended the client. A socket, which the library takes
    where ``TRAX_SOCKET`` is set, is not watched.
    """

    def __init__(self, server: Any) -> None:
        self._server = server
        self.status = server.status
        self._since = math.inf  # when the wait in progress began, by the monotonic clock
        if "TRAX_SOCKET" not in os.environ:
            threading.Thread(target=self._watch, daemon=True).start()

    def wait(self) -> Any:
        """Return the next request."""
        self._since = time.monotonic()
        try:
            return self._server.wait()
        finally:
            self._since = math.inf

    def _watch(self) -> None:
        poll = select.poll()
        poll.register(0, 0)  # a hang-up is reported whatever is asked for
        poll.poll()
        gone = time.monotonic()
        while time.monotonic() - max(gone, self._since) < GONE_SECONDS:  # what was sent before is served
            time.sleep(GONE_SECONDS / 5)
        print("dimp_ros.evaluation.vot: the client has gone without a quit", file=sys.stderr, flush=True)
        os._exit(2)  # the library does not return


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program; return 0 when the client quits, 2 for a bad request, or if the client is no toolkit."""
    arguments = build_parser().parse_args(argv)
    try:
        spec = TrackerSpec(arguments.tracker, arguments.baselines, arguments.device, dict(arguments.set))
        spec.check()
        import trax
    except (ValueError, OSError, BaselineUnavailable, ImportError) as error:
        remedy = "; pip install vot-trax" if isinstance(error, ImportError) else ""
        print(f"dimp_ros.evaluation.vot: {error}{remedy}", file=sys.stderr)
        return 2
    try:
        with trax.Server([trax.Region.RECTANGLE], [trax.Image.PATH], tracker_name=arguments.tracker) as server:
            serve(_Watched(server), lambda: spec.make(arguments.threads), trax.Rectangle.create)
    except (ValueError, OSError, trax.TraxException) as error:
        print(f"dimp_ros.evaluation.vot: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
