import math

import pytest
import torch
from scipy.optimize import brentq
from torch.distributions import Normal, kl_divergence

from deltavae.evaluation import active_units, information, mutual_information
from deltavae.latents import MeanFieldNormal


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def linear_gaussian(count, a, s, generator):
    """x ~ N(0, I), q(z|x) = N(a x, s²): I = ½ Σ ln(1 + a²/s²)."""
    a, s = (torch.tensor(v, dtype=torch.float64) for v in (a, s))
    x = torch.randn(count, *a.shape, generator=generator, dtype=torch.float64)
    q = MeanFieldNormal(a * x, s.expand_as(x), torch.zeros_like(x))
    return q, float(0.5 * torch.log1p((a / s) ** 2).sum())


A = [[1.0, 0.3], [0.05, 2.0]]
S = [[0.5, 0.3], [0.2, 1.0]]


def test_estimate_on_a_linear_gaussian_model():
    q, truth = linear_gaussian(4000, A, S, seeded(1))
    values = mutual_information(q, seeded(2))
    error = float(values.std()) / math.sqrt(4000)
    assert truth < math.log(4000) - 5  # well below the cap
    assert abs(float(values.mean()) - truth) < 4 * error + 0.02  # the bias is O(1/N)


def repeated(count, a, s):
    """Estimate and standard error on 400 data sets; the truth."""
    means, errors = [], []
    for seed in range(400):
        q, truth = linear_gaussian(count, a, s, seeded(seed))
        values = mutual_information(q, seeded(1000 + seed))
        means.append(values.mean())
        errors.append(values.std() / math.sqrt(count))
    return torch.stack(means), torch.stack(errors), truth


def test_estimate_stays_below_the_truth_near_the_cap():
    means, _, truth = repeated(60, [[6.0, 4.0]], [[0.5, 0.8]])
    bound = float(means.mean())
    assert 0.7 * truth < bound < truth - 4 * float(means.std()) / math.sqrt(400)
    assert bound < math.log(60) < truth


def test_estimate_and_standard_error_far_below_the_cap():
    means, errors, truth = repeated(200, [[0.6]], [[1.0]])
    error = float(means.std()) / math.sqrt(400)
    assert abs(float(means.mean()) - truth) < 4 * error + truth / 200  # no constant is missing
    # A standard deviation from 400 draws is known to 3.5 %.
    assert float(means.std() / errors.square().mean().sqrt()) == pytest.approx(1, abs=0.12)


@pytest.mark.parametrize("block", [1, 20, 2**23])
def test_estimate_against_torch_densities(monkeypatch, block):
    monkeypatch.setattr(information, "_BLOCK", block)
    generator = seeded(3)
    mu = 3 + torch.randn(9, 2, 3, generator=generator, dtype=torch.float64)
    sigma = torch.rand(9, 2, 3, generator=generator, dtype=torch.float64) + 0.1
    values = mutual_information(MeanFieldNormal(mu, sigma, torch.zeros_like(mu)), seeded(4))
    noise = torch.randn(9, 6, generator=seeded(4), dtype=torch.float64).reshape(9, 2, 3)
    z = mu + sigma * noise
    pairs = Normal(mu, sigma).log_prob(z[:, None]).sum((2, 3))  # (i, j): log q(z_i|x_j)
    expected = pairs.diagonal() - pairs.exp().mean(1).log()
    torch.testing.assert_close(values, expected, rtol=1e-10, atol=1e-10)


def test_estimate_does_not_change_with_the_units_of_z():
    q, _ = linear_gaussian(200, A, S, seeded(1))
    moved = MeanFieldNormal(1e-3 * q.mu + 1e3, 1e-3 * q.sigma, q.excess)
    torch.testing.assert_close(
        mutual_information(moved, seeded()), mutual_information(q, seeded()), rtol=1e-6, atol=1e-6
    )


