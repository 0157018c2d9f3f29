"""Floors that are proven: golden digits, an independent minimisation, nothing below, the box."""

import functools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize
from scipy.stats import cauchy, laplace, logistic, norm, t

from deltavae.certified import (
    GaussianMixture,
    Laplace,
    Logistic,
    ScalarPrior,
    StudentT,
    certified_minimum,
    numerical_minimum,
)
from deltavae.certified.minimum import _Problem
from panels import divergence

LAPLACE = 0.5 + math.log(2) - math.log(math.pi)


def mixture(m, k=2):
    centres = m * np.arange(1.0 - k, k, 2.0)
    return lambda x: np.logaddexp.reduce([norm.logpdf(x, c) for c in centres]) - math.log(k)


# prior, the textbook's log-density, δ₁ in nats as interval arithmetic and 40 digits gave it
CASES = {
    "laplace": (Laplace(), laplace().logpdf, LAPLACE),
    "logistic": (Logistic(), logistic().logpdf, 0.0095116169),
    "cauchy": (StudentT(1.0), cauchy().logpdf, 0.1827583086),
    "student-3": (StudentT(3.0), t(3).logpdf, 0.0406954552),
    "student-30": (StudentT(30.0), t(30).logpdf, 0.0007407637590),
    "near": (GaussianMixture(0.7), mixture(0.7), 0.0014019411681),
    "modes-2": (GaussianMixture(2.0), mixture(2.0), 0.2265079607),
    "modes-3": (GaussianMixture(3.0), mixture(3.0), 0.6887689957),
    "three": (GaussianMixture(1.5, 3), mixture(1.5, 3), None),
}


@pytest.mark.parametrize("name", CASES)
def test_floor_is_enclosed(name):
    """In the bounds: the golden digits, and scipy's Nelder–Mead from many starts."""
    prior, logpdf, nats = CASES[name]
    found = prior.certificate
    assert found.certified
    assert 0 < found.lower <= found.upper <= found.lower * (1 + 1e-6)
    if nats is not None:
        assert found.lower - 5e-11 <= nats <= found.upper + 5e-11
    at = divergence(logpdf, found.mu, found.sigma)
    assert found.lower <= at + 1e-12 <= found.upper + 2e-12
    draws = np.random.default_rng(1)
    results = []
    for _ in range(4):
        start = [draws.uniform(-4, 4), draws.uniform(-0.5, 1)]
        run = minimize(lambda v: divergence(logpdf, v[0], math.exp(v[1])), start, method="Powell")
        results.append(float(run.fun))
    assert found.lower - 1e-12 <= min(results) <= found.upper + 1e-9
    own, _, _ = numerical_minimum(prior.log_prob)
    assert found.lower - 1e-12 <= own
    assert own <= found.upper + 1e-11


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(sorted(CASES)), st.floats(-30, 30), st.floats(-7, 4).map(math.exp))
def test_no_posterior_is_below_the_floor(name, mu, sigma):
    prior, logpdf, _ = CASES[name]
    assert divergence(logpdf, mu, sigma) >= prior.certificate.lower - 1e-12


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(sorted(CASES)), st.floats(-0.3, 0.3), st.floats(-0.3, 0.3))
def test_nor_is_one_beside_the_minimiser(name, step, turn):
    prior, logpdf, _ = CASES[name]
    found = prior.certificate
    mu, sigma = found.mu + step * abs(step), found.sigma * math.exp(turn * abs(turn))
    assert divergence(logpdf, mu, sigma) >= found.lower - 1e-12


@functools.cache
def box(name):
    prior, _, _ = CASES[name]
    problem = _Problem(prior.log_prob, prior.curvature, prior.quartic)
    return problem.box(prior.certificate.upper)


@settings(max_examples=200, deadline=None)
@given(
    name=st.sampled_from(["logistic", "cauchy", "modes-2", "three"]),
    side=st.sampled_from(["left", "right", "narrow", "wide"]),
    far=st.floats(0, 5),
    along=st.floats(-1, 1),
)
def test_outside_of_the_box_all_is_above(name, side, far, along):
    prior, logpdf, _ = CASES[name]
    found = prior.certificate
    lo, hi = box(name)
    (left, narrow), (right, wide) = lo.min(0).values.tolist(), hi.max(0).values.tolist()
    middle, half = (left + right) / 2, (right - left) / 2
    mu, sigma = middle + along * half, math.sqrt(narrow * wide) * (wide / narrow) ** (along / 2)
    match side:
        case "left":
            mu = left - far
        case "right":
            mu = right + far
        case "narrow":
            sigma = narrow * math.exp(-far)
        case "wide":
            sigma = wide * math.exp(far)
    assert divergence(logpdf, mu, sigma) >= found.upper - 1e-12
    if name == "cauchy":
        assert cauchy.cdf(right) - cauchy.cdf(left) >= 1 - 0.25 * math.exp(-2 * found.upper)


