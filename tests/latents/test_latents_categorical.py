"""Codes of bounded entropy: the floor, its terms, the draws and their gradient."""

import math
from decimal import Decimal, localcontext

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from deltavae.latents import Categorical, ConditionalCodes
from deltavae.latents.categorical import divergence_terms
from deltavae.units import bits_to_nats, nats_to_bits

ASKED = [(5.0, 14, 8), (50.0, 14, 16), (500.0, 128, 16)]


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize(
    "x", [-1.0, -0.999, -0.3, -0.05, -0.049, -1e-9, 1e-300, 1e-5, 0.0499, 0.05, 0.7, 30.0]
)
def test_the_terms_of_the_divergence_keep_their_digits(x):
    with localcontext() as context:
        context.prec = 700
        one = 1 + Decimal(x)
        exact = float((one * one.ln() if one > 0 else Decimal(0)) - Decimal(x))
    found = float(divergence_terms(torch.tensor(x, dtype=torch.float64)))
    assert found == pytest.approx(exact, rel=1e-13, abs=1e-320)
    single = float(divergence_terms(torch.tensor(x, dtype=torch.float32)))
    assert single >= 0


@pytest.mark.parametrize(("bits", "n", "d"), ASKED)
def test_from_rate_hits_the_rate(bits, n, d):
    latents = Categorical.from_rate(bits_to_nats(bits), n, d)
    assert nats_to_bits(latents.committed_rate) == pytest.approx(bits, rel=1e-9)
    assert type(latents)(**latents.config()).committed_rate == latents.committed_rate


def test_the_floor_is_the_least_divergence_of_its_family():
    """Distributions with max q ≥ c, drawn at random and by the network: none below, one at δ."""
    d, c = 5, 0.4
    latents = Categorical(1, d, c)
    uniform = math.log(d)
    weights = torch.distributions.Dirichlet(torch.full((d,), 0.7, dtype=torch.float64))
    torch.manual_seed(0)
    q = weights.sample((200_000,))
    q = q[q.amax(1) >= c]
    divergence = torch.special.xlogy(q, q).sum(1) + uniform
    assert len(q) > 10_000
    assert float(divergence.min()) >= latents.committed_rate
    rest = (1 - c) / (d - 1)
    floor = c * math.log(c) + (d - 1) * rest * math.log(rest) + uniform
    assert latents.committed_rate == pytest.approx(floor, rel=1e-12)
    at_zero = latents.posterior(torch.zeros(1, 1, d, dtype=torch.float64))
    assert float(latents.rate(at_zero)) == pytest.approx(latents.committed_rate, rel=1e-12)
    assert float(at_zero.mu.amax()) == pytest.approx(c, rel=1e-12)


logits = st.one_of(st.floats(-30, 30, width=32), st.sampled_from([0.0, 1e-6, 1e4, -1e4]))


@given(
    st.lists(logits, min_size=8, max_size=8),
    st.floats(0.26, 0.999),
    st.sampled_from([torch.float32, torch.float64]),
)
@settings(max_examples=300, deadline=None)
def test_the_rate_is_the_divergence_and_never_below_the_floor(numbers, confidence, dtype):
    latents = Categorical(2, 4, confidence)
    params = torch.tensor(numbers, dtype=dtype).view(1, 2, 4).requires_grad_()
    q = latents.posterior(params)
    (gradient,) = torch.autograd.grad(latents.rate(q).sum(), params)
    assert gradient.isfinite().all()
    params, q = params.detach(), q.map(torch.detach)
    assert (q.excess >= 0).all()
    assert float(latents.rate(q).double()) >= latents.committed_rate * (1 - 2**-23)
    exact = latents.posterior(params.double())
    direct = (torch.special.xlogy(exact.mu, exact.mu).sum(-1) + math.log(4)).sum()
    assert float(latents.rate(exact)) == pytest.approx(float(direct), rel=1e-10, abs=1e-12)
    assert float(latents.rate(q)) == pytest.approx(float(direct), rel=1e-4, abs=1e-5)
    assert float(exact.mu.amax(-1).min()) >= confidence * (1 - 1e-12)


def test_draws_have_their_probabilities():
    latents = Categorical(1, 4, 0.3)
    params = torch.tensor([0.4, -1.0, 0.9, 0.0], dtype=torch.float64).view(1, 1, 4)
    q = latents.posterior(params.expand(100_000, -1, -1))
    z = q.sample(torch.randn(100_000, 1, 4, generator=seeded(), dtype=torch.float64))
    assert ((z == 0) | (z == 1)).all()
    assert (z.sum(-1) == 1).all()
    frequency, p = z.mean(0)[0], q.mu[0, 0]
    assert ((frequency - p).abs() < 5 * (p * (1 - p) / 100_000).sqrt()).all()
    torch.testing.assert_close(q.log_prob(z), p[z[:, 0].argmax(-1)].log())


