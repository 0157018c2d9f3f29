"""The divergence from a conditional normal: the textbook's, and right where it is smallest."""

import torch
from torch.distributions import Normal, kl_divergence

from deltavae.latents.conditional import ConditionalNormal
from deltavae.latents.posterior import MeanFieldNormal


def normal(mean, log_sigma):
    return MeanFieldNormal(mean, log_sigma.exp(), torch.zeros_like(mean))


def test_divergence_is_the_textbooks_channel_by_channel():
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(4, 5, 3, 2, generator=generator, dtype=torch.float64)
    family, outputs = ConditionalNormal(2), torch.cat([values[0], values[1]], dim=-1)
    q = normal(values[2], values[3])
    mean, log_scale = family.moments(outputs)
    expected = kl_divergence(Normal(q.mu, q.sigma), Normal(mean, log_scale.exp()))
    torch.testing.assert_close(family.kl_terms(outputs, q), expected, rtol=1e-12, atol=1e-12)
    total = family.kl(outputs, q, q.mu)
    torch.testing.assert_close(total, expected.sum(-1), rtol=1e-12, atol=1e-12)


def test_divergence_of_near_normals_keeps_its_digits_and_its_sign_in_float32():
    """Here ½ (σ²/s² − 1) − ln(σ/s) has no digit left: its terms are 1, their sum g²."""
    q = normal(torch.zeros(1, 1, 1), torch.full((1, 1, 1), 1e-4))
    assert torch.isclose(
        ConditionalNormal(1).kl_terms(torch.zeros(1, 1, 2), q), torch.tensor(1e-8), rtol=2e-3
    ).item()
    scales = torch.logspace(-8, 0, 4001)
    for g in (scales[None, :, None], -scales[None, :, None]):
        terms = ConditionalNormal(1).kl_terms(torch.zeros(1, 4001, 2), normal(0 * g, g))
        assert bool((terms >= 0).all())
