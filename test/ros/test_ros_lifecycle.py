# SPDX-License-Identifier: Apache-2.0
"""Lifecycle of the tracker node: transitions, the resources they hold and release, and errors reported on failure."""

from __future__ import annotations

import gc
import threading
import time
import weakref

import pytest
from harness.ros_harness import (
    Client,
    Parameter,
    ScriptedTracker,
    State,
    context,
    numbered_image,
    running,
    spinning,
    tracker_node,
    wait_until,
)

from dimp_ros.node.tracker_loader import TrackerUnavailable
from dimp_ros.srv import DropTarget

pytest.importorskip("rclpy")
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState, GetState
from rclpy.lifecycle import TransitionCallbackReturn
from rclpy.publisher import Publisher
from rclpy.qos import HistoryPolicy, QoSProfile

SUCCESS = TransitionCallbackReturn.SUCCESS


def image_subscriptions(node) -> int:
    return sum(subscription.topic_name == "/image" for subscription in node.subscriptions)


def test_twenty_round_trips_leave_nothing_behind():
    tracker = ScriptedTracker()
    with context():
        node = tracker_node(tracker, autostart=False)
        client = Client()
        with spinning(node, client.node):
            counts = []
            for number in range(1, 21):
                assert node.trigger_configure() == SUCCESS and node.trigger_activate() == SUCCESS
                client.wait_for(node)
                client.show(numbered_image(2 * number))
                answer = client.init(target_id=f"round {number}")
                assert answer.success, answer.message
                assert client.show(numbered_image(2 * number + 1)).id == f"round {number}"
                assert node.trigger_deactivate() == SUCCESS
                assert image_subscriptions(node) == 0
                wait_until(lambda: client.states[-1].state == State.UNINITIALIZED, "good-bye")
                assert node.trigger_cleanup() == SUCCESS
                counts.append((threading.active_count(), len(list(node.publishers)), len(list(node.services))))
                client.states.clear()
            assert not [thread for thread in threading.enumerate() if thread.name == "tracker_worker"]
            assert counts[-1] == counts[5], "the executor's own threads come up in the first rounds only"
            assert [number for number, _, _ in tracker.inits] == [2 * number for number in range(1, 21)]


@pytest.mark.parametrize("end", ["close", "trigger_deactivate", "trigger_shutdown"])
def test_the_last_messages_are_waited_for_until_they_are_received(end, monkeypatch):
    waited = []
    monkeypatch.setattr(Publisher, "wait_for_all_acked", lambda one, timeout: waited.append(one.topic_name))
    with context():
        node = tracker_node(ScriptedTracker())
        client = Client()
        with spinning(node, client.node):
            client.wait_for(node)
            client.show(numbered_image(1))
            getattr(node, end)()
            assert set(waited) == {"/targets", "/target", "/detections"}
            wait_until(lambda: client.states[-1].state == State.UNINITIALIZED, "the last message")


@pytest.mark.parametrize("before", [(), ("configure",), ("configure", "activate")])
def test_shut_down_node_says_that_it_must_be_started_again(before):
    with context():
        node = tracker_node(ScriptedTracker(), autostart=False)
        client = Client()
        with spinning(node, client.node):
            for one in (*before, "shutdown"):
                getattr(node, f"trigger_{one}")()
            for answer in (client.init(), client.drop()):
                assert not answer.success and "start it again" in answer.message


def test_round_trips_during_a_stream_keep_the_executor():
    with context():
        node = tracker_node(ScriptedTracker(), autostart=False)
        client = Client()
        with spinning(node, client.node):
            over = threading.Event()

            def stream() -> None:
                while not over.wait(0.002):
                    client.images.publish(numbered_image(1))

            camera = threading.Thread(target=stream)
            camera.start()
            try:
                for _ in range(80):
                    assert node.trigger_configure() == SUCCESS and node.trigger_activate() == SUCCESS
                    time.sleep(0.02)
                    assert node.trigger_deactivate() == SUCCESS and node.trigger_cleanup() == SUCCESS
                    client.states.clear()
            finally:
                over.set()
                camera.join()
            assert "not active" in client.init().message