def test_estimate_saturates_at_the_logarithm_of_the_examples():
    q, truth = linear_gaussian(500, [[1.0] * 8], [[1e-3] * 8], seeded(1))
    values = mutual_information(q, seeded())
    assert truth > 50
    assert (values <= math.log(500) + 1e-12).all()
    torch.testing.assert_close(values, torch.full_like(values, math.log(500)))


def correlated_gaussian(count, dims, information, generator):
    """x ~ N(0, C), q(z|x) = N(A x, S), S diagonal: I = ½ ln det(I + S⁻¹ A C Aᵀ)."""
    root, a = torch.randn(2, dims, dims, generator=generator, dtype=torch.float64)
    s = torch.rand(dims, generator=generator, dtype=torch.float64) + 0.2
    signal = a @ root @ root.T @ a.T  # A C Aᵀ, to be scaled
    eigenvalues = torch.linalg.eigvalsh(signal / (s[:, None] * s).sqrt())

    def excess(log_scale):
        gain = math.exp(log_scale)
        return float(0.5 * torch.log1p(gain * eigenvalues.clamp_min(0.0)).sum()) - information

    gain = math.exp(brentq(excess, -30.0, 30.0))
    x = torch.randn(count, dims, generator=generator, dtype=torch.float64) @ root.T
    mu = math.sqrt(gain) * x @ a.T
    mu = mu[:, None]
    q = MeanFieldNormal(mu, s.sqrt().expand_as(mu), torch.zeros_like(mu))
    total = gain * signal + s.diag()  # the covariance of q(z)
    assert float(0.5 * (total.logdet() - s.log().sum())) == pytest.approx(information)
    return q, total


@pytest.mark.parametrize(("information", "dims"), [(2.0, 2), (3.5, 20), (5.0, 6)])
def test_estimate_is_within_two_per_cent_well_below_the_cap(information, dims):
    count = 10_000  # cap 9.2 nats
    q, total = correlated_gaussian(count, dims, information, seeded(1))
    values = mutual_information(q, seeded(2))
    estimate, error = float(values.mean()), float(values.std()) / math.sqrt(count)
    assert estimate == pytest.approx(information, rel=0.02)
    # A lower bound, and no lower than its proven shortfall.
    shortfall = math.log1p(math.expm1(2 * information) / count)
    assert information - shortfall - 4 * error < estimate < information + 4 * error
    # The rate under a prior of the right variances, but without correlation, bounds I from above.
    prior = Normal(torch.zeros(dims, dtype=torch.float64), total.diagonal().sqrt())
    upper = kl_divergence(Normal(q.mu, q.sigma), prior).sum((1, 2)).mean()
    independence = 0.5 * (total.diagonal().log().sum() - total.logdet())  # KL(q(z) ‖ prior)
    assert float(upper) == pytest.approx(information + float(independence), rel=0.02)
    assert upper > estimate


def test_estimate_is_zero_where_the_posterior_ignores_x():
    q, _ = linear_gaussian(300, [[0.0, 0.0]], [[0.1, 2.0]], seeded())
    assert mutual_information(q, seeded()).abs().max() < 1e-12


def test_single_precision_encodings():
    q, _ = linear_gaussian(300, A, S, seeded())
    single = MeanFieldNormal(q.mu.float(), q.sigma.float(), q.excess.float())
    values = mutual_information(single, seeded())
    assert values.dtype == torch.float64
    assert float(values.mean()) == pytest.approx(
        float(mutual_information(q, seeded(1)).mean()), abs=0.3
    )


def test_active_units_are_judged_in_units_of_the_minimiser():
    x = torch.tensor([-1.0, 1.0])[:, None, None]  # variance 1
    sigma_star = torch.tensor([[1.0, 0.1], [0.1, 0.5]], dtype=torch.float64)
    scale = torch.tensor([[0.101, 0.0101], [0.0099, 0.0499]])  # the threshold is 0.1 σ*
    assert active_units(scale * x, sigma_star) == 2
    assert active_units(7 + scale * x, sigma_star) == 2  # the mean over the data does not count
    assert active_units(0 * scale * x, sigma_star) == 0
    assert active_units(2 * scale * x, sigma_star) == 4
