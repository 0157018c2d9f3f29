"""The power spherical distribution against integrals, Beta variates and its own draws."""

import math

import numpy as np
import pytest
import torch
from scipy import stats
from scipy.integrate import quad
from scipy.special import gammaincinv, ndtr
from torch.distributions import kl_divergence

from deltavae.latents import PowerSpherical, SphericalUniform
from deltavae.latents.power_spherical import (
    GammaQuantile,
    from_noise,
    log_area,
    log_density,
    rate_of,
)

CASES = [(2, 0.3), (2, 3.0), (3, 1.0), (3, 40.0), (8, 0.5), (8, 25.0), (32, 300.0)]


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def direction(d, seed=0):
    mu = torch.randn(d, generator=seeded(seed), dtype=torch.float64)
    return mu / mu.norm()


def test_the_area_of_circle_and_sphere():
    assert log_area(2) == pytest.approx(math.log(2 * math.pi), rel=1e-15)
    assert log_area(3) == pytest.approx(math.log(4 * math.pi), rel=1e-15)


def density_of_the_cosine(t, kappa, d):
    # |S^{d−2}| (1 − t²)^{(d−3)/2} p: what is left of (1) when the directions about μ are summed
    ring = math.exp(log_area(d - 1)) if d > 2 else 2.0
    value = log_density(torch.tensor(2 - 2 * t, dtype=torch.float64), kappa, d)
    return ring * (1 - t * t) ** ((d - 3) / 2) * math.exp(float(value))


@pytest.mark.parametrize(("d", "kappa"), CASES)
def test_density_integrates_to_one_and_to_the_rate(d, kappa):
    def integral(function):
        # t = sin u takes away the poles of (1 − t²)^{(d−3)/2}
        def inner(u):
            t = math.sin(u)
            return function(t) * density_of_the_cosine(t, kappa, d) * math.cos(u)

        return quad(inner, -math.pi / 2, math.pi / 2, epsabs=1e-12, epsrel=1e-11, limit=200)[0]

    def log_ratio(t):
        return float(
            log_density(torch.tensor(2 - 2 * t, dtype=torch.float64), kappa, d)
        ) + log_area(d)

    assert integral(lambda t: 1.0) == pytest.approx(1.0, rel=1e-9)
    assert integral(log_ratio) == pytest.approx(rate_of(kappa, d), rel=1e-8, abs=1e-12)


@pytest.mark.parametrize(("d", "kappa"), CASES)
def test_the_registered_kl_is_the_same_rate(d, kappa):
    q = PowerSpherical(direction(d), torch.tensor(kappa, dtype=torch.float64))
    found = float(kl_divergence(q, SphericalUniform(d)))
    assert found == pytest.approx(rate_of(kappa, d), rel=1e-9, abs=1e-13)


@pytest.mark.parametrize("shape", [0.5, 1.0, 3.5, 40.0, 1e4])
def test_the_quantile_of_gamma_and_its_slope(shape):
    quantile = GammaQuantile(shape)
    r = torch.linspace(-6, 6, 501, dtype=torch.float64).requires_grad_()
    value = quantile(r)
    exact = gammaincinv(shape, ndtr(r.detach().numpy()))
    low = r.detach().numpy() < 5  # scipy loses the upper tail's digits beyond
    np.testing.assert_allclose(value.detach().numpy()[low], exact[low], rtol=1e-9)
    (slope,) = torch.autograd.grad(value.sum(), r)
    h = 1e-4
    with torch.no_grad():
        difference = (quantile(r + h) - quantile(r - h)) / (2 * h)
    torch.testing.assert_close(slope, difference, rtol=1e-5, atol=0)
    assert (slope > 0).all()


