"""AR(p) by partial autocorrelations: against their definition, dense algebra and AR(1)."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deltavae.priors import Autoregressive
from deltavae.rates import committed_rate, committed_terms, minimiser
from dense_gaussian import assert_is_gaussian, lags, matrix_of

PARTIALS = st.lists(st.floats(-0.9, 0.9), min_size=1, max_size=5)


def covariance_of(prior: Autoregressive) -> np.ndarray:
    """Autocovariances from φ by the Yule–Walker equations, γ_0 = 1."""
    phi, p = np.array(prior.coefficients), len(prior.coefficients)
    equations, right = np.eye(p), np.zeros(p)
    for k in range(1, p + 1):  # γ_k = Σ_j φ_j γ_|k−j|
        for j in range(1, p + 1):
            if k == j:
                right[k - 1] += phi[j - 1]
            else:
                equations[k - 1, abs(k - j) - 1] -= phi[j - 1]
    gamma = [1.0, *np.linalg.solve(equations, right)]
    while len(gamma) < prior.n:
        gamma.append(float(phi @ gamma[: -p - 1 : -1]))
    return np.array(gamma)[lags(prior.n).astype(int)]


@given(partials=PARTIALS, n=st.integers(1, 25))
@settings(max_examples=50, deadline=None)
def test_it_is_the_stationary_process_of_its_coefficients(partials, n):
    prior = Autoregressive(n, partials)
    assert_is_gaussian(prior, covariance_of(prior), rtol=1e-8)


@given(partials=PARTIALS)
@settings(max_examples=30, deadline=None)
def test_the_partial_autocorrelations_are_what_their_name_says(partials):
    p = len(partials)
    prior = Autoregressive(p + 3, partials)
    colouring = matrix_of(prior.colour, prior.n)
    covariance = colouring @ colouring.T
    for k in range(1, p + 3):  # correlation of z_0 and z_k given those between
        precision = np.linalg.inv(covariance[: k + 1, : k + 1])
        partial = -precision[0, k] / math.sqrt(precision[0, 0] * precision[k, k])
        assert partial == pytest.approx(partials[k - 1] if k <= p else 0, abs=1e-8)


@given(partials=PARTIALS)
@settings(max_examples=50, deadline=None)
def test_it_is_always_stationary_and_its_precision_banded(partials):
    prior = Autoregressive(20, partials)
    roots = np.roots([1, *(-phi for phi in prior.coefficients)])
    assert (np.abs(roots) < 1).all()
    whitening = matrix_of(prior.whiten, 20)
    assert (whitening[lags(20) > len(partials)] == 0).all()


@given(alpha=st.floats(-0.999999, 0.999999), n=st.integers(1, 500))
@settings(max_examples=60, deadline=None)
def test_order_one_is_the_paper_s_prior(alpha, n):
    prior = Autoregressive(n, [alpha])
    assert prior.committed_rate == pytest.approx(committed_rate(alpha, n), rel=1e-12, abs=0)
    np.testing.assert_allclose(
        prior.committed_terms, committed_terms(alpha, n)[:, 0], rtol=1e-10, atol=0
    )
    np.testing.assert_allclose(prior.conditional_scale, minimiser(alpha, n)[:, 0], rtol=1e-12)


def test_zeros_behind_the_last_partial_autocorrelation_change_nothing():
    short, long = Autoregressive(30, [0.8, -0.3]), Autoregressive(30, [0.8, -0.3, 0.0, 0.0])
    assert long.committed_rate == pytest.approx(short.committed_rate, rel=1e-14)
    np.testing.assert_allclose(matrix_of(long.whiten, 30), matrix_of(short.whiten, 30), atol=1e-15)


def test_from_rate_keeps_the_direction():
    prior = Autoregressive.from_rate(20.0, 64, [0.5, -0.25, 0.125])
    scales = np.arctanh(prior.partials) / np.arctanh([0.5, -0.25, 0.125])
    np.testing.assert_allclose(scales, scales[0], rtol=1e-12)
    assert prior.committed_rate == pytest.approx(20.0, rel=1e-9)


@pytest.mark.parametrize("partials", [[], [1.0], [0.5, -1.0], [math.nan]])
def test_partials_out_of_range(partials):
    with pytest.raises(ValueError, match="partials must"):
        Autoregressive(5, partials)
    with pytest.raises(ValueError, match="partials must"):
        Autoregressive.from_rate(1.0, 5, partials)


def test_other_arguments_out_of_range():
    with pytest.raises(ValueError, match="n must be at least 1, got 0"):
        Autoregressive(0, [0.5])
    with pytest.raises(ValueError, match="not all be 0"):
        Autoregressive.from_rate(1.0, 5, [0.0, 0.0])
