# SPDX-License-Identifier: Apache-2.0
"""Several targets, requests about past images, targets from a detector, and dropped targets."""

from __future__ import annotations

import threading
import time
from itertools import pairwise

import pytest
from harness.ros_harness import (
    BOX,
    RELIABLE,
    Client,
    ScriptedTracker,
    State,
    TargetState,
    Time,
    is_zero,
    numbered_image,
    running,
    stamp_of,
    start_target,
    wait_until,
)
from vision_msgs.msg import Detection2D, Detection2DArray, ObjectHypothesisWithPose

from dimp_ros.geometry.box import Box

OTHER = (4.0, 4.0, 10.0, 10.0)


def ends_of(client: Client, target_id: str) -> list[TargetState]:
    """Return the messages that say that a target is no more."""
    return [state for state in list(client.states) if state.state == State.UNINITIALIZED and state.id == target_id]


def test_targets_are_tracked_together_by_name():
    tracker = ScriptedTracker()
    with running(tracker) as client:
        start_target(client, target_id="cup")
        assert client.init(OTHER, target_id="ball").success
        client.show(numbered_image(2))
        states = client.targets_of(numbered_image(2))
        assert list(states) == ["cup", "ball"]
        assert states["cup"].bbox.size_x == BOX[2] and states["ball"].bbox.size_x == OTHER[2]
        assert tracker.asked == [(2, "ball", "cup")], "one update for both"
        assert {one.id for one in client.detections_of(numbered_image(2)).detections} == {"cup", "ball"}

        def single() -> list[str]:
            return sorted(state.id for state in list(client.states) if state.header == numbered_image(2).header)

        wait_until(lambda: single() == ["ball", "cup"], "a message for each on `target`, too")


@pytest.mark.parametrize("dropped", ["cup", ""])
def test_a_start_that_was_asked_for_before_a_drop_is_refused_after_it(dropped):
    tracker = ScriptedTracker()
    with running(tracker) as client:
        start_target(client, target_id="cup")
        seen = wait_until(lambda: client.arrays[-1].drop_number, "a number")
        number = client.drop(dropped).drop_number
        assert number == seen + 1
        wait_until(lambda: client.arrays[-1].drop_number == number, "the new number")
        refused = client.init(target_id="cup", drop_number=seen)
        assert not refused.success and "dropped after this start was asked for" in refused.message
        assert client.init(target_id="ball", drop_number=seen).success == (dropped == "cup")
        assert client.init(target_id="", drop_number=seen).success == (dropped == "cup")
        assert client.init(target_id="cup", drop_number=number).success
        assert client.init(target_id="plate").success, "without a number none is checked"


class HeldTracker(ScriptedTracker):
    """Begins no target before it is released."""

    def __init__(self) -> None:
        super().__init__()
        self.begun, self.released = threading.Event(), threading.Event()

    def init(self, image, box, *, target_id="0"):
        """Start the target once that is allowed."""
        self.begun.set()
        self.released.wait(20.0)
        return super().init(image, box, target_id=target_id)


@pytest.mark.parametrize("second", ["cup", "ball"])
@pytest.mark.parametrize("dropped", ["", "the second"])
def test_a_drop_ends_a_start_that_waits_for_another_one(second, dropped):
    tracker = HeldTracker()
    with running(tracker) as client:
        client.show(numbered_image(1))
        first = client.init_later("cup")
        assert tracker.begun.wait(20.0)
        other = client.init_later(second)
        time.sleep(0.3)  # it is received, and nothing tells when
        assert client.drop(second if dropped else "").drop_number
        tracker.released.set()
        wait_until(lambda: first.done() and other.done(), "both answers")
        assert not other.result().success and "dropped" in other.result().message
        assert first.result().success == (bool(dropped) and second != "cup")
        assert client.init(target_id=second).success, "what is asked for afterwards is started"


def test_a_start_that_is_dropped_meanwhile_is_answered_so():
    tracker = HeldTracker()
    with running(tracker) as client:
        client.show(numbered_image(1))
        start = client.init_later("cup")
        assert tracker.begun.wait(20.0)
        other = client.drop("")
        tracker.released.set()
        answer = wait_until(lambda: start.done() and start.result(), "the answer")
        assert other.success and not answer.success and "dropped by another request" in answer.message
        assert "cup" not in client.targets_of(numbered_image(1))


