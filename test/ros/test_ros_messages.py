# SPDX-License-Identifier: Apache-2.0
"""Boxes and estimates as messages, and back."""

from __future__ import annotations

import math

import pytest
from harness.ros_harness import BoundingBox2D, State, TargetState, TargetStateArray, is_zero, stamp_of
from hypothesis import given
from hypothesis import strategies as st

from dimp_ros.geometry.box import Box
from dimp_ros.ros_utils.messages import (
    bounding_box,
    detections,
    requested_box,
    target_estimate,
    target_estimates,
    target_state,
)
from dimp_ros.tracker.result import TargetEstimate

SIDE = st.floats(2.0, 200.0)
PLACE = st.floats(-0.5, 1.0)  # top-left corner, in sides of the box left of or inside a 300 x 200 image
SINGLE = st.floats(0.0, 1.0, width=32)
ESTIMATES = st.builds(
    TargetEstimate,
    target_id=st.text(max_size=5),
    state=st.sampled_from(State),
    box=st.none() | st.builds(Box, PLACE, PLACE, SIDE, SIDE),
    confidence=SINGLE,
    peak=SINGLE,
    distractor_ratio=SINGLE,
    frames_since_seen=st.integers(0, 2**32 - 1),
    seconds_since_seen=SINGLE,
    stamp=st.integers(0, 2**31 * 10**9 - 1),
    age=SINGLE,
    start=st.integers(0, 2**32 - 1),
    bearing=st.none() | st.tuples(PLACE, PLACE, st.just(1.0)),
)


@given(u=PLACE, v=PLACE, w=SIDE, h=SIDE)
def test_box_of_a_request_in_pixels_and_in_fractions(u, v, w, h):
    box = Box(u * min(w, 100.0), v * min(h, 100.0), w, h)
    message = bounding_box(box)
    assert requested_box(message, False, 300, 200) == pytest.approx(box)
    for position, side in (("x", 300), ("y", 200)):
        setattr(message.center.position, position, getattr(message.center.position, position) / side)
        setattr(message, f"size_{position}", getattr(message, f"size_{position}") / side)
    assert requested_box(message, True, 300, 200) == pytest.approx(box)


@pytest.mark.parametrize("theta", [0.1, -0.4, math.pi / 4, 3.0, math.nan, math.inf, -math.inf])
def test_a_rotated_box_is_refused(theta):
    message = bounding_box((10.0, 10.0, 20.0, 30.0))
    message.center.theta = theta
    with pytest.raises(ValueError, match=r"theta .*multiple of pi/2"):
        requested_box(message, False, 300, 200)


@pytest.mark.parametrize("theta", [1e-9, -1e-9, math.pi, -math.pi, 3.1415927, 2 * math.pi, 100 * math.pi, 5e-4])
def test_a_box_turned_by_half_turns_is_upright(theta):
    message = bounding_box((10.0, 10.0, 20.0, 30.0))
    message.center.theta = theta
    assert requested_box(message, False, 300, 200) == Box(10.0, 10.0, 20.0, 30.0)


@pytest.mark.parametrize("theta", [math.pi / 2, -math.pi / 2, 1.5707964, 1.5 * math.pi])
@pytest.mark.parametrize("normalized", [False, True])
def test_a_box_turned_by_a_quarter_has_its_sides_swapped(theta, normalized):
    scale = 100.0 if normalized else 1.0
    message = bounding_box((10.0 / scale, 10.0 / scale, 20.0 / scale, 30.0 / scale))
    message.center.theta = theta
    assert requested_box(message, normalized, 100, 100) == pytest.approx((5.0, 15.0, 30.0, 20.0))


def test_estimate_without_a_box_has_no_detection():
    header = TargetState().header
    header.stamp = stamp_of(3)
    estimate = TargetEstimate("ball", State.LOST, frames_since_seen=4, seconds_since_seen=0.5, age=0.125)
    array, state = detections(header, [estimate]), target_state(header, estimate)
    assert array.detections == [] and array.header == header
    assert is_zero(state.bbox) and state.bbox == BoundingBox2D()
    assert (state.id, state.state, state.frames_since_seen, state.seconds_since_seen, state.age) == (
        "ball",
        TargetState.LOST,
        4,
        0.5,
        0.125,
    )


@given(ESTIMATES)
def test_an_estimate_comes_back_from_its_message(estimate):
    header = TargetState().header
    header.stamp.sec, header.stamp.nanosec = divmod(estimate.stamp, 10**9)
    state = target_state(header, estimate)
    found = target_estimate(state)
    assert found.box == (None if estimate.box is None else pytest.approx(estimate.box))
    assert {**vars(found), "box": None} == {**vars(estimate), "box": None}
    assert target_estimates(TargetStateArray(targets=[state, state])) == [found, found]


@pytest.mark.parametrize("number", [4, 77, 255])
def test_a_state_that_does_not_exist_counts_as_lost(number):
    assert target_estimate(TargetState(state=number)).state is State.LOST


@pytest.mark.parametrize("place", range(4))
@pytest.mark.parametrize("value", [math.nan, math.inf, -1e400])
def test_box_that_is_not_finite_is_invalid(place, value):
    numbers = [10.0, 20.0, 30.0, 40.0]
    numbers[place] = value
    message = TargetState(state=State.TRACKING)
    bbox = message.bbox
    bbox.center.position.x, bbox.center.position.y, bbox.size_x, bbox.size_y = numbers
    assert target_estimate(message).box is None


@pytest.mark.parametrize("theta", [math.nan, math.inf, -math.inf, 0.1, math.pi / 2])
def test_box_that_is_not_upright_is_invalid(theta):
    message = TargetState(state=State.TRACKING)
    message.bbox.size_x = message.bbox.size_y = 30.0
    assert target_estimate(message).box is not None
    message.bbox.center.theta = theta
    assert target_estimate(message).box is None


@pytest.mark.parametrize("size", [(0.0, 40.0), (30.0, 0.0), (-30.0, 40.0)])
def test_box_without_extent_is_invalid(size):
    message = TargetState(state=State.TRACKING)
    message.bbox.size_x, message.bbox.size_y = size
    assert target_estimate(message).box is None
