"""AR(1) with trained α: never below the floor asked for, and the AR(1) pair at the present α."""

import copy
import math

import numpy as np
import pytest
import torch
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize
from torch.distributions import Independent as Reinterpreted
from torch.distributions import Normal, kl_divergence

from deltavae.latents import AR1, AR1Prior
from deltavae.latents.learnable_ar1 import LearnableAR1
from deltavae.rates import ALPHA_MAX, committed_rate, committed_terms, minimiser
from deltavae.units import bits_to_nats

LEAST = [0.5, -0.3, 0.95, 0.0]
WAYS = [(False, False), (True, False), (True, True), (False, True)]


def seeded(*shape: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def trained(n: int, weight, least=LEAST, way=(False, False)) -> LearnableAR1:
    pair = LearnableAR1(n, least, *way).double()
    with torch.no_grad():
        pair.weight.copy_(torch.as_tensor(weight, dtype=torch.float64))
    return pair


@pytest.mark.parametrize("n", [2, 3, 8])
@pytest.mark.parametrize("way", WAYS)
def test_it_is_the_fixed_pair_at_the_present_alpha(n, way):
    pair = trained(n, [-3.0, 0.5, 2.0, 4.0], way=way)
    fixed = AR1(n, pair.alpha, *way)
    params, noise = seeded(3, n, 8), seeded(3, n, 4, seed=1)
    q, reference = pair.posterior(params), fixed.posterior(params)
    torch.testing.assert_close(q.mu, reference.mu)
    torch.testing.assert_close(q.sigma, reference.sigma)
    torch.testing.assert_close(pair.rate(q), fixed.rate(reference), rtol=1e-10, atol=0)
    torch.testing.assert_close(pair.rate_terms(q), fixed.rate_terms(reference))
    torch.testing.assert_close(pair.log_prior(noise), fixed.log_prior(noise))
    torch.testing.assert_close(pair.prior_from_noise(noise), fixed.prior_from_noise(noise))
    torch.testing.assert_close(pair.to_decoder(noise), fixed.to_decoder(noise))
    torch.testing.assert_close(pair.sigma_star, minimiser(pair.alpha, n), rtol=1e-12, atol=0)
    assert pair.current_committed_rate == pytest.approx(fixed.committed_rate, rel=1e-10)
    assert (pair.alpha[:3].sign().tolist(), pair.n, pair.d) == ([1, -1, 1], n, 4)


@given(
    weight=st.floats(-1e4, 1e4),
    least=st.one_of(st.floats(1e-6, ALPHA_MAX), st.floats(-ALPHA_MAX, -1e-6), st.just(0.0)),
    n=st.integers(2, 5),
    double=st.booleans(),
    way=st.sampled_from(WAYS),
    data=st.data(),
)
@settings(max_examples=150, deadline=None)
def test_no_weight_and_no_raw_output_falls_below_the_floor(weight, least, n, double, way, data):
    pair = trained(n, [weight], [least], way)
    pair = pair if double else pair.float()
    magnitude = st.one_of(st.floats(-1e4, 1e4), st.floats(-1e-3, 1e-3), st.sampled_from([0.0]))
    raw = data.draw(st.lists(magnitude, min_size=2 * n, max_size=2 * n))
    dtype = torch.float64 if double else torch.float32
    params = torch.tensor(raw, dtype=dtype).reshape(1, n, 2).requires_grad_()
    q = pair.posterior(params)
    rate = pair.rate(q)
    assert rate.dtype == dtype
    assert bool((q.excess >= 0).all())
    assert bool((pair.rate_terms(q) >= 0).all())
    assert rate.item() >= pair.committed_rate * (1 - (0 if double else 2**-23))
    assert pair.current_committed_rate >= pair.committed_rate
    assert abs(pair.alpha.item()) >= abs(least)
    assert abs(pair.alpha.item()) <= ALPHA_MAX * (1 + 1e-15)
    assert math.isfinite(rate.item())
    rate.sum().backward()
    assert bool(params.grad.isfinite().all())
    assert bool(pair.weight.grad.isfinite().all())
    if double:
        posterior = Reinterpreted(Normal(q.mu, q.sigma), 2)
        direct = kl_divergence(posterior, AR1Prior(n, pair.alpha.detach())).item()
        # 1 − α² of the textbook form has 1e-10 of relative error at the largest α
        assert rate.item() == pytest.approx(direct, rel=1e-8, abs=1e-9)


def test_what_it_commits_above_the_floor_to_all_digits():
    n, least = 7, [0.5, 0.95, 0.0, 0.999]
    for weight in (-30.0, -10.0, 0.0, 3.0):
        pair = trained(n, [weight] * 4, least)
        gap = pair.posterior(torch.zeros(1, n, 8, dtype=torch.float64)).excess[0]
        expected = committed_terms(pair.alpha, n) - committed_terms(least, n)
        torch.testing.assert_close(gap, expected, rtol=1e-8, atol=1e-12)
        if weight == -30.0:  # here the difference cancels: by its slope, dδ = δ'(m) (1 − m²) t
            m, t = torch.tensor(least, dtype=torch.float64), pair._step.detach()
            first, inner = m * t, m * (1 - m**2) / (1 + m**2) * t
            chosen = m > 0
            torch.testing.assert_close(gap[0][chosen], first[chosen], rtol=1e-9, atol=0)
            torch.testing.assert_close(gap[1][chosen], inner[chosen], rtol=1e-9, atol=0)


def test_an_independent_minimiser_finds_the_floor_over_alpha_too():
    n, least = 5, [0.6, -0.9]
    pair = LearnableAR1(n, least)

    def rate_and_gradient(point):
        x = torch.from_numpy(point).requires_grad_()
        alpha = torch.tanh(x[:2]) * torch.tensor([1.0, -1.0], dtype=torch.float64)
        mu, log_sigma = x[2:].reshape(2, n, 2)
        q = Reinterpreted(Normal(mu, log_sigma.exp()), 2)
        rate = kl_divergence(q, AR1Prior(n, alpha))
        (gradient,) = torch.autograd.grad(rate, x)
        return rate.item(), gradient.numpy()

    bounds = [(np.arctanh(abs(a)), 5.0) for a in least] + [(None, None)] * (4 * n)
    start = np.concatenate([[1.5, 2.5], np.random.default_rng(0).normal(size=4 * n)])
    found = minimize(
        rate_and_gradient, start, jac=True, bounds=bounds, options={"ftol": 1e-15, "gtol": 1e-9}
    )
    assert found.fun == pytest.approx(pair.committed_rate, rel=1e-6)
    np.testing.assert_allclose(np.tanh(found.x[:2]), np.abs(least), rtol=1e-6)


@pytest.mark.parametrize("way", WAYS)
def test_gradients_of_the_weight(way):
    pair = trained(4, [0.5, -1.0, 0.0, 1.0], way=way)
    params, noise = seeded(2, 4, 8), seeded(2, 4, 4, seed=1)

    def outputs(weight):
        with torch.no_grad():
            changed = copy.deepcopy(pair)
        del changed.weight
        changed.weight = weight
        q = changed.posterior(params)
        return changed.rate(q), q.sample(noise), changed.log_prior(noise)

    assert torch.autograd.gradcheck(outputs, pair.weight.detach().clone().requires_grad_())
    q = pair.posterior(params)
    (pair.rate(q).sum() + q.sample(noise).square().sum()).backward()
    assert bool((pair.weight.grad != 0).all())
    assert not pair.sigma_star.requires_grad


@pytest.mark.parametrize("bits", [5, 50, 500])
@pytest.mark.parametrize("bounds", [None, (0.2, 0.9)])
def test_from_rate_is_the_floor_and_training_starts_a_little_above(bits, bounds):
    delta = bits_to_nats(float(bits))
    pair = LearnableAR1.from_rate(delta, n=32, d=64, bounds=bounds, minimiser_units=True)
    assert pair.committed_rate == pytest.approx(delta, rel=1e-9)
    assert pair.committed_rate == committed_rate(pair.least_alpha, 32)
    assert delta < pair.current_committed_rate < 1.3 * delta
    assert pair.minimiser_units


def test_the_state_dict_holds_alpha_and_an_average_of_weights_keeps_the_floor():
    pair = trained(6, [1.0, 2.0, -2.0, 3.0])
    again = LearnableAR1(**yaml.safe_load(yaml.safe_dump(pair.config()))).double()
    assert list(again.state_dict()) == ["weight"]
    again.load_state_dict(pair.state_dict())
    assert torch.equal(again.alpha, pair.alpha)
    assert torch.equal(again.sigma_star, pair.sigma_star)
    half = copy.deepcopy(pair).half()
    assert half.alpha.dtype == half.sigma_star.dtype == torch.float64
    average = trained(6, (pair.weight + trained(6, [-5.0] * 4).weight) / 2)
    assert average.committed_rate == pair.committed_rate
    assert pair.committed_rate < average.current_committed_rate < pair.current_committed_rate


def test_the_rate_alone_drives_alpha_to_the_floor():
    pair = LearnableAR1.from_rate(5.0, 8, 2)
    optimiser = torch.optim.Adam(pair.parameters(), lr=0.5)
    for _ in range(150):
        rate = pair.rate(pair.posterior(torch.zeros(1, 8, 4))).mean()
        optimiser.zero_grad()
        rate.backward()
        optimiser.step()
        assert rate.item() >= 5.0 * (1 - 2**-23)
    assert pair.current_committed_rate == pytest.approx(5.0, rel=1e-4)


def test_wrong_use_is_refused():
    with pytest.raises(ValueError, match="n must be at least 2"):
        LearnableAR1(1, 0.5)
    with pytest.raises(ValueError, match="alpha"):
        LearnableAR1(4, [0.5, 1.0])
    with pytest.raises(ValueError, match="within"):
        LearnableAR1(4, 1 - 1e-7)