def skewed(x):
    logits = [norm.logpdf(x, -1) + math.log(0.3), norm.logpdf(x, 2) + math.log(0.7)]
    return np.logaddexp(*logits)


def skewed_tensor(x):
    logits = torch.stack(
        [-0.5 * (x + 1) ** 2 + math.log(0.3), -0.5 * (x - 2) ** 2 + math.log(0.7)]
    )
    return logits.logsumexp(0) - 0.5 * math.log(2 * math.pi)


SKEWED = (-1.25, 1.0)  # V'' = 1 − var(m_J|x), at most (3/2)²


def test_a_skewed_prior_moved_and_stretched():
    """Neither symmetry nor place nor scale is assumed; both bounds on V'' scale with 1/s²."""
    found = certified_minimum(skewed_tensor, SKEWED)
    runs = [
        minimize(lambda v: divergence(skewed, v[0], math.exp(v[1])), start, method="Powell")
        for start in ([-1.0, 0.0], [2.0, 0.0], [1.0, 0.5])
    ]
    least = min(float(run.fun) for run in runs)
    assert found.lower - 1e-12 <= least <= found.upper + 1e-9
    moved = certified_minimum(
        lambda x: skewed_tensor((x - 40) / 5) - math.log(5), tuple(c / 25 for c in SKEWED)
    )
    assert moved.lower == pytest.approx(found.lower, rel=1e-6)
    assert moved.mu == pytest.approx(40 + 5 * found.mu, abs=1e-3)
    assert moved.sigma == pytest.approx(5 * found.sigma, rel=1e-4)


@pytest.mark.parametrize("prior", [Logistic(), StudentT(2.0)], ids=["logistic", "student"])
def test_curvature_alone_is_enough(prior):
    found = certified_minimum(prior.log_prob, prior.curvature)
    assert found.lower <= prior.certificate.upper
    assert found.upper >= prior.certificate.lower
    assert found.upper - found.lower < 3e-5 * found.lower
    coarse = certified_minimum(prior.log_prob, prior.curvature, prior.quartic, relative=0.1)
    assert coarse.lower <= prior.certificate.upper
    assert coarse.evaluations < prior.certificate.evaluations


def test_a_gaussian_commits_nothing():
    found = certified_minimum(
        lambda x: -0.5 * (x - 3) ** 2 - 0.5 * math.log(2 * math.pi), (1.0, 1.0)
    )
    assert found.lower == 0
    assert found.upper == pytest.approx(0, abs=1e-10)
    assert (found.mu, found.sigma) == (pytest.approx(3, abs=1e-5), pytest.approx(1, abs=1e-5))


def test_broken_promises_are_refused():
    with pytest.raises(ValueError, match=r"curvature must bound .*, got \(0.0, 0.3\), but"):
        certified_minimum(Logistic().log_prob, (0.0, 0.3))
    with pytest.raises(ValueError, match=r"but it reaches -0\.2"):
        certified_minimum(StudentT(1.0).log_prob, (-0.1, 2.0))
    with pytest.raises(ValueError, match="log_prob must be normalised"):
        certified_minimum(lambda x: Logistic().log_prob(x) + 0.1, (0.0, 0.5))
    with pytest.raises(ValueError, match="curvature must be finite"):
        certified_minimum(Logistic().log_prob, (0.0, math.inf))
    with pytest.raises(ValueError, match="quartic must be finite and at least 0, got -1"):
        certified_minimum(Logistic().log_prob, (0.0, 0.5), quartic=-1.0)
    with pytest.raises(ValueError, match=r"relative must lie in \(0, 1\), got 1"):
        certified_minimum(Logistic().log_prob, (0.0, 0.5), relative=1.0)
    with pytest.raises(ValueError, match="starts must be at least 1, got 0"):
        numerical_minimum(Logistic().log_prob, starts=0)


def test_a_prior_without_bounds_is_not_certified():
    class Bare(ScalarPrior):
        def log_prob(self, x):
            return Logistic().log_prob(x)

    found = Bare().certificate
    assert not found.certified
    assert found.lower == found.upper == pytest.approx(0.0095116169, abs=1e-9)
