# SPDX-License-Identifier: Apache-2.0
"""Requests and detections for a pipeline that tracks two targets, which must be tracked afterwards too."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from random import Random

from harness.ros_harness import State
from vision_msgs.msg import Detection2D, Detection2DArray, ObjectHypothesisWithPose

from dimp_ros.node.detection_input import RULES
from fuzz.draw import odd_float, odd_text, some
from fuzz.node_model import (
    PipelineFixture,
    bounding_box,
    drawn_request,
    good_box,
    known_stamp,
    odd_stamp,
    pipeline_fixture,
    short_waits,
)
from fuzz.run import Attempt


@contextmanager
def requests() -> Iterator[Attempt]:
    """Request targets, and request to drop targets."""
    with short_waits():
        yield _attempt_request


@contextmanager
def detections() -> Iterator[Attempt]:
    """Send what a detector might publish."""
    with short_waits():
        yield _attempt_detections


def _attempt_request(draw: Random) -> bool:
    with pipeline_fixture() as fixture:
        fixture.node.topics["debug_image"].wanted = draw.random() < 0.2
        if draw.random() < 0.1:
            taken = fixture.drop(draw.choice(("cup", "böll", "", "Cup", odd_text(draw))))
        else:
            taken = fixture.take(*drawn_request(draw, fixture))
        fixture.check()
        fixture.close()
    return taken


def _attempt_detections(draw: Random) -> bool:
    with pipeline_fixture() as fixture:
        fixture.settings.update(
            {
                "detector.rule": draw.choice(RULES),
                "detector.classes": draw.choice(((), (), (), ("car", ""), (odd_text(draw),))),
                "detector.min_score": draw.choice((0.0, 0.0, 0.5, 1.0)),
                "detector.target_id": draw.choice(("cup", "cup", "detection", "detection", "", odd_text(draw))),
            }
        )
        if draw.random() < 0.7:  # only a lost target is replaced
            fixture.tracker.states["cup"] = State.LOST
            fixture.show(fixture.next_image())
        taken = send_detections(draw, fixture)
        fixture.tracker.states.clear()
        fixture.check()
        fixture.close()
    return taken


def send_detections(draw: Random, fixture: PipelineFixture) -> bool:
    """Send a message of detections; return whether it started a target."""
    before = len(fixture.tracker.inits)
    known = set(fixture.pipeline.targets)
    fixture.detector.receive(drawn_detections(draw, fixture))
    new = set(fixture.pipeline.targets) - known
    assert len(new) <= 1 and not known - set(fixture.pipeline.targets), f"{known} became {fixture.pipeline.targets}"
    fixture.expected |= new
    return len(fixture.tracker.inits) > before


def drawn_detections(draw: Random, fixture: PipelineFixture) -> Detection2DArray:
    """Return a message of some detections, mostly with an error in it."""
    message = Detection2DArray()
    message.header.stamp = known_stamp(draw, fixture) if draw.random() < 0.8 else odd_stamp(draw)
    message.header.frame_id = draw.choice(("lens", odd_text(draw)))
    count = draw.choice((0, 1, 1, 2, 5, 200 if draw.random() < 0.1 else 3))
    for _ in range(count):
        message.detections.append(_detection(draw))
    return message


def _detection(draw: Random) -> Detection2D:
    one = Detection2D(bbox=bounding_box(*good_box(draw)))
    scores = [draw.uniform(0.4, 1.2)]
    wrong = some(draw, ("x", "w", "h", "theta", "score", "results")) if draw.random() < 0.6 else ()
    for name in wrong:
        if name == "x":
            one.bbox.center.position.x = odd_float(draw)
        elif name == "theta":
            one.bbox.center.theta = odd_float(draw)
        elif name in "wh":
            setattr(one.bbox, "size_x" if name == "w" else "size_y", odd_float(draw))
        elif name == "score":
            scores = [odd_float(draw) for _ in range(3)]
        else:
            scores = []
    for score in scores:
        result = ObjectHypothesisWithPose()
        result.hypothesis.class_id = draw.choice(("car", "", odd_text(draw)))
        result.hypothesis.score = score
        one.results.append(result)
    return one
