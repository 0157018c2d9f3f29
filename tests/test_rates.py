"""The committed rate: golden values, dense Gaussians, numerical minimisation, inversion."""

import math
import re
from decimal import Decimal, localcontext

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize

from deltavae.rates import (
    ALPHA_MAX,
    channels,
    committed_rate,
    committed_terms,
    fewest_channels,
    gaussian_committed_rate,
    ladder,
    marginal_information,
    minimiser,
    solve_alpha,
)
from deltavae.units import nats_to_bits


def ar1_precision(alpha: float, n: int) -> torch.Tensor:
    """Λ from its definition: the inverse of the stationary covariance α^|s−t|."""
    steps = torch.arange(n, dtype=torch.float64)
    return torch.linalg.inv(alpha ** (steps[:, None] - steps).abs())


def textbook_kl(mu: torch.Tensor, log_sigma: torch.Tensor, alpha: torch.Tensor) -> torch.Tensor:
    """The KL of paper.md §2 step by step, as a loop: it shares nothing with the library."""
    var = (2 * log_sigma).exp()
    total = 0.5 * (var[0] + mu[0] ** 2 - 1 - var[0].log()).sum()
    for t in range(1, len(mu)):
        innovation = 1 - alpha**2
        mean = (mu[t] - alpha * mu[t - 1]) ** 2
        spread = var[t] + alpha**2 * var[t - 1]
        terms = (spread + mean) / innovation - 1 - var[t].log() + innovation.log()
        total = total + 0.5 * terms.sum()
    return total


@pytest.mark.parametrize(
    ("lo", "hi", "d", "bits"), [(0.50, 0.95, 8, 79.447), (0.50, 0.99, 64, 666.629)]
)
def test_the_paper_s_two_configurations(lo, hi, d, bits):
    assert nats_to_bits(committed_rate(ladder(lo, hi, d), n=32)) == pytest.approx(bits, abs=5e-4)


@pytest.mark.parametrize(("alpha", "nats"), [(0.50, 0.144), (0.80, 0.511), (0.95, 1.164)])
def test_two_steps_one_channel(alpha, nats):
    assert committed_rate(alpha, n=2) == pytest.approx(nats, abs=5e-4)
    assert committed_rate(alpha, n=2) == pytest.approx(-0.5 * math.log(1 - alpha**2), rel=1e-14)


def test_every_kind_of_alpha_gives_the_same_rate():
    values = [0.25, -0.5, 0.875]  # exact in float32 too
    expected = committed_rate(values, n=7)
    assert committed_rate(np.array(values), n=7) == expected
    assert committed_rate(np.array(values, dtype=np.float32), n=7) == expected
    assert committed_rate(torch.tensor(values), n=7) == expected
    assert committed_rate(tuple(values), n=7) == expected
    assert sum(committed_rate(a, n=7) for a in values) == pytest.approx(expected, rel=1e-14)
    assert committed_rate(torch.tensor(0.25), n=7) == committed_rate(0.25, n=7)


@pytest.mark.parametrize("alpha", [1e-12, 1e-6, 1e-3, 0.3, 0.7071, 0.9, 0.9999, 1 - 1e-6])
@pytest.mark.parametrize("n", [2, 3, 4096])
def test_rate_has_float64_accuracy_at_both_ends(alpha, n):
    with localcontext() as context:
        context.prec = 60
        square = Decimal(alpha) ** 2
        exact = ((n - 2) * (1 + square).ln() - (1 - square).ln()) / 2
    # 1 − α loses nothing, so only the logarithms and the sum round.
    assert committed_rate(alpha, n) == pytest.approx(float(exact), rel=4e-15, abs=0)


@given(alpha=st.lists(st.floats(-0.99, 0.99), min_size=1, max_size=3), n=st.integers(1, 12))
@settings(max_examples=60, deadline=None)
def test_rate_and_minimiser_agree_with_the_dense_precision(alpha, n):
    dense = [ar1_precision(a, n) for a in alpha]
    precision = torch.block_diag(*dense)
    assert committed_rate(alpha, n) == pytest.approx(
        gaussian_committed_rate((precision + precision.T) / 2), rel=1e-9, abs=1e-12
    )
    sigma = torch.stack([m.diagonal().rsqrt() for m in dense], dim=1)
    torch.testing.assert_close(minimiser(alpha, n), sigma, rtol=1e-9, atol=0)


