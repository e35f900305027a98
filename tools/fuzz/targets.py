# SPDX-License-Identifier: Apache-2.0
"""Requests and detections to be thrown at a pipeline that follows two targets: they must be followed afterwards too."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from random import Random

from harness.ros_harness import State
from vision_msgs.msg import Detection2D, Detection2DArray, ObjectHypothesisWithPose

from dimp_ros.node.detection_input import RULES
from fuzz.draw import odd_float, odd_text, some
from fuzz.node_model import World, bounding_box, drawn_request, good_box, known_stamp, odd_stamp, short_waits, world
from fuzz.run import Throw


@contextmanager
def requests() -> Iterator[Throw]:
    """Throw requests for targets, and for targets to be dropped."""
    with short_waits():
        yield _throw_request


@contextmanager
def detections() -> Iterator[Throw]:
    """Throw what a detector might publish."""
    with short_waits():
        yield _throw_detections


def _throw_request(draw: Random) -> bool:
    with world() as made:
        made.desk.topics["debug_image"].wanted = draw.random() < 0.2
        if draw.random() < 0.1:
            taken = made.drop(draw.choice(("cup", "böll", "", "Cup", odd_text(draw))))
        else:
            taken = made.take(*drawn_request(draw, made))
        made.check()
        made.close()
    return taken


def _throw_detections(draw: Random) -> bool:
    with world() as made:
        made.settings.update(
            {
                "detector.rule": draw.choice(RULES),
                "detector.classes": draw.choice(((), (), (), ("car", ""), (odd_text(draw),))),
                "detector.min_score": draw.choice((0.0, 0.0, 0.5, 1.0)),
                "detector.target_id": draw.choice(("cup", "cup", "detection", "detection", "", odd_text(draw))),
            }
        )
        if draw.random() < 0.7:  # only a target that is lost is taken anew
            made.tracker.states["cup"] = State.LOST
            made.show(made.next_image())
        taken = throw_detections(draw, made)
        made.tracker.states.clear()
        made.check()
        made.close()
    return taken


def throw_detections(draw: Random, made: World) -> bool:
    """Throw a message of detections; return whether a target was taken from it."""
    before = len(made.tracker.inits)
    known = set(made.pipeline.targets)
    made.detector.receive(drawn_detections(draw, made))
    new = set(made.pipeline.targets) - known
    assert len(new) <= 1 and not known - set(made.pipeline.targets), f"{known} became {made.pipeline.targets}"
    made.expected |= new
    return len(made.tracker.inits) > before


def drawn_detections(draw: Random, made: World) -> Detection2DArray:
    """Return a message of up to a few detections, mostly with something wrong in it."""
    message = Detection2DArray()
    message.header.stamp = known_stamp(draw, made) if draw.random() < 0.8 else odd_stamp(draw)
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
