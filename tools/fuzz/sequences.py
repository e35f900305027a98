# SPDX-License-Identifier: Apache-2.0
"""Rows of calls to be thrown at a pipeline, in any order: what was asked for must hold in the end, and all the way."""

from __future__ import annotations

import array
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from random import Random
from types import SimpleNamespace

from builtin_interfaces.msg import Time
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Header

from fuzz.draw import odd_float, odd_text
from fuzz.images import compressed_image, raw_image
from fuzz.node_model import World, drawn_request, odd_stamp, short_waits, world
from fuzz.position import drawn_depth, drawn_info
from fuzz.run import Throw
from fuzz.targets import throw_detections

MOST_CALLS = 30
FAILURE = "the tracker fails as it was told to"
INVALID = "is invalid"


@contextmanager
def sequences() -> Iterator[Throw]:
    """Throw rows of up to 30 calls, each row at a pipeline of its own; a row is one input."""
    with short_waits():
        yield _throw


def _throw(draw: Random) -> bool:
    """Make calls; return whether more than the two first targets were ever taken."""
    with world() as made:
        made.planned_errors = (FAILURE, INVALID)
        made.desk.topics["debug_image"].wanted = draw.random() < 0.1
        made.settings["detector.target_id"] = draw.choice(("cup", "detection", "third"))
        before = len(made.tracker.inits)
        for _ in range(draw.randint(1, MOST_CALLS)):
            draw.choice(CALLS)(draw, made)
            targets = set(made.pipeline.targets)
            assert targets == made.expected, f"{targets}, not {made.expected}; {made.trouble}"
        taken = len(made.tracker.inits) > before
        made.requests.set_enabled(True)
        made.check()
        made.close()
    return taken


def _good_images(draw: Random, made: World) -> None:
    for _ in range(draw.randint(1, 4)):
        made.show(made.next_image())


def _burst(draw: Random, made: World) -> None:
    """Send images faster than they are worked on."""
    for _ in range(draw.randint(2, 12)):
        made.pipeline.receive(made.next_image())
    made.show(made.next_image())


def _odd_stamp(draw: Random, made: World) -> None:
    made.show(made.image(odd_stamp(draw)))


def _other_stamp(draw: Random, made: World) -> None:
    """Send an image of no time, of a time that was, or of one that is to come."""
    sec = draw.choice((0, 999, 1000, 1001, 1060, 5000))
    made.show(made.image(Time(sec=sec, nanosec=draw.choice((0, 1, 100_000_000, 999_999_999)) if sec else 0)))


def _other_size(draw: Random, made: World) -> None:
    made.show(made.image(made.next_image().header.stamp, draw.randint(1, 300), draw.randint(1, 200)))


def _odd_image(draw: Random, made: World) -> None:
    """Send an image that is wrong in itself, as far as the types of a message's fields let it through."""
    drawn = compressed_image(draw) if draw.random() < 0.4 else raw_image(draw)
    kind = CompressedImage if hasattr(drawn, "format") else Image
    header = Header(stamp=made.next_image().header.stamp, frame_id=draw.choice(("lens", odd_text(draw))))
    try:
        message = kind(header=header, **{name: _sendable(value) for name, value in vars(drawn).items() if value})
    except (AssertionError, TypeError, ValueError, OverflowError):
        return  # no message can hold it
    message.header = header
    made.show(message)


def _sendable(value: object) -> object:
    """Return bytes as messages hold them."""
    return array.array("B", value) if isinstance(value, bytes) else value


def _take(draw: Random, made: World) -> None:
    made.take(*drawn_request(draw, made))


def _drop(draw: Random, made: World) -> None:
    made.drop(draw.choice((*made.expected, "", "Cup", odd_text(draw))))


def _enable(draw: Random, made: World) -> None:
    made.requests.set_enabled(draw.random() < 0.6)


def _settings(draw: Random, made: World) -> None:
    """Change what may change at any time."""
    made.settings["give_up_after"] = draw.choice((0.0, 1e-9, 1.0, 60.0, 86400.0))
    made.settings["catch_up_images"] = draw.choice((1, 3, 100))
    made.settings["wait_for_next"] = draw.choice((0.0, 0.5, 1.0))
    made.settings["detector.rule"] = draw.choice(("best_score", "nearest_center", "largest"))
    made.settings["detector.min_score"] = draw.random()
    made.settings["pose_target"] = draw.choice(("", "cup", odd_text(draw)))


def _detections(draw: Random, made: World) -> None:
    throw_detections(draw, made)


def _failure(draw: Random, made: World) -> None:
    """Have the tracker fail in an image, and in requests meanwhile."""
    made.tracker.failure = draw.choice((RuntimeError, ValueError, MemoryError, KeyError))(FAILURE)
    made.show(made.next_image())
    before = made.expected.copy()
    if draw.random() < 0.5:
        assert not made.take(*drawn_request(draw, made)) and made.expected == before
    made.tracker.failure = None


def _nonsense(draw: Random, made: World) -> None:
    """Have the tracker answer with what no box is, in one image."""
    boxes = made.tracker.boxes.copy()
    for name in boxes:
        made.tracker.boxes[name] = tuple(odd_float(draw) for _ in range(4))
    for state in made.show(made.next_image()).values():
        assert state.bbox.size_x >= 0.0 and state.bbox.size_y >= 0.0
    made.settle()
    made.tracker.boxes = boxes


def _place(draw: Random, made: World) -> None:
    """Send camera information or depth."""
    (made.positioner.on_camera_info if draw.random() < 0.5 else made.positioner.on_depth)(
        _typed(draw, drawn_info(draw) if draw.random() < 0.5 else drawn_depth(draw))
    )
    made.show(made.next_image())


def _typed(draw: Random, message: SimpleNamespace) -> SimpleNamespace:
    """Have the message be about the images' frame, or another one."""
    if draw.random() < 0.8 and hasattr(message.header, "frame_id"):
        message.header.frame_id = "lens"
    return message


def _late_target(draw: Random, made: World) -> None:
    """Ask for a target in an image of a while ago, and send more while it catches up."""
    image = made.next_image()
    made.show(image)
    _good_images(draw, made)
    _, bbox, normalized, name = drawn_request(draw, made)
    made.take(image.header.stamp, bbox, normalized, name)
    for _ in range(draw.randrange(4)):
        made.pipeline.receive(made.next_image())


def _late_at_the_end_of_time(draw: Random, made: World) -> None:
    """Ask for a target in an image of a while ago, with stamps at the ends of what a message holds."""
    sec = draw.choice((-(2**31), -1, 0, 2**31 - 1))
    steps = sorted(draw.choice((0, 1, 10**9 - 1, 10**9, 3 * 10**9, 2**32 - 1)) for _ in range(4))
    stamps = [Time(sec=sec, nanosec=step) for step in steps]
    for stamp in stamps:
        made.show(made.image(stamp))
    _, bbox, normalized, name = drawn_request(draw, made)
    made.take(draw.choice(stamps), bbox, normalized, name)


CALLS: tuple[Callable[[Random, World], None], ...] = (
    _good_images,
    _burst,
    _odd_stamp,
    _other_stamp,
    _other_size,
    _odd_image,
    _odd_image,
    _take,
    _take,
    _drop,
    _enable,
    _settings,
    _detections,
    _failure,
    _nonsense,
    _place,
    _late_target,
    _late_at_the_end_of_time,
)
