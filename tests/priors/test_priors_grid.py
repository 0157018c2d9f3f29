"""Separable grids against the Kronecker product."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from deltavae.priors import Autoregressive, Grid, SparseGaussian, Tree
from deltavae.rates import committed_rate
from dense_gaussian import assert_is_gaussian, lags

ALPHAS = st.floats(-0.9, 0.9)


@given(rows=st.integers(1, 6), columns=st.integers(1, 6), a=ALPHAS, b=ALPHAS)
@settings(max_examples=40, deadline=None)
def test_it_is_the_kronecker_product(rows, columns, a, b):
    prior = Grid(Autoregressive(rows, [a]), Autoregressive(columns, [b]))
    assert_is_gaussian(prior, np.kron(a ** lags(rows), b ** lags(columns)))
    expected = columns * committed_rate(a, rows) + rows * committed_rate(b, columns)
    assert prior.committed_rate == pytest.approx(expected, rel=1e-12)


def test_rows_are_correlated_down_and_columns_across():
    prior = Grid(Autoregressive(50, [0.99]), Autoregressive(40, [0.1]))
    noise = torch.randn(50, 2000, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    z = prior.colour(noise).reshape(50, 50, 40)  # draw, row, column
    assert float((z[:, 1:] * z[:, :-1]).mean()) == pytest.approx(0.99, abs=0.1)
    assert float((z[:, :, 1:] * z[:, :, :-1]).mean()) == pytest.approx(0.1, abs=0.05)


def test_grids_of_grids_and_priors_given_as_matrices():
    precision = np.array([[2.0, -0.5, 0.0], [-0.5, 1.0, 0.3], [0.0, 0.3, 3.0]])
    sparse = SparseGaussian([(i, j, precision[i, j]) for i in range(3) for j in range(i + 1)])
    prior = Grid(sparse, Grid(Autoregressive(2, [0.5]), Tree(4, 0.6)))
    tree = np.array([[1, 0.6, 0.6, 0.36], [0.6, 1, 0.36, 0.6], [0.6, 0.36, 1, 0.216],
                     [0.36, 0.6, 0.216, 1]])  # fmt: skip
    inner = np.kron(0.5 ** lags(2), tree)
    assert_is_gaussian(prior, np.kron(np.linalg.inv(precision), inner))


def test_from_rate_takes_the_same_alpha_both_ways():
    prior = Grid.from_rate(30.0, rows=7, columns=5)
    alpha = prior.down.partials
    assert prior.across.partials == alpha
    assert (prior.down.n, prior.across.n) == (7, 5)
    expected = 5 * committed_rate(alpha, 7) + 7 * committed_rate(alpha, 5)
    assert expected == pytest.approx(30.0, rel=1e-9)
