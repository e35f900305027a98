# SPDX-License-Identifier: Apache-2.0
"""The tracker node over real DDS: published results, and answers to requests."""

from __future__ import annotations

import math

import pytest
from harness.ros_harness import (
    BEST_EFFORT,
    BOX,
    HEIGHT,
    LATCHED,
    RELIABLE,
    WIDTH,
    InitTarget,
    ScriptedTracker,
    State,
    TargetState,
    TargetStateArray,
    Time,
    is_zero,
    numbered_image,
    running,
    stamp_of,
    start_target,
    wait_until,
)

from dimp_ros.node.requests import MAX_NAME


def test_states_have_the_numbers_of_the_message():
    assert {state.name: state.value for state in State} == {
        state.name: getattr(TargetState, state.name) for state in State
    }


def test_images_without_targets_have_empty_results():
    tracker = ScriptedTracker()
    with running(tracker) as client:
        assert client.states[0].state == State.UNINITIALIZED and client.states[0].header.stamp == Time()
        state = client.show(numbered_image(1))
        assert state.state == State.UNINITIALIZED and state.id == "" and is_zero(state.bbox)
        assert client.detections_of(numbered_image(1)).detections == []
        assert tracker.updates == []


@pytest.mark.parametrize("image_qos", [RELIABLE, BEST_EFFORT], ids=["reliable", "best-effort"])
def test_target_is_tracked_with_any_reliability_of_the_camera(image_qos):
    tracker = ScriptedTracker()
    with running(tracker, image_qos) as client:
        client.show(numbered_image(1))
        answer = client.init(target_id="ball")
        assert answer.success and "ball" in answer.message and answer.stamp == stamp_of(1)
        assert tracker.inits == [(1, BOX, "ball")]
        state = client.show(numbered_image(2))
        assert (state.id, state.state, state.frames_since_seen, state.seconds_since_seen) == ("ball", 1, 0, 0.0)
        assert (state.bbox.center.position.x, state.bbox.center.position.y) == (28.0, 16.0)
        assert (state.bbox.size_x, state.bbox.size_y) == (16.0, 12.0)
        assert state.confidence == 0.75 and state.peak == 0.5 and state.distractor_ratio == 0.25
        (detection,) = client.detections_of(numbered_image(2)).detections
        assert detection.id == "ball" and detection.bbox == state.bbox
        assert detection.results[0].hypothesis.score == 0.75


def test_every_message_has_the_header_of_its_image():
    with running(ScriptedTracker()) as client:
        start_target(client)
        image = numbered_image(2)
        image.header.frame_id = "another/frame"
        state = client.show(image)
        array = client.detections_of(image)
        assert state.header == array.header == array.detections[0].header == image.header


def test_lost_target_has_no_box_and_counts_frames():
    tracker = ScriptedTracker()
    with running(tracker) as client:
        start_target(client)
        tracker.state = State.LOST
        client.show(numbered_image(3))
        state = client.show(numbered_image(5))
        assert state.state == State.LOST and state.id == "1" and is_zero(state.bbox) and state.confidence == 0.0
        assert state.frames_since_seen == 2 and state.seconds_since_seen == pytest.approx(0.4)
        assert client.detections_of(numbered_image(5)).detections == []
        tracker.state = State.UNCERTAIN
        state = client.show(numbered_image(6))
        assert state.state == State.UNCERTAIN and state.frames_since_seen == 3 and not is_zero(state.bbox)
        assert len(client.detections_of(numbered_image(6)).detections) == 1
        tracker.state = State.TRACKING
        state = client.show(numbered_image(7))
        assert state.state == State.TRACKING and state.frames_since_seen == 0 and state.seconds_since_seen == 0.0


def test_late_joiner_receives_the_state():
    with running(ScriptedTracker()) as client:
        start_target(client, target_id="ball")
        late: list[TargetState] = []
        client.node.create_subscription(TargetState, "target", late.append, LATCHED)
        wait_until(lambda: late and late[-1].id == "ball", "state for the late joiner")
        assert late[-1].state == State.TRACKING and late[-1].header == numbered_image(1).header
        arrays: list[TargetStateArray] = []
        client.node.create_subscription(TargetStateArray, "targets", arrays.append, LATCHED)
        wait_until(lambda: arrays, "all targets for the late joiner")
        assert len(arrays) == 1 and [state.id for state in arrays[0].targets] == ["ball"]
        assert (arrays[0].image_width, arrays[0].image_height) == (64, 48)


def test_the_age_is_the_time_from_the_stamp_to_the_publication():
    with running(ScriptedTracker()) as client:
        image = numbered_image(1)
        image.header.stamp = client.node.get_clock().now().to_msg()
        state = client.show(image)
        received = (
            client.node.get_clock().now().nanoseconds - image.header.stamp.sec * 10**9 - image.header.stamp.nanosec
        )
        assert 0.0 < state.age <= received / 1e9
        image.header.stamp.sec -= 100
        assert 100.0 < client.show(image).age < 120.0


def test_stamp_outside_the_buffer_is_refused_with_its_span():
    tracker = ScriptedTracker()
    with running(tracker, history_seconds=0.5) as client:
        for number in (0, 2, 4, 6, 8):
            client.show(numbered_image(number))
        too_old = client.init(stamp=stamp_of(1))
        assert not too_old.success and too_old.stamp == Time()
        assert "1000.400000000 to 1000.800000000" in too_old.message and "history_seconds" in too_old.message
        missing = client.init(stamp=stamp_of(7))
        assert not missing.success
        assert "1000.600000000" in missing.message and "1000.800000000" in missing.message
        ahead = client.init(stamp=stamp_of(30))
        assert not ahead.success and "ahead" in ahead.message
        assert tracker.inits == []