@given(alpha=st.lists(st.floats(-0.9999, 0.9999), min_size=1, max_size=4), n=st.integers(1, 50))
@settings(max_examples=60, deadline=None)
def test_terms_are_the_chain_rule_s_shares_and_sum_to_the_rate(alpha, n):
    terms = committed_terms(alpha, n)
    assert terms.shape == (n, len(alpha))
    assert bool((terms >= 0).all())
    assert float(terms.sum()) == pytest.approx(committed_rate(alpha, n), rel=1e-12, abs=1e-15)
    # ½ [ln Λ_tt + ln var(z_t | z_{t−1})], Λ_tt = 1/σ*²
    conditional = torch.tensor(alpha, dtype=torch.float64).square().neg().log1p().repeat(n, 1)
    conditional[0] = 0
    expected = 0.5 * (conditional - 2 * minimiser(alpha, n).log())
    torch.testing.assert_close(terms, expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("alpha", [0.0, 0.375, -0.54, 0.8, 0.998])
@pytest.mark.parametrize("n", [1, 2, 3, 14])
def test_marginal_information_is_what_the_first_of_the_rate_buys(alpha, n):
    """Information about a small mean over its price, both from the dense precision."""
    precision = ar1_precision(alpha, n).numpy()
    u = np.sign(alpha) ** np.arange(n) if alpha else np.ones(n)
    v = 1e-9  # variance of the mean over the data
    noise = np.diag(1 / np.diag(precision))
    signal = np.eye(n) + np.linalg.solve(noise, v * np.outer(u, u))
    information = 0.5 * math.log1p(np.linalg.det(signal) - 1)
    cost = 0.5 * v * u @ precision @ u
    found = marginal_information(alpha, n).item()
    assert found == pytest.approx(information / cost, rel=1e-3)
    assert found >= 1


def test_one_step_commits_nothing():
    assert committed_rate([0.9, 0.5], n=1) == 0
    assert torch.equal(minimiser([0.9, 0.5], n=1), torch.ones(1, 2, dtype=torch.float64))
    assert torch.equal(committed_terms([0.9, 0.5], n=1), torch.zeros(1, 2, dtype=torch.float64))


@pytest.mark.parametrize("seed", range(12))
def test_numerical_minimisation_reaches_the_rate_and_never_passes_it(seed):
    rng = np.random.default_rng(seed)
    n, d = int(rng.integers(1, 9)), int(rng.integers(1, 4))
    alpha = torch.from_numpy(rng.uniform(-0.95, 0.95, d))
    delta = committed_rate(alpha, n)
    seen = []

    def value_and_gradient(flat: np.ndarray) -> tuple[float, np.ndarray]:
        x = torch.from_numpy(flat.copy()).requires_grad_()
        mu, log_sigma = x.reshape(2, n, d)
        kl = textbook_kl(mu, log_sigma, alpha)
        (gradient,) = torch.autograd.grad(kl, x)
        seen.append(kl.item())
        return seen[-1], gradient.numpy()

    start = rng.normal(size=2 * n * d)
    found = minimize(
        value_and_gradient, start, jac=True, method="L-BFGS-B",
        options={"maxiter": 5000, "ftol": 1e-15, "gtol": 1e-10},
    )  # fmt: skip
    assert min(seen) >= delta - 1e-12 * (1 + delta)
    assert found.fun == pytest.approx(delta, abs=1e-9)
    mu, log_sigma = torch.from_numpy(found.x).reshape(2, n, d)
    torch.testing.assert_close(mu, torch.zeros_like(mu), atol=1e-4, rtol=0)
    torch.testing.assert_close(log_sigma.exp(), minimiser(alpha, n), atol=1e-4, rtol=0)


@pytest.mark.parametrize(("rows", "columns", "a", "b"), [(3, 5, 0.6, 0.9), (4, 4, -0.3, 0.8)])
def test_separable_grid_prior(rows, columns, a, b):
    grid = torch.kron(ar1_precision(a, rows), ar1_precision(b, columns))
    grid = (grid + grid.T) / 2
    expected = columns * committed_rate(a, rows) + rows * committed_rate(b, columns)
    assert gaussian_committed_rate(grid) == pytest.approx(expected, rel=1e-12)


def test_general_rate_is_the_kl_at_its_minimiser_and_scale_free():
    generator = torch.Generator().manual_seed(3)
    root = torch.randn(6, 6, generator=generator, dtype=torch.float64)
    precision = root @ root.T + torch.eye(6, dtype=torch.float64)
    delta = gaussian_committed_rate(precision)
    zero = torch.zeros(6, dtype=torch.float64)
    best = torch.distributions.MultivariateNormal(zero, torch.diag(1 / precision.diagonal()))
    prior = torch.distributions.MultivariateNormal(zero, precision_matrix=precision)
    assert delta == pytest.approx(float(torch.distributions.kl_divergence(best, prior)), rel=1e-12)
    scale = torch.logspace(-5, 5, 6, dtype=torch.float64)
    rescaled = scale[:, None] * precision * scale
    assert gaussian_committed_rate(rescaled) == pytest.approx(delta, rel=1e-10)
    assert gaussian_committed_rate(torch.diag(scale)) == pytest.approx(0, abs=1e-14)


@given(
    log_gap=st.floats(-6, -1e-7),
    near_one=st.booleans(),
    n=st.integers(2, 4096),
    d=st.integers(1, 64),
)
@settings(max_examples=80, deadline=None)
def test_solve_alpha_inverts_the_rate(log_gap, near_one, n, d):
    alpha = 1 - 10**log_gap if near_one else 10**log_gap
    alpha = min(alpha, ALPHA_MAX)
    delta = committed_rate([alpha] * d, n)
    solved = solve_alpha(delta, n, d)
    assert solved.dtype == torch.float64
    assert torch.equal(solved, solved[:1].expand(d))
    assert committed_rate(solved, n) == pytest.approx(delta, rel=1e-9, abs=0)
    assert float(solved[0]) == pytest.approx(alpha, rel=1e-8, abs=0)


@given(
    log_delta=st.floats(-12, 5),
    n=st.integers(2, 4096),
    d=st.integers(1, 64),
    bounds=st.sampled_from([None, (0.0, 0.5), (0.5, 0.99), (-0.9, 0.3), (0.7, 0.7)]),
)
@settings(max_examples=80, deadline=None)
def test_solve_alpha_hits_delta_or_names_the_smallest_d(log_delta, n, d, bounds):
    delta = 10**log_delta
    least = d
    try:
        solve_alpha(delta, n, d, bounds)
    except ValueError as error:
        least = int(re.findall(r"d must be at least (\d+)$", str(error))[0])
    alpha = solve_alpha(delta, n, least, bounds)
    assert committed_rate(alpha, n) == pytest.approx(delta, rel=1e-9, abs=0)
    assert float(alpha.abs().max()) <= ALPHA_MAX * (1 + 1e-15)
    if least > d:
        with pytest.raises(ValueError, match=f"at least {least}$"):
            solve_alpha(delta, n, least - 1, bounds)


@given(log_delta=st.floats(-6, 1.5), n=st.integers(2, 512), most=st.floats(0.05, 0.95))
@settings(max_examples=80, deadline=None)
def test_fewest_channels_keep_alpha_below_what_is_allowed(log_delta, n, most):
    delta = 10**log_delta
    d = fewest_channels(delta, n, most)
    assert float(solve_alpha(delta, n, d).max()) <= most * (1 + 1e-9)
    if d > 1:
        assert committed_rate(most, n) * (d - 1) < delta


def test_fewest_channels_take_a_whole_quotient_as_it_is():
    for d in (1, 2, 7, 60):
        assert fewest_channels(d * committed_rate(0.8, 28), 28) == d


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0.0, 8), "delta must be positive"),
        ((math.inf, 8), "delta must be positive"),
        ((1.0, 1), "n must be at least 2"),
        ((1.0, 8, 1.0), r"most must be in \(0, 1\)"),
        ((1e9, 8), "needs more than 65536 channels"),
    ],
)
def test_impossible_channels_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        fewest_channels(*arguments)


