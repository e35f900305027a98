# SPDX-License-Identifier: Apache-2.0
"""Detects another node of the same name."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rclpy.node import Node

GHOST_SECONDS = 25.0
"""A killed process stays in the graph for up to 20 s: a node that is restarted is not its own namesake."""


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