def test_without_an_image_init_is_refused_and_says_who_publishes():
    with running(ScriptedTracker()) as client:
        answer = client.init()
        assert not answer.success
        assert "no image" in answer.message and "/client" in answer.message and "RELIABLE" in answer.message


BAD_BOXES = {
    "outside": ((WIDTH + 10.0, 10.0, 16.0, 12.0), {}, "inside"),
    "empty": ((10.0, 10.0, 0.0, 12.0), {}, "at least"),
    "negative": ((10.0, 10.0, 16.0, -12.0), {}, "at least"),
    "not a number": ((10.0, math.nan, 16.0, 12.0), {}, "finite"),
    "infinite": ((10.0, 10.0, math.inf, 12.0), {}, "finite"),
    "pixels said to be fractions": (BOX, {"normalized": True}, "normalized"),
    "fractions said to be pixels": ((0.2, 0.2, 0.5, 0.5), {}, "at least"),
    "not held": (BOX, {"stamp": Time(sec=5)}, "held"),
}


@pytest.mark.parametrize(("box", "more", "word"), BAD_BOXES.values(), ids=BAD_BOXES.keys())
def test_invalid_request_is_refused_and_the_old_target_stays(box, more, word):
    tracker = ScriptedTracker()
    with running(tracker) as client:
        start_target(client, target_id="old")
        answer = client.init(box, target_id="new", **more)
        assert not answer.success and word in answer.message and answer.stamp == Time()
        state = client.show(numbered_image(2))
        assert state.id == "old" and state.state == State.TRACKING
        assert tracker.inits == [(1, BOX, "old")] and tracker.dropped == []


@pytest.mark.parametrize("failure", [ValueError("box is too small: 2 px"), RuntimeError("out of memory")], ids=repr)
def test_refusal_of_the_tracker_is_returned_to_the_client(failure):
    tracker = ScriptedTracker()
    with running(tracker) as client:
        start_target(client, target_id="old")
        tracker.failure = failure
        answer = client.init(target_id="new")
        assert not answer.success and str(failure) in answer.message
        tracker.failure = None
        assert client.show(numbered_image(2)).id == "old"


def test_too_long_name_is_refused_and_shortened_in_the_text():
    with running(ScriptedTracker()) as client:
        start_target(client, target_id="x" * MAX_NAME)
        for answer in (client.init(target_id="y" * 70_000), client.drop("y" * 70_000)):
            assert not answer.success and "yyy..." in answer.message and len(answer.message) < 500
        assert str(MAX_NAME) in client.init(target_id="y" * (MAX_NAME + 1)).message
        assert client.show(numbered_image(2)).id == "x" * MAX_NAME


def test_a_rotated_box_is_refused():
    with running(ScriptedTracker()) as client:
        client.show(numbered_image(1))
        request = InitTarget.Request()
        request.bbox.center.theta, request.bbox.size_x, request.bbox.size_y = 0.3, 10.0, 10.0
        answer = client._call(client._init, request)
        assert not answer.success and "theta" in answer.message


def test_a_normalized_box_is_in_fractions_of_the_image():
    tracker = ScriptedTracker()
    with running(tracker) as client:
        client.show(numbered_image(1))
        assert client.init((0.25, 0.5, 0.5, 0.25), normalized=True).success
        assert tracker.inits[0][1] == pytest.approx((0.25 * WIDTH, 0.5 * HEIGHT, 0.5 * WIDTH, 0.25 * HEIGHT))


def test_target_of_a_known_name_starts_over():
    tracker = ScriptedTracker()
    with running(tracker) as client:
        start_target(client, target_id="ball")
        other = (4.0, 4.0, 10.0, 10.0)
        answer = client.init(other, target_id="ball")
        assert answer.success and "'ball'" in answer.message and "started over" in answer.message
        assert client.show(numbered_image(2)).bbox.size_x == 10.0 and tracker.dropped == []
        assert tracker.inits == [(1, BOX, "ball"), (1, other, "ball")]


def test_a_dropped_target_is_gone_at_once_for_late_joiners_too():
    tracker = ScriptedTracker()
    with running(tracker) as client:
        start_target(client, target_id="ball")
        unknown = client.drop("cat")
        assert not unknown.success and "'cat'" in unknown.message and "'ball'" in unknown.message
        assert client.drop("ball").success
        gone = wait_until(lambda: client.states[-1].state == State.UNINITIALIZED and client.states[-1], "state")
        assert gone.header == numbered_image(1).header and is_zero(gone.bbox) and gone.id == "ball"
        assert tracker.dropped == ["ball"]
        late: list[TargetState] = []
        client.node.create_subscription(TargetState, "target", late.append, LATCHED)
        wait_until(lambda: late and late[-1].state == State.UNINITIALIZED, "state")
        assert client.drop().success, "dropping all succeeds without a target too"
        assert client.show(numbered_image(2)).state == State.UNINITIALIZED and tracker.updates == []


def test_disabled_node_computes_nothing_and_resumes():
    tracker = ScriptedTracker()
    with running(tracker) as client:
        start_target(client, target_id="ball")
        assert client.set_enabled(False).success
        wait_until(lambda: client.states[-1].state == State.LOST, "LOST without waiting for an image")
        state = client.show(numbered_image(2))
        assert state.state == State.LOST and state.id == "ball" and is_zero(state.bbox) and state.frames_since_seen == 1
        assert client.detections_of(numbered_image(2)).detections == [] and tracker.updates == []
        refused = client.init()
        assert not refused.success and "set_enabled" in refused.message
        assert client.set_enabled(True).success
        assert client.show(numbered_image(3)).state == State.TRACKING and tracker.updates == [3]
