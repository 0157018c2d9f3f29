import itertools
import math

import numpy as np
import pytest
import torch
from scipy.stats import chisquare

from deltavae.likelihoods import (
    Bernoulli,
    Categorical,
    DiscretisedLogisticMixture,
    Likelihood,
    default_likelihood,
)

LIKELIHOODS = [
    Bernoulli(1),
    Bernoulli(3),
    Categorical(1, 17),
    Categorical(2, 5),
    Categorical(3, 4),
    DiscretisedLogisticMixture(1, 4, mixtures=3),
    DiscretisedLogisticMixture(1, 16),
    DiscretisedLogisticMixture(1, 256),
    DiscretisedLogisticMixture(3, 4, mixtures=2),
    DiscretisedLogisticMixture(3, 8),
]


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def support(likelihood: Likelihood) -> torch.Tensor:
    """Every value of one position: (L^C, 1, C)."""
    values = itertools.product(range(likelihood.levels), repeat=likelihood.channels)
    return torch.tensor(list(values), dtype=torch.uint8).unsqueeze(1)


def pmf(likelihood: Likelihood, params: torch.Tensor) -> torch.Tensor:
    """exp(log_prob) over the support, for params of shape (k,)."""
    x = support(likelihood)
    return likelihood.log_prob(params.expand(len(x), 1, -1), x).exp()


def random_params(likelihood: Likelihood, spread: float, seed: int = 0) -> torch.Tensor:
    k = likelihood.params_per_position
    return spread * torch.randn(k, generator=generator(seed), dtype=torch.float64)


def raw_log_scale(log_scale: float) -> float:
    """The decoder's output that gives this log-scale: the inverse of y / sqrt(1 + y²/49)."""
    return log_scale / math.sqrt(1 - (log_scale / 7) ** 2)


def drawn(
    likelihood: Likelihood, params: torch.Tensor, source=None, temperature=1.0
) -> torch.Tensor:
    """One draw for each row of params."""
    noise = likelihood.noise(len(params), 1, source, temperature=temperature)
    return likelihood.sample(params, noise[:, 0])


@pytest.mark.parametrize("likelihood", LIKELIHOODS, ids=str)
@pytest.mark.parametrize("spread", [0.1, 1.0, 5.0, 100.0])
def test_sums_to_one_over_the_support(likelihood, spread):
    for seed in range(3):
        total = pmf(likelihood, random_params(likelihood, spread, seed)).sum()
        torch.testing.assert_close(total, torch.ones_like(total), rtol=0, atol=1e-11)


@pytest.mark.parametrize("likelihood", LIKELIHOODS, ids=str)
def test_example_is_the_sum_of_its_positions(likelihood):
    k, c = likelihood.params_per_position, likelihood.channels
    params = torch.randn(2, 7, k, generator=generator(), dtype=torch.float64)
    x = torch.randint(likelihood.levels, (2, 7, c), generator=generator(1)).to(torch.uint8)
    singles = torch.stack(
        [likelihood.log_prob(params[:, p : p + 1], x[:, p : p + 1]) for p in range(7)]
    )
    torch.testing.assert_close(likelihood.log_prob(params, x), singles.sum(0))


