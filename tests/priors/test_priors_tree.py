"""Trees against the correlation ρ^distance and their closed-form rate."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deltavae.priors import Tree
from deltavae.rates import committed_rate
from dense_gaussian import assert_is_gaussian


def distance(i: int, j: int, branching: int) -> int:
    """Edges between two nodes, by walking up from the one with the greater number."""
    edges = 0
    while i != j:
        i, j = max(i, j), min(i, j)
        i, edges = (i - 1) // branching, edges + 1
    return edges


@given(n=st.integers(1, 40), correlation=st.floats(-0.95, 0.95), branching=st.integers(1, 5))
@settings(max_examples=50, deadline=None)
def test_nodes_are_correlated_as_their_distance(n, correlation, branching):
    distances = [[distance(i, j, branching) for j in range(n)] for i in range(n)]
    covariance = correlation ** np.array(distances, dtype=float)
    assert_is_gaussian(Tree(n, correlation, branching), covariance, rtol=1e-8)


@given(correlation=st.floats(-0.999999, 0.999999), n=st.integers(1, 300))
@settings(max_examples=40, deadline=None)
def test_one_child_each_is_ar1(correlation, n):
    rate = Tree(n, correlation, branching=1).committed_rate
    assert rate == pytest.approx(committed_rate(correlation, n), rel=1e-12, abs=0)


@pytest.mark.parametrize(("branching", "depth"), [(2, 1), (2, 6), (4, 3), (16, 2)])
def test_full_trees(branching, depth):
    n, rho = Tree.nodes(branching, depth), 0.7
    assert n == (branching ** (depth + 1) - 1) // (branching - 1)
    inner = Tree.nodes(branching, depth - 1) - 1  # neither root nor leaf
    root = math.log1p(branching * rho**2 / (1 - rho**2))
    expected = 0.5 * (root + inner * math.log1p(branching * rho**2))
    assert Tree(n, rho, branching).committed_rate == pytest.approx(expected, rel=1e-13)
    terms = Tree(n, rho, branching).committed_terms
    assert int((terms == 0).sum()) == branching**depth  # the leaves commit nothing


@pytest.mark.parametrize(
    "arguments", [(0, 0.5, 2), (3, 1.0, 2), (3, -1.0, 2), (3, math.nan, 2), (3, 0.5, 0)]
)
def test_arguments_out_of_range(arguments):
    with pytest.raises(ValueError, match="must"):
        Tree(*arguments)
