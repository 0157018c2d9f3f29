"""Mean-field Gaussian × LSTM prior: a normalised density, its rate, its draws, its gradients."""

import math

import pytest
import torch
from torch.distributions import Normal, kl_divergence

from deltavae.latents import LearnedPrior, MeanFieldNormal, Standard


def make(n=3, d=2, seed=0):
    torch.manual_seed(seed)
    latents = LearnedPrior(n, d, hidden=5).double()
    for parameter in latents.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return latents


def noise(*shape, seed=1):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("n", [1, 2])
def test_density_integrates_to_one(n):
    latents = make(n=n, d=1)
    axis = torch.linspace(-14, 14, 561, dtype=torch.float64)
    grid = torch.cartesian_prod(*[axis] * n).reshape(-1, n, 1)
    mass = latents.log_prior(grid).exp().sum() * (axis[1] - axis[0]) ** n
    assert mass.item() == pytest.approx(1.0, abs=1e-6)


def test_rate_is_the_kl_in_expectation():
    """Closed form per step, averaged over draws, against log q − log p by Monte Carlo."""
    latents, many = make(), 100_000
    one = latents.posterior(noise(1, 3, 4))
    q = MeanFieldNormal(*(t.expand(many, 3, 2) for t in (one.mu, one.sigma, one.excess)))
    z = q.sample(noise(many, 3, 2, seed=2))
    with torch.no_grad():
        rate, monte_carlo = latents.rate(q, z), q.log_prob(z) - latents.log_prior(z)
    difference = rate - monte_carlo
    error = difference.std().item() / math.sqrt(many)
    assert difference.mean().item() == pytest.approx(0.0, abs=5 * error)
    assert rate.std() < monte_carlo.std()  # what the closed form is for
    assert (rate >= 0).all()
    torch.testing.assert_close(latents.rate_terms(q, z).sum((1, 2)), rate)


def test_rate_and_its_terms_come_from_one_run_of_the_prior():
    latents, runs = make(), []
    q = latents.posterior(noise(5, 3, 4))
    z = q.sample(noise(5, 3, 2, seed=2))
    expected = latents.rate(q, z), latents.rate_terms(q, z)
    latents.lstm.register_forward_hook(lambda *_: runs.append(1))
    rate, terms = latents.rates(q, z)
    assert torch.equal(rate, expected[0])
    assert torch.equal(terms, expected[1])
    assert len(runs) == 1


def test_rate_terms_are_the_kl_of_each_step_given_the_draws_before():
    latents = make(n=4)
    q = latents.posterior(noise(5, 4, 4))
    z = q.sample(noise(5, 4, 2, seed=2))
    state, u = None, latents.start.expand(5, 1, -1)
    for t in range(4):
        output, state = latents.lstm(u, state)
        mean, raw = latents.out(output)[:, 0].chunk(2, dim=-1)
        step = Normal(mean, (6 * torch.tanh(raw / 6)).exp())
        expected = kl_divergence(Normal(q.mu[:, t], q.sigma[:, t]), step)
        torch.testing.assert_close(latents.rate_terms(q, z)[:, t], expected, rtol=1e-9, atol=1e-12)
        u = z[:, t : t + 1]


def test_cost_of_a_step_depends_on_the_draws_before_it_and_on_no_others():
    latents = make(n=4)
    q = latents.posterior(noise(1, 4, 4))

    def cost(z):
        return latents.rate_terms(q, z)[0].sum(-1)  # (n,)

    z = q.sample(noise(1, 4, 2))
    jacobian = torch.autograd.functional.jacobian(cost, z)[:, 0].abs().sum(-1)
    past = torch.ones(4, 4).tril(-1).bool()
    assert (jacobian[~past] == 0).all()
    assert (jacobian[past] > 0).all()


