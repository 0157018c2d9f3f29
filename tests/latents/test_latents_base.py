"""The functions that every pair shares."""

import math
from decimal import Decimal, localcontext

import pytest
import torch

from deltavae.latents import MeanFieldNormal
from deltavae.latents.base import (
    bounded_log_scale,
    expm1_ratio,
    scale_excess,
)
from deltavae.latents.posterior import standard_normal_log_prob
from deltavae.latents.wording import told
from every_pair import EVERY_PAIR

SUMMARIES = {
    "AR1": "alpha 0.5, 0.95",
    "AR1 in units of σ*": "alpha 0.5, -0.99, minimiser_units on",
    "ARp": "partials 0.8, -0.5, 0.3",
    "BatchNorm": "gamma 0.7, epsilon 1e-08, momentum 0.1",
    "BoundedVariance": "sigma_max 0.4",
    "Categorical": "confidence 0.6",
    "GaussianMarkov": "precision of 15 entries",
    "Grid": "down 0.9, -0.3, across 0.5, 0.7, height 2, width 3",
    "Independent": "sigma 0.490",  # √v, v the lesser root of ½ (v − 1 − ln v) = 1/3
    "LearnableAR1": "alpha 0.54",  # tanh(1.1 atanh 0.5) where training starts
    "Matern": "length 4, 2, nu 2.5",
    "MeanFieldPair": "prior Laplace",
    "MeanFieldPair of modes": "prior GaussianMixture (separation 2.2, components 2)",
    "Quantised": "levels 5, 4, 2",
    "Spherical": "kappa 7",
    "SquaredExponential": "length 3, 1, jitter 0.001, order 10",
    "Standard": "",
    "Tree": "correlation 0.8, -0.6, branching 2, depth 2",
}


def exact_ratio(x: float) -> float:
    with localcontext() as context:
        context.prec = 700
        return float((Decimal(x).exp() - 1 - Decimal(x)) / Decimal(x))


POINTS = [1e-300, 1e-12, 1e-4, 0.01, 0.2, 0.2499999, 0.25, 0.2500001, 0.5, 1.0, 5.0, 20.0, 45.0]


@pytest.mark.parametrize("x", POINTS + [-x for x in POINTS])
def test_expm1_ratio_to_full_precision(x):
    value = torch.tensor(x, dtype=torch.float64)
    assert expm1_ratio(value).item() == pytest.approx(exact_ratio(x), rel=4e-15, abs=0)
    if 1e-30 < abs(x) < 30:
        single = torch.tensor(x, dtype=torch.float32)
        assert expm1_ratio(single).item() == pytest.approx(
            exact_ratio(single.item()), rel=2e-6, abs=0
        )


def test_expm1_ratio_gradient_is_right_at_and_around_zero():
    x = torch.tensor(
        [0.0, 1e-8, -1e-8, 0.1, -0.1, 0.25, -0.25, 0.26, 3.0, -3.0], dtype=torch.float64
    ).requires_grad_()
    assert expm1_ratio(x)[0].item() == 0
    (gradient,) = torch.autograd.grad(expm1_ratio(x).sum(), x)
    assert gradient[0].item() == pytest.approx(0.5, rel=1e-15)
    away = torch.tensor([0.1, -0.1, 0.26, 3.0, -3.0], dtype=torch.float64)
    closed = (away * away.exp() - away.expm1()) / away**2  # ρ' = (x eˣ − eˣ + 1)/x²
    torch.testing.assert_close(gradient[[3, 4, 7, 8, 9]], closed, rtol=1e-12, atol=0)
    assert torch.autograd.gradcheck(expm1_ratio, x)


def test_scale_excess_is_the_formula_and_never_negative():
    g = torch.linspace(-10, 10, 4001, dtype=torch.float64)
    expected = 0.5 * (torch.expm1(2 * g) - 2 * g)
    torch.testing.assert_close(scale_excess(g), expected, rtol=1e-12, atol=1e-15)
    # g² + … in float32, where the difference of eq. (2) has hardly a digit left
    small = torch.tensor([1e-6, -1e-5, 1e-4])
    torch.testing.assert_close(scale_excess(small), small**2, rtol=1e-4, atol=0)
    tiny = torch.logspace(-20, 0, 20001, dtype=torch.float32)
    for values in (tiny, -tiny, g.float()):
        assert bool((scale_excess(values) >= 0).all())
    assert scale_excess(torch.zeros(1)).item() == 0


def test_bounded_log_scale():
    raw = torch.tensor([0.0, 1e-6, 1e4, -1e4], dtype=torch.float64, requires_grad=True)
    g = bounded_log_scale(raw)
    torch.testing.assert_close(g, torch.tensor([0.0, 1e-6, 10, -10], dtype=torch.float64))
    g.sum().backward()
    assert raw.grad[0].item() == 1
    assert bool(raw.grad.isfinite().all())


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
    if name in ("Independent", "LearnableAR1"):
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
