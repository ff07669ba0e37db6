"""The graph that the node's tests share, one for each file."""

from __future__ import annotations

import pytest


@pytest.fixture(scope="module")
def graph():
    from live_graph import Graph

    made = Graph()
    yield made
    made.close()


@pytest.fixture
def running(graph):
    """The graph with a configured node without a network, shared by many tests."""
    if graph.node is None or graph.node.state not in ("inactive", "active"):
        graph.start()
    return graph
