"""Sparse precisions against dense algebra."""

import numpy as np
import pytest
import scipy.sparse
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from deltavae.priors import Autoregressive, SparseGaussian
from dense_gaussian import assert_is_gaussian, matrix_of


def random_precision(n: int, edges: int, seed: int) -> np.ndarray:
    """A random graph with random couplings and scales, positive definite by dominance."""
    rng = np.random.default_rng(seed)
    precision = np.zeros((n, n))
    for i, j in rng.integers(0, n, size=(edges, 2)):
        if i != j:
            precision[i, j] = precision[j, i] = rng.normal()
    precision += np.diag(np.abs(precision).sum(axis=0) + rng.uniform(0.05, 1, n))
    scale = np.exp(rng.normal(size=n))
    return precision * np.outer(scale, scale)


def lattice(side: int) -> np.ndarray:
    """Laplacian of a square grid, tied down a little: half width ``side`` at best."""
    path = 2 * np.eye(side) - np.eye(side, k=1) - np.eye(side, k=-1)
    return np.kron(path, np.eye(side)) + np.kron(np.eye(side), path) + 0.1 * np.eye(side**2)


@given(n=st.integers(1, 30), edges=st.integers(0, 60), seed=st.integers(0, 2**31))
@settings(max_examples=50, deadline=None)
def test_it_is_the_gaussian_of_its_precision(n, edges, seed):
    precision = random_precision(n, edges, seed)
    covariance = np.linalg.inv(precision)
    prior = SparseGaussian(scipy.sparse.csr_array(precision))
    # In units where every variance is 1 or so, dense algebra keeps its digits.
    whitening = matrix_of(prior.whiten, n)
    np.testing.assert_allclose(prior.marginal_variance, covariance.diagonal(), rtol=1e-9)
    np.testing.assert_allclose(prior.diagonal, precision.diagonal(), rtol=1e-12)
    np.testing.assert_allclose(whitening @ covariance @ whitening.T, np.eye(n), atol=1e-9)
    np.testing.assert_allclose(matrix_of(prior.colour, n) @ whitening, np.eye(n), atol=1e-9)
    size = np.sqrt(precision.diagonal())
    log_det = np.linalg.slogdet(precision / np.outer(size, size))[1]
    assert prior.committed_rate == pytest.approx(-0.5 * log_det, rel=1e-9, abs=1e-12)
    assert prior.log_det == pytest.approx(np.linalg.slogdet(precision)[1], rel=1e-9, abs=1e-9)


def test_a_lattice_whatever_the_numbering_of_its_nodes():
    side = 7
    natural = SparseGaussian(scipy.sparse.csr_array(lattice(side)))
    assert natural.bandwidth == side
    assert_is_gaussian(natural, np.linalg.inv(lattice(side)))
    shuffle = np.random.default_rng(1).permutation(side**2)
    shuffled = SparseGaussian(scipy.sparse.csr_array(lattice(side)[np.ix_(shuffle, shuffle)]))
    assert shuffled.bandwidth < 2 * side  # of 48 as given
    assert shuffled.committed_rate == pytest.approx(natural.committed_rate, rel=1e-12)
    assert_is_gaussian(shuffled, np.linalg.inv(lattice(side))[np.ix_(shuffle, shuffle)])


def test_every_way_to_state_a_precision():
    process = Autoregressive(12, [0.6, -0.3])
    whitening = matrix_of(process.whiten, 12)
    precision = whitening.T @ whitening
    lower = [(i, j, precision[i, j]) for i in range(12) for j in range(max(0, i - 2), i + 1)]
    ways = [
        SparseGaussian(scipy.sparse.csr_matrix(precision)),
        SparseGaussian(scipy.sparse.coo_array(precision)),
        SparseGaussian(scipy.sparse.dia_array(precision)),
        SparseGaussian(lower),
        SparseGaussian([list(entry) for entry in lower[::-1]]),
        SparseGaussian(np.array(lower)),
    ]
    x = torch.linspace(-1, 2, 12, dtype=torch.float64)
    for prior in ways:
        assert prior.committed_rate == pytest.approx(process.committed_rate, rel=1e-12)
        torch.testing.assert_close(prior.whiten(x), process.whiten(x), rtol=1e-10, atol=1e-12)


def test_from_rate_weakens_the_couplings_alike():
    precision = lattice(5)
    entries = SparseGaussian(scipy.sparse.csr_array(precision)).entries
    full = SparseGaussian(entries)
    for share in (1e-6, 0.1, 0.999, 1.0):
        prior = SparseGaussian.from_rate(share * full.committed_rate, entries)
        assert prior.committed_rate == pytest.approx(share * full.committed_rate, rel=1e-9)
        whitening = matrix_of(prior.whiten, 25)
        weaker = whitening.T @ whitening
        np.testing.assert_allclose(weaker.diagonal(), precision.diagonal(), rtol=1e-12)
        coupled = (precision != 0) & ~np.eye(25, dtype=bool)
        ratios = weaker[coupled] / precision[coupled]
        np.testing.assert_allclose(ratios, ratios[0], rtol=1e-9)
        assert 0 < ratios[0] <= 1 + 1e-12


@pytest.mark.parametrize(
    ("matrix", "message"),
    [
        ([[1.0, 2.0], [2.0, 1.0]], "positive definite"),
        ([[1.0, 1.0], [1.0, 1.0]], "positive definite"),
        ([[1.0, 0.5], [0.4, 1.0]], "symmetric"),
        ([[1.0, 0.5], [0.0, 1.0]], "symmetric"),
        ([[1.0, 0.0], [0.0, 0.0]], "diagonal"),
        ([[1.0, 0.0], [0.0, -1.0]], "diagonal"),
        ([[np.nan, 0.0], [0.0, 1.0]], "finite"),
        ([[1.0, np.inf], [np.inf, 1.0]], "finite"),
        ([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]], "square"),
    ],
)
def test_matrices_that_are_no_precision(matrix, message):
    with pytest.raises(ValueError, match=message):
        SparseGaussian(scipy.sparse.csr_array(np.array(matrix)))


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ([], "diagonal"),
        ([(0, 0, 1.0), (0, 0, 1.0)], "once"),
        ([(0, 0, 1.0), (1, 1, 1.0), (0, 1, 0.5)], "on or below"),
        ([(0, 0, 1.0), (2, 2, 1.0)], "diagonal"),
        ([(0, 0, 1.0), (1, 1, 1.0), (1, 0, 1.5)], "positive definite"),
        ([(0, 0, 1.0), (1, 1, 1.0), (1, -1, 0.5)], "whole"),
        ([(0, 0, 1.0), (1, 1, 1.0), (1, 0.5, 0.5)], "whole"),
    ],
)
def test_lists_that_are_no_precision(entries, message):
    with pytest.raises(ValueError, match=message):
        SparseGaussian(entries)