def test_a_lost_target_does_not_take_the_others_box_away():
    tracker = ScriptedTracker()
    with running(tracker) as client:
        start_target(client, target_id="cup")
        assert client.init(OTHER, target_id="ball").success
        tracker.states["cup"] = State.LOST
        client.show(numbered_image(2))
        states = client.targets_of(numbered_image(2))
        assert states["cup"].state == State.LOST and is_zero(states["cup"].bbox)
        assert states["ball"].state == State.TRACKING
        assert [one.id for one in client.detections_of(numbered_image(2)).detections] == ["ball"]


def test_a_dropped_target_leaves_the_others_as_they_are():
    tracker = ScriptedTracker()
    with running(tracker) as client:
        start_target(client, target_id="cup")
        assert client.init(OTHER, target_id="ball").success
        client.show(numbered_image(2))
        assert client.drop("cup").success and tracker.dropped == ["cup"]
        gone = wait_until(
            lambda: [s for s in client.states if s.state == State.UNINITIALIZED and s.id == "cup"], "drop"
        )
        assert is_zero(gone[-1].bbox)
        wait_until(lambda: list(client.targets_of(numbered_image(2))) == ["ball"], "targets without the dropped one")
        assert client.targets_of(numbered_image(2))["ball"].state == State.TRACKING
        client.show(numbered_image(3))
        assert list(client.targets_of(numbered_image(3))) == ["ball"]
        assert client.drop().success and "'ball'" not in client.drop().message
        client.show(numbered_image(4))
        assert client.targets_of(numbered_image(4)) == {}


def test_new_target_is_published_when_another_is_dropped():
    tracker = ScriptedTracker()
    with running(tracker, history_seconds=60.0) as client:
        start_target(client, target_id="cup")
        client.show(numbered_image(2))
        tracker.seconds = 1.0
        client.images.publish(numbered_image(3))
        assert tracker.busy.wait(10)
        client.images.publish(numbered_image(4))
        giving = threading.Thread(target=client.init, args=(OTHER,), kwargs={"stamp": stamp_of(4), "target_id": "ball"})
        giving.start()
        time.sleep(0.2)  # both requests wait for the tracker then, one after the other, and before image 4
        assert client.drop("cup").success and tracker.busy.is_set()
        wait_until(lambda: ends_of(client, "cup"), "drop")
        giving.join()
        about = wait_until(
            lambda: [
                one
                for one in list(client.arrays)
                if one.header == numbered_image(3).header and [state.id for state in one.targets] == ["ball"]
            ],
            "targets after the drop, the new one among them",
        )
        assert about[0].targets[0].state == State.LOST, "it was not looked for in image 3"
        assert is_zero(about[0].targets[0].bbox)


def test_too_many_targets_are_refused_with_the_limit():
    with running(ScriptedTracker(), max_targets=2) as client:
        start_target(client, target_id="a")
        assert client.init(target_id="b").success
        refused = client.init(target_id="c")
        assert not refused.success and "max_targets is 2" in refused.message and "'a', 'b'" in refused.message
        assert client.init(OTHER, target_id="b").success, "one of a name that is followed starts over"
        assert client.drop("a").success
        assert wait_until(lambda: client.init(target_id="c").success, "a place for another")


def test_start_differs_for_each_start_also_under_a_known_name():
    tracker = ScriptedTracker()
    with running(tracker) as client:

        def shown(number):
            client.show(numbered_image(number))
            return client.targets_of(numbered_image(number))

        start_target(client, target_id="a")
        assert client.init(OTHER, target_id="b").success
        first = shown(2)
        tracker.state = State.LOST
        assert shown(3)["a"].start == first["a"].start, "it is lost, not another one"
        tracker.state = State.TRACKING
        assert not client.init((0.0, 0.0, -1.0, 5.0), target_id="a").success
        assert shown(4)["a"].start == first["a"].start, "a refused box changes nothing"
        assert client.init(OTHER, target_id="a").success
        again = shown(5)
        assert again["b"].start == first["b"].start
        assert client.drop("b").success
        assert client.init(OTHER, target_id="b").success
        last = shown(6)
        starts = first["a"].start, first["b"].start, again["a"].start, last["b"].start
        assert len(set(starts)) == 4 and 0 not in starts