def test_deactivation_releases_targets_and_cleanup_the_model():
    trackers = []

    def factory(_parameters):
        tracker = ScriptedTracker()
        trackers.append(weakref.ref(tracker))
        return tracker

    with context():
        node = tracker_node(factory, autostart=False)
        client = Client()
        with spinning(node, client.node):
            assert node.trigger_configure() == SUCCESS and node.trigger_activate() == SUCCESS
            client.wait_for(node)
            client.show(numbered_image(1))
            assert client.init(target_id="ball").success
            assert node.trigger_deactivate() == SUCCESS and node.trigger_activate() == SUCCESS
            client.wait_for(node)
            refused = client.init(stamp=numbered_image(1).header.stamp)
            assert not refused.success and "no image" in refused.message
            assert client.show(numbered_image(2)).state == State.UNINITIALIZED
            assert trackers[0]() is not None and len(trackers) == 1
            assert node.trigger_deactivate() == SUCCESS and node.trigger_cleanup() == SUCCESS
            # rclpy's executor holds on to its last callback until there is another: the node's own timer, here
            wait_until(lambda: gc.collect() >= 0 and trackers[0]() is None, "release of the tracker")


@pytest.mark.parametrize("way", ["deactivate", "cleanup", "served during the deactivation"])
def test_a_pause_outlasts_a_deactivation(way):
    with context():
        node = tracker_node(ScriptedTracker(), autostart=False)
        client = Client()
        with spinning(node, client.node):
            assert node.trigger_configure() == SUCCESS and node.trigger_activate() == SUCCESS
            client.wait_for(node)
            assert node._work is not None
            requests = node._work.requests
            if not way.startswith("served"):
                assert client.set_enabled(False).success
            assert node.trigger_deactivate() == SUCCESS
            if way.startswith("served"):  # the service's thread had them already
                requests.set_enabled(False)
            if way == "cleanup":
                assert node.trigger_cleanup() == SUCCESS and node.trigger_configure() == SUCCESS
            assert node.trigger_activate() == SUCCESS
            client.wait_for(node)
            client.show(numbered_image(1))
            assert "disabled" in client.init(target_id="ball").message
            assert client.set_enabled(True).success
            assert client.init(target_id="ball").success


def test_the_life_cycle_services_drive_the_node():
    with context():
        node = tracker_node(ScriptedTracker(), autostart=False)
        client = Client()
        with spinning(node, client.node):
            change = client.node.create_client(ChangeState, "tracker_node/change_state")
            state = client.node.create_client(GetState, "tracker_node/get_state")
            for transition, label in (
                (Transition.TRANSITION_CONFIGURE, "inactive"),
                (Transition.TRANSITION_ACTIVATE, "active"),
                (Transition.TRANSITION_DEACTIVATE, "inactive"),
                (Transition.TRANSITION_CLEANUP, "unconfigured"),
                (Transition.TRANSITION_UNCONFIGURED_SHUTDOWN, "finalized"),
            ):
                request = ChangeState.Request(transition=Transition(id=transition))
                assert client._call(change, request).success
                assert client._call(state, GetState.Request()).current_state.label == label


def test_missing_weights_leave_the_node_unconfigured(capfd):
    remedy = "weights are missing: copy them to /somewhere"

    def factory(_parameters):
        raise TrackerUnavailable(remedy)

    with context():
        node = tracker_node(factory)
        client = Client()
        with spinning(node, client.node):
            wait_until(lambda: remedy in node.status_error, "the failure of configure")
            answer = client.init()
            assert not answer.success and remedy in answer.message
            assert remedy in client.drop().message and remedy in client.set_enabled(True).message
    errors = [line for line in capfd.readouterr().err.splitlines() if "[ERROR]" in line]
    assert len(errors) == 1 and remedy in errors[0]


def test_wrong_tracker_config_is_refused_and_can_be_corrected(tmp_path):
    path = tmp_path / "settings.yaml"
    path.write_text("best_boxes: 200")
    with context():
        node = tracker_node(ScriptedTracker(), autostart=False, tracker_config=str(path))
        with spinning(node):
            assert node.trigger_configure() == TransitionCallbackReturn.FAILURE
            assert str(path) in node.status_error and "best_boxes is 200" in node.status_error
            path.write_text("best_boxes: 2")
            assert node.trigger_configure() == TransitionCallbackReturn.SUCCESS


def test_unexpected_error_in_a_transition_is_logged(capfd):
    def factory(_parameters):
        return {}["no such key"]

    with context():
        node = tracker_node(factory, autostart=False)
        with spinning(node):
            assert node.trigger_configure() == TransitionCallbackReturn.FAILURE
            assert "no such key" in node.status_error
    assert "Traceback" in (errors := capfd.readouterr().err) and "no such key" in errors


