"""Matérn processes against their kernel, in float64 and, where that fails, in mpmath."""

import math

import mpmath
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from deltavae.priors import Matern
from deltavae.rates import committed_rate
from dense_gaussian import assert_is_gaussian, lags

NUS = [0.5, 1.5, 2.5]


def kernel(tau, length, nu, exp=np.exp):
    x = math.sqrt(2 * nu) / length * tau
    return {0.5: 1, 1.5: 1 + x, 2.5: 1 + x + x * x / 3}[nu] * exp(-x)


@given(n=st.integers(1, 40), length=st.floats(0.05, 4.0), nu=st.sampled_from(NUS))
@settings(max_examples=60, deadline=None)
def test_it_is_the_process_of_the_kernel(n, length, nu):
    assert_is_gaussian(Matern(n, length, nu), kernel(lags(n), length, nu), rtol=1e-8)


@pytest.mark.parametrize("nu", NUS)
@pytest.mark.parametrize("length", [10.0, 100.0, 1000.0])
def test_long_length_scales_against_100_digits(length, nu):
    n = 14
    with mpmath.workdps(100):
        rate = mpmath.sqrt(2 * nu) / length

        def entry(s: int, t: int) -> mpmath.mpf:
            x = rate * abs(s - t)
            return {0.5: 1, 1.5: 1 + x, 2.5: 1 + x + x * x / 3}[nu] * mpmath.exp(-x)

        covariance = mpmath.matrix(n, n)
        for s in range(n):
            for t in range(n):
                covariance[s, t] = entry(s, t)
        precision = covariance**-1
        log_det = mpmath.log(mpmath.det(precision))
        logs = mpmath.fsum(mpmath.log(precision[t, t]) for t in range(n))
        delta = float((logs - log_det) / 2)
        scales = [float(precision[t, t] ** -0.5) for t in range(n)]
        log_det = float(log_det)
    prior = Matern(n, length, nu)
    # Dense algebra in float64 has no digit left at nu = 5/2: the condition number is 1e16 there.
    assert prior.committed_rate == pytest.approx(delta, rel=1e-9)
    assert prior.log_det == pytest.approx(log_det, rel=1e-9)
    np.testing.assert_allclose(prior.conditional_scale, scales, rtol=1e-8)


@given(n=st.integers(1, 3000), length=st.floats(0.05, 1e6))
@settings(max_examples=60, deadline=None)
def test_one_half_is_ar1(n, length):
    alpha = math.exp(-1 / length)
    rate = Matern(n, length, 0.5).committed_rate
    assert rate == pytest.approx(committed_rate(alpha, n), rel=1e-9, abs=0)


@pytest.mark.parametrize(("nu", "limit"), [(0.5, 0.5 * math.log(2)), (1.5, 1.095), (2.5, 1.918)])
def test_the_rate_per_step_has_a_limit(nu, limit):
    longest = {0.5: 1e6, 1.5: 3e4, 2.5: 1e3}[nu]
    rates = [Matern(n, longest, nu).committed_rate for n in (1000, 2000)]
    assert (rates[1] - rates[0]) / 1000 == pytest.approx(limit, abs=1e-3)


@pytest.mark.parametrize("nu", NUS)
def test_the_rate_grows_with_the_length_scale(nu):
    longest = {0.5: 1e6, 1.5: 3e4, 2.5: 1e3}[nu]
    rates = [Matern(50, length, nu).committed_rate for length in np.geomspace(0.01, longest, 60)]
    assert (np.diff(rates) > 0).all()


@pytest.mark.parametrize("nu", NUS)
def test_the_map_and_its_inverse_at_the_longest_length_scale(nu):
    # What float64 can resolve of an innovation of 1e-6 beside a z of 1.
    prior = Matern(300, {0.5: 1e6, 1.5: 3e4, 2.5: 1e3}[nu], nu)
    noise = torch.randn(300, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(prior.whiten(prior.colour(noise)), noise, rtol=0, atol=1e-6)


def test_arguments_out_of_range():
    for n, length, nu in ((0, 1.0, 0.5), (5, 0.0, 0.5), (5, math.nan, 1.5), (5, 2e3, 2.5)):
        with pytest.raises(ValueError, match="must"):
            Matern(n, length, nu)
    with pytest.raises(ValueError, match="nu must be one of"):
        Matern(5, 1.0, 1.0)
    with pytest.raises(ValueError, match="nu must be one of"):
        Matern.from_rate(1.0, 5, 1.0)
