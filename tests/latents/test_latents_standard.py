"""Mean-field Gaussian × N(0, I)."""

import pytest
import torch
from torch.distributions import Normal, kl_divergence

from deltavae.latents import AR1, Standard


def seeded(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_rate_is_the_kl_from_the_standard_normal_dimension_by_dimension():
    latents = Standard(4, 3)
    q = latents.posterior(3 * seeded(5, 4, 6))
    prior = Normal(torch.zeros((), dtype=torch.float64), 1.0)
    expected = kl_divergence(Normal(q.mu, q.sigma), prior)
    torch.testing.assert_close(latents.rate_terms(q), expected, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(latents.rate(q), expected.sum(dim=(1, 2)), rtol=1e-10, atol=0)


def test_it_is_ar1_without_correlation():
    params = seeded(2, 4, 6)
    standard, ar1 = Standard(4, 3), AR1(4, [0.0] * 3)
    q, r = standard.posterior(params), ar1.posterior(params)
    assert ar1.committed_rate == standard.committed_rate == 0
    torch.testing.assert_close(q.mu, r.mu)
    torch.testing.assert_close(q.sigma, r.sigma)
    torch.testing.assert_close(standard.rate(q), ar1.rate(r))
    torch.testing.assert_close(standard.log_prior(q.mu), ar1.log_prior(q.mu))
    noise = seeded(2, 4, 3)
    torch.testing.assert_close(standard.prior_from_noise(noise), ar1.prior_from_noise(noise))


def test_the_posterior_can_equal_the_prior():
    latents = Standard(2, 2)
    q = latents.posterior(torch.zeros(1, 2, 4))
    assert latents.rate(q).item() == 0
    assert torch.equal(q.mu, torch.zeros(1, 2, 2))
    assert torch.equal(q.sigma, torch.ones(1, 2, 2))
    assert latents.to_decoder(q.mu) is q.mu


@pytest.mark.parametrize("size", [1.0, 1e2, 1e4])
def test_extreme_raw_output_stays_finite(size):
    params = (size * seeded(3, 4, 6).float()).clamp(-1e4, 1e4).requires_grad_()
    latents = Standard(4, 3)
    q = latents.posterior(params)
    assert bool((q.excess >= 0).all())
    latents.rate(q).sum().backward()
    assert bool(params.grad.isfinite().all())


def test_it_commits_nothing_and_says_so():
    assert Standard.from_rate(0.0, 3, 2).config() == {"n": 3, "d": 2}
    with pytest.raises(ValueError, match="delta must be 0 for Standard"):
        Standard.from_rate(1.0, 3, 2)
    with pytest.raises(ValueError, match="n and d must be at least 1"):
        Standard(0, 2)
    again = Standard(**Standard(3, 2).config())
    assert again.sample_prior(5, torch.Generator().manual_seed(0)).shape == (5, 3, 2)
