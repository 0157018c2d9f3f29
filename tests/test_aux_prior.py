"""The auxiliary prior: a normalised density, its rate, its fit, and no gradient to the rest."""

import math

import pytest
import torch

from deltavae import aux_prior
from deltavae.aux_prior import AuxiliaryPrior
from deltavae.latents import MeanFieldNormal


def make(n=3, d=2, seed=0):
    torch.manual_seed(seed)
    prior = AuxiliaryPrior(n, d, hidden=5).double()
    for parameter in prior.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    prior.loc.normal_()
    prior.scale.uniform_(0.5, 2.0)
    return prior


def posterior(b=4, n=3, d=2, seed=1):
    g = torch.Generator().manual_seed(seed)
    mu = torch.randn(b, n, d, generator=g, dtype=torch.float64)
    sigma = torch.rand(b, n, d, generator=g, dtype=torch.float64) + 0.2
    return MeanFieldNormal(mu, sigma, torch.zeros_like(mu))


def test_names_of_its_state_are_those_of_every_run_so_far():
    lstm = {f"lstm.{kind}_{to}_l0" for kind in ("weight", "bias") for to in ("ih", "hh")}
    rest = {"out.weight", "out.bias", "start", "loc", "scale", "updates"}
    assert set(AuxiliaryPrior(2, 1).state_dict()) == lstm | rest


def test_density_integrates_to_one():
    prior = make(n=2, d=1)
    axis = torch.linspace(-14, 14, 561, dtype=torch.float64)
    grid = torch.cartesian_prod(axis, axis).reshape(-1, 2, 1)
    mass = prior.log_prob(grid).exp().sum() * (axis[1] - axis[0]) ** 2
    assert mass.item() == pytest.approx(1.0, abs=1e-6)


def test_density_is_autoregressive_over_the_steps():
    prior = make(n=4, d=2)
    z = torch.randn(1, 4, 2, dtype=torch.float64)

    def parameters(z):
        return prior._outputs(z)[0].sum(1)  # (n,)

    jacobian = torch.autograd.functional.jacobian(parameters, z)[:, 0].abs().sum(-1)
    past = torch.ones(4, 4).tril(-1).bool()
    assert (jacobian[~past] == 0).all()
    assert (jacobian[past] > 0).all()


def test_samples_have_the_density_they_are_scored_with():
    prior = make()
    drawn = prior.sample(100_000, torch.Generator().manual_seed(0))
    # E[log p] of the draws against E[log p] of the same conditionals: −entropy by the chain rule.
    outputs = prior._outputs((drawn - prior.loc) / prior.scale)
    log_scale = prior.conditional.moments(outputs)[1] + prior.scale.log()
    entropy = (log_scale + 0.5 * math.log(2 * math.pi * math.e)).sum((1, 2))
    difference = prior.log_prob(drawn) + entropy
    assert difference.mean().item() == pytest.approx(
        0.0, abs=5 * difference.std().item() / math.sqrt(len(drawn))
    )


def test_rate_is_the_kl_in_expectation():
    """The closed form per step, averaged over draws, against log q − log p_aux by Monte Carlo."""
    prior, q = make(), posterior(b=1)
    many = 200_000
    noise = torch.randn(
        many, 3, 2, generator=torch.Generator().manual_seed(2), dtype=torch.float64
    )
    wide = MeanFieldNormal(*(t.expand(many, 3, 2) for t in (q.mu, q.sigma, q.excess)))
    z = wide.sample(noise)
    closed, monte_carlo = prior.rate(wide, z), wide.log_prob(z) - prior.log_prob(z)
    error = (closed - monte_carlo).std().item() / math.sqrt(many)
    assert closed.mean().item() == pytest.approx(monte_carlo.mean().item(), abs=5 * error)
    assert closed.std() < monte_carlo.std()  # what the closed form is for


def test_rate_is_zero_where_the_prior_equals_the_posterior():
    prior = AuxiliaryPrior(3, 2).double()
    q = posterior(b=1)
    prior.loc.copy_(q.mu[0])
    prior.scale.copy_(q.sigma[0])
    z = q.sample(torch.randn(1, 3, 2, dtype=torch.float64))
    assert prior.rate(q, z).item() == pytest.approx(0.0, abs=1e-12)


def test_no_gradient_reaches_the_posterior():
    prior, q = make(), posterior()
    mu = q.mu.clone().requires_grad_()
    sigma = q.sigma.clone().requires_grad_()
    live = MeanFieldNormal(mu, sigma, q.excess)
    rate = prior.rate(live, live.sample(torch.randn_like(mu)))
    rate.sum().backward()
    assert mu.grad is None
    assert sigma.grad is None
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in prior.parameters())


def test_standardisation_follows_the_moments_of_z():
    prior = AuxiliaryPrior(3, 2).double()
    q = posterior(b=500)
    prior.follow(q)  # the first batch sets it
    torch.testing.assert_close(prior.loc, q.mu.mean(0))
    variance = q.mu.var(0, correction=0) + q.sigma.square().mean(0)
    torch.testing.assert_close(prior.scale.square(), variance)
    other = posterior(b=500, seed=7)
    prior.follow(other)  # the second has half the weight
    torch.testing.assert_close(prior.loc, (q.mu.mean(0) + other.mu.mean(0)) / 2)


def test_fit_finds_a_gaussian_process():
    """z ~ AR(1) with noise: the fitted rate approaches its lower bound, I(x;z)."""
    n, alpha, count = 6, 0.9, 4000
    g = torch.Generator().manual_seed(0)
    path = [torch.randn(count, 1, generator=g)]
    for _ in range(n - 1):
        step = torch.randn(count, 1, generator=g)
        path.append(alpha * path[-1] + math.sqrt(1 - alpha**2) * step)
    mu = torch.stack(path, dim=1)
    q = MeanFieldNormal(mu, torch.full_like(mu, 0.5), torch.zeros_like(mu))
    lag = (torch.arange(n)[:, None] - torch.arange(n)).abs()
    covariance = alpha**lag + 0.25 * torch.eye(n)
    information = 0.5 * (torch.logdet(covariance) - n * math.log(0.25)).item()
    torch.manual_seed(0)
    losses = aux_prior.fit(
        AuxiliaryPrior(n, 1, hidden=24), q, steps=700, learning_rate=1e-2, generator=g
    )
    reached = sum(losses[-100:]) / 100
    factorised = n * 0.5 * math.log(1.25 / 0.25)  # what a prior that ignores time would pay
    assert information - 0.06 < reached < information + 0.15
    assert reached < factorised - 0.7


@pytest.mark.parametrize("arguments", [(0, 1, 4), (1, 0, 4), (1, 1, 0)])
def test_sizes_out_of_range_are_named(arguments):
    with pytest.raises(ValueError, match="must be at least 1, got 0"):
        AuxiliaryPrior(*arguments)


def test_fit_needs_steps():
    q = posterior()
    with pytest.raises(ValueError, match="steps must be at least 1"):
        aux_prior.fit(AuxiliaryPrior(3, 2), q, steps=0)
