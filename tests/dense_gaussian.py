"""Dense linear algebra that a prior of `deltavae.priors` is checked against."""

import numpy as np
import pytest
import torch

from deltavae.priors import GaussianPrior
from deltavae.rates import gaussian_committed_rate


def matrix_of(function, n: int) -> np.ndarray:
    """The matrix of a linear map, column by column, from what it does to the unit vectors."""
    return function(torch.eye(n, dtype=torch.float64)).numpy().T


def lags(n: int) -> np.ndarray:
    """|s − t| for all steps s and t."""
    return np.abs(np.subtract.outer(np.arange(n), np.arange(n))).astype(float)


def assert_is_gaussian(prior: GaussianPrior, covariance: np.ndarray, rtol: float = 1e-9) -> None:
    """Everything that the prior says of itself follows from the covariance."""
    n = len(covariance)
    precision = np.linalg.inv(covariance)
    precision = (precision + precision.T) / 2
    diagonal = precision.diagonal()
    whitening, colouring = matrix_of(prior.whiten, n), matrix_of(prior.colour, n)
    size = np.sqrt(np.outer(diagonal, diagonal))
    np.testing.assert_allclose(whitening.T @ whitening / size, precision / size, atol=rtol)
    np.testing.assert_allclose(colouring @ colouring.T, covariance, rtol=0, atol=rtol)
    np.testing.assert_allclose(prior.diagonal, diagonal, rtol=rtol)
    np.testing.assert_allclose(prior.conditional_scale, diagonal**-0.5, rtol=rtol)
    np.testing.assert_allclose(prior.marginal_variance, covariance.diagonal(), rtol=rtol)
    assert prior.log_det == pytest.approx(
        -np.linalg.slogdet(covariance)[1], rel=rtol, abs=n * rtol
    )
    delta = gaussian_committed_rate(torch.from_numpy(precision))
    assert prior.committed_rate == pytest.approx(delta, rel=rtol, abs=n * rtol)
    assert float(prior.committed_terms.sum()) == pytest.approx(prior.committed_rate, rel=1e-14)
    assert bool((prior.committed_terms >= 0).all())