def test_unnamed_targets_get_names_that_are_not_taken():
    with running(ScriptedTracker()) as client:
        start_target(client, target_id="1")
        assert client.init().success and client.init().success
        client.show(numbered_image(2))
        assert list(client.targets_of(numbered_image(2))) == ["1", "2", "3"]


def test_request_on_a_past_image_replays_the_images_since():
    tracker = ScriptedTracker()
    with running(tracker) as client:
        for number in range(1, 9):
            client.show(numbered_image(number))
        answer = client.init(stamp=stamp_of(4))
        assert answer.success and answer.stamp == stamp_of(4)
        assert answer.reached == stamp_of(8) and answer.frames_caught_up == 4 and "4 buffered images" in answer.message
        assert tracker.inits == [(4, BOX, "1")] and tracker.updates == [5, 6, 7, 8]
        caught_up = wait_until(lambda: [s for s in client.states if s.state == State.TRACKING], "the target's state")
        assert {state.header.stamp.nanosec for state in caught_up} == {stamp_of(8).nanosec}, "no word on old images"
        assert client.show(numbered_image(9)).state == State.TRACKING and tracker.updates[-1] == 9


def test_point_starts_the_object_there_in_the_image_of_its_stamp():
    tracker = ScriptedTracker()
    tracker.objects = [Box(*BOX)]
    with running(tracker) as client:
        for number in range(1, 6):
            client.show(numbered_image(number))
        x, y = BOX[0] + BOX[2] / 4, BOX[1] + BOX[3] / 4
        answer = client.init((x, y, 0.0, 0.0), stamp=stamp_of(3))
        assert answer.success and f"{BOX[2]:g} x {BOX[3]:g} px" in answer.message
        assert tracker.points == [(3, (x, y))] and tracker.inits == [(3, BOX, "1")]
        assert answer.stamp == stamp_of(3) and answer.frames_caught_up == 2
        assert (answer.bbox.size_x, answer.bbox.size_y) == BOX[2:]
        assert answer.bbox.center.position.x == BOX[0] + BOX[2] / 2
        size = numbered_image(1)
        share = (x / size.width, y / size.height, 0.0, 0.0)
        assert client.init(share, normalized=True).success and len(tracker.inits) == 2


def test_point_without_an_object_changes_no_target():
    tracker = ScriptedTracker()
    tracker.objects = [Box(*BOX)]
    with running(tracker) as client:
        start_target(client, target_id="cup")
        for point, words in (((1.0, 1.0), "no object stands out"), ((-1.0, 5.0), "outside the")):
            answer = client.init((*point, 0.0, 0.0), target_id="cup")
            assert not answer.success and words in answer.message and is_zero(answer.bbox)
        assert client.show(numbered_image(2)).state == State.TRACKING and len(tracker.inits) == 1


def test_replay_does_not_delay_the_stream():
    tracker = ScriptedTracker()
    with running(tracker, catch_up_images=2, history_seconds=60.0) as client:
        start_target(client, target_id="old")
        for number in range(2, 30):
            client.show(numbered_image(number))
        before = len(tracker.asked)
        tracker.seconds = 0.25
        client.images.publish(numbered_image(30))
        assert tracker.busy.wait(10)
        answer = client.init(OTHER, stamp=stamp_of(10), target_id="late")
        assert answer.success and answer.stamp == stamp_of(10)
        assert 0 < answer.frames_caught_up < 20 and "LOST until it has caught up" in answer.message
        assert stamp_of(10).nanosec + stamp_of(10).sec * 10**9 < answer.reached.sec * 10**9 + answer.reached.nanosec
        for number in range(31, 35):  # a live image is waiting all the time
            client.images.publish(numbered_image(number))
            client.state_of(numbered_image(number))
            states = client.targets_of(numbered_image(number))
            assert states["old"].state == State.TRACKING
            assert states["late"].state == State.LOST and is_zero(states["late"].bbox)
        asked = tracker.asked[before:]
        live = [index for index, (number, *names) in enumerate(asked) if number >= 30]
        steps = [after - at - 1 for at, after in pairwise(live[1:])]
        assert all(0 < count <= 2 + 1 for count in steps), "two for each live image, one more before the next came"
        tracker.seconds = 0.0
        caught_up = wait_until(
            lambda: [s for s in client.states if s.id == "late" and s.state == State.TRACKING], "the late target"
        )
        assert caught_up[0].header.stamp == stamp_of(34)