def test_the_gradient_is_that_of_the_softmax():
    latents = Categorical(2, 4, 0.7)
    params = torch.randn(3, 2, 4, generator=seeded(), dtype=torch.float64).requires_grad_()
    z = latents.posterior(params).sample(torch.zeros(3, 2, 4, dtype=torch.float64))
    weights = torch.randn(z.shape, generator=seeded(1), dtype=torch.float64)
    (found,) = torch.autograd.grad((z * weights).sum(), params)
    (expected,) = torch.autograd.grad((params.softmax(-1) * weights).sum(), params)
    torch.testing.assert_close(found, expected)


def test_pairs_agree_with_the_log_probability():
    latents = Categorical(3, 4, 0.5)
    q = latents.posterior(torch.randn(6, 3, 4, generator=seeded(), dtype=torch.float64))
    z = q.sample(torch.randn(6, 3, 4, generator=seeded(1), dtype=torch.float64))
    expected = torch.stack([q.map(lambda t, j=j: t[j : j + 1]).log_prob(z[:4]) for j in range(6)])
    torch.testing.assert_close(q.pair_log_prob(z[:4]), expected.T)


def test_the_prior_is_uniform():
    latents = Categorical(2, 5, 0.5)
    z = latents.sample_prior(50_000, seeded())
    assert (z.sum(-1) == 1).all()
    torch.testing.assert_close(z.mean(0), torch.full((2, 5), 0.2), rtol=0, atol=0.01)
    torch.testing.assert_close(latents.log_prior(z[:1]), torch.tensor([-2 * math.log(5)]))


def test_sigma_star_is_the_spread_of_a_code_at_the_floor():
    latents = Categorical(1, 4, 0.6)
    q0 = torch.tensor([0.6, 0.4 / 3, 0.4 / 3, 0.4 / 3], dtype=torch.float64)
    expected = float((q0 * (1 - q0)).mean().sqrt())
    assert float(latents.sigma_star[0, 0]) == pytest.approx(expected)


def test_the_auxiliary_probabilities():
    family = ConditionalCodes(4)
    outputs = torch.randn(1, 1, 4, generator=seeded(), dtype=torch.float64)
    codes = torch.eye(4, dtype=torch.float64)[:, None]
    p = family.log_prob(outputs.expand(4, 1, 4), codes).exp()
    assert float(p.sum()) == pytest.approx(1.0)
    q = Categorical(1, 4, 0.5).posterior(torch.ones(1, 1, 4, dtype=torch.float64))
    kl = (q.mu[0, 0] * (q.mu[0, 0] / p[:, 0]).log()).sum()
    torch.testing.assert_close(family.kl(outputs, q, codes[:1])[0, 0], kl)
    noise = torch.randn(50_000, 4, generator=seeded(1), dtype=torch.float64)
    frequency = family.draw(outputs[:, 0].expand(50_000, 4), noise).mean(0)
    torch.testing.assert_close(frequency, p[:, 0], rtol=0, atol=0.01)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Categorical(0, 4, 0.5), "n must be at least 1, got 0"),
        (lambda: Categorical(2, 1, 0.5), "d must be at least 2 codes, got 1"),
        (lambda: Categorical(2, 4, 0.25), r"confidence must lie in \(1/d, 1\)"),
        (lambda: Categorical.from_rate(10.0, 2, 4), "d=149 codes would carry it"),
        (
            lambda: Categorical.from_rate(0.0, 2, 4),
            "above 0 and below 2.77259 nats = 4 bits",
        ),
        (lambda: Categorical.from_rate(math.inf, 2, 4), "got inf nats = inf bits$"),
        (lambda: Categorical.from_rate(math.nan, 2, 4), "got nan nats = nan bits$"),
        (lambda: Categorical.from_rate(1e6, 2, 4), "got 1e[+]06 nats = 1.4427e[+]06 bits$"),
        (lambda: Categorical.from_rate(1.0, 2, 1), "d must be at least 2 codes, got 1"),
        (lambda: Categorical.from_rate(1.0, 0, 4), "n must be at least 1, got 0"),
    ],
)
def test_bad_arguments_are_named(build, message):
    with pytest.raises(ValueError, match=message):
        build()