def test_capacity_of_one_channel_is_the_stated_limit():
    most = committed_rate(ALPHA_MAX, n=2)
    assert float(solve_alpha(most, n=2, d=1)) == pytest.approx(ALPHA_MAX, rel=1e-12)
    with pytest.raises(ValueError, match=r"delta=.* n=2, d=1: d must be at least 2$"):
        solve_alpha(most * (1 + 1e-9), n=2, d=1)
    with pytest.raises(ValueError, match=r"d must be at least 65536$"):
        solve_alpha(1e12, n=2, d=1, bounds=(0.1, 0.2))


def test_ladder_is_scaled_in_atanh_and_fixed_at_its_own_rate():
    given_ladder = ladder(0.5, 0.95, 8)
    same = solve_alpha(committed_rate(given_ladder, 32), 32, 8, bounds=(0.5, 0.95))
    torch.testing.assert_close(same, given_ladder, rtol=1e-10, atol=0)
    other = solve_alpha(100.0, 32, 8, bounds=(0.5, 0.95))
    ratio = other.atanh() / given_ladder.atanh()
    torch.testing.assert_close(ratio, ratio[:1].expand(8), rtol=1e-10, atol=0)
    assert float(ratio[0]) > 1
    signed = solve_alpha(5.0, 10, 3, bounds=(-0.8, 0.8))
    torch.testing.assert_close(signed, -signed.flip(0), rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("alpha", [1.0, -1.0, 1.5, math.nan, [0.5, math.inf], [], [[0.5]]])
def test_alpha_out_of_range_is_refused(alpha):
    for function in (committed_rate, committed_terms, minimiser, marginal_information):
        with pytest.raises(ValueError, match="alpha"):
            function(torch.tensor(alpha, dtype=torch.float64), 4)


@pytest.mark.parametrize(
    "function", [committed_rate, committed_terms, minimiser, marginal_information]
)
def test_n_below_one_is_refused(function):
    with pytest.raises(ValueError, match="n must be at least 1, got 0"):
        function(0.5, 0)


@pytest.mark.parametrize(
    ("matrix", "message"),
    [
        (torch.ones(2, 3), "square"),
        (torch.ones(0, 0), "not empty"),
        (torch.tensor([[1.0, 0.5], [0.1, 1.0]]), "symmetric"),
        (torch.tensor([[1.0, 2.0], [2.0, 1.0]]), "positive definite"),
        (torch.tensor([[1.0, 0.0], [0.0, -1.0]]), "positive definite"),
        (torch.tensor([[1.0, math.nan], [math.nan, 1.0]]), "symmetric"),
        (torch.tensor([[math.nan]]), "positive definite"),
    ],
)
def test_precision_that_is_none_is_refused(matrix, message):
    with pytest.raises(ValueError, match=message):
        gaussian_committed_rate(matrix)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0.0, 8, 1), "delta must be positive"),
        ((-1.0, 8, 1), "delta must be positive"),
        ((math.nan, 8, 1), "delta must be positive"),
        ((math.inf, 8, 1), "delta must be positive"),
        ((1.0, 1, 1), "n must be at least 2"),
        ((1.0, 8, 0), "d must be at least 1"),
        ((1.0, 8, 2, (0.0, 0.0)), "bounds"),
        ((1.0, 8, 2, (0.5, 0.2)), "lo <= hi"),
        ((1.0, 8, 2, (0.5, 1.0)), "hi < 1"),
        ((1.0, 8, 1, (0.0, 0.5)), "d must be at least 2"),
    ],
)
def test_impossible_targets_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        solve_alpha(*arguments)


def test_ladder_and_channels():
    assert ladder(0.5, 0.95, 4).tolist() == pytest.approx([0.5, 0.65, 0.8, 0.95], rel=1e-15)
    assert ladder(0.2, 0.4, 1).tolist() == [0.2]
    with pytest.raises(ValueError, match="d must be at least 1"):
        ladder(0.2, 0.4, 0)
    trainable = torch.tensor([0.5], requires_grad=True)
    copied = channels(trainable)
    assert copied.dtype == torch.float64
    assert not copied.requires_grad
    source = torch.tensor([0.5], dtype=torch.float64)
    channels(source).zero_()
    assert float(source) == 0.5
