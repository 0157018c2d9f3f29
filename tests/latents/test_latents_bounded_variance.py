"""Bounded variance × N(0, I): the floor at the bound, the rate against the textbook KL."""

import math
from decimal import Decimal, localcontext

import pytest
import torch
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize
from torch.distributions import Normal, kl_divergence

from deltavae.latents import Latents
from deltavae.latents.bounded_variance import BoundedVariance
from deltavae.units import bits_to_nats


def textbook(q) -> torch.Tensor:
    return kl_divergence(
        Normal(q.mu.double(), q.sigma.double()), Normal(torch.zeros((), dtype=torch.float64), 1.0)
    ).sum(dim=(1, 2))


def seeded(*shape: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("sigma_max", [1 - 1e-9, 0.9999, 0.9, 0.3, 1e-6])
def test_the_floor_to_all_its_digits(sigma_max):
    with localcontext() as context:
        context.prec = 60
        variance = Decimal(sigma_max) ** 2
        exact = float(6 * (variance - 1 - variance.ln()) / 2)
    pair = BoundedVariance(3, 2, sigma_max)
    # ln σ² loses digits only as σ_max itself nears 1: 2⁻⁵³/(1 − σ_max), twice.
    assert pair.committed_rate == pytest.approx(exact, rel=1e-15 + 4e-16 / (1 - sigma_max))
    assert float(pair.committed_terms.sum()) == pytest.approx(pair.committed_rate, rel=1e-14)


@pytest.mark.parametrize("sigma_max", [0.99, 0.5, 0.01])
def test_rate_is_the_textbook_kl_and_an_optimiser_finds_its_floor(sigma_max):
    pair = BoundedVariance(4, 3, sigma_max)
    q = pair.posterior(2 * seeded(5, 4, 6))
    torch.testing.assert_close(pair.rate(q), textbook(q), rtol=1e-12, atol=0)
    assert bool((q.sigma < sigma_max).all())
    torch.testing.assert_close(pair.rate_terms(q).sum(dim=(1, 2)), pair.rate(q))

    def kl(point):  # in μ and σ, with the bound as a bound
        mu, sigma = point
        return 0.5 * (sigma**2 + mu**2 - 1) - math.log(sigma)

    found = minimize(kl, (0.5, sigma_max / 2), bounds=[(-3, 3), (1e-4, sigma_max)], tol=1e-14)
    assert 12 * found.fun == pytest.approx(pair.committed_rate, rel=1e-6)
    assert found.x[1] == pytest.approx(float(pair.sigma_star[0, 0]), rel=1e-6)


@given(data=st.data(), sigma_max=st.floats(1e-6, 1 - 1e-9), double=st.booleans())
@settings(max_examples=300, deadline=None)
def test_no_raw_output_falls_below_the_floor(data, sigma_max, double):
    pair = BoundedVariance(2, 1, sigma_max)
    magnitude = st.one_of(st.floats(-1e4, 1e4), st.floats(-1e-3, 1e-3), st.sampled_from([0.0]))
    raw = data.draw(st.lists(magnitude, min_size=4, max_size=4))
    dtype = torch.float64 if double else torch.float32
    params = torch.tensor(raw, dtype=dtype).reshape(1, 2, 2).requires_grad_()
    q = pair.posterior(params)
    rate = pair.rate(q)
    assert rate.dtype == dtype
    assert bool((q.excess >= 0).all())
    assert bool((q.sigma > 0).all())
    assert bool((q.sigma <= sigma_max * (1 + 2**-23)).all())
    assert math.isfinite(rate.item())
    assert rate.item() >= pair.committed_rate * (1 - (0 if double else 2**-23))
    (rate.sum() + q.sample(torch.ones_like(q.mu)).sum()).backward()
    assert bool(params.grad.isfinite().all())
    if double:
        assert rate.item() == pytest.approx(textbook(q).item(), rel=1e-9, abs=1e-9)


def test_the_floor_is_approached_as_the_raw_scale_falls():
    pair = BoundedVariance(2, 2, 0.8)
    params = torch.zeros(1, 2, 4, dtype=torch.float64)
    params[..., 2:] = -1e3
    q = pair.posterior(params)
    assert pair.rate(q).item() == pytest.approx(pair.committed_rate, rel=1e-8)
    torch.testing.assert_close(q.sigma[0], pair.sigma_star, rtol=1e-8, atol=0)


def test_gradient_of_the_rate():
    pair = BoundedVariance(2, 2, 0.7)
    params = torch.cat([seeded(2, 2, 4), 1e-6 * seeded(1, 2, 4)]).requires_grad_()
    assert torch.autograd.gradcheck(lambda p: pair.rate(pair.posterior(p)), params)


@pytest.mark.parametrize("bits", [5, 50, 500])
def test_from_rate_hits_the_target(bits):
    delta = bits_to_nats(float(bits))
    pair = BoundedVariance.from_rate(delta, n=32, d=8)
    assert pair.committed_rate == pytest.approx(delta, rel=1e-9)
    assert 0 < pair.sigma_max < 1


def test_draws_densities_and_configuration():
    pair = BoundedVariance.from_rate(3.0, 4, 2)
    again = BoundedVariance(**yaml.safe_load(yaml.safe_dump(pair.config())))
    assert again.config() == pair.config()
    assert again.committed_rate == pair.committed_rate
    z = pair.sample_prior(20_000, torch.Generator().manual_seed(0)).flatten(1)
    torch.testing.assert_close(z.T @ z / len(z), torch.eye(8), atol=0.05, rtol=0)
    expected = Normal(0.0, 1.0).log_prob(z[:3]).sum(1)
    torch.testing.assert_close(pair.log_prior(z[:3].reshape(3, 4, 2)), expected)
    assert isinstance(pair, Latents)
    assert pair.state_dict() == {}


def test_wrong_use_is_refused():
    for sigma_max in (0.0, 1.0, math.nan):
        with pytest.raises(ValueError, match=r"sigma_max must lie in \(0, 1\)"):
            BoundedVariance(2, 2, sigma_max)
    for n, d in ((0, 1), (1, 0)):
        with pytest.raises(ValueError, match="at least 1"):
            BoundedVariance(n, d, 0.5)
        with pytest.raises(ValueError, match="at least 1"):
            BoundedVariance.from_rate(1.0, n, d)
    with pytest.raises(ValueError, match=r"delta=0 nats = 0 bits at n=2, d=2: rate per"):
        BoundedVariance.from_rate(0.0, 2, 2)
