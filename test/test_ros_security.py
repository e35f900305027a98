# SPDX-License-Identifier: Apache-2.0
"""The example policy allows exactly what a running tracker node opens."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

from ros_harness import Client, Parameter, ScriptedTracker, TrackerNode, context, spinning, wait_until

POLICY = Path(__file__).parents[1] / "config" / "sros2" / "dimp_ros.policy.xml"
NAME = "node_of_the_policy"  # no other test has had one of this name: the graph may still remember it
ONLY_SINCE_JAZZY = {f"/{NAME}/get_type_description"}


def allowed(qualifier: str) -> set[str]:
    """Return the names with a qualifier (publish, subscribe, reply), resolved as sros2 does."""
    lists = [one for one in ElementTree.parse(POLICY).iter() if one.get(qualifier) == "ALLOW"]
    names = [str(name.text) for one in lists for name in one]
    return {name.replace("~", f"/{NAME}") if name[0] == "~" else "/" + name.lstrip("/") for name in names}


def test_the_example_policy_allows_what_the_node_opens_and_no_more():
    with context():
        given = [Parameter(name, value=True) for name in ("use_depth", "use_sim_time")]
        node, client = (
            TrackerNode(NAME, tracker_factory=lambda _: ScriptedTracker(), parameter_overrides=given),
            Client(),
        )
        with spinning(node, client.node):
            wait_until(lambda: client.states, "the node")

            def subscribed() -> set[str]:
                return {name for name, _ in client.node.get_subscriber_names_and_types_by_node(NAME, "/")}

            # Compressed images come instead of raw ones; the policy serves both.
            wait_until(lambda: subscribed() | {"/image/compressed"} == allowed("subscribe"), "its subscriptions")
            published = {name for name, _ in client.node.get_publisher_names_and_types_by_node(NAME, "/")}
            served = {name for name, _ in client.node.get_service_names_and_types_by_node(NAME, "/")}
    assert allowed("publish") == published
    assert served <= allowed("reply") and allowed("reply") - served <= ONLY_SINCE_JAZZY
    assert not allowed("request")
