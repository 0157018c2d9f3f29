"""A tree of latents: pre-order, nested intervals, its rate in closed form."""

import math

import numpy as np
import pytest

from deltavae.latents.tree import Tree
from deltavae.rates import committed_rate


@pytest.mark.parametrize(("branching", "depth"), [(1, 5), (2, 3), (3, 2), (4, 1), (2, 0)])
def test_intervals_are_nested_in_pre_order(branching, depth):
    tree = Tree(0.5, branching, depth)
    assert tree.n == Tree.steps(28, branching=branching, depth=depth)
    intervals = tree.extents()[:, 0]
    open_nodes: list[np.ndarray] = []  # the path from the root, as a walk in pre-order has it
    children = np.zeros(tree.n)
    path: list[int] = []
    for t, (start, end) in enumerate(intervals):
        while branching > 1 and open_nodes and open_nodes[-1][1] <= start:
            open_nodes.pop()
            path.pop()
        if path:
            parent = open_nodes[-1]
            assert parent[0] <= start
            assert end <= parent[1]
            assert end - start == pytest.approx((parent[1] - parent[0]) / branching)
            children[path[-1]] += 1
        open_nodes.append(intervals[t])
        path.append(t)
    assert (np.diff(intervals[:, 0]) >= 0).all()
    assert sorted(set(children)) == ([0] if depth == 0 else [0, branching])
    assert (children == 0).sum() == branching**depth
    np.testing.assert_array_equal(intervals[0], [0, 1])


@pytest.mark.parametrize("rho", [0.3, -0.9])
def test_rate_in_closed_form(rho):
    tree = Tree(rho, branching=3, depth=2)
    inner = 3 * math.log1p(3 * rho**2)
    delta = 0.5 * (inner + math.log1p(3 * rho**2 / (1 - rho**2)))
    assert tree.committed_rate == pytest.approx(delta, rel=1e-14)
    leaves = [end - start < 0.2 for start, end in tree.extents()[:, 0]]
    assert (tree.committed_terms[:, 0] == 0).tolist() == leaves


def test_a_tree_without_branches_is_the_line():
    assert Tree(0.8, 1, 5).committed_rate == pytest.approx(committed_rate(0.8, 6), rel=1e-14)
    assert Tree(0.8, 2, 0).committed_rate == 0