def test_a_late_target_can_be_dropped_on_its_way():
    tracker = ScriptedTracker()
    with running(tracker, history_seconds=60.0) as client:
        for number in range(1, 30):
            client.show(numbered_image(number))
        tracker.seconds = 0.2
        assert client.init(stamp=stamp_of(2), target_id="late").success
        assert client.drop("late").success
        wait_until(lambda: tracker.dropped == ["late"], "drop")
        tracker.seconds = 0.0
        client.show(numbered_image(30))
        assert client.targets_of(numbered_image(30)) == {} and not any(s.state == State.TRACKING for s in client.states)


def test_replay_skips_images_that_were_discarded():
    tracker = ScriptedTracker()
    with running(tracker, history_seconds=1.0) as client:
        start_target(client, target_id="old")
        for number in range(2, 11):
            client.show(numbered_image(number))
        tracker.seconds = 0.2
        client.images.publish(numbered_image(11))
        assert tracker.busy.wait(10)
        assert client.init(OTHER, stamp=stamp_of(2), target_id="late").success
        tracker.seconds = 0.0
        client.show(numbered_image(30))
        wait_until(lambda: client.targets_of(numbered_image(30))["late"].state == State.TRACKING, "the late target")
        seen = [number for number, *names in tracker.asked if names == ["late"]]
        assert seen == sorted(seen) and seen[-1] == 30, "in order, and up to the newest"


def test_lost_target_is_dropped_by_the_images_clock():
    tracker = ScriptedTracker()
    with running(tracker, give_up_after=1.0) as client:
        start_target(client, target_id="cup")
        tracker.state = State.LOST
        for number in range(2, 13):
            client.show(numbered_image(number))
        assert client.targets_of(numbered_image(12))["cup"].state == State.LOST, "1.0 s is not yet more than 1.0 s"
        assert client.targets_of(numbered_image(12))["cup"].seconds_since_seen == pytest.approx(1.1)
        client.show(numbered_image(13))
        wait_until(lambda: tracker.dropped == ["cup"], "the end of the search")
        gone = wait_until(
            lambda: [s for s in client.states if s.state == State.UNINITIALIZED and s.id == "cup"], "word"
        )
        assert gone[-1].header.stamp == stamp_of(13)


def test_a_pause_does_not_count_as_a_search_in_vain():
    tracker = ScriptedTracker()
    with running(tracker, give_up_after=1.0) as client:
        start_target(client, target_id="cup")
        tracker.state = State.LOST
        for number in range(2, 8):
            client.show(numbered_image(number))
        assert client.set_enabled(False).success
        client.show(numbered_image(100))
        assert client.set_enabled(True).success
        for number in range(101, 110):
            client.show(numbered_image(number))
        assert list(client.targets_of(numbered_image(109))) == ["cup"] and tracker.dropped == []


def test_backward_stamps_neither_lose_nor_age_the_target():
    tracker = ScriptedTracker()
    with running(tracker, give_up_after=5.0) as client:
        start_target(client, number=500, target_id="cup")
        tracker.state = State.LOST
        assert client.show(numbered_image(510)).seconds_since_seen == pytest.approx(1.0)
        assert client.show(numbered_image(3)).seconds_since_seen == pytest.approx(1.0), "as long ago as before"
        assert client.show(numbered_image(8)).seconds_since_seen == pytest.approx(1.5)
        tracker.state = State.TRACKING
        assert client.show(numbered_image(9)).state == State.TRACKING


