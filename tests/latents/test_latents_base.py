"""The functions that every pair shares."""

import math

import pytest
import torch

from deltavae.latents import MeanFieldNormal
from deltavae.latents.posterior import standard_normal_log_prob
from deltavae.latents.wording import told
from every_pair import EVERY_PAIR

SUMMARIES = {
    "AR1": "alpha 0.5, 0.95",
    "AR1 in units of σ*": "alpha 0.5, -0.99, minimiser_units on",
    "AR1 by innovations": "alpha 0.5, -0.99, minimiser_units on, innovations on",
    "ARp": "partials 0.8, -0.5, 0.3",
    "BatchNorm": "gamma 0.7, epsilon 1e-08, momentum 0.1",
    "BoundedVariance": "sigma_max 0.4",
    "Categorical": "confidence 0.6",
    "GaussianMarkov": "precision of 15 entries",
    "Grid": "down 0.9, -0.3, across 0.5, 0.7, height 2, width 3",
    "Independent": "sigma 0.490",  # √v, v the lesser root of ½ (v − 1 − ln v) = 1/3
    "LearnableAR1": "alpha 0.54",  # tanh(1.1 atanh 0.5) where training starts
    "LearnableAR1 by innovations": "alpha 0.54",
    "Matern": "length 4, 2, nu 2.5",
    "MeanFieldPair": "prior Laplace",
    "MeanFieldPair of modes": "prior GaussianMixture (separation 2.2, components 2)",
    "Quantised": "levels 5, 4, 2",
    "Spherical": "kappa 7",
    "SquaredExponential": "length 3, 1, jitter 0.001, order 10",
    "Standard": "",
    "Tree": "correlation 0.8, -0.6, branching 2, depth 2",
}


def test_posterior_density_and_samples():
    generator = torch.Generator().manual_seed(0)
    mu, log_sigma, z, noise = torch.randn(4, 3, 5, 2, generator=generator, dtype=torch.float64)
    q = MeanFieldNormal(mu, log_sigma.exp(), torch.zeros_like(mu))
    expected = torch.distributions.Normal(mu, log_sigma.exp()).log_prob(z).sum(dim=(1, 2))
    torch.testing.assert_close(q.log_prob(z), expected, rtol=1e-12, atol=1e-12)
    sample = q.sample(noise)
    standard = standard_normal_log_prob(noise) - log_sigma.sum(dim=(1, 2))
    torch.testing.assert_close(q.log_prob(sample), standard, rtol=1e-12, atol=1e-12)
    zero = torch.zeros(1, 1, 1)
    assert standard_normal_log_prob(zero).item() == pytest.approx(-0.5 * math.log(2 * math.pi))


@pytest.mark.parametrize("name", EVERY_PAIR)
def test_every_pair_tells_its_knob_in_a_line(name):
    summary = EVERY_PAIR[name]().summary
    assert "\n" not in summary
    if name.split()[0] in ("Independent", "LearnableAR1"):
        assert summary.startswith(SUMMARIES[name])
    else:
        assert summary == SUMMARIES[name]


def test_a_density_is_told_with_its_options():
    spec = {"class_path": "deltavae.certified.StudentT", "init_args": {"degrees": 2.5}}
    assert told(spec) == "StudentT (degrees 2.5)"
    assert told({"class_path": "deltavae.certified.Laplace"}) == "Laplace"


@pytest.mark.parametrize("make", EVERY_PAIR.values(), ids=EVERY_PAIR)
def test_a_rate_is_called_constant_where_no_parameter_moves_it(make):
    pair = make().double()
    generator = torch.Generator().manual_seed(0)
    shape = (64, pair.n, pair.params_per_step)
    raw = 3 * torch.randn(shape, generator=generator, dtype=torch.float64)
    rates = pair.rate(pair.posterior(raw))
    assert pair.constant_rate == bool((rates == pair.committed_rate).all())


@pytest.mark.parametrize("make", EVERY_PAIR.values(), ids=EVERY_PAIR)
def test_only_a_prior_that_learns_has_a_present_floor(make):
    pair = make()
    present = pair.current_committed_rate
    if any(True for _ in pair.parameters()):
        assert present >= pair.committed_rate
    else:
        assert present is None
