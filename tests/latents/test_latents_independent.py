"""The constrained Gaussian × N(0, I): the KL is δ_i + ½ s sin²θ, exactly and everywhere."""

import math

import numpy as np
import pytest
import torch
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import lambertw
from torch.distributions import Normal, kl_divergence
from torch.nn.functional import softplus

from deltavae.latents import Independent
from deltavae.latents.independent import log_variance_bounds
from deltavae.units import bits_to_nats

RATES = [1e-6, 1e-3, 0.1, 0.5, 2.0, 20.0, 40.0]
QUARTERS = [k * math.pi / 2 for k in range(-4, 5)]
ANGLES = [q + e for q in QUARTERS for e in (0.0, 1e-12, -1e-12, 1e-8, -1e-8, 1e-3, 0.4)]


def direct(mu: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
    one = torch.ones((), dtype=torch.float64)
    return kl_divergence(Normal(mu.double(), sigma.double()), Normal(0 * one, one))


def walk(
    rate: float, theta: list[float], raw: float, dtype: torch.dtype = torch.float64
) -> tuple[Independent, torch.Tensor]:
    latents = Independent(1, len(theta), rate * len(theta))
    row = torch.tensor([*theta, *[raw] * len(theta)], dtype=dtype)
    return latents, row.reshape(1, 1, -1)


@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("raw", [-40.0, -3.0, 0.0, 5.0])
def test_kl_is_the_committed_rate_plus_the_excess(rate, raw):
    latents, params = walk(rate, ANGLES, raw)
    q = latents.posterior(params)
    torch.testing.assert_close(direct(q.mu, q.sigma), latents.rate_terms(q), rtol=1e-9, atol=1e-14)
    slack = softplus(torch.tensor(raw, dtype=torch.float64))
    expected = 0.5 * slack * torch.tensor(ANGLES, dtype=torch.float64).sin().square()
    torch.testing.assert_close(q.excess[0, 0], expected, rtol=1e-12, atol=0)


@given(
    log_rate=st.floats(-6, math.log10(40)),
    theta=st.floats(-1e4, 1e4),
    raw=st.floats(-1e4, 1e4),
    double=st.booleans(),
)
@settings(max_examples=150, deadline=None)
def test_every_raw_output_keeps_the_floor(log_rate, theta, raw, double):
    dtype = torch.float64 if double else torch.float32
    rate = min(10**log_rate, 40.0)
    latents, params = walk(rate, [theta], raw, dtype)
    params.requires_grad_()
    q = latents.posterior(params)
    total = latents.rate(q)
    assert total.dtype == dtype
    assert q.excess.item() >= 0
    assert total.item() >= rate * (1 - (0 if double else 2**-23))
    kl = direct(q.mu, q.sigma).item()
    assert kl == pytest.approx(total.item(), rel=1e-9 if double else 1e-3, abs=1e-14)
    (total.sum() + q.mu.sum() + q.sigma.log().sum()).backward()
    assert bool(params.grad.isfinite().all())


@pytest.mark.parametrize("rate", RATES)
def test_roots_against_lambert_w(rate):
    low, high = log_variance_bounds(rate)
    assert low < 0 < high
    for root in (low, high):
        assert math.expm1(root) - root == pytest.approx(2 * rate, rel=1e-12, abs=1e-16)
    argument = -math.exp(-1 - 2 * rate)  # eᵛ − v = 1 + 2 rate  ⇔  w eʷ = argument, w = −eᵛ
    tolerance = 1e-12 if rate > 1e-2 else 1e-5  # W loses half its digits at its branch point
    for root, branch in ((low, 0), (high, -1)):
        expected = math.log(-lambertw(argument, branch).real)
        assert root == pytest.approx(expected, rel=tolerance)


@pytest.mark.parametrize("rate", RATES)
def test_the_loop_is_smooth_and_passes_both_signs(rate):
    theta = np.linspace(-math.pi, math.pi, 4001).tolist()
    latents, params = walk(rate, theta, -30.0)
    q = latents.posterior(params)
    mu, log_sigma = q.mu[0, 0], q.sigma[0, 0].log()
    low, high = log_variance_bounds(rate)
    assert float(2 * log_sigma.min()) == pytest.approx(low, rel=1e-6)
    assert float(2 * log_sigma.max()) == pytest.approx(high, rel=1e-6)
    torch.testing.assert_close(mu, -mu.flip(0), rtol=1e-6, atol=1e-9)  # odd in θ
    assert float(mu.max()) > 0.9 * math.sqrt(2 * rate)  # max μ² = c(0) = 2 rate
    assert float(mu.max()) <= math.sqrt(2 * rate) * (1 + 1e-9)
    # No jump, the sign change and the change of root included: steps are of the order of Δθ.
    spacing = theta[1] - theta[0]
    reach = float(mu.max()) + high - low
    assert float(mu.diff().abs().max()) < 3 * reach * spacing
    assert float(mu.diff().diff().abs().max()) < 60 * reach * spacing**2


@pytest.mark.parametrize("rate", [1e-6, 0.5, 20.0])
@pytest.mark.parametrize("theta", [0.0, math.pi / 2, math.pi, -math.pi / 2, 1.0, 2.5])
def test_gradients_are_those_of_the_values(rate, theta):
    latents, params = walk(rate, [theta, theta + 1e-7], 0.3)
    params.requires_grad_()

    def values(p: torch.Tensor) -> tuple[torch.Tensor, ...]:
        q = latents.posterior(p)
        return q.mu, q.sigma.log(), q.excess

    assert torch.autograd.gradcheck(values, params, eps=1e-6, atol=1e-6, rtol=1e-4)


def test_raw_zero_is_narrow_centred_and_trainable():
    latents = Independent(3, 2, 6.0)
    params = torch.zeros(1, 3, 4, dtype=torch.float64, requires_grad=True)
    q = latents.posterior(params)
    assert torch.equal(q.mu, torch.zeros_like(q.mu))
    torch.testing.assert_close(q.sigma[0], latents.sigma_star)
    assert bool((latents.sigma_star < 1).all())
    assert latents.rate(q).item() == 6.0
    (gradient,) = torch.autograd.grad(q.mu.sum(), params)
    assert bool((gradient[..., :2] > 0.1).all())


def test_rate_is_shared_equally_and_stated_exactly():
    delta = bits_to_nats(50.0)
    latents = Independent.from_rate(delta, 4, 3)
    assert latents.committed_rate == delta
    assert torch.equal(
        latents.committed_terms, torch.full((4, 3), delta / 12, dtype=torch.float64)
    )
    for bits in (5, 50, 500):
        wide = Independent.from_rate(bits_to_nats(float(bits)), 32, 4)
        q = wide.posterior(torch.zeros(1, 32, 8, dtype=torch.float64))
        assert direct(q.mu, q.sigma).sum().item() == pytest.approx(
            bits_to_nats(float(bits)), rel=1e-9
        )


def test_rate_against_monte_carlo():
    latents = Independent(2, 2, 3.0)
    generator = torch.Generator().manual_seed(0)
    params = torch.randn(1, 2, 4, generator=generator, dtype=torch.float64)
    draws = 40_000
    q = latents.posterior(params.expand(draws, 2, 4))
    z = q.sample(torch.randn(draws, 2, 2, generator=generator, dtype=torch.float64))
    ratio = q.log_prob(z) - latents.log_prior(z)
    error = float(ratio.std()) / math.sqrt(draws)
    assert abs(float(ratio.mean() - latents.rate(q)[0])) < 4 * error  # four standard errors
    assert error < 0.02


def test_prior_is_the_standard_normal():
    latents = Independent(3, 2, 1.0)
    noise = torch.randn(2, 3, 2, generator=torch.Generator().manual_seed(0))
    assert latents.prior_from_noise(noise) is noise
    expected = Normal(0.0, 1.0).log_prob(noise).sum(dim=(1, 2))
    torch.testing.assert_close(latents.log_prior(noise), expected)


def test_config_rebuilds_the_pair_exactly_through_yaml():
    latents = Independent(3, 7, bits_to_nats(10.0))
    again = Independent(**yaml.safe_load(yaml.safe_dump(latents.config())))
    assert again.config() == latents.config()
    assert torch.equal(again.sigma_star, latents.sigma_star)


@pytest.mark.parametrize("arguments", [(0, 1, 1.0), (1, 0, 1.0)])
def test_empty_shapes_are_refused(arguments):
    with pytest.raises(ValueError, match="n and d must be at least 1"):
        Independent(*arguments)


@pytest.mark.parametrize("delta", [0.0, -1.0, math.nan, math.inf, 80.1])
def test_delta_out_of_range_is_refused(delta):
    with pytest.raises(
        ValueError, match=r"delta must be above 0 and at most 80 nats = 115.416 bits"
    ):
        Independent(2, 1, delta)
    with pytest.raises(
        ValueError, match=r"rate per dimension must be above 0 and at most 40 nats"
    ):
        log_variance_bounds(delta)