@pytest.mark.parametrize(("d", "kappa"), [(2, 3.0), (3, 1.0), (8, 25.0)])
def test_draws_from_noise_are_power_spherical(d, kappa):
    count, beta = 20_000, (d - 1) / 2
    mu = direction(d).expand(count, d)
    noise = torch.randn(count, d, generator=seeded(1), dtype=torch.float64)
    z = from_noise(mu, noise, GammaQuantile(beta + kappa))
    torch.testing.assert_close(z.norm(dim=1), torch.ones(count, dtype=torch.float64))
    cosine = (z * mu).sum(1)
    found = stats.kstest(((1 + cosine) / 2).numpy(), stats.beta(beta + kappa, beta).cdf)
    assert found.pvalue > 1e-3
    across = z - cosine[:, None] * mu  # no direction but μ
    error = across.std(0) / math.sqrt(count)
    assert (across.mean(0).abs() < 5 * error).all()
    torch.manual_seed(0)
    drawn = PowerSpherical(mu[0], torch.tensor(kappa, dtype=torch.float64)).rsample((count,))
    other = stats.ks_2samp((drawn @ mu[0]).numpy(), cosine.numpy())
    assert other.pvalue > 1e-3


@pytest.mark.parametrize("d", [2, 5])
def test_the_gradient_through_a_draw_is_that_of_the_mean(d):
    """E z = μ κ/(κ + d − 1): turning μ turns the mean, on average over draws."""
    kappa, count = 4.0, 100_000
    mu, turn = direction(d), direction(d, seed=5)
    turn = turn - (turn @ mu) * mu  # a tangent
    angle = torch.zeros(count, dtype=torch.float64).requires_grad_()
    turned = mu + angle[:, None] * turn
    noise = torch.randn(count, d, generator=seeded(2), dtype=torch.float64)
    length = turned.norm(dim=1, keepdim=True)
    z = from_noise(turned / length, noise, GammaQuantile((d - 1) / 2 + kappa))
    (slopes,) = torch.autograd.grad((z @ turn).sum(), angle)
    expected = float(turn @ turn) * kappa / (kappa + d - 1)
    error = float(slopes.std()) / math.sqrt(count)
    assert float(slopes.mean()) == pytest.approx(expected, abs=5 * error)
    assert error < 0.01 * expected


def test_distributions_follow_the_shapes_of_torch():
    loc = torch.nn.functional.normalize(torch.randn(4, 3, generator=seeded()), dim=-1)
    q = PowerSpherical(loc, torch.tensor(2.0))
    assert q.batch_shape == (4,)
    assert q.event_shape == (3,)
    assert q.expand((5, 4)).rsample((2,)).shape == (2, 5, 4, 3)
    assert q.log_prob(SphericalUniform(3).sample((6, 4))).shape == (6, 4)
    with pytest.raises(ValueError, match="within the support"):
        q.log_prob(torch.ones(3))
    with pytest.raises(ValueError, match="d must be at least 2"):
        SphericalUniform(1)


@pytest.mark.parametrize(("d", "kappa"), [(2, 1e6), (3, 1e5), (8, 300.0)])
def test_float32_keeps_the_digits_of_the_density_and_of_the_kl(d, kappa):
    mu = direction(d)
    noise = torch.randn(1000, d, generator=seeded(3), dtype=torch.float64)
    z = from_noise(mu.expand(1000, d), noise, GammaQuantile((d - 1) / 2 + kappa))
    # The same points: rounded first, then scored in both precisions.
    z, mu = z.float(), mu.float()
    exact = PowerSpherical(mu.double(), torch.tensor(kappa, dtype=torch.float64), False)
    single = PowerSpherical(mu, torch.tensor(kappa), False)
    error = single.log_prob(z).double() - exact.log_prob(z.double())
    assert float(error.abs().max()) < 1e-5 * (1 + abs(rate_of(kappa, d)))
    found = float(kl_divergence(single, SphericalUniform(d)))
    assert found == pytest.approx(rate_of(kappa, d), rel=1e-6)


def test_it_is_uniform_without_concentration():
    assert rate_of(1e-6, 4) == pytest.approx(0, abs=1e-11)
    z = SphericalUniform(4).sample((10,))
    p = PowerSpherical(torch.eye(4)[0], torch.tensor(1e-6))
    torch.testing.assert_close(p.log_prob(z), SphericalUniform(4).log_prob(z), rtol=0, atol=1e-4)
