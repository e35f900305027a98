# SPDX-License-Identifier: Apache-2.0
"""Detects another node of the same name, and another program that would be mixed with this one."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rclpy.node import Node

GHOST_SECONDS = 25.0
"""A killed process stays in the graph for up to 20 s: a node that is restarted is not its own namesake."""
DISCOVERY_SECONDS = 3.5
"""From the creation of a node until it knows those that were there before: 0.1 s as a rule, 3 s where it was not given
time to hear their first answers.
"""


def conflicting_program(node: Node, names: Iterable[str], topic: str = "") -> str:
    """Return which other program uses the same names or topic, and what to do; empty if there is none.

    :param names: of nodes of which there must be one at most, if that is ``node``, or none; in its namespace.
    :param topic: of which there must be one publisher at most.
    """
    found = node.get_node_names_and_namespaces()
    space = node.get_namespace()
    others = [name for name in names if found.count((name, space)) > (name == node.get_name())]
    if others:
        what = f"another {others[0]} runs"
    elif topic and node.count_publishers(topic) > 1:
        what = f"{node.count_publishers(topic)} programs publish on {node.resolve_topic_name(topic)}"
    else:
        return ""
    domain = os.environ.get("ROS_DOMAIN_ID") or "0"
    return (
        f"{what} in ROS domain {domain}, and their images and results would mix: end the other one, or start with "
        f"another ROS_DOMAIN_ID (one that was killed is seen for {GHOST_SECONDS:g} s more)"
    )


class NamesakeWatch:
    """Reports other nodes of a node's name, once they have been there for `GHOST_SECONDS`.

    :param clock: a clock that never goes back, seconds.
    """

    def __init__(self, node: Node, clock: Callable[[], float] = time.monotonic) -> None:
        self._node = node
        self._clock = clock
        self._since: float | None = None

    def check(self) -> str:
        """Return that there is another node of the name; empty if there is none."""
        node = self._node
        count = node.get_node_names_and_namespaces().count((node.get_name(), node.get_namespace()))
        if count < 2:
            self._since = None
            return ""
        now = self._clock()
        self._since = now if self._since is None else self._since
        if now - self._since < GHOST_SECONDS:
            return ""
        return (
            f"{count} nodes are called {node.get_fully_qualified_name()}: their requests and results mix; end one, or "
            "give it a namespace (--ros-args -r __ns:=/other) or a name (-r __node:=other)"
        )
