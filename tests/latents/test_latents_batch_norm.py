"""Batch-normalised Gaussian × N(0, I): the floor of the batch's mean; no example has it."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.distributions import Normal, kl_divergence

from deltavae.latents import BatchNorm
from deltavae.units import bits_to_nats


def seeded(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_rate_is_the_kl_from_the_standard_normal():
    latents = BatchNorm(4, 3, gamma=0.7)
    q = latents.posterior(3 * seeded(5, 4, 6))
    prior = Normal(torch.zeros((), dtype=torch.float64), 1.0)
    expected = kl_divergence(Normal(q.mu, q.sigma), prior)
    torch.testing.assert_close(latents.rate_terms(q), expected, rtol=1e-10, atol=1e-12)


def test_means_are_those_of_torch_batch_norm():
    latents = BatchNorm(4, 3, gamma=0.7, epsilon=1e-3, momentum=0.2).double()
    norm = torch.nn.BatchNorm1d(12, eps=1e-3, momentum=0.2).double()
    torch.nn.init.constant_(norm.weight, 0.7)
    for seed in range(3):
        params = 2 * seeded(6, 4, 6, seed=seed) + 1
        expected = norm(params[..., :3].flatten(1)).view(6, 4, 3)
        torch.testing.assert_close(latents.posterior(params).mu, expected)
    torch.testing.assert_close(latents.running_mean.flatten(), norm.running_mean)
    torch.testing.assert_close(latents.running_variance.flatten(), norm.running_var)
    latents.eval()
    norm.eval()
    before = latents.running_mean.clone()
    expected = norm(params[..., :3].flatten(1)).view(6, 4, 3)
    torch.testing.assert_close(latents.posterior(params).mu, expected)
    assert torch.equal(latents.running_mean, before)  # evaluation leaves no trace


@settings(max_examples=60, deadline=None)
@given(
    shape=st.tuples(st.integers(1, 6), st.integers(1, 3), st.integers(1, 3)),
    gamma=st.floats(0.05, 3.0),
    epsilon=st.sampled_from([1e-5, 1e-3, 1.0]),
    spread=st.floats(-4.0, 3.0),
    seed=st.integers(0, 2**31),
)
def test_bound_of_the_batch_mean_holds_and_is_met_at_unit_scales(
    shape, gamma, epsilon, spread, seed
):
    b, n, d = shape
    latents = BatchNorm(n, d, gamma, epsilon=epsilon).double()
    params = 10.0**spread * seeded(b, n, 2 * d, seed=seed)
    variance = params[..., :d].var(0, correction=0)
    bound = 0.5 * gamma**2 * (variance / (variance + epsilon)).sum().item()  # (2)
    rate = latents.rate(latents.posterior(params)).mean().item()
    assert rate >= bound * (1 - 1e-9)
    assert bound <= latents.mean_rate_floor * (1 + 1e-12)
    params[..., d:] = 0.0  # σ = 1: nothing above the floor
    tight = latents.rate(latents.posterior(params)).mean().item()
    assert tight == pytest.approx(bound, rel=1e-9, abs=1e-12)


def test_floor_follows_from_gamma_where_the_raw_means_vary():
    latents = BatchNorm.from_rate(7.0, n=4, d=3)
    assert latents.gamma == pytest.approx(math.sqrt(14 / 12), rel=1e-15)
    assert (latents.floor, latents.committed_rate) == ("mean", 0.0)
    assert latents.mean_rate_floor == pytest.approx(7.0, rel=1e-14)
    params = 30 * seeded(64, 4, 6)
    params[..., 3:] = 0.0
    assert latents.rate(latents.posterior(params)).mean().item() == pytest.approx(7.0, rel=1e-5)


@pytest.mark.parametrize("bits", [5.0, 50.0, 500.0])
def test_floor_is_the_one_asked_for_at_any_rate(bits):
    latents = BatchNorm.from_rate(bits_to_nats(bits), n=16, d=8)
    assert latents.mean_rate_floor == pytest.approx(bits_to_nats(bits), rel=1e-12)


def test_no_example_has_a_floor_and_neither_has_evaluation():
    """Three examples at −1, 0, 1: the middle one pays nothing, though the mean is at its floor."""
    latents = BatchNorm.from_rate(7.0, n=1, d=1).double()
    params = torch.tensor([-1.0, 0.0, 1.0], dtype=torch.float64)[:, None, None].expand(3, 1, 2)
    rate = latents.rate(latents.posterior(params * torch.tensor([1.0, 0.0])))
    assert rate.mean().item() == pytest.approx(7.0, rel=1e-4)
    assert rate[1].item() == 0.0
    latents.set_moments(params)
    alone = latents.eval().posterior(torch.zeros(2, 1, 2, dtype=torch.float64))
    assert latents.rate(alone).mean().item() == 0.0
    one = latents.train().posterior(seeded(1, 1, 2) * torch.tensor([1.0, 0.0]))
    assert latents.rate(one).item() == 0.0  # a batch of one has no variance


def test_set_moments_are_those_of_a_whole_batch():
    latents, params = BatchNorm(2, 3, gamma=1.3).double(), seeded(50, 2, 6) * 4 + 2
    whole = latents.posterior(params)
    latents.set_moments(params)
    torch.testing.assert_close(latents.eval().posterior(params).mu, whole.mu)


def test_gradient_is_finite_where_the_raw_means_agree():
    latents, params = BatchNorm(2, 3, gamma=1.0), torch.zeros(4, 2, 6, requires_grad=True)
    latents.rate(latents.posterior(params)).sum().backward()
    assert params.grad.isfinite().all()


def test_state_and_configuration_rebuild_it():
    latents = BatchNorm.from_rate(3.0, 2, 2, epsilon=1e-4)
    latents.posterior(seeded(8, 2, 4).float())
    again = BatchNorm(**latents.config())
    assert set(latents.state_dict()) == {"running_mean", "running_variance"}
    again.load_state_dict(latents.state_dict())
    params = seeded(3, 2, 4).float()
    assert torch.equal(again.eval().posterior(params).mu, latents.eval().posterior(params).mu)
    assert again.mean_rate_floor == latents.mean_rate_floor
    z = latents.sample_prior(5, torch.Generator().manual_seed(0))
    assert latents.log_prior(z).shape == (5,)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: BatchNorm(0, 1, 1.0), "n and d must be at least 1"),
        (lambda: BatchNorm(1, 1, 0.0), "gamma must be above 0, got 0.0"),
        (lambda: BatchNorm(1, 1, math.inf), "gamma must be above 0, got inf"),
        (lambda: BatchNorm(1, 1, 1.0, epsilon=0.0), "epsilon must be above 0"),
        (lambda: BatchNorm(1, 1, 1.0, momentum=0.0), r"momentum must lie in \(0, 1\]"),
        (lambda: BatchNorm.from_rate(0.0, 1, 1), "delta must be above 0, got 0.0"),
        (lambda: BatchNorm.from_rate(1.0, 0, 1), "n and d must be at least 1"),
    ],
)
def test_arguments_out_of_range_are_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()
