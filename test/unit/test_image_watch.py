# SPDX-License-Identifier: Apache-2.0
"""Problems are logged once when they begin and once when they end, with the cause found in the graph."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("rclpy", reason="rclpy is not installed: ROS tests need a ROS home")
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CompressedImage, Image

from dimp_ros.ros_utils.image_topic_monitor import ConditionLog, Notice, explain_silence, publisher_trouble

ASKED = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)


def graph(*publishers: Any) -> Any:
    """Return what stands in for a node that sees publishers on every topic, and no other topics."""
    return SimpleNamespace(get_publishers_info_by_topic=lambda _topic: list(publishers), get_topic_names_and_types=list)


def camera_graph(topics: dict[str, str], own: tuple[str, ...] = ()) -> Any:
    """Return a node that sees image topics, by name and type; it publishes those in ``own`` itself."""
    others = {
        name: [] if kind == "Unpublished" else [publisher("tracker_node" if name in own else "camera", kind)]
        for name, kind in topics.items()
    }
    return SimpleNamespace(
        get_publishers_info_by_topic=lambda topic: others.get(topic, []),
        get_topic_names_and_types=lambda: [(name, [f"sensor_msgs/msg/{kind}"]) for name, kind in topics.items()],
        get_name=lambda: "tracker_node",
        get_namespace=lambda: "/",
    )


def publisher(name: str = "camera", kind: str = "Image", **qos: Any) -> Any:
    profile = QoSProfile(depth=1, **{"reliability": ReliabilityPolicy.RELIABLE, **qos})
    return SimpleNamespace(
        node_name=name, node_namespace="/", topic_type=f"sensor_msgs/msg/{kind}", qos_profile=profile
    )


def test_condition_is_logged_at_begin_and_end_only():
    now = 0.0
    watchdog = ConditionLog(hold=0.0, clock=lambda: now)
    assert watchdog.check({"stamps": "", "slowness": ""}) == []
    assert watchdog.check({"stamps": "7 s old", "slowness": ""}) == [Notice("7 s old")]
    now = 2.0
    assert watchdog.check({"stamps": "8 s old", "slowness": "5 of 30"}) == [Notice("5 of 30")]
    now = 3.0
    assert watchdog.check({"stamps": "", "slowness": "6 of 30"}) == [Notice("7 s old", 2.0)]
    assert watchdog.check({}) == [Notice("5 of 30", 1.0)]
    assert watchdog.check({}) == []


def test_end_of_a_condition_is_logged_with_its_duration():
    assert Notice("7 s old").line == "7 s old"
    assert Notice("7 s old", 37.4).line == "OK again after 37 s; what is over: 7 s old"
    assert Notice("7 s old", 0.0).line.startswith("OK again after 1 s")


def test_intermittent_problem_is_logged_once():
    now = 0.0
    watchdog = ConditionLog(hold=5.0, clock=lambda: now)
    said = []
    for second in range(60):
        now = float(second)
        said += watchdog.check({"slowness": "slow" if second < 40 and second % 3 == 0 else ""})
        assert len(said) <= 1 or second >= 44
    assert said == [Notice("slow"), Notice("slow", 39.0)]


def test_no_publisher_gives_the_remedy():
    text = explain_silence(graph(), "/image", ASKED, Image)
    assert "nobody publishes on /image" in text and "image:=" in text


def test_no_publisher_lists_the_existing_image_topics():
    topics = {"/front/image_raw": "Image", "/front/image_raw/compressed": "CompressedImage", "/points": "PointCloud2"}
    text = explain_silence(camera_graph(topics), "/image", ASKED, Image)
    assert "/front/image_raw (raw), /front/image_raw (compressed)" in text and "/points" not in text
    assert "-r image:=/front/image_raw, a launch file with image:=/front/image_raw" in text


def test_compressed_images_are_suggested_with_their_transport():
    topics = {"/rear/image/compressed": "CompressedImage", "/own/debug_image": "Image", "/quiet": "Unpublished"}
    text = explain_silence(camera_graph(topics, own=("/own/debug_image",)), "/image", ASKED, Image)
    assert "-r image:=/rear/image -p image_transport:=compressed" in text
    assert "image:=/rear/image image_transport:=compressed" in text
    assert "debug_image" not in text and "/quiet" not in text


def test_most_similar_of_many_image_topics_is_suggested():
    topics = {f"/camera{n}/color": "Image" for n in range(20)} | {"/camera/image_raw": "Image"}
    text = explain_silence(camera_graph(topics), "/camera/image", ASKED, Image)
    assert "and 13 more" in text and "-r image:=/camera/image_raw" in text


@pytest.mark.parametrize(
    ("offered", "asked", "kind", "word"),
    [
        (publisher(kind="CompressedImage"), ASKED, Image, "image_transport"),
        (publisher(), ASKED, CompressedImage, "sensor_msgs/msg/CompressedImage"),
        (publisher(reliability=ReliabilityPolicy.BEST_EFFORT), QoSProfile(depth=1), Image, "RELIABLE is asked"),
        (
            publisher(durability=DurabilityPolicy.VOLATILE),
            QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL),
            Image,
            "TRANSIENT_LOCAL is asked",
        ),
    ],
)
def test_publisher_that_does_not_fit_is_explained(offered, asked, kind, word):
    assert word in explain_silence(graph(offered), "/image", asked, kind)
    text = publisher_trouble(graph(offered), "/image", asked, kind)
    assert word in text and "/camera" in text


def test_one_matching_publisher_is_fine_and_two_are_reported():
    assert publisher_trouble(graph(), "/image", ASKED, Image) == ""
    assert publisher_trouble(graph(publisher()), "/image", ASKED, Image) == ""
    text = publisher_trouble(graph(publisher("front"), publisher("rear")), "/image", ASKED, Image)
    assert "2 publishers" in text and "/front" in text and "/rear" in text
    assert "is the camera running" in explain_silence(graph(publisher()), "/image", ASKED, Image)