def test_images_without_a_stamp_are_timed_as_they_come():
    tracker = ScriptedTracker()
    with running(tracker, give_up_after=0.5) as client:
        image = numbered_image(0)
        image.header.stamp = type(image.header.stamp)()
        client.show(image)
        assert client.init(target_id="cup").success
        tracker.state = State.LOST
        end = time.monotonic() + 10
        while not tracker.dropped and time.monotonic() < end:
            client.images.publish(image)
            time.sleep(0.05)
        assert tracker.dropped == ["cup"], "given up although all stamps are the same"


def detections(number: int, *found: tuple[str, float, tuple[float, float, float, float]]) -> Detection2DArray:
    """Return detections of image ``number``: class, score and box (x, y, w, h) of each."""
    array = Detection2DArray(header=numbered_image(number).header)
    for class_id, score, (x, y, w, h) in found:
        one = Detection2D(header=array.header, results=[ObjectHypothesisWithPose()])
        one.results[0].hypothesis.class_id, one.results[0].hypothesis.score = class_id, score
        one.bbox.center.position.x, one.bbox.center.position.y = x + w / 2, y + h / 2
        one.bbox.size_x, one.bbox.size_y = w, h
        array.detections.append(one)
    return array


def test_detection_starts_a_target_again_only_when_lost_for_a_while():
    tracker = ScriptedTracker()
    settings = {"detector.classes": ["person"], "detector.min_score": 0.6, "detector.target_id": "who"}
    settings["detector.lost_seconds"] = 0.25
    with running(tracker, **settings) as client:
        publisher = client.node.create_publisher(Detection2DArray, "init_detections", RELIABLE)
        wait_until(lambda: publisher.get_subscription_count() > 0, "subscription of the detections")
        for number in (1, 2, 3):
            client.show(numbered_image(number))
        publisher.publish(detections(2, ("person", 0.5, BOX), ("dog", 0.9, BOX)))
        publisher.publish(detections(2, ("person", 0.7, OTHER), ("person", 0.8, BOX), ("dog", 0.9, OTHER)))
        wait_until(lambda: tracker.inits == [(2, BOX, "who")], "the person with the best score, in its own image")
        wait_until(lambda: any(s.id == "who" and s.state == State.TRACKING for s in client.states), "the target")
        publisher.publish(detections(3, ("person", 0.9, OTHER)))
        assert client.show(numbered_image(4)).state == State.TRACKING and len(tracker.inits) == 1
        tracker.state = State.LOST
        for number in (5, 6):
            assert client.show(numbered_image(number)).state == State.LOST
            publisher.publish(detections(number, ("person", 0.9, OTHER)))
        time.sleep(0.1)
        assert client.show(numbered_image(7)).state == State.LOST and len(tracker.inits) == 1
        tracker.state = State.TRACKING
        publisher.publish(detections(7, ("person", 0.9, OTHER)))
        wait_until(lambda: tracker.inits[1:] == [(7, OTHER, "who")], "a new start")


def test_unusable_detection_is_logged_and_skipped(capfd):
    tracker = ScriptedTracker()
    with running(tracker, **{"detector.min_score": 0.0}) as client:
        publisher = client.node.create_publisher(Detection2DArray, "init_detections", RELIABLE)
        wait_until(lambda: publisher.get_subscription_count() > 0, "subscription of the detections")
        start_target(client, target_id="cup")
        publisher.publish(detections(1, ("x", 0.9, (float("nan"), 0.0, 5.0, 5.0))))

        def told() -> bool:
            publisher.publish(detections(300, ("x", 0.9, BOX)))  # again: the node receives them best effort
            return "a detection is not taken" in capfd.readouterr().err

        wait_until(told, "the reason")
        assert client.show(numbered_image(2)).id == "cup" and len(tracker.inits) == 1


def test_stamps_beyond_their_range_are_returned_unchanged():
    images = [numbered_image(number) for number in range(1, 4)]
    for image, billions in zip(images, (1, 2, 3), strict=True):
        image.header.stamp = Time(sec=2**31 - 1, nanosec=billions * 10**9)
    with running(ScriptedTracker(), history_seconds=60.0) as client:
        for image in images:
            client.show(image)
        answer = client.init(stamp=images[0].header.stamp, target_id="cup")
        assert answer.success and answer.reached == images[2].header.stamp and answer.frames_caught_up == 2
        assert client.show(numbered_image(4)).state == State.TRACKING
