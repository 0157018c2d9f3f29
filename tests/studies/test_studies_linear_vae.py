import math

import pytest
import torch
from sklearn.datasets import load_digits
from torch.distributions import MultivariateNormal, kl_divergence

from deltavae.latents import AR1
from deltavae.rates import committed_rate
from deltavae.studies.linear_vae import (
    analytic_rates,
    collapse_threshold,
    optimal_neg_elbo,
    train_linear_vae,
)

EIGENVALUES = torch.tensor(
    [8.0, 5.0, 3.0, 2.0, 1.5, 1.2, 0.8, 0.5, 0.3, 0.1, 0.0], dtype=torch.float64
)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def rotated(eigenvalues, seed=0):
    """A covariance with these eigenvalues, and its eigenvectors."""
    p = len(eigenvalues)
    normal = torch.randn(p, p, generator=seeded(seed), dtype=torch.float64)
    vectors = torch.linalg.qr(normal).Q
    return vectors * eigenvalues @ vectors.T, vectors


def ar1_precision(alpha, n):
    lag = (torch.arange(n)[:, None] - torch.arange(n)).abs()
    return torch.linalg.inv(alpha ** lag.double())


# The closed form.


def test_analytic_rates_are_kl_divergences_at_the_optimum():
    noise = 0.9
    rates = analytic_rates(EIGENVALUES, noise)
    for eigenvalue, rate in zip(EIGENVALUES.tolist(), rates.tolist(), strict=True):
        # q(z|x) of W = √(λ − σ²), by Bayes: variance σ²/(w² + σ²), mean w x/(w² + σ²).
        w = math.sqrt(max(eigenvalue - noise, 0.0))
        variance, slope = noise / (w**2 + noise), w / (w**2 + noise)
        mean_kl = 0.5 * (variance + slope**2 * eigenvalue - 1 - math.log(variance))
        assert rate == pytest.approx(mean_kl, abs=1e-12)
    assert (rates[EIGENVALUES.le(noise)] == 0).all()


@pytest.mark.parametrize("latents", [0, 4, 11])
def test_optimum_is_the_likelihood_of_probabilistic_pca(latents):
    covariance, vectors = rotated(EIGENVALUES)
    noise = 1.0
    length = (EIGENVALUES[:latents] - noise).clamp_min(0.0).sqrt()
    w = vectors[:, :latents] * length
    model = MultivariateNormal(
        torch.zeros(11, dtype=torch.float64), w @ w.T + noise * torch.eye(11, dtype=torch.float64)
    )
    # E −ln p(x) over N(0, C + ε) is KL + entropy; the mean of a quadratic needs C only.
    data = MultivariateNormal(
        torch.zeros(11, dtype=torch.float64),
        covariance + 1e-12 * torch.eye(11, dtype=torch.float64),
    )
    expected = kl_divergence(data, model) + data.entropy()
    assert optimal_neg_elbo(covariance, noise, latents) == pytest.approx(float(expected), abs=1e-6)


# Training reaches it.


@pytest.mark.parametrize("latents", [3, 8])
@pytest.mark.parametrize("seed", range(2))
def test_training_finds_the_principal_directions(latents, seed):
    covariance, vectors = rotated(EIGENVALUES)
    model = train_linear_vae(covariance, 1.0, latents, seeded(seed), steps=500)
    analytic = analytic_rates(EIGENVALUES[:latents], 1.0)
    assert (model.rates - analytic).abs().max() < 1e-4 * analytic.max()
    assert model.gap == pytest.approx(0.0, abs=1e-6)
    assert model.gap >= -1e-12
    assert model.rate == pytest.approx(float(analytic.sum()), abs=1e-4)
    assert model.information == pytest.approx(model.rate, abs=1e-4)  # q(z) = p(z)
    # Columns: eigenvectors of length √(λ − σ²), each latent one of them, in any order.
    length, order = model.weight.norm(dim=0).sort(descending=True)
    expected = (EIGENVALUES[:latents] - 1.0).clamp_min(0.0).sqrt()
    torch.testing.assert_close(length, expected, rtol=1e-3, atol=1e-3)
    used = int((expected > 0).sum())
    alignment = (vectors[:, :used] * model.weight[:, order[:used]] / length[:used]).sum(0).abs()
    assert (alignment > 1 - 1e-5).all()
    torch.testing.assert_close(
        model.variance[order], 1.0 / EIGENVALUES[:latents].clamp_min(1.0), rtol=1e-3, atol=0.0
    )


