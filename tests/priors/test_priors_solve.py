"""The knob that commits a given rate: met to 1e-9, the smallest where there are several."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deltavae.priors import (
    Autoregressive,
    Matern,
    OutOfReachError,
    SparseGaussian,
    SquaredExponential,
    Tree,
    solve_knob,
)
from deltavae.rates import solve_alpha


@given(delta=st.floats(1e-9, 1e3), n=st.integers(2, 3000))
@settings(max_examples=40, deadline=None)
def test_ar1_agrees_with_the_closed_form(delta, n):
    try:
        alpha = float(solve_alpha(delta, n, 1))
    except ValueError:
        with pytest.raises(ValueError, match="out of reach"):
            Autoregressive.from_rate(delta, n, [0.3])
        return
    found = Autoregressive.from_rate(delta, n, [0.3])
    assert found.committed_rate == pytest.approx(delta, rel=1e-9)
    assert 1 - found.partials[0] == pytest.approx(1 - alpha, rel=1e-6)
    # The direction's size does not matter, its sign is kept.
    mirrored = Autoregressive.from_rate(delta, n, [-0.99])
    assert mirrored.partials[0] == pytest.approx(-found.partials[0], rel=1e-9)


def test_matern_one_half_and_a_path_are_ar1():
    alpha = float(solve_alpha(12.0, 100, 1))
    assert math.exp(-1 / Matern.from_rate(12.0, 100, 0.5).length) == pytest.approx(alpha, rel=1e-8)
    assert Tree.from_rate(12.0, 100, 1).correlation == pytest.approx(alpha, rel=1e-8)


def test_where_the_rate_rises_and_falls_the_smaller_knob_is_found():
    n, jitter = 200, 1e-2
    rates = [SquaredExponential(n, 2.0**k, jitter).committed_rate for k in range(-4, 10)]
    top = rates.index(max(rates))
    assert 0 < top < len(rates) - 1
    assert rates == sorted(rates[: top + 1]) + sorted(rates[top + 1 :], reverse=True)
    delta = 0.5 * (max(rates) + rates[-1])
    found = SquaredExponential.from_rate(delta, n, jitter)
    assert found.committed_rate == pytest.approx(delta, rel=1e-9)
    assert found.length < 2.0 ** (top - 4)


def test_the_ends_of_the_bounds_may_be_the_answer():
    def tree(correlation: float) -> Tree:
        return Tree(20, correlation)

    for end in (0.1, 0.7):
        knob = solve_knob(tree(end).committed_rate, tree, (0.1, 0.7))
        assert knob == pytest.approx(end, rel=1e-9)
        assert 0.1 <= knob <= 0.7
    with pytest.raises(OutOfReachError, match=r"20 steps commit at least .* knob in \[0.1, 0.7\]"):
        solve_knob(tree(0.09).committed_rate, tree, (0.1, 0.7))
    with pytest.raises(OutOfReachError, match="20 steps commit at most") as error:
        solve_knob(tree(0.71).committed_rate, tree, (0.1, 0.7))
    assert f"{tree(0.7).committed_rate:.6g}" in str(error.value)
    assert error.value.rate == pytest.approx(tree(0.7).committed_rate, rel=1e-12)


@pytest.mark.parametrize("bounds", [(0.0, 1.0), (1.0, 1.0), (2.0, 1.0), (1.0, math.inf)])
def test_bounds_out_of_range(bounds):
    with pytest.raises(ValueError, match="bounds"):
        solve_knob(1.0, lambda knob: Tree(3, knob), bounds)


@pytest.mark.parametrize("n", [1])
def test_one_step_commits_nothing_and_can_be_asked_for_nothing(n):
    assert Autoregressive(n, [0.9]).committed_rate == 0
    assert Matern(n, 5.0).committed_rate == 0
    assert Tree(n, 0.9).committed_rate == 0
    for ask in (Tree.from_rate, Matern.from_rate, SquaredExponential.from_rate):
        with pytest.raises(ValueError, match="n must be at least 2, got 1: one step commits noth"):
            ask(1.0, n)


def test_steps_that_do_not_depend_on_each_other_commit_nothing():
    with pytest.raises(ValueError, match="the 3 steps do not depend on each other"):
        SparseGaussian.from_rate(1.0, [[0, 0, 1.0], [1, 1, 2.0], [2, 2, 3.0]])
