# SPDX-License-Identifier: Apache-2.0
"""Boxes and readings as messages, and back."""

from __future__ import annotations

import pytest
from harness.ros_harness import BoundingBox2D, State, TargetState, is_zero, stamp_of
from hypothesis import given
from hypothesis import strategies as st

from dimp_ros.geometry.box import Box
from dimp_ros.ros_utils.messages import bounding_box, detections, requested_box, target_state
from dimp_ros.tracker.target_set import TargetEstimate

SIDE = st.floats(2.0, 200.0)
PLACE = st.floats(-0.5, 1.0)  # top-left corner, in sides of the box left of or inside a 300 x 200 image


@given(u=PLACE, v=PLACE, w=SIDE, h=SIDE)
def test_a_box_comes_back_from_a_request_in_pixels_and_in_fractions(u, v, w, h):
    box = Box(u * min(w, 100.0), v * min(h, 100.0), w, h)
    message = bounding_box(box)
    assert requested_box(message, False, 300, 200) == pytest.approx(box)
    for position, side in (("x", 300), ("y", 200)):
        setattr(message.center.position, position, getattr(message.center.position, position) / side)
        setattr(message, f"size_{position}", getattr(message, f"size_{position}") / side)
    assert requested_box(message, True, 300, 200) == pytest.approx(box)


def test_a_rotated_box_is_refused_whatever_else_is_right():
    message = bounding_box((10.0, 10.0, 20.0, 20.0))
    message.center.theta = 0.1
    with pytest.raises(ValueError, match="theta"):
        requested_box(message, False, 300, 200)


def test_a_reading_without_a_box_has_no_detection_and_a_zero_size_box():
    header = TargetState().header
    header.stamp = stamp_of(3)
    reading = TargetEstimate("ball", State.LOST, None, frames_since_seen=4, seconds_since_seen=0.5)
    array, state = detections(header, [reading]), target_state(header, reading, 0.125)
    assert array.detections == [] and array.header == header
    assert is_zero(state.bbox) and state.bbox == BoundingBox2D()
    assert (state.id, state.state, state.frames_since_seen, state.seconds_since_seen, state.age) == (
        "ball",
        TargetState.LOST,
        4,
        0.5,
        0.125,
    )
