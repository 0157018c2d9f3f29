"""Quantised codes: the constant rate, the levels, and what is known of z exactly."""

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from deltavae.evaluation import mutual_information
from deltavae.latents import ConditionalLevels, Quantised
from deltavae.units import bits_to_nats, nats_to_bits


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def every_code(levels):
    values = [[2 * i / (count - 1) - 1 for i in range(count)] for count in levels]
    return torch.tensor(list(itertools.product(*values)), dtype=torch.float64)


def test_the_rate_is_the_logarithm_of_the_number_of_codes():
    latents = Quantised(7, [2, 3, 5])
    assert latents.committed_rate == pytest.approx(7 * math.log(len(every_code([2, 3, 5]))))
    for dtype in (torch.float32, torch.float64, torch.bfloat16):
        q = latents.posterior(1e3 * torch.randn(4, 7, 3, generator=seeded()).to(dtype))
        floor = torch.tensor(latents.committed_rate, dtype=q.mu.dtype)
        assert (latents.rate(q) == floor).all()


@pytest.mark.parametrize(("bits", "n", "d"), [(5.0, 2, 2), (50.0, 14, 2), (500.0, 28, 8)])
def test_from_rate_finds_the_nearest_rate(bits, n, d):
    latents = Quantised.from_rate(bits_to_nats(bits), n, d)
    few = range(2, 256)
    nearest = min(
        abs(n * ((d - k) * math.log2(low) + k * math.log2(low + 1)) - bits)
        for low in few
        for k in range(d + 1)
    )
    found = nats_to_bits(latents.committed_rate)
    assert abs(found - bits) == pytest.approx(nearest, abs=1e-9)
    assert type(latents)(**latents.config()).committed_rate == latents.committed_rate


def test_no_rate_is_below_a_bit_per_channel():
    assert nats_to_bits(Quantised.from_rate(0.1, 3, 2).committed_rate) == pytest.approx(6)


@given(st.lists(st.floats(-20, 20, width=32), min_size=3, max_size=3))
@settings(max_examples=200, deadline=None)
def test_every_output_goes_to_a_code_nearest_on_the_bounded_line(numbers):
    levels = [2, 3, 6]
    latents = Quantised(1, levels)
    z = latents.posterior(torch.tensor(numbers, dtype=torch.float64).view(1, 1, 3)).mu[0, 0]
    for value, raw, count in zip(z.tolist(), numbers, levels, strict=True):
        places = [(i + 0.5) / count for i in range(count)]  # middles of equal parts of (0, 1)
        at = (math.tanh(raw) + 1) / 2
        index = round((value + 1) * (count - 1) / 2)
        assert value == pytest.approx(2 * index / (count - 1) - 1, abs=1e-12)
        least = min(abs(at - place) for place in places)
        assert abs(at - places[index]) == pytest.approx(least, abs=1e-12)


def test_every_level_is_reached_and_none_is_left():
    levels = [2, 3, 4]
    params = torch.linspace(-4, 4, 500, dtype=torch.float64).view(-1, 1, 1).expand(-1, 1, 3)
    z = Quantised(1, levels).posterior(params).mu
    for k, count in enumerate(levels):
        expected = torch.linspace(-1, 1, count, dtype=torch.float64)
        torch.testing.assert_close(z[..., k].round(decimals=9).unique(), expected)


def test_the_gradient_goes_straight_through():
    latents = Quantised(2, [3, 5])
    params = torch.randn(4, 2, 2, generator=seeded(), dtype=torch.float64).requires_grad_()
    z = latents.posterior(params).sample(torch.zeros(4, 2, 2, dtype=torch.float64))
    (found,) = torch.autograd.grad(z.sum(), params)
    counts = torch.tensor([3.0, 5.0], dtype=torch.float64)
    expected = counts / (counts - 1) * (1 - params.tanh().square())
    torch.testing.assert_close(found, expected)


def test_the_information_is_the_entropy_of_the_codes():
    latents = Quantised(2, [2, 3])
    q = latents.posterior(torch.randn(500, 2, 2, generator=seeded()))
    values = mutual_information(q, seeded(1))
    _, counts = q.mu.flatten(1).round(decimals=4).unique(dim=0, return_counts=True)
    share = counts.double() / 500
    assert float(values.mean()) == pytest.approx(float(-(share * share.log()).sum()))
    own = q.log_prob(q.mu)
    assert (own == 0).all()
    assert (q.log_prob(-q.mu) == -math.inf).all()


def test_equal_codes_are_equal_whatever_the_output():
    latents = Quantised(1, [128])
    params = (0.1 + 1e-3 * torch.rand(400, 1, 1, generator=seeded())).requires_grad_()
    q = latents.posterior(params)
    assert len(q.mu.unique()) == 1
    values = mutual_information(q.map(torch.detach), seeded(1))
    torch.testing.assert_close(values, torch.zeros_like(values))


def test_the_prior_is_uniform_over_the_codes():
    latents = Quantised(1, [2, 3])
    z = latents.sample_prior(60_000, seeded())[:, 0].double()
    codes, counts = z.round(decimals=4).unique(dim=0, return_counts=True)
    assert len(codes) == 6
    assert ((counts / 60_000 - 1 / 6).abs() < 0.01).all()
    torch.testing.assert_close(
        latents.log_prior(z[:1, None]), torch.tensor([-math.log(6)], dtype=torch.float64)
    )
    torch.testing.assert_close(latents.nearest(z + 0.3), z, rtol=0, atol=1e-6)


def test_the_auxiliary_probabilities():
    levels = [2, 3]
    family = ConditionalLevels(levels)
    outputs = torch.randn(1, 1, family.width, generator=seeded(), dtype=torch.float64)
    codes = every_code(levels)
    p = family.log_prob(outputs.expand(len(codes), 1, -1), codes[:, None]).exp()[:, 0]
    assert float(p.sum()) == pytest.approx(1.0)
    noise = torch.randn(60_000, 2, generator=seeded(1), dtype=torch.float64)
    z = family.draw(outputs[:, 0].expand(60_000, -1), noise)
    frequency = torch.stack([(z == code).all(1).double().mean() for code in codes])
    torch.testing.assert_close(frequency, p, rtol=0, atol=0.01)
    q = Quantised(1, levels).posterior(torch.ones(1, 1, 2, dtype=torch.float64))
    expected = -family.log_prob(outputs, q.mu)
    torch.testing.assert_close(family.kl(outputs, q, q.mu), expected)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Quantised(0, [2]), "n must be at least 1, got 0"),
        (lambda: Quantised(2, [2, 1]), r"levels must be one or more whole numbers in 2..256"),
        (lambda: Quantised(2, []), "levels must be one or more"),
        (lambda: Quantised.from_rate(1e4, 2, 3), "at most 33.2711 nats = 48 bits"),
        (lambda: Quantised.from_rate(1.0, 2, 0), "d must be at least 1, got 0"),
    ],
)
def test_bad_arguments_are_named(build, message):
    with pytest.raises(ValueError, match=message):
        build()