def test_draws_have_the_density_they_are_scored_with():
    latents = make()
    with torch.no_grad():
        z = latents.prior_from_noise(noise(50_000, 3, 2))
        # ln p(z) of the draw is ln N(noise) − Σ ln s: the change of variables, step by step.
        _, log_scale = latents._normal.moments(latents._outputs(z))
        white = -0.5 * (noise(50_000, 3, 2).square() + math.log(2 * math.pi)).sum((1, 2))
        torch.testing.assert_close(latents.log_prior(z), white - log_scale.sum((1, 2)))
    # Moments of the first two steps against an integral over z_1 on a grid.
    one = make(n=2, d=1)
    with torch.no_grad():
        z = one.prior_from_noise(noise(200_000, 2, 1))[..., 0]
        axis = torch.linspace(-14, 14, 561, dtype=torch.float64)
        grid = torch.cartesian_prod(axis, axis)
        mass = one.log_prior(grid.unsqueeze(-1)).exp() * (axis[1] - axis[0]) ** 2
    for power in ((1, 0), (0, 1), (2, 0), (0, 2), (1, 1)):
        exact = (mass * grid[:, 0] ** power[0] * grid[:, 1] ** power[1]).sum().item()
        drawn = z[:, 0] ** power[0] * z[:, 1] ** power[1]
        error = drawn.std().item() / math.sqrt(len(drawn))
        assert drawn.mean().item() == pytest.approx(exact, abs=5 * error)


def test_it_starts_at_the_standard_pair_and_trains_encoder_and_prior():
    latents, standard = LearnedPrior(3, 2, hidden=4), Standard(3, 2)
    params = noise(5, 3, 4).float().requires_grad_()
    q, r = latents.posterior(params), standard.posterior(params)
    z = q.sample(noise(5, 3, 2).float())
    torch.testing.assert_close(latents.rate(q, z), standard.rate(r), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(latents.log_prior(z), standard.log_prior(z))
    make_gradients = make().float()
    q = make_gradients.posterior(params)
    make_gradients.rate(q, q.sample(noise(5, 3, 2).float())).sum().backward()
    assert params.grad.abs().min() > 0
    for parameter in make_gradients.parameters():
        assert parameter.grad.abs().sum() > 0


def test_gradient_reaches_the_encoder_through_the_draw_too():
    latents, params = make(n=2), noise(1, 2, 4).requires_grad_()
    q = latents.posterior(params)
    z = q.sample(noise(1, 2, 2, seed=2))
    (whole,) = torch.autograd.grad(latents.rate(q, z).sum(), params, retain_graph=True)
    (without,) = torch.autograd.grad(latents.rate(q, z.detach()).sum(), params)
    assert not torch.allclose(whole[:, 0], without[:, 0])
    torch.testing.assert_close(whole[:, 1], without[:, 1])  # the last step conditions nothing


def test_terms_stay_sums_of_squares_in_float32():
    latents = make().float()
    q = latents.posterior(1e4 * noise(50, 3, 4).float())
    terms = latents.rate_terms(q, q.sample(noise(50, 3, 2).float()))
    assert (terms >= 0).all()
    assert terms.isfinite().all()
    exact = q.double()  # as evaluation has it
    assert latents.rate(exact, q.mu).dtype == torch.float64
    assert latents.log_prior(q.mu.double()).dtype == torch.float64


def test_it_commits_nothing_and_says_what_it_needs():
    latents = LearnedPrior.from_rate(0.0, 3, 2, hidden=7)
    assert latents.config() == {"n": 3, "d": 2, "hidden": 7}
    assert latents.committed_rate == 0
    assert latents.sample_prior(5, torch.Generator().manual_seed(0)).shape == (5, 3, 2)
    with pytest.raises(ValueError, match="delta must be 0 for LearnedPrior"):
        LearnedPrior.from_rate(1.0, 3, 2)
    with pytest.raises(ValueError, match="hidden must be at least 1, got 0"):
        LearnedPrior(1, 1, 0)
    q = latents.posterior(torch.zeros(1, 3, 4))
    for missing in (latents.rate, latents.rate_terms):
        with pytest.raises(ValueError, match="z must be given"):
            missing(q)
