# SPDX-License-Identifier: Apache-2.0
"""The example policy is valid for sros2, and allows exactly what running nodes use."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple
from xml.etree import ElementTree

import pytest
from harness.ros_harness import Node, Parameter, ScriptedTracker, TrackerNode, context, spinning, wait_until

POLICY = Path(__file__).parents[2] / "config" / "sros2" / "dimp_ros.policy.xml"
ONLY_SINCE_JAZZY = "get_type_description"
ONE_OF_TWO = {"/image", "/image/compressed"}
"""Of these topics a node subscribes the one that image_transport says."""


def tracker(name: str, parameters: list[Parameter]) -> Node:
    parameters = [*parameters, Parameter("use_depth", value=True)]
    return TrackerNode(name, tracker_factory=lambda _: ScriptedTracker(), parameter_overrides=parameters)


def follower(name: str, parameters: list[Parameter]) -> Node:
    from dimp_ros.apps.steering.follower import Follower

    return Follower(parameter_overrides=parameters, cli_args=["--ros-args", "-r", f"__node:={name}"])


def servo(name: str, parameters: list[Parameter]) -> Node:
    from dimp_ros.apps.steering.servo import Servo

    return Servo(parameter_overrides=parameters, cli_args=["--ros-args", "-r", f"__node:={name}"])


def console(name: str, parameters: list[Parameter]) -> Node:
    pytest.importorskip("aiohttp", reason="aiohttp is not installed: apt install python3-aiohttp, or pip")
    from dimp_ros.apps.console.node import ConsoleNode

    parameters = [*parameters, Parameter("port", value=0)]
    node = ConsoleNode(parameter_overrides=parameters, cli_args=["--ros-args", "-r", f"__node:={name}"])
    node._set_watchers(1)  # images are subscribed only while a browser looks
    return node


NODES: dict[str, Callable[[str, list[Parameter]], Any]] = {
    "tracker_node": tracker,
    "follower": follower,
    "servo": servo,
    "console": console,
}


class Opened(NamedTuple):
    """Names that a node uses, or may use."""

    subscribe: set[str]
    publish: set[str]
    reply: set[str]
    request: set[str]


def profile_of(enclave: str) -> ElementTree.Element:
    """Return what the policy says of a node; its enclave is called like the node."""
    profiles = ElementTree.parse(POLICY).findall(f"enclaves/enclave[@path='/{enclave}']/profiles/profile")
    assert [profile.get("node") for profile in profiles] == [enclave]
    return profiles[0]


def allowed(enclave: str, name: str) -> Opened:
    """Return what the policy allows a node that is called ``name``, resolved as sros2 does."""

    def resolved(qualifier: str) -> set[str]:
        lists = [one for one in profile_of(enclave) if one.get(qualifier) == "ALLOW"]
        names = [str(entry.text) for one in lists for entry in one]
        assert len(set(names)) == len(names), "named twice"
        return {entry.replace("~", f"/{name}") if entry[0] == "~" else "/" + entry.lstrip("/") for entry in names}

    return Opened(*map(resolved, Opened._fields))


def opened(watcher: Node, name: str) -> Opened:
    """Return what a running node has opened, as the graph has it."""
    return Opened(
        {topic for topic, _ in watcher.get_subscriber_names_and_types_by_node(name, "/")},
        {topic for topic, _ in watcher.get_publisher_names_and_types_by_node(name, "/")},
        {service for service, _ in watcher.get_service_names_and_types_by_node(name, "/")},
        {service for service, _ in watcher.get_client_names_and_types_by_node(name, "/")},
    )


@pytest.mark.parametrize("enclave", NODES)
def test_the_policy_allows_what_the_node_opens_and_no_more(enclave):
    name = f"{enclave}_of_the_policy"  # no other test has had one of this name: the graph may still remember it
    with context():
        node = NODES[enclave](name, [Parameter("use_sim_time", value=True)])
        watcher = Node("watcher")
        with spinning(node, watcher):
            try:
                policy = allowed(enclave, name)
                # The graph may know parts of a node before the rest.
                wait_until(lambda: opened(watcher, name).subscribe | ONE_OF_TWO >= policy.subscribe, "subscriptions")
                wait_until(lambda: opened(watcher, name).publish >= policy.publish, "publishers")
                wait_until(lambda: opened(watcher, name).request >= policy.request, "clients")
                found = opened(watcher, name)
            finally:
                node.close()
    assert found.subscribe <= policy.subscribe and policy.subscribe - found.subscribe <= ONE_OF_TWO
    assert found.publish == policy.publish
    assert found.reply <= policy.reply and policy.reply - found.reply <= {f"/{name}/{ONLY_SINCE_JAZZY}"}
    assert found.request == policy.request


CHILDREN = {
    "policy": {"enclaves"},
    "enclaves": {"enclave"},
    "enclave": {"profiles"},
    "profiles": {"profile"},
    "profile": {"topics", "services", "actions"},
    "topics": {"topic"},
    "services": {"service"},
    "actions": {"action"},
}
ATTRIBUTES = {
    "policy": {"version"},
    "enclave": {"path"},
    "profile": {"ns", "node"},
    "topics": {"publish", "subscribe"},
    "services": {"reply", "request"},
    "actions": {"call", "execute"},
}
"""sros2's policy.xsd, version 0.2.0, in short; what is not in a list of rules is required."""


def complaints(element: ElementTree.Element) -> list[str]:
    """Return what sros2's schema does not allow of an element and what is in it."""
    tag, found = element.tag, []
    rules = tag in ("topics", "services", "actions")
    wanted, given = ATTRIBUTES.get(tag, set()), set(element.keys())
    if not (given <= wanted and (given == wanted or rules)):
        found.append(f"{tag} has the attributes {sorted(given)}")
    if rules and not set(element.attrib.values()) <= {"ALLOW", "DENY"}:
        found.append(f"{tag} has a rule that is neither ALLOW nor DENY")
    if tag == "policy" and element.get("version") != "0.2.0":
        found.append("policy is not of version 0.2.0")
    if tag in CHILDREN and tag != "profile" and len(element) == 0:
        found.append(f"{tag} is empty")
    for child in element:
        if child.tag in CHILDREN.get(tag, set()):
            found += complaints(child)
        else:
            found.append(f"{child.tag} in {tag}")
    return found


def test_the_policy_has_the_form_of_sros2s_schema():
    root = ElementTree.parse(POLICY).getroot()
    assert root.tag == "policy" and complaints(root) == []
    assert {enclave.get("path") for enclave in root.iter("enclave")} == {f"/{name}" for name in NODES}


@pytest.mark.parametrize(
    "text",
    [
        "<policy version='0.1.0'><enclaves/></policy>",
        "<policy version='0.2.0'><enclave path='/a'/></policy>",
        "<policy><enclaves><enclave/></enclaves></policy>",
        "<topics reply='ALLOW'><topic>a</topic></topics>",
        "<services reply='allow'><service>a</service></services>",
        "<topics publish='ALLOW'><service>a</service></topics>",
        "<profile node='a'/>",
    ],
)
def test_what_sros2s_schema_does_not_allow_is_found(text):
    assert complaints(ElementTree.fromstring(text))