@pytest.mark.parametrize("likelihood", LIKELIHOODS, ids=str)
def test_saturated_parameters_stay_finite(likelihood):
    k = likelihood.params_per_position
    x = support(likelihood)[:: max(1, likelihood.levels**likelihood.channels // 64)]
    signs = torch.randint(-1, 2, (50, k), generator=generator()).float()
    params = torch.cat([signs, torch.ones(1, k), -torch.ones(1, k), torch.zeros(1, k)]) * 1e4
    params = params.repeat_interleave(len(x), 0).unsqueeze(1).requires_grad_()
    log_prob = likelihood.log_prob(params, x.repeat(53, 1, 1))
    (gradient,) = torch.autograd.grad(log_prob.sum(), params)
    assert log_prob.isfinite().all()
    assert (log_prob <= 0).all()
    assert gradient.isfinite().all()


@pytest.mark.parametrize("likelihood", LIKELIHOODS, ids=str)
def test_half_precision_is_computed_in_float32(likelihood):
    params = random_params(likelihood, 1.0)
    for dtype in (torch.float16, torch.bfloat16):
        rounded = params.to(dtype)
        assert pmf(likelihood, rounded).dtype == torch.float32
        torch.testing.assert_close(
            pmf(likelihood, rounded).double(), pmf(likelihood, rounded.double()), rtol=2e-4, atol=0
        )


def test_bernoulli_and_categorical_closed_form():
    assert pmf(Bernoulli(), torch.tensor([math.log(3.0)])).tolist() == pytest.approx([0.25, 0.75])
    logits = torch.log(torch.tensor([0.1, 0.2, 0.7, 0.5, 0.25, 0.25], dtype=torch.float64))
    expected = torch.outer(logits[:3].exp(), logits[3:].exp()).flatten()  # channel by channel
    torch.testing.assert_close(pmf(Categorical(2, 3), logits), expected)


def test_mixture_golden_numbers():
    # L = 3, μ = 0, s = 1: x̃ ∈ {−1, 0, 1}, h = 1/2; p(1) = σ(½) − σ(−½) = tanh(¼).
    single = DiscretisedLogisticMixture(1, 3, mixtures=1)
    params = torch.tensor([0.7, 0.0, 0.0], dtype=torch.float64)
    expected = [0.3775406687981454, 0.2449186624037091, 0.3775406687981454]
    assert pmf(single, params).tolist() == pytest.approx(expected, abs=1e-15)


@pytest.mark.parametrize(("channels", "levels"), [(1, 16), (1, 256), (3, 8)])
def test_mixture_equals_the_plain_difference_of_sigmoids(channels, levels):
    mixtures = 3
    likelihood = DiscretisedLogisticMixture(channels, levels, mixtures)
    params = random_params(likelihood, 1.0)
    rows = params.reshape(-1, mixtures)
    logits, means, raw, coefficients = (
        r.numpy() for r in rows.split([1, channels, channels, channels * (channels - 1) // 2])
    )
    scales = np.exp(raw / np.sqrt(1 + raw**2 / 49))
    weights = np.exp(logits[0]) / np.exp(logits[0]).sum()
    t = np.tanh(coefficients)
    expected = []
    for x in support(likelihood).squeeze(1).numpy().astype(float):
        s = x / (levels - 1) * 2 - 1
        total = 0.0
        for m in range(mixtures):
            mu = means[:, m].copy()
            if channels == 3:
                mu[1] += t[0, m] * s[0]
                mu[2] += t[1, m] * s[0] + t[2, m] * s[1]
            upper = 1 / (1 + np.exp(-(s + 1 / (levels - 1) - mu) / scales[:, m]))
            lower = 1 / (1 + np.exp(-(s - 1 / (levels - 1) - mu) / scales[:, m]))
            upper = np.where(x == levels - 1, 1.0, upper)
            lower = np.where(x == 0, 0.0, lower)
            total += weights[m] * np.prod(upper - lower)
        expected.append(total)
    np.testing.assert_allclose(pmf(likelihood, params).numpy(), expected, rtol=1e-9)


def test_mixture_keeps_its_tails_in_float32():
    # Far in the tail, s = 1: σ(a) − σ(b) = e^{x̃−μ}·2 sinh(h), which underflows at μ = 300.
    likelihood = DiscretisedLogisticMixture(1, 256, mixtures=1)
    x = torch.tensor([[[100]]], dtype=torch.uint8)
    log_prob = likelihood.log_prob(torch.tensor([[[0.0, 300.0, 0.0]]]), x).item()
    expected = (200 / 255 - 1 - 300) + math.log(2 * math.sinh(1 / 255))
    assert log_prob == pytest.approx(expected, rel=1e-6)


def test_mixture_gradients_stay_alive():
    # One component far away and far too sharp still hears of it, in mean and in scale.
    likelihood = DiscretisedLogisticMixture(1, 256, mixtures=1)
    params = torch.tensor([[[0.0, 50.0, -100.0]]], requires_grad=True)
    log_prob = likelihood.log_prob(params, torch.tensor([[[100]]], dtype=torch.uint8))
    (gradient,) = torch.autograd.grad(log_prob.sum(), params)
    assert gradient[0, 0, 1] < -100
    assert gradient[0, 0, 2] > 1


def test_rgb_channels_depend_on_earlier_channels_only():
    likelihood = DiscretisedLogisticMixture(3, 4, mixtures=2)
    params = random_params(likelihood, 1.0).requires_grad_()
    joint = pmf(likelihood, params).reshape(4, 4, 4)  # r, g, b
    rows = torch.autograd.grad(joint.sum((1, 2))[1], params, retain_graph=True)[0].reshape(10, 2)
    assert rows[[2, 3, 5, 6, 7, 8, 9]].abs().max() < 1e-12  # p(r) hears of μ_r and s_r alone
    assert (rows[[0, 1, 4]] != 0).all()
    rows = torch.autograd.grad(joint.sum(2)[1, 2], params)[0].reshape(10, 2)
    assert rows[[3, 6, 8, 9]].abs().max() < 1e-12  # p(r, g) does not hear of blue
    assert (rows[[0, 1, 2, 4, 5, 7]] != 0).all()
    green = joint.sum(2) / joint.sum((1, 2))[:, None]
    blue = joint / joint.sum(2, keepdim=True)
    assert (green[0] - green[3]).abs().max() > 0.01
    assert (blue[0, 1] - blue[3, 1]).abs().max() > 0.01
    assert (blue[1, 0] - blue[1, 3]).abs().max() > 0.01


@pytest.mark.parametrize("likelihood", LIKELIHOODS, ids=str)
def test_samples_follow_log_prob(likelihood):
    draws = 100_000
    params = random_params(likelihood, 0.8, seed=3)
    expected = pmf(likelihood, params).numpy() * draws
    samples = drawn(likelihood, params.float().expand(draws, -1), generator(5)).numpy()
    place = likelihood.levels ** np.arange(likelihood.channels)[::-1]
    observed = np.bincount(samples.astype(int) @ place, minlength=len(expected)).astype(float)
    rare = expected < 10  # chi-square wants full cells: pool the rare ones
    pooled = [
        np.append(f[~rare], f[rare].sum()) if rare.any() else f for f in (observed, expected)
    ]
    assert chisquare(pooled[0], pooled[1], sum_check=False).pvalue > 1e-3


@pytest.mark.parametrize("temperature", [0.3, 2.0])
@pytest.mark.parametrize(
    "likelihood", [Bernoulli(), Categorical(1, 6), DiscretisedLogisticMixture(3, 3, 2)], ids=str
)
def test_temperature_scales_logits_and_logistic_scales(likelihood, temperature):
    draws = 50_000
    params = random_params(likelihood, 1.0, seed=2)
    tempered = params / temperature
    if isinstance(likelihood, DiscretisedLogisticMixture):
        log_scales = params / torch.sqrt(1 + params**2 / 49) + math.log(temperature)
        tempered = torch.cat([tempered[:2], params[2:]])
        tempered[8:14] = torch.tensor([raw_log_scale(s) for s in log_scales[8:14].tolist()])
    expected = pmf(likelihood, tempered).numpy()
    samples = drawn(likelihood, params.expand(draws, -1), generator(), temperature).numpy()
    place = likelihood.levels ** np.arange(likelihood.channels)[::-1]
    observed = np.bincount(samples.astype(int) @ place, minlength=len(expected)) / draws
    # five standard deviations of a frequency are at most 5·√(¼/50,000) = 0.011
    assert np.abs(observed - expected).max() < 0.011


@pytest.mark.parametrize("likelihood", LIKELIHOODS, ids=str)
def test_sample_is_a_function_of_the_generator_and_survives_saturation(likelihood):
    k = likelihood.params_per_position
    params = torch.randn(64, k, generator=generator())
    first, again = (drawn(likelihood, params, generator(7)) for _ in range(2))
    assert torch.equal(first, again)
    assert not torch.equal(first, drawn(likelihood, params, generator(8)))
    assert first.shape == (64, likelihood.channels)
    assert first.dtype == torch.uint8
    for scale in (1e4, -1e4):
        extreme = drawn(likelihood, params.sign() * scale, generator())
        assert extreme.max().item() < likelihood.levels
    assert drawn(likelihood, params, None).max().item() < likelihood.levels


@pytest.mark.parametrize("likelihood", LIKELIHOODS, ids=str)
def test_noise_of_one_batch_is_that_of_its_parts(likelihood):
    source = generator(1)
    parts = [likelihood.noise(batch, 7, source) for batch in (1, 4, 2)]
    whole = likelihood.noise(7, 7, generator(1))
    assert torch.equal(torch.cat(parts), whole)
    assert whole.shape == (7, 7, likelihood.noise_per_position)
    assert torch.equal(likelihood.noise(7, 7, generator(1), temperature=0.5), 0.5 * whole)


def test_low_temperature_gives_the_mode():
    likelihood = DiscretisedLogisticMixture(1, 256, mixtures=2)
    params = torch.tensor([[1.0, 0.0, 0.5, -0.5, 0.0, 0.0]]).expand(100, -1)
    samples = drawn(likelihood, params, generator(), temperature=1e-5)
    assert samples.unique().tolist() == [round(1.5 * 255 / 2)]


@pytest.mark.parametrize("likelihood", LIKELIHOODS, ids=str)
def test_config_rebuilds_the_likelihood(likelihood):
    assert type(likelihood)(**likelihood.config()) == likelihood
    assert all(type(value) is int for value in likelihood.config().values())


def test_default_likelihood_by_levels():
    assert default_likelihood(1, 2) == Bernoulli(1)
    assert default_likelihood(3, 17) == Categorical(3, 17)
    assert default_likelihood(2, 32) == Categorical(2, 32)
    assert default_likelihood(1, 33) == DiscretisedLogisticMixture(1, 33)
    assert default_likelihood(3, 256) == DiscretisedLogisticMixture(3, 256)


def test_bad_arguments_are_named():
    with pytest.raises(ValueError, match=r"^channels must be at least 1, got 0$"):
        Bernoulli(0)
    with pytest.raises(ValueError, match=r"^levels must be in 2\.\.256, got 257$"):
        Categorical(1, 257)
    with pytest.raises(ValueError, match=r"^levels must be in 2\.\.256, got 1$"):
        Categorical(1, 1)
    with pytest.raises(ValueError, match=r"^channels must be 1 \(grey\) or 3 \(RGB\) .*, got 2$"):
        DiscretisedLogisticMixture(2)
    with pytest.raises(ValueError, match=r"^mixtures must be at least 1, got 0$"):
        DiscretisedLogisticMixture(1, mixtures=0)
    for temperature in (0.0, -1.0, math.nan, math.inf):
        for likelihood in (Bernoulli(), Categorical(1, 3), DiscretisedLogisticMixture(1)):
            with pytest.raises(ValueError, match="temperature must be positive and finite, got"):
                likelihood.noise(1, 1, generator(), temperature=temperature)
