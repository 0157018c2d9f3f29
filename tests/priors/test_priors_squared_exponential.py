"""The process near the squared exponential: against its own spectral density, and how near."""

import math

import numpy as np
import pytest
from scipy.special import factorial

from deltavae.priors import SquaredExponential
from deltavae.priors.squared_exponential import _chain
from dense_gaussian import assert_is_gaussian, lags, matrix_of

ERRORS = {2: 0.134, 4: 0.0217, 6: 0.0043, 8: 9.2e-4, 10: 2.1e-4, 12: 4.7e-5}  # of the docstring


def autocorrelation(tau: np.ndarray, order: int) -> np.ndarray:
    """Fourier transform of 1/Σ_{j≤m} (ω²/2)^j/j!, ℓ = 1, by the trapezoidal rule."""
    omega = np.linspace(0, 400, 400_001)
    powers = np.arange(order + 1)
    density = 1 / np.polyval((0.5**powers / factorial(powers))[::-1], omega**2)
    density[0] /= 2
    return np.array([(np.cos(omega * t) * density).sum() for t in tau]) / density.sum()


@pytest.mark.parametrize("order", [4, 6, 10])
@pytest.mark.parametrize(("length", "jitter"), [(0.3, 0.1), (1.7, 1e-2), (4.0, 1e-3)])
def test_it_is_the_process_of_its_spectral_density(order, length, jitter):
    n = 20
    rho = autocorrelation(np.arange(n) / length, order)
    covariance = (1 - jitter) * rho[lags(n).astype(int)] + jitter * np.eye(n)
    # The trapezoidal rule leaves 1e-8 at order 4, and Λ is up to 1/jitter times as sensitive.
    assert_is_gaussian(SquaredExponential(n, length, jitter, order), covariance, rtol=1e-5)


@pytest.mark.parametrize(("order", "error"), ERRORS.items())
def test_how_near_it_is_to_the_squared_exponential(order, error):
    step, root = 0.01, np.eye(order)[0]
    eigenvalues, vectors = np.linalg.eig(_chain(order))
    weights = (root @ vectors) * np.linalg.solve(vectors, root)
    tau = np.arange(0, 12, step)
    rho = (weights * np.exp(np.outer(tau, eigenvalues))).sum(axis=1).real
    assert np.abs(rho - np.exp(-(tau**2) / 2)).max() == pytest.approx(error, rel=0.04)
    assert SquaredExponential(10, 2.0, 0.1, order).order == order


@pytest.mark.parametrize("length", [0.5, 3.0, 20.0])
def test_at_order_12_rate_and_covariance_are_near_those_of_the_squared_exponential(length):
    n, jitter = 40, 1e-2
    prior = SquaredExponential(n, length, jitter, 12)
    covariance = (1 - jitter) * np.exp(-((lags(n) / length) ** 2) / 2) + jitter * np.eye(n)
    colouring = matrix_of(prior.colour, n)
    np.testing.assert_allclose(colouring @ colouring.T, covariance, atol=5e-5)
    precision = np.linalg.inv(covariance)
    delta = 0.5 * (np.log(precision.diagonal()).sum() + np.linalg.slogdet(covariance)[1])
    assert prior.committed_rate == pytest.approx(delta, rel=0.01)


def test_the_filter_settles_to_the_same_whitening_as_a_shorter_one():
    # The first n steps of a longer process are the shorter process.
    short, long = SquaredExponential(30, 8.0), SquaredExponential(3000, 8.0)
    np.testing.assert_allclose(
        short.innovation_variance, long.innovation_variance[:30], rtol=1e-12
    )
    assert len(set(long.innovation_variance[1000:].tolist())) == 1


def test_arguments_out_of_range():
    for arguments in (
        (0, 1.0),
        (5, 0.0),
        (5, math.nan),
        (5, 1e5),
        (5, 1.0, 0.0),
        (5, 1.0, 1.0),
        (5, 1.0, 0.1, 1),
        (5, 1.0, 0.1, 13),
    ):
        with pytest.raises(ValueError, match="must"):
            SquaredExponential(*arguments)