def test_requests_are_answered_while_the_model_is_being_loaded():
    loaded = threading.Event()

    def factory(_parameters):
        loaded.wait()
        return ScriptedTracker()

    with context():
        node = tracker_node(factory)
        client = Client()
        with spinning(node, client.node):
            answer = wait_until(lambda: "loaded" in (a := client.init()).message and a, "word of the loading")
            assert not answer.success and "not active" in answer.message
            loaded.set()
            client.wait_for(node)


def test_deactivation_waits_for_inference_and_drops_its_result():
    tracker = ScriptedTracker()
    with context():
        node = tracker_node(tracker)
        client = Client()
        with spinning(node, client.node):
            client.wait_for(node)
            client.show(numbered_image(1))
            assert client.init().success
            tracker.seconds = 0.7
            client.images.publish(numbered_image(2))
            assert tracker.busy.wait(10)
            assert node.trigger_deactivate() == SUCCESS
            assert tracker.updates == [2]
            wait_until(lambda: client.states[-1].state == State.UNINITIALIZED, "good-bye")
            time.sleep(0.2)
            assert client.states[-1].state == State.UNINITIALIZED
            assert not [state for state in client.states if state.header == numbered_image(2).header and state.id]


def test_hanging_tracker_is_abandoned_at_deactivation(monkeypatch, capfd):
    monkeypatch.setattr("dimp_ros.node.tracker_node.DEACTIVATE_SECONDS", 0.2)
    trackers = [ScriptedTracker(), ScriptedTracker()]
    waiting = iter(trackers)
    with context():
        node = tracker_node(lambda _parameters: next(waiting), autostart=False)
        client = Client()
        with spinning(node, client.node):
            assert node.trigger_configure() == SUCCESS and node.trigger_activate() == SUCCESS
            client.wait_for(node)
            client.show(numbered_image(1))
            assert client.init(target_id="old").success
            trackers[0].seconds = 2.0
            client.images.publish(numbered_image(2))
            assert trackers[0].busy.wait(10)
            assert node.trigger_deactivate() == TransitionCallbackReturn.ERROR
            assert "given up" in client.init().message
            assert node.trigger_configure() == SUCCESS and node.trigger_activate() == SUCCESS
            client.wait_for(node)
            assert client.show(numbered_image(3)).state == State.UNINITIALIZED
            assert client.init(target_id="new").success and len(trackers[1].inits) == 1
            wait_until(lambda: trackers[0].updates, "return of the tracker that was given up")
            assert client.show(numbered_image(4)).id == "new"
            assert not [s for s in client.states if s.id == "old" and s.header == numbered_image(2).header]
    assert "given up" in capfd.readouterr().err


def test_parameters_have_descriptors_and_are_fixed_if_configured():
    with context():
        node = tracker_node(ScriptedTracker(), autostart=False, history_seconds=3)
        assert node.get_parameter("history_seconds").value == 3
        descriptor = node.describe_parameter("history_seconds")
        assert descriptor.description and descriptor.floating_point_range[0].to_value == 60.0
        (result,) = node.set_parameters([Parameter("history_seconds", value=4)])
        assert result.successful, "a whole number is a fine number of seconds"
        (result,) = node.set_parameters([Parameter("history_seconds", value=61.0)])
        assert not result.successful
        (result,) = node.set_parameters([Parameter("autostart", value=True)])
        assert not result.successful
        assert node.trigger_configure() == SUCCESS
        (result,) = node.set_parameters([Parameter("model", value="dimp50")])
        assert not result.successful and "clean it up" in result.reason
        node.trigger_cleanup()
        (result,) = node.set_parameters([Parameter("model", value="dimp50")])
        assert result.successful
        node.destroy_node()


def test_a_hundred_requests_at_once_are_all_answered():
    with running(ScriptedTracker()) as client:
        assert client.drop().success
        service = client.node.create_client(
            DropTarget, "tracker_node/drop_target", qos_profile=QoSProfile(depth=200, history=HistoryPolicy.KEEP_LAST)
        )
        assert service.wait_for_service(timeout_sec=10)
        futures = [service.call_async(DropTarget.Request(id=f"{number}" * 400)) for number in range(100)]
        wait_until(lambda: all(future.done() for future in futures), "all answers")
        answers = [future.result().message for future in futures]
        assert all("is unknown" in message and len(message) <= 1000 for message in answers)