@pytest.mark.parametrize("noise", [0.1, 0.3])
def test_learned_rates_of_the_digits(noise):
    pixels = torch.from_numpy(load_digits().data) / 16.0
    covariance, latents = pixels.T.cov(correction=0), 10
    eigenvalues = torch.linalg.eigvalsh(covariance).flip(0)[:latents]
    model = train_linear_vae(covariance, noise, latents, seeded(), steps=500)
    analytic = analytic_rates(eigenvalues, noise)
    assert (model.rates - analytic).abs().max() < 0.02 * analytic.max()
    below = eigenvalues < 0.9 * noise
    assert (model.rates[below] < 1e-6).all()
    assert int(below.sum()) == {0.1: 0, 0.3: 5}[noise]
    assert 0 <= model.gap < 1e-3


def test_neg_elbo_against_draws():
    covariance, _ = rotated(EIGENVALUES[:4])
    precision = ar1_precision(0.7, 3)
    model = train_linear_vae(covariance, 0.5, 3, seeded(), precision=precision, steps=50)
    count, generator = 200_000, seeded(1)
    root = torch.linalg.cholesky(covariance)
    normal = torch.randn(count, 4, generator=generator, dtype=torch.float64)
    x = normal @ root.T
    mu = x @ model.encoder.T
    noise = torch.randn(count, 3, generator=generator, dtype=torch.float64)
    z = mu + model.variance.sqrt() * noise
    decoder = MultivariateNormal(z @ model.weight.T, 0.5 * torch.eye(4, dtype=torch.float64))
    prior = MultivariateNormal(torch.zeros(3, dtype=torch.float64), precision_matrix=precision)
    posterior = MultivariateNormal(mu, model.variance.diag())
    rates = kl_divergence(posterior, prior)
    values = rates - decoder.log_prob(x)
    assert float(rates.mean()) == pytest.approx(model.rate, abs=4 * float(rates.std()) / 447)
    assert float(values.mean()) == pytest.approx(model.neg_elbo, abs=4 * float(values.std()) / 447)


def test_history_tells_how_collapse_moves():
    covariance, _ = rotated(EIGENVALUES)
    model = train_linear_vae(covariance, 1.0, 8, seeded(), steps=200)
    history = model.history
    assert history.step[0] == 0
    assert (history.step.diff() > 0).all()
    assert len(history.step) == len(history.neg_elbo) == len(history.rates) == 52
    assert history.neg_elbo[-1] == model.neg_elbo < history.neg_elbo[0]
    assert torch.equal(history.rates[-1], model.rates)
    again = train_linear_vae(covariance, 1.0, 8, seeded(), steps=200)
    assert torch.equal(again.history.rates, history.rates)


# A committed rate.


def test_threshold_of_an_ar1_prior():
    assert collapse_threshold(torch.eye(3, dtype=torch.float64)) == pytest.approx(1.0)
    assert collapse_threshold(ar1_precision(0.5, 2)) == pytest.approx(0.5)  # 1 − α
    limit = (1 - 0.8) ** 2 / (1 + 0.8**2)
    assert collapse_threshold(ar1_precision(0.8, 400)) == pytest.approx(limit, rel=2e-3)


@pytest.mark.parametrize(("alpha", "n"), [(0.5, 2), (0.9, 6)])
def test_directions_below_the_noise_are_used_down_to_the_threshold(alpha, n):
    covariance, _ = rotated(EIGENVALUES / 8.0)  # λ_1 = 1
    precision = ar1_precision(alpha, n)
    delta, threshold = committed_rate([alpha], n), collapse_threshold(precision)
    assert AR1(n, [alpha]).committed_rate == pytest.approx(delta)

    def train(signal_to_noise):
        noise = 1.0 / signal_to_noise
        return train_linear_vae(covariance, noise, n, seeded(), precision=precision, steps=500)

    collapsed = train(0.7 * threshold)
    assert collapsed.rate == pytest.approx(delta, abs=1e-7)
    assert collapsed.gap == pytest.approx(delta, abs=1e-7)  # the whole rate bought nothing
    assert collapsed.information < 1e-6
    used = train(2.0 * threshold)  # still λ_1 ≤ σ²: N(0, I) would have collapsed
    assert 2.0 * threshold <= 1.0
    assert used.information > 0.1
    assert used.rate > delta + 1e-3
    assert 0 < used.gap < delta - 1e-4  # and the bound is the tighter for it


def test_bad_arguments():
    covariance = torch.eye(3, dtype=torch.float64)
    with pytest.raises(ValueError, match="noise must be positive and finite, got 0"):
        train_linear_vae(covariance, 0.0, 2, seeded())
    with pytest.raises(ValueError, match="latents must be at least 1, got 0"):
        train_linear_vae(covariance, 1.0, 0, seeded())
    with pytest.raises(ValueError, match="steps must be at least 1, got 0"):
        train_linear_vae(covariance, 1.0, 2, seeded(), steps=0)
    with pytest.raises(ValueError, match=r"precision must have 2 rows, got \(3, 3\)"):
        train_linear_vae(covariance, 1.0, 2, seeded(), precision=covariance)
