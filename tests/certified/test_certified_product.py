"""Independent draws as a torch distribution: density, draws and the registered divergence."""

import math

import pytest
import torch
from scipy.stats import cauchy, kstest, laplace, logistic, t
from torch.distributions import Independent as Reinterpreted
from torch.distributions import Normal, kl_divergence

from deltavae.certified import GaussianMixture, Laplace, Logistic, ProductPrior, StudentT

LAWS = {
    "laplace": (Laplace(), laplace()),
    "logistic": (Logistic(), logistic()),
    "cauchy": (StudentT(1.0), cauchy()),
    "student": (StudentT(3.5), t(3.5)),
}


def seeded(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def normal(mu, sigma):
    return Reinterpreted(Normal(mu, sigma), 2)


@pytest.mark.parametrize("name", LAWS)
def test_log_prob_is_a_sum_over_the_event(name):
    density, law = LAWS[name]
    prior = ProductPrior(density, 3, 2)
    z = 4 * seeded(5, 3, 2)
    expected = torch.from_numpy(law.logpdf(z.numpy())).sum(dim=(1, 2))
    torch.testing.assert_close(prior.log_prob(z), expected, rtol=1e-12, atol=0)
    assert prior.log_prob(z.float()).dtype == torch.float32
    with pytest.raises(ValueError, match="support"):
        prior.log_prob(torch.full((3, 2), torch.nan))


@pytest.mark.parametrize("name", LAWS)
def test_draws_follow_the_density(name):
    density, law = LAWS[name]
    prior = ProductPrior(density, 3, 2, torch.float64)
    torch.manual_seed(5)
    z = prior.sample((2000,))
    assert (z.shape, z.dtype) == ((2000, 3, 2), torch.float64)
    assert kstest(z.flatten().numpy(), law.cdf).pvalue > 1e-3
    ranks = torch.from_numpy(law.cdf(z.flatten(1).numpy())).T.corrcoef() - torch.eye(6)
    assert float(ranks.abs().max()) < 5 / math.sqrt(2000)  # independent: five standard errors
    assert ProductPrior(density, 3, 2).sample().dtype == torch.float32


def test_expand_keeps_the_distribution():
    prior = ProductPrior(Logistic(), 3, 2, torch.float64)
    wide = prior.expand((4, 5))
    assert (prior.batch_shape, wide.batch_shape) == ((), (4, 5))
    assert prior.event_shape == wide.event_shape == (3, 2)
    assert (type(wide), wide.density) == (ProductPrior, prior.density)
    assert (wide.sample((7,)).shape, wide.sample().dtype) == ((7, 4, 5, 3, 2), torch.float64)
    z, rows = seeded(3, 2), seeded(5, 3, 2)
    torch.testing.assert_close(wide.log_prob(z), prior.log_prob(z).expand(4, 5))
    torch.testing.assert_close(wide.log_prob(rows), prior.log_prob(rows).expand(4, 5))
    q = normal(rows, rows.exp())
    torch.testing.assert_close(kl_divergence(q, wide), kl_divergence(q, prior).expand(4, 5))


def test_divergence_from_laplace_in_closed_form():
    mu, sigma = 2 * seeded(7, 3, 2), seeded(7, 3, 2, seed=1).exp()
    r = mu / sigma
    mean = math.sqrt(2 / math.pi) * sigma * (-0.5 * r.square()).exp()
    mean += mu * torch.erf(r / math.sqrt(2))  # E|z|
    terms = mean + math.log(2) - sigma.log() - 0.5 * math.log(2 * math.pi * math.e)
    found = kl_divergence(normal(mu, sigma), ProductPrior(Laplace(), 3, 2))
    torch.testing.assert_close(found, terms.sum(dim=(1, 2)), rtol=1e-12, atol=0)
    single = kl_divergence(normal(mu.float(), sigma.float()), ProductPrior(Laplace(), 3, 2))
    assert single.dtype == torch.float64


@pytest.mark.parametrize("density", [StudentT(1.0), GaussianMixture(1.5, 3)], ids=["t", "modes"])
def test_divergence_by_monte_carlo(density):
    """E_q[ln q − ln p] over 200,000 draws, within five standard errors."""
    prior = ProductPrior(density, 3, 2)
    q = normal(seeded(3, 2), (0.5 * seeded(3, 2, seed=1)).exp())
    torch.manual_seed(0)
    z = q.sample((200_000,))
    sample = q.log_prob(z) - prior.log_prob(z)
    error = 5 * float(sample.std()) / math.sqrt(len(sample))
    assert error < 0.05
    assert float(sample.mean()) == pytest.approx(float(kl_divergence(q, prior)), abs=error)


def test_divergence_of_many_dimensions_is_their_sum():
    """More terms than are computed at once."""
    mu, sigma = seeded(3, 50, 20), seeded(3, 50, 20, seed=1).exp()
    whole = kl_divergence(normal(mu, sigma), ProductPrior(Laplace(), 50, 20))
    steps = zip(mu.split(10, 1), sigma.split(10, 1), strict=True)
    prior = ProductPrior(Laplace(), 10, 20)
    parts = sum(kl_divergence(normal(*step), prior) for step in steps)
    torch.testing.assert_close(whole, parts, rtol=1e-13, atol=0)
    empty = kl_divergence(normal(mu[:0], sigma[:0]), ProductPrior(Laplace(), 50, 20))
    assert empty.shape == (0,)


def test_divergence_is_differentiable():
    mu, log_sigma = seeded(2, 3, 2).requires_grad_(), seeded(2, 3, 2, seed=1).requires_grad_()
    prior = ProductPrior(Logistic(), 3, 2)
    assert torch.autograd.gradcheck(
        lambda m, g: kl_divergence(normal(m, g.exp()), prior), (mu, log_sigma)
    )


def test_what_has_no_divergence_is_refused():
    prior = ProductPrior(Laplace(), 3, 2)
    with pytest.raises(ValueError, match="event shapes must agree"):
        kl_divergence(normal(seeded(2, 3), torch.ones(2, 3)), prior)
    with pytest.raises(NotImplementedError, match="no KL by quadrature"):
        kl_divergence(Reinterpreted(torch.distributions.Cauchy(seeded(3, 2), 1.0), 2), prior)
    with pytest.raises(NotImplementedError):
        _ = prior.mean
    with pytest.raises(ValueError, match="n and d must be at least 1, got n=3, d=0"):
        ProductPrior(Laplace(), 3, 0)
