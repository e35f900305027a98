# SPDX-License-Identifier: Apache-2.0
"""Operation of the node over real DDS: diagnostics, log lines, live parameters, QoS overrides."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from harness.ros_harness import (
    RELIABLE,
    Client,
    Image,
    Parameter,
    ScriptedTracker,
    context,
    numbered_image,
    running,
    spinning,
    start_target,
    tracker_node,
    wait_until,
)

from dimp_ros.tracker.config import TrackerConfig

pytest.importorskip("rclpy")
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from rcl_interfaces.srv import SetParametersAtomically
from rclpy.lifecycle import TransitionCallbackReturn

QUICK = {"diagnostics_period": 0.1}
DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "operation.md"


@contextmanager
def listening(client: Client) -> Iterator[Callable[[str], DiagnosticStatus | None]]:
    """Subscribe to /diagnostics; the function returns the last status of a kind."""
    last: dict[str, DiagnosticStatus] = {}

    def receive(message: DiagnosticArray) -> None:
        last.update({status.name: status for status in message.status})

    subscription = client.node.create_subscription(DiagnosticArray, "/diagnostics", receive, RELIABLE)
    yield lambda kind: last.get(f"tracker_node: {kind}")
    client.node.destroy_subscription(subscription)


def wait_for_level(status: Callable[[str], DiagnosticStatus | None], kind: str, level: bytes) -> DiagnosticStatus:
    def found() -> DiagnosticStatus | None:
        one = status(kind)
        return one if one is not None and one.level == level else None

    return wait_until(found, f"level {level!r} of {kind}")


class ConfiguredTracker(ScriptedTracker):
    """A tracker with a script that has a configuration, and notes with which one each image was worked on."""

    def __init__(self) -> None:
        super().__init__()
        self.config = TrackerConfig(search_scale=4.0)
        self.used: list[TrackerConfig] = []
        self.threads: set[str] = set()

    def update_all(self, *arguments: Any) -> dict[str, Any]:
        """Note the configuration."""
        self.used.append(self.config)
        self.threads.add(threading.current_thread().name)
        return super().update_all(*arguments)


def set_parameters(client: Client, **values: Any) -> Any:
    """Set parameters in one batch through the service; a double underscore in a name stands for a dot."""
    service = client.node.create_client(SetParametersAtomically, "tracker_node/set_parameters_atomically")
    wanted = [Parameter(name.replace("__", "."), value=value).to_parameter_msg() for name, value in values.items()]
    return client._call(service, SetParametersAtomically.Request(parameters=wanted)).result


def test_diagnostics_say_what_is_missing_and_then_how_it_goes():
    with running(ScriptedTracker(), **QUICK) as client, listening(client) as status:
        assert "first image" in wait_for_level(status, "input", DiagnosticStatus.WARN).message
        start_target(client, target_id="ball")
        clock = client.node.get_clock()

        def shown() -> bool:
            image = numbered_image(2)
            image.header.stamp = clock.now().to_msg()
            client.images.publish(image)
            return status("input").level == status("tracking").level == status("node").level == DiagnosticStatus.OK

        # the first image, whose stamp is of 1970, counts for as long as the window is
        wait_until(shown, "a node that is well")
        values = {value.key: value.value for value in status("tracking").values}
        assert values["target ball"].startswith("TRACKING") and float(values["age median (ms)"]) < 1000


def test_wrong_stamps_are_logged_once_and_in_diagnostics(capfd):
    with running(ScriptedTracker(), **QUICK) as client, listening(client) as status:
        for number in range(5):  # stamps of 1970
            client.show(numbered_image(number))
        wait_until(lambda: "use_sim_time" in (status("input") or DiagnosticStatus()).message, "word of the stamps")
        time.sleep(0.5)
    said = [line for line in capfd.readouterr().err.splitlines() if "stamps are of a simulation" in line]
    assert len(said) == 1 and "[WARN]" in said[0]


def test_two_cameras_on_one_topic_are_reported():
    with running(ScriptedTracker(), **QUICK) as client, listening(client) as status:
        second = client.node.create_publisher(Image, "image", RELIABLE)
        image = numbered_image(1)
        image.header.stamp = client.node.get_clock().now().to_msg()
        second.publish(image)
        client.images.publish(image)
        message = wait_until(lambda: (s := status("input")) and "2 publishers" in s.message and s.message, "the two")
        assert "remap" in message


def test_live_change_reaches_the_tracker_between_images():
    tracker = ConfiguredTracker()
    with running(tracker) as client:
        start_target(client)
        client.show(numbered_image(2))
        refused = set_parameters(client, tracker__not_found_threshold=0.4, tracker__find_frames=0)
        assert not refused.successful and "find_frames" in refused.reason
        refused = set_parameters(client, tracker__not_found_threshold=0.4, tracker__crop_size=320)
        assert not refused.successful and "clean it up" in refused.reason
        client.show(numbered_image(3))
        accepted = set_parameters(client, tracker__not_found_threshold=0.4, tracker__refine_steps=1)
        assert accepted.successful, accepted.reason
        client.show(numbered_image(4))
        before, after = TrackerConfig(search_scale=4.0), tracker.used[-1]
        assert tracker.used[:2] == [before, before]
        assert after == TrackerConfig(search_scale=4.0, not_found_threshold=0.4, refine_steps=1)
        assert tracker.threads == {"tracker_worker"}


def test_changes_amid_a_stream_stop_nothing():
    tracker = ConfiguredTracker()
    with running(tracker) as client:
        start_target(client)
        for number in range(2, 40):
            client.images.publish(numbered_image(number))
            assert set_parameters(client, tracker__seed=number, give_up_after=float(number)).successful
        assert client.show(numbered_image(50)).id and tracker.config.seed == 39


def test_wrong_start_value_leaves_the_node_unconfigured(capfd):
    with context():
        node = tracker_node(ScriptedTracker(), **{"max_targets": 1000, **QUICK})
        client = Client()
        with spinning(node, client.node), listening(client) as status:
            answer = wait_until(lambda: "max_targets" in (a := client.init()).message and a, "word of the value")
            assert not answer.success and "1 .. 64" in answer.message
            assert "max_targets is 1000" in wait_for_level(status, "node", DiagnosticStatus.ERROR).message
            assert set_parameters(client, max_targets=10).successful
            assert node.trigger_configure() == TransitionCallbackReturn.SUCCESS
    errors = [line for line in capfd.readouterr().err.splitlines() if "[ERROR]" in line]
    assert len(errors) == 1 and "max_targets is 1000" in errors[0]


def test_every_topic_lets_its_quality_of_service_be_overridden():
    override = {"qos_overrides./image.subscription.reliability": "reliable"}
    with context():
        node = tracker_node(ScriptedTracker(), autostart=False, use_depth=True, **override)
        assert node.trigger_configure() == node.trigger_activate() == TransitionCallbackReturn.SUCCESS
        names = node.list_parameters(["qos_overrides"], 0).names
        endpoints = {
            (endpoint.topic_name, kind)
            for kind, all_of_them in (("publisher", node.publishers), ("subscription", node.subscriptions))
            for endpoint in all_of_them
            if not endpoint.topic_name.startswith(("/parameter_events", "/rosout", "/clock", "/tracker_node/"))
        }
        assert {
            ("/image", "subscription"),
            ("/init_detections", "subscription"),
            ("/depth", "subscription"),
        } < endpoints
        assert {("/diagnostics", "publisher"), ("/targets", "publisher"), ("/target", "publisher")} < endpoints
        for topic, kind in endpoints:
            assert f"qos_overrides.{topic}.{kind}.reliability" in names, topic
        image = next(subscription for subscription in node.subscriptions if subscription.topic_name == "/image")
        assert image.qos_profile.reliability.name == "RELIABLE"
        node.trigger_deactivate()
        node.destroy_node()


def documented_qualities() -> dict[str, tuple[str, ...]]:
    """Return direction, reliability, durability and depth of each topic from the table of docs/operation.md."""
    text = DOCUMENT.read_text(encoding="utf-8")
    rows = re.findall(r"^\| (`.+) \| (in|out) \| (.+?) \| (.+?) \| (.+?) \|$", text, re.MULTILINE)
    names = {row[0]: re.findall(r"`([\w/]+)`", row[0].partition(" (")[0]) for row in rows}
    return {name: row[1:] for row in rows for name in names[row[0]]}


def test_documented_qos_is_that_of_the_topics():
    with context():
        node = tracker_node(ScriptedTracker(), autostart=False, use_depth=True, max_targets=3)
        assert node.trigger_configure() == node.trigger_activate() == TransitionCallbackReturn.SUCCESS
        found = {}
        for kind, endpoints in (("out", node.publishers), ("in", node.subscriptions)):
            for endpoint in endpoints:
                qos, name = endpoint.qos_profile, endpoint.topic_name
                words = (qos.reliability.name, qos.durability.name)
                depth = "`max_targets`" if qos.depth == 3 else str(qos.depth)
                found[name] = (kind, *(word.lower().replace("_", " ") for word in words), depth)
        documented = documented_qualities()
        ours = {name: said for name, said in documented.items() if name != "image/compressed"}
        assert len(ours) == 11
        assert {name: found["/" + name.lstrip("/")] for name in ours} == ours
        node.trigger_deactivate()
        node.destroy_node()


def test_texts_quoted_in_the_docs_are_in_the_code():
    """Every quoted message is compared, piece by piece, with the sources."""
    package = DOCUMENT.parents[1] / "dimp_ros"
    paths = [path for folder in ("node", "ros_utils") for path in sorted((package / folder).rglob("*.py"))]
    source = " ".join(path.read_text(encoding="utf-8") for path in paths)
    source = re.sub(r'"\s+f?"', "", source)  # texts that are written over several lines
    table = DOCUMENT.read_text(encoding="utf-8").partition("## Log messages")[2]
    quoted = re.findall(r"^\| `([^`]+)`", table, re.MULTILINE)
    assert len(quoted) > 12
    for message in quoted:
        for piece in re.split(r"\.\.\.|^\d+", message):
            assert piece.strip(" :") in source, message
