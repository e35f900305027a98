# SPDX-License-Identifier: Apache-2.0
"""Two nodes of one name are reported, and a killed one that is still in the graph is not."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from dimp_ros.ros_utils.namesakes import GHOST_SECONDS, NamesakeWatch


class Graph(SimpleNamespace):
    """A node in a namespace, and what it sees; ``now`` is the time."""

    def __init__(self) -> None:
        super().__init__(count=1, now=0.0)

    def get_name(self) -> str:
        """Return the name."""
        return "tracker_node"

    def get_namespace(self) -> str:
        """Return the namespace."""
        return "/robot"

    def get_fully_qualified_name(self) -> str:
        """Return both."""
        return "/robot/tracker_node"

    def get_node_names_and_namespaces(self) -> list[tuple[str, str]]:
        """Return the nodes in sight."""
        return [("tracker_node", "/robot")] * self.count + [("tracker_node", "/"), ("other", "/robot")]


@pytest.mark.parametrize("count", [2, 3])
def test_a_namesake_that_stays_is_reported_until_it_is_gone(count: int) -> None:
    graph = Graph()
    watch = NamesakeWatch(graph, lambda: graph.now)  # type: ignore[arg-type]
    assert watch.check() == ""
    graph.count = count
    assert watch.check() == ""
    graph.now = GHOST_SECONDS
    assert f"{count} nodes are called /robot/tracker_node" in watch.check()
    graph.count = 1
    assert watch.check() == ""


def test_killed_node_left_in_the_graph_is_not_reported() -> None:
    graph = Graph()
    watch = NamesakeWatch(graph, lambda: graph.now)  # type: ignore[arg-type]
    for second in range(100):
        graph.now, graph.count = float(second), 2 if second % 40 < 20 else 1
        assert watch.check() == ""
