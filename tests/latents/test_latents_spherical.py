"""Directions: the constant rate, its draws, and the density of the auxiliary prior."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from deltavae.latents import ConditionalPowerSpherical, Spherical, SphericalPosterior
from deltavae.units import bits_to_nats, nats_to_bits

# Steps and channels that can carry the rate.
ASKED = [(5.0, 14, 4), (50.0, 14, 4), (500.0, 32, 8)]


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def drawn(latents, count, seed=0, dtype=torch.float64):
    params = torch.randn(1, latents.n, latents.d, generator=seeded(seed), dtype=dtype)
    q = latents.posterior(params.expand(count, -1, -1))
    noise = torch.randn(q.mu.shape, generator=seeded(seed + 1), dtype=dtype)
    return q, q.sample(noise)


@pytest.mark.parametrize(("bits", "n", "d"), ASKED)
def test_from_rate_hits_the_rate(bits, n, d):
    latents = Spherical.from_rate(bits_to_nats(bits), n, d)
    assert nats_to_bits(latents.committed_rate) == pytest.approx(bits, rel=1e-9)
    again = type(latents)(**latents.config())
    assert again.committed_rate == latents.committed_rate


@given(
    st.lists(
        st.one_of(st.floats(-1e4, 1e4, width=32), st.sampled_from([0.0, 1e-30, -1e30])),
        min_size=6,
        max_size=6,
    ),
    st.sampled_from([torch.float32, torch.float64, torch.bfloat16]),
)
@settings(max_examples=50, deadline=None)
def test_the_rate_is_the_floor_whatever_the_net_says(numbers, dtype):
    latents = Spherical(2, 3, 7.0)
    q = latents.posterior(torch.tensor(numbers, dtype=dtype).view(1, 2, 3))
    ones = torch.ones(1, 2, dtype=q.mu.dtype)
    torch.testing.assert_close(q.mu.norm(dim=-1), ones)
    noise = torch.randn(1, 2, 3, generator=seeded(), dtype=q.mu.dtype)
    torch.testing.assert_close(q.sample(noise).norm(dim=-1), ones)
    assert latents.direct_rate(q).tolist() == pytest.approx([latents.committed_rate])
    assert (latents.rate(q) == torch.tensor(latents.committed_rate, dtype=q.mu.dtype)).all()
    assert float(latents.rate_terms(q).double().sum()) == pytest.approx(latents.committed_rate)


def test_the_rate_is_the_divergence_by_monte_carlo():
    latents = Spherical.from_rate(bits_to_nats(20.0), 5, 3)
    q, z = drawn(latents, 50_000)
    estimate = q.log_prob(z) - latents.log_prior(z)
    error = float(estimate.std()) / math.sqrt(len(estimate))
    assert float(estimate.mean()) == pytest.approx(latents.committed_rate, abs=5 * error)
    assert error < 0.01 * latents.committed_rate


def test_sigma_star_is_the_spread_across_the_direction():
    latents = Spherical(2, 5, 12.0)
    q, z = drawn(latents, 50_000)
    across = z - (z * q.mu).sum(-1, keepdim=True) * q.mu
    spread = across.square().sum(-1).mean(0) / (latents.d - 1)
    torch.testing.assert_close(spread, latents.sigma_star[:, 0].square(), rtol=0.02, atol=0)


def test_pairs_agree_with_the_density():
    latents = Spherical(3, 4, 9.0)
    params = torch.randn(6, 3, 4, generator=seeded(), dtype=torch.float64)
    q = latents.posterior(params)
    z = q.sample(torch.randn(q.mu.shape, generator=seeded(1), dtype=torch.float64))
    pairs = q.pair_log_prob(z[:4])
    expected = torch.stack([q.map(lambda t, j=j: t[j : j + 1]).log_prob(z[:4]) for j in range(6)])
    torch.testing.assert_close(pairs, expected.T)


def test_draws_of_the_prior_are_uniform_and_points_are_projected():
    latents = Spherical(2, 3, 5.0)
    z = latents.sample_prior(20_000, seeded()).double()
    torch.testing.assert_close(z.norm(dim=-1), torch.ones(20_000, 2, dtype=torch.float64))
    moment = torch.einsum("bni,bnj->ij", z, z) / (2 * 20_000)
    torch.testing.assert_close(moment, torch.eye(3, dtype=torch.float64) / 3, rtol=0, atol=0.01)
    torch.testing.assert_close(latents.nearest(3.0 * z), z)
    assert float(latents.to_decoder(z).square().mean()) == pytest.approx(1.0)


def test_a_mean_off_the_sphere_is_no_posterior_of_the_pair():
    latents = Spherical(2, 3, 7.0)
    q = latents.posterior(torch.ones(1, 2, 3))
    assert float(latents.direct_rate(q.map(lambda t: 0.99 * t))) == math.inf


def test_the_gradient_reaches_the_network_and_only_turns():
    latents = Spherical(2, 3, 5.0)
    params = torch.randn(4, 2, 3, generator=seeded(), dtype=torch.float64).requires_grad_()
    q = latents.posterior(params)
    z = q.sample(torch.randn(q.mu.shape, generator=seeded(1), dtype=torch.float64))
    weights = torch.randn(z.shape, generator=seeded(2), dtype=torch.float64)
    (gradient,) = torch.autograd.grad((z * weights).sum(), params)
    assert (gradient.abs() > 0).all()
    along = (gradient * params).sum(-1)  # the length of the output says nothing
    torch.testing.assert_close(along, torch.zeros_like(along), rtol=0, atol=1e-12)


def test_the_auxiliary_density_integrates_to_one_and_starts_next_to_uniform():
    family = ConditionalPowerSpherical(2)
    angle = torch.arange(2000, dtype=torch.float64) * (2 * math.pi / 2000)
    circle = torch.stack([angle.cos(), angle.sin()], dim=-1)[None]
    outputs = torch.tensor([0.3, -1.2, 5.0], dtype=torch.float64)
    values = family.log_prob(outputs.expand(1, 2000, 3), circle).exp()
    assert float(values.mean()) * 2 * math.pi == pytest.approx(1.0, rel=1e-9)
    start = family.log_prob(torch.zeros(1, 2000, 3, dtype=torch.float64), circle)
    near = (start + math.log(2 * math.pi)).abs() < 0.2
    assert float(near.double().mean()) > 0.99  # all but the antipode


def test_the_auxiliary_density_is_drawn_as_it_is_scored():
    family = ConditionalPowerSpherical(3)
    outputs = torch.tensor([0.5, -1.0, 2.0, 6.0], dtype=torch.float64).expand(40_000, 4)
    z = family.draw(outputs, torch.randn(40_000, 3, generator=seeded(), dtype=torch.float64))
    mu, kappa = family.parameters(outputs[:1])
    cosine = float((z @ mu[0]).mean())
    assert cosine == pytest.approx(float(kappa / (kappa + 2)), abs=0.01)
    # KL from itself: 0 at every draw
    q = SphericalPosterior(
        mu.expand(40_000, 3)[:, None],
        torch.zeros(40_000, 1, 1, dtype=torch.float64),
        float(kappa),
        Spherical(1, 3, float(kappa))._quantile,
    )
    kl = family.kl(outputs[:, None], q, z[:, None])
    torch.testing.assert_close(kl, torch.zeros_like(kl), rtol=0, atol=1e-9)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Spherical(0, 3, 1.0), "n must be at least 1, got 0"),
        (lambda: Spherical(2, 1, 1.0), "d must be at least 2 for a sphere, got 1"),
        (lambda: Spherical(2, 3, 1e7), "kappa must lie in"),
        (lambda: Spherical.from_rate(0.0, 2, 3), "delta must be above 0, got 0.0"),
        (lambda: Spherical.from_rate(1e4, 2, 3), "more channels d carry more"),
    ],
)
def test_bad_arguments_are_named(build, message):
    with pytest.raises(ValueError, match=message):
        build()
