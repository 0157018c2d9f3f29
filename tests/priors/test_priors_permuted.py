"""A prior in another order is the same process under other names."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from deltavae.priors import Matern, Permuted, SparseGaussian, Tree
from dense_gaussian import assert_is_gaussian, matrix_of


@given(order=st.permutations(range(7)))
@settings(max_examples=20, deadline=None)
def test_covariance_moves_along(order):
    prior = Matern(7, 3.0)
    colouring = matrix_of(prior.colour, 7)
    covariance = colouring @ colouring.T
    permuted = Permuted(prior, order)
    assert_is_gaussian(permuted, covariance[np.ix_(order, order)])
    assert permuted.committed_rate == pytest.approx(prior.committed_rate, rel=1e-14)
    x = torch.randn(3, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(permuted.log_prob(x[:, order]), prior.log_prob(x))


def test_marginal_variances_move_along():
    prior = SparseGaussian([[0, 0, 1.0], [1, 0, -0.5], [1, 1, 2.0], [2, 1, 0.3], [2, 2, 3.0]])
    expected = prior.marginal_variance[[2, 0, 1]]
    assert torch.equal(Permuted(prior, [2, 0, 1]).marginal_variance, expected)


def test_parents_before_children_keep_the_whitening_causal():
    pre_order = [0, 1, 3, 4, 2, 5, 6]
    whitening = matrix_of(Permuted(Tree(7, 0.7), pre_order).whiten, 7)
    assert (np.triu(whitening, 1) == 0).all()


def test_an_order_lists_each_step_once():
    for order in ([0, 1], [0, 1, 1], [0, 1, 3]):
        with pytest.raises(ValueError, match=r"each of 0\.\.2 once"):
            Permuted(Matern(3, 2.0), order)
