"""Mean-field Gaussian × AR(1): the rate against dense Gaussians, the textbook form, sampling."""

import copy
import math

import pytest
import torch
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.distributions import Independent as Reinterpreted
from torch.distributions import Laplace, MultivariateNormal, Normal, kl_divergence

from deltavae.latents import AR1, AR1Prior, Latents, MeanFieldNormal
from deltavae.rates import committed_rate, ladder, minimiser
from deltavae.units import bits_to_nats

ALPHA = [0.5, -0.3, 0.95]
# minimiser_units and innovations: the paper's pair, the mean in units of σ*, by innovations with
# z/σ* and with z for the decoder.
WAYS = [(False, False), (True, False), (True, True), (False, True)]


def seeded(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def dense_prior(n: int, alpha: list[float]) -> list[MultivariateNormal]:
    """The AR(1) prior by its definition: zero mean, covariance α^|s−t|, channel by channel."""
    steps = torch.arange(n, dtype=torch.float64)
    lag = (steps[:, None] - steps).abs()
    zero = torch.zeros(n, dtype=torch.float64)
    return [MultivariateNormal(zero, torch.tensor(a, dtype=torch.float64) ** lag) for a in alpha]


def textbook(latents: AR1, q: MeanFieldNormal) -> torch.Tensor:
    posterior = Reinterpreted(Normal(q.mu.double(), q.sigma.double()), 2)
    return kl_divergence(posterior, AR1Prior(latents.n, latents.alpha))


@pytest.mark.parametrize("n", [1, 2, 3, 9])
@pytest.mark.parametrize("way", WAYS)
def test_rate_is_the_kl_between_dense_gaussians(n, way):
    latents = AR1(n, ALPHA, *way)
    q = latents.posterior(seeded(4, n, 6))
    expected = torch.zeros(4, dtype=torch.float64)
    for k, prior in enumerate(dense_prior(n, ALPHA)):
        for b in range(4):
            dense = MultivariateNormal(q.mu[b, :, k], torch.diag(q.sigma[b, :, k].square()))
            expected[b] += kl_divergence(dense, prior)
    torch.testing.assert_close(latents.rate(q), expected, rtol=1e-10, atol=0)
    torch.testing.assert_close(textbook(latents, q), expected, rtol=1e-10, atol=0)


def test_rate_against_monte_carlo():
    latents = AR1(5, ALPHA)
    q = latents.posterior(seeded(1, 5, 6, seed=1))
    draws = 40_000
    z = MeanFieldNormal(*(t.expand(draws, 5, 3) for t in (q.mu, q.sigma, q.excess))).sample(
        seeded(draws, 5, 3, seed=2)
    )
    many = MeanFieldNormal(*(t.expand(draws, 5, 3) for t in (q.mu, q.sigma, q.excess)))
    ratio = many.log_prob(z) - latents.log_prior(z)
    error = float(ratio.std()) / math.sqrt(draws)
    assert abs(float(ratio.mean() - latents.rate(q))) < 4 * error  # four standard errors
    assert error < 0.05 * float(latents.rate(q))


def test_the_floor_is_attained_at_raw_zero_and_nowhere_else():
    for n in (1, 2, 6):
        latents = AR1(n, ALPHA)
        q = latents.posterior(torch.zeros(2, n, 6, dtype=torch.float64))
        assert latents.rate(q).tolist() == [latents.committed_rate] * 2
        assert latents.committed_rate == committed_rate(ALPHA, n)
        assert torch.equal(latents.rate_terms(q), latents.committed_terms.expand(2, n, 3))
        assert torch.equal(q.sigma[0], minimiser(ALPHA, n))
        torch.testing.assert_close(textbook(latents, q), latents.rate(q), rtol=1e-10, atol=1e-12)
        for i in range(n * 6):
            raw = torch.zeros(n * 6, dtype=torch.float64)
            raw[i] = 1e-3
            above = latents.rate(latents.posterior(raw.reshape(1, n, 6)))
            assert float(above) > latents.committed_rate


@given(data=st.data(), n=st.integers(1, 6), double=st.booleans(), way=st.sampled_from(WAYS))
@settings(max_examples=150, deadline=None)
def test_no_raw_output_falls_below_the_floor(data, n, double, way):
    d = 2
    alpha = data.draw(st.lists(st.floats(-0.9999, 0.9999), min_size=d, max_size=d))
    magnitude = st.one_of(st.floats(-1e4, 1e4), st.floats(-1e-3, 1e-3), st.sampled_from([0.0]))
    raw = data.draw(st.lists(magnitude, min_size=n * 2 * d, max_size=n * 2 * d))
    dtype = torch.float64 if double else torch.float32
    params = torch.tensor(raw, dtype=dtype).reshape(1, n, 2 * d).requires_grad_()
    latents = AR1(n, alpha, *way)
    q = latents.posterior(params)
    rate = latents.rate(q)
    assert rate.dtype == dtype
    assert bool((q.excess >= 0).all())
    assert bool((latents.rate_terms(q) >= 0).all())
    rounding = 0 if double else latents.committed_rate * 2**-23 + torch.finfo(dtype).tiny
    assert rate.item() >= latents.committed_rate - rounding
    assert math.isfinite(rate.item())
    z = q.sample(torch.ones_like(q.mu))
    (rate.sum() + latents.to_decoder(z).sum()).backward()
    assert bool(params.grad.isfinite().all())
    if double:
        direct = textbook(latents, q)
        assert rate.item() == pytest.approx(direct.item(), rel=1e-10, abs=1e-10)


@pytest.mark.parametrize("alpha", [0.5, 0.9999])
@pytest.mark.parametrize("way", WAYS)
def test_float32_keeps_the_floor_where_the_textbook_form_loses_it(alpha, way):
    latents = AR1(32, [alpha] * 8, *way)
    params = 1e-3 * seeded(64, 32, 16, dtype=torch.float32)
    params[..., :8] *= 1e-3
    rate = latents.rate(latents.posterior(params))
    exact = latents.rate(latents.posterior(params.double()))
    torch.testing.assert_close(rate.double(), exact, rtol=2e-7, atol=0)
    assert bool((rate.double() >= latents.committed_rate * (1 - 2**-23)).all())


@pytest.mark.parametrize("way", WAYS)
def test_gradient_of_the_rate(way):
    latents = AR1(4, [0.6, -0.9], *way)
    params = torch.cat([seeded(1, 4, 4), torch.zeros(1, 4, 4), 1e-9 * seeded(1, 4, 4)])
    params.requires_grad_()
    assert torch.autograd.gradcheck(lambda p: latents.rate(latents.posterior(p)), params)
    (first,) = torch.autograd.grad(latents.rate(latents.posterior(params)).sum(), params)
    (second,) = torch.autograd.grad(textbook(latents, latents.posterior(params)).sum(), params)
    torch.testing.assert_close(first, second, rtol=1e-9, atol=1e-12)


def test_half_precision_is_lifted_and_half_modules_keep_their_constants():
    latents = AR1(6, ALPHA)
    for dtype in (torch.bfloat16, torch.float16):
        raw = seeded(3, 6, 6).to(dtype)
        q = latents.posterior(raw)
        assert q.mu.dtype == torch.float32
        torch.testing.assert_close(q.excess, latents.posterior(raw.float()).excess)
    reference = latents.rate(latents.posterior(seeded(3, 6, 6)))
    for cast in (copy.deepcopy(latents).half(), copy.deepcopy(latents).float().double()):
        assert cast.sigma_star.dtype == torch.float64
        assert torch.equal(cast.rate(cast.posterior(seeded(3, 6, 6))), reference)
    assert latents.state_dict() == {}
    moved = copy.deepcopy(latents).to("meta")
    assert moved.alpha.device.type == "meta"


@pytest.mark.parametrize("n", [1, 2, 7])
def test_by_innovations_every_direction_of_the_output_costs_the_same(n):
    latents = AR1(n, [0.5, -0.8, 0.9999], True, True)
    params = seeded(5, n, 6)
    q = latents.posterior(params)
    mean, raw = params.chunk(2, dim=-1)
    g = 10 * torch.tanh(raw / 10)
    cost = 0.5 * (torch.expm1(2 * g) - 2 * g + mean.square()).sum(dim=(1, 2))
    torch.testing.assert_close(latents.rate(q), latents.committed_rate + cost)
    torch.testing.assert_close(latents.rate(q), textbook(latents, q), rtol=1e-9, atol=1e-9)
    z = q.sample(torch.zeros_like(q.mu))
    torch.testing.assert_close(latents.to_decoder(z) * latents.sigma_star, q.mu)


def test_innovations_run_from_the_last_step_to_the_first():
    n, alpha = 6, [0.7, -0.4]
    latents = AR1(n, alpha, innovations=True)

    def means(m):
        return latents.posterior(torch.cat([m, torch.zeros_like(m)], dim=-1)).mu[0]

    jacobian = torch.autograd.functional.jacobian(means, torch.zeros(1, n, 2, dtype=torch.float64))
    for k, a in enumerate(alpha):
        made = jacobian[:, k, 0, :, k]  # of μ_t by m_s
        assert (made.tril(-1) == 0).all()  # z_t knows nothing of what is read before step t
        assert (made.triu().abs() > 0).sum() == n * (n + 1) / 2
        steps = torch.arange(n)
        torch.testing.assert_close(made @ made.T, a ** (steps[:, None] - steps).abs().double())
        assert (jacobian[:, k, 0, :, 1 - k] == 0).all()


def test_units_of_the_minimiser():
    params = seeded(2, 7, 6)
    plain, units = AR1(7, ALPHA, False, False), AR1(7, ALPHA, True, False)
    mean, raw = params.chunk(2, dim=-1)
    q = units.posterior(params)
    sigma_star = minimiser(ALPHA, 7)
    torch.testing.assert_close(q.mu / sigma_star, mean)
    torch.testing.assert_close(q.sigma / sigma_star, (10 * torch.tanh(raw / 10)).exp())
    noise = seeded(2, 7, 3, seed=5)
    z = q.sample(noise)
    torch.testing.assert_close(
        units.to_decoder(z), mean + (10 * torch.tanh(raw / 10)).exp() * noise
    )
    same = plain.posterior(params)
    assert torch.equal(same.mu, mean)
    assert torch.equal(same.sigma, q.sigma)
    assert plain.to_decoder(z) is z


def test_prior_draws_have_the_stated_covariance():
    n, draws = 5, 60_000
    latents = AR1(n, ALPHA)
    z = latents.sample_prior(draws, torch.Generator().manual_seed(4)).double()
    assert z.shape == (draws, n, 3)
    for k, prior in enumerate(dense_prior(n, ALPHA)):
        covariance = z[:, :, k].T @ z[:, :, k] / draws
        # standard error of a covariance of unit normals: at most √(2/draws) = 0.006
        torch.testing.assert_close(covariance, prior.covariance_matrix, atol=0.025, rtol=0)
        assert float(z[:, :, k].mean(dim=0).abs().max()) < 5 / math.sqrt(draws)
    cross = z[:, :, 0].T @ z[:, :, 2] / draws
    assert float(cross.abs().max()) < 5 / math.sqrt(draws)


def test_prior_draws_depend_on_the_generator_alone():
    latents = AR1(4, ALPHA)
    first = latents.sample_prior(3, torch.Generator().manual_seed(1))
    assert torch.equal(first, latents.sample_prior(3, torch.Generator().manual_seed(1)))
    assert first.dtype == torch.float32
    assert not torch.equal(first, latents.sample_prior(3))


@pytest.mark.parametrize("n", [1, 2, 6])
def test_log_prior_is_that_of_the_dense_gaussian(n):
    z = seeded(5, n, 3)
    expected = sum(prior.log_prob(z[:, :, k]) for k, prior in enumerate(dense_prior(n, ALPHA)))
    torch.testing.assert_close(AR1(n, ALPHA).log_prior(z), expected, rtol=1e-11, atol=1e-11)


def test_log_prior_in_float32_near_one():
    latents = AR1(32, [0.9999])
    z = latents.sample_prior(16, torch.Generator().manual_seed(0))
    torch.testing.assert_close(
        latents.log_prior(z).double(), latents.log_prior(z.double()), rtol=1e-4, atol=1e-2
    )


def test_colour_inverts_whiten():
    prior = AR1Prior(7, torch.tensor(ALPHA, dtype=torch.float64))
    z = seeded(2, 7, 3)
    torch.testing.assert_close(prior.colour(prior.whiten(z)), z, rtol=1e-12, atol=1e-12)
    noise = seeded(2, 7, 3, seed=1)
    torch.testing.assert_close(AR1(7, ALPHA).prior_from_noise(noise), prior.colour(noise))


def test_prior_is_a_torch_distribution():
    alpha = torch.tensor([[0.5, 0.9], [0.1, -0.7]], dtype=torch.float64)
    prior = AR1Prior(4, alpha)
    assert (prior.batch_shape, prior.event_shape) == ((2,), (4, 2))
    z = prior.sample((3,))
    assert z.shape == (3, 2, 4, 2)
    assert z.dtype == torch.float64
    separate = torch.stack([AR1Prior(4, a).log_prob(z[:, i]) for i, a in enumerate(alpha)], dim=1)
    torch.testing.assert_close(prior.log_prob(z), separate)
    assert torch.equal(prior.variance, torch.ones(2, 4, 2, dtype=torch.float64))
    assert torch.equal(prior.mean, torch.zeros(2, 4, 2, dtype=torch.float64))
    wide = AR1Prior(4, alpha[0]).expand((5,))
    assert wide.batch_shape == (5,)
    torch.testing.assert_close(wide.log_prob(z[0, 0]), separate[0, :1].expand(5))
    trainable = alpha.clone().requires_grad_()
    AR1Prior(4, trainable).rsample((2,)).square().sum().backward()
    assert bool((trainable.grad != 0).all())


def test_prior_validates_as_torch_does():
    with pytest.raises(ValueError, match="alpha"):
        AR1Prior(3, torch.tensor([0.5, 1.0]))
    with pytest.raises(ValueError, match="alpha"):
        AR1Prior(3, torch.tensor([math.nan]))
    with pytest.raises(ValueError, match="n must be at least 1"):
        AR1Prior(0, torch.tensor([0.5]))
    prior = AR1Prior(3, torch.tensor([0.5]))
    with pytest.raises(ValueError, match="support"):
        prior.log_prob(torch.full((3, 1), math.nan))
    with pytest.raises(ValueError, match="event_shape"):
        prior.log_prob(torch.zeros(4, 1))
    laplace = Reinterpreted(Laplace(torch.zeros(3, 1), torch.ones(3, 1)), 2)
    with pytest.raises(NotImplementedError, match="Laplace"):
        kl_divergence(laplace, prior)
    other = Reinterpreted(Normal(torch.zeros(4, 1), torch.ones(4, 1)), 2)
    with pytest.raises(ValueError, match="event shapes"):
        kl_divergence(other, prior)


def test_textbook_kl_broadcasts_over_priors():
    alpha = torch.tensor([[0.5, 0.9], [0.1, -0.7]], dtype=torch.float64)
    q = Reinterpreted(Normal(seeded(2, 4, 2), seeded(2, 4, 2, seed=1).exp()), 2)
    both = kl_divergence(q, AR1Prior(4, alpha))
    for i in range(2):
        alone = Reinterpreted(Normal(q.base_dist.loc[i], q.base_dist.scale[i]), 2)
        torch.testing.assert_close(both[i], kl_divergence(alone, AR1Prior(4, alpha[i])))


@pytest.mark.parametrize("bits", [5, 50, 500])
@pytest.mark.parametrize("bounds", [None, (0.5, 0.99)])
def test_from_rate_hits_the_target(bits, bounds):
    delta = bits_to_nats(float(bits))
    latents = AR1.from_rate(delta, n=32, d=64, bounds=bounds, minimiser_units=True)
    assert latents.committed_rate == pytest.approx(delta, rel=1e-9)
    assert latents.minimiser_units
    assert latents.alpha.shape == (64,)
    q = latents.posterior(torch.zeros(1, 32, 128, dtype=torch.float64))
    assert textbook(latents, q).item() == pytest.approx(delta, rel=1e-9)


def test_config_rebuilds_the_pair_exactly_through_yaml():
    first, second = AR1.from_rate(10.0, 8, 3), AR1(8, ladder(0.1, 0.9, 7), False, False)
    for latents in (first, second, AR1(2, 0.3, True, False)):
        config = yaml.safe_load(yaml.safe_dump(latents.config()))
        again = AR1(**config)
        assert again.config() == latents.config()
        assert torch.equal(again.alpha, latents.alpha)
        assert torch.equal(again.sigma_star, latents.sigma_star)
        assert again.committed_rate == latents.committed_rate
        assert again.minimiser_units == latents.minimiser_units
        assert again.innovations == latents.innovations


def test_wrong_use_is_refused():
    latents = AR1(4, ALPHA)
    assert latents.params_per_step == 6
    assert isinstance(latents, Latents)
    assert "n=4, d=3" in repr(latents)
    for shape in ((2, 4, 5), (2, 5, 6)):
        with pytest.raises(ValueError, match=r"params must have shape \(b, 4, 6\)"):
            latents.posterior(torch.zeros(shape))
    with pytest.raises(ValueError, match="alpha"):
        AR1(4, [0.5, 1.0])
    with pytest.raises(ValueError, match="n must"):
        AR1(0, 0.5)
    with pytest.raises(TypeError, match="abstract"):
        Latents(0.0, torch.zeros(1, 1), torch.ones(1, 1))
