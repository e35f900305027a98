# SPDX-License-Identifier: Apache-2.0
"""Sequences of calls to a pipeline, in any order: what was requested must hold after every call."""

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
from fuzz.node_model import PipelineFixture, drawn_request, odd_stamp, pipeline_fixture, short_waits
from fuzz.position import drawn_depth, drawn_info
from fuzz.run import Attempt
from fuzz.targets import send_detections

MOST_CALLS = 30
FAILURE = "the tracker fails on purpose"
INVALID = "is invalid"


@contextmanager
def sequences() -> Iterator[Attempt]:
    """Make sequences of up to 30 calls, each to a pipeline of its own; a sequence is one input."""
    with short_waits():
        yield _attempt


def _attempt(draw: Random) -> bool:
    """Make calls; return whether more than the first two targets were accepted."""
    with pipeline_fixture() as fixture:
        fixture.planned_errors = (FAILURE, INVALID)
        fixture.node.topics["debug_image"].wanted = draw.random() < 0.1
        fixture.settings["detector.target_id"] = draw.choice(("cup", "detection", "third"))
        before = len(fixture.tracker.inits)
        for _ in range(draw.randint(1, MOST_CALLS)):
            draw.choice(CALLS)(draw, fixture)
            targets = set(fixture.pipeline.targets)
            assert targets == fixture.expected, f"{targets}, not {fixture.expected}; {fixture.trouble}"
        taken = len(fixture.tracker.inits) > before
        fixture.requests.set_enabled(True)
        fixture.check()
        fixture.close()
    return taken


def _good_images(draw: Random, fixture: PipelineFixture) -> None:
    for _ in range(draw.randint(1, 4)):
        fixture.show(fixture.next_image())


def _burst(draw: Random, fixture: PipelineFixture) -> None:
    """Send images faster than they are processed."""
    for _ in range(draw.randint(2, 12)):
        fixture.pipeline.receive(fixture.next_image())
    fixture.show(fixture.next_image())


def _odd_stamp(draw: Random, fixture: PipelineFixture) -> None:
    fixture.show(fixture.image(odd_stamp(draw)))


def _other_stamp(draw: Random, fixture: PipelineFixture) -> None:
    """Send an image with stamp zero, or one of the past or the future."""
    sec = draw.choice((0, 999, 1000, 1001, 1060, 5000))
    fixture.show(fixture.image(Time(sec=sec, nanosec=draw.choice((0, 1, 100_000_000, 999_999_999)) if sec else 0)))


def _other_size(draw: Random, fixture: PipelineFixture) -> None:
    fixture.show(fixture.image(fixture.next_image().header.stamp, draw.randint(1, 300), draw.randint(1, 200)))


def _odd_image(draw: Random, fixture: PipelineFixture) -> None:
    """Send an invalid image, as far as the types of the message's fields allow."""
    drawn = compressed_image(draw) if draw.random() < 0.4 else raw_image(draw)
    kind = CompressedImage if hasattr(drawn, "format") else Image
    header = Header(stamp=fixture.next_image().header.stamp, frame_id=draw.choice(("lens", odd_text(draw))))
    try:
        message = kind(header=header, **{name: _sendable(value) for name, value in vars(drawn).items() if value})
    except (AssertionError, TypeError, ValueError, OverflowError):
        return  # no message holds it
    message.header = header
    fixture.show(message)


def _sendable(value: object) -> object:
    """Return bytes as messages hold them."""
    return array.array("B", value) if isinstance(value, bytes) else value


def _take(draw: Random, fixture: PipelineFixture) -> None:
    fixture.take(*drawn_request(draw, fixture))


def _drop(draw: Random, fixture: PipelineFixture) -> None:
    fixture.drop(draw.choice((*fixture.expected, "", "Cup", odd_text(draw))))


def _enable(draw: Random, fixture: PipelineFixture) -> None:
    fixture.requests.set_enabled(draw.random() < 0.6)


def _settings(draw: Random, fixture: PipelineFixture) -> None:
    """Change parameters that may change at any time."""
    fixture.settings["give_up_after"] = draw.choice((0.0, 1e-9, 1.0, 60.0, 86400.0))
    fixture.settings["catch_up_images"] = draw.choice((1, 3, 100))
    fixture.settings["wait_for_next"] = draw.choice((0.0, 0.5, 1.0))
    fixture.settings["detector.rule"] = draw.choice(("best_score", "nearest_center", "largest"))
    fixture.settings["detector.min_score"] = draw.random()
    fixture.settings["pose_target"] = draw.choice(("", "cup", odd_text(draw)))


def _detections(draw: Random, fixture: PipelineFixture) -> None:
    send_detections(draw, fixture)


def _failure(draw: Random, fixture: PipelineFixture) -> None:
    """Let the tracker fail in an image and in requests."""
    fixture.tracker.failure = draw.choice((RuntimeError, ValueError, MemoryError, KeyError))(FAILURE)
    fixture.show(fixture.next_image())
    before = fixture.expected.copy()
    if draw.random() < 0.5:
        assert not fixture.take(*drawn_request(draw, fixture)) and fixture.expected == before
    fixture.tracker.failure = None


def _invalid_box(draw: Random, fixture: PipelineFixture) -> None:
    """Let the tracker return an invalid box in one image."""
    boxes = fixture.tracker.boxes.copy()
    for name in boxes:
        fixture.tracker.boxes[name] = tuple(odd_float(draw) for _ in range(4))
    for state in fixture.show(fixture.next_image()).values():
        assert state.bbox.size_x >= 0.0 and state.bbox.size_y >= 0.0
    fixture.settle()
    fixture.tracker.boxes = boxes


def _place(draw: Random, fixture: PipelineFixture) -> None:
    """Send camera information or depth."""
    (fixture.positioner.on_camera_info if draw.random() < 0.5 else fixture.positioner.on_depth)(
        _typed(draw, drawn_info(draw) if draw.random() < 0.5 else drawn_depth(draw))
    )
    fixture.show(fixture.next_image())


def _typed(draw: Random, message: SimpleNamespace) -> SimpleNamespace:
    """Set the message's frame_id to that of the images, or another one."""
    if draw.random() < 0.8 and hasattr(message.header, "frame_id"):
        message.header.frame_id = "lens"
    return message


def _late_target(draw: Random, fixture: PipelineFixture) -> None:
    """Request a target in a past image, and send more images while it catches up."""
    image = fixture.next_image()
    fixture.show(image)
    _good_images(draw, fixture)
    _, bbox, normalized, name = drawn_request(draw, fixture)
    fixture.take(image.header.stamp, bbox, normalized, name)
    for _ in range(draw.randrange(4)):
        fixture.pipeline.receive(fixture.next_image())


def _late_at_the_end_of_time(draw: Random, fixture: PipelineFixture) -> None:
    """Request a target in a past image, with stamps at the limits of their type."""
    sec = draw.choice((-(2**31), -1, 0, 2**31 - 1))
    steps = sorted(draw.choice((0, 1, 10**9 - 1, 10**9, 3 * 10**9, 2**32 - 1)) for _ in range(4))
    stamps = [Time(sec=sec, nanosec=step) for step in steps]
    for stamp in stamps:
        fixture.show(fixture.image(stamp))
    _, bbox, normalized, name = drawn_request(draw, fixture)
    fixture.take(draw.choice(stamps), bbox, normalized, name)


CALLS: tuple[Callable[[Random, PipelineFixture], None], ...] = (
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
    _invalid_box,
    _place,
    _late_target,
    _late_at_the_end_of_time,
)
