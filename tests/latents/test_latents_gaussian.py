"""Gaussian pairs, all alike: the floor, the rate, draws, densities, from_rate, configurations."""

import copy
import math
import re
from functools import partial

import numpy as np
import pytest
import torch
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import quad
from scipy.linalg import toeplitz
from scipy.optimize import minimize
from scipy.sparse import csr_matrix, diags_array
from torch.distributions import Independent as Reinterpreted
from torch.distributions import Laplace, MultivariateNormal, Normal, kl_divergence
from torch.utils._python_dispatch import TorchDispatchMode

from deltavae.latents.ar1 import AR1
from deltavae.latents.autoregressive import ARp
from deltavae.latents.gaussian import MOST_STEPS, GaussianPair
from deltavae.latents.gaussian_markov import GaussianMarkov
from deltavae.latents.gaussian_prior import GaussianMarkovPrior
from deltavae.latents.grid import Grid
from deltavae.latents.learnable_ar1 import LearnableAR1
from deltavae.latents.matern import Matern
from deltavae.latents.posterior import MeanFieldNormal
from deltavae.latents.squared_exponential import SquaredExponential
from deltavae.latents.tree import Tree
from deltavae.priors import Autoregressive
from deltavae.run_folder import instantiate, specification
from deltavae.units import bits_to_nats
from dense_gaussian import lags

N = 6
SECOND_DIFFERENCE = diags_array(
    [1.0, -4.0, 6.3, -4.0, 1.0], offsets=[-2, -1, 0, 1, 2], shape=(N, N)
)

# Two channels of six or seven steps; where a pair has knobs per channel, the two differ.
PAIRS = {
    "arp": partial(ARp, N, 2, (0.8, -0.5, 0.3)),
    "matern12": partial(Matern, N, [6.0, 2.0], 0.5),
    "matern32": partial(Matern, N, [3.0, 3.0], 1.5),
    "matern52": partial(Matern, N, [4.0, 2.0], 2.5),
    "squared": partial(SquaredExponential, N, [3.0, 1.0], 1e-3),
    "grid": partial(Grid, [0.9, -0.3], [0.5, 0.7], 2, 3),
    "tree": partial(Tree, [0.8, -0.6], 2, 2),
    "markov": partial(GaussianMarkov, SECOND_DIFFERENCE, 2),
}
every_pair = pytest.mark.parametrize("make", PAIRS.values(), ids=PAIRS)


def seeded(*shape: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def autocorrelations(partials: tuple[float, ...], n: int) -> np.ndarray:
    """ρ of lags 0..n−1 from what a partial autocorrelation is.

    κ_k is the correlation of z_0 and z_k when what z_1..z_{k−1} tell of both is taken away: with R
    and r the correlations of those in between with each other and with z_0,
    ρ_k = rᵀR⁻¹(r reversed) + κ_k (1 − rᵀR⁻¹r); and κ_k = 0 for k > p.
    """
    rho = [1.0]
    for k in range(1, n):
        r = np.array(rho[1:])
        weights = np.linalg.solve(toeplitz(rho[:-1]), r) if k > 1 else r
        kappa = partials[k - 1] if k <= len(partials) else 0.0
        rho.append(float(weights @ r[::-1] + kappa * (1 - weights @ r)))
    return np.array(rho)


def cosine_transform(n: int, length: float, order: int) -> np.ndarray:
    """ρ of lags 0..n−1: the cosine transform of the density 1/Σ_{j≤m} (ℓω)^{2j}/(2ʲ j!)."""

    def density(x: float) -> float:
        return 1 / sum((x * x / 2) ** j / math.factorial(j) for j in range(order + 1))

    def integral(lag: float) -> float:
        tolerance = {"epsabs": 1e-13, "epsrel": 1e-13, "limit": 500}
        return quad(lambda x: math.cos(lag * x) * density(x), 0, 60, **tolerance)[0]

    return np.array([integral(t / length) for t in range(n)]) / integral(0.0)


def covariances(pair: GaussianPair) -> list[torch.Tensor]:
    """Covariance of each channel, dense, by the definition of the process and not by its map."""
    n = pair.n
    match pair:
        case Matern(nu=0.5):
            dense = [np.exp(-lags(n) / ell) for ell in pair.length]
        case Matern(nu=1.5):
            scaled = [math.sqrt(3) / ell * lags(n) for ell in pair.length]
            dense = [(1 + x) * np.exp(-x) for x in scaled]
        case Matern():
            scaled = [math.sqrt(5) / ell * lags(n) for ell in pair.length]
            dense = [(1 + x + x**2 / 3) * np.exp(-x) for x in scaled]
        case Grid(height=height, width=width):
            alphas = zip(pair.down, pair.across, strict=True)
            dense = [np.kron(a ** lags(height), b ** lags(width)) for a, b in alphas]
        case Tree():
            starts_ends = pair.extents()[:, 0]
            dense = [rho ** tree_distances(starts_ends) for rho in pair.correlation]
        case GaussianMarkov():
            dense = [np.linalg.inv(SECOND_DIFFERENCE.toarray())] * pair.d
        case ARp():
            dense = [toeplitz(autocorrelations(pair.partials, n))] * pair.d
        case SquaredExponential(jitter=jitter):
            near = [cosine_transform(n, ell, pair.order) for ell in pair.length]
            dense = [(1 - jitter) * toeplitz(rho) + jitter * np.eye(n) for rho in near]
        case _:
            raise AssertionError(f"no definition of {pair}")
    return [torch.from_numpy(matrix) for matrix in dense]


def tree_distances(intervals: np.ndarray) -> np.ndarray:
    """Edges between nodes, from their intervals alone: a node lies within its ancestors."""
    starts, ends = intervals.T
    within = (starts[:, None] >= starts) & (ends[:, None] <= ends)  # i within j
    depth = within.sum(axis=1)
    shared = (within[:, None] & within[None]).sum(axis=2)
    return depth[:, None] + depth - 2 * shared


def dense_priors(pair: GaussianPair) -> list[MultivariateNormal]:
    zero = torch.zeros(pair.n, dtype=torch.float64)
    return [MultivariateNormal(zero, (c + c.T) / 2) for c in covariances(pair)]


def normal(q: MeanFieldNormal) -> Reinterpreted:
    return Reinterpreted(Normal(q.mu.double(), q.sigma.double()), 2)


@every_pair
@pytest.mark.parametrize("units", [False, True])
def test_rate_is_the_kl_between_dense_gaussians(make, units):
    pair = make(minimiser_units=units)
    q = pair.posterior(seeded(3, pair.n, 4))
    expected = torch.zeros(3, dtype=torch.float64)
    for k, prior in enumerate(dense_priors(pair)):
        dense = MultivariateNormal(q.mu[..., k], torch.diag_embed(q.sigma[..., k].square()))
        expected += kl_divergence(dense, prior)
    torch.testing.assert_close(pair.rate(q), expected, rtol=1e-9, atol=0)
    torch.testing.assert_close(kl_divergence(normal(q), pair.prior), expected, rtol=1e-9, atol=0)
    torch.testing.assert_close(
        pair.rate_terms(q).sum(dim=(1, 2)), pair.rate(q), rtol=1e-12, atol=0
    )


@every_pair
def test_an_independent_minimiser_finds_the_floor(make):
    pair = make()
    dense = dense_priors(pair)

    def rate_and_gradient(point: np.ndarray) -> tuple[float, np.ndarray]:
        x = torch.from_numpy(point).requires_grad_()
        mu, log_sigma = x.reshape(2, pair.d, pair.n)
        rate = sum(
            kl_divergence(MultivariateNormal(m, torch.diag((2 * s).exp())), prior)
            for m, s, prior in zip(mu, log_sigma, dense, strict=True)
        )
        (gradient,) = torch.autograd.grad(rate, x)
        return rate.item(), gradient.numpy()

    options = {"ftol": 1e-15, "gtol": 1e-8, "maxiter": 2000}
    for seed in range(3):
        start = np.random.default_rng(seed).normal(size=2 * pair.d * pair.n)
        found = minimize(rate_and_gradient, start, jac=True, method="L-BFGS-B", options=options)
        assert found.fun == pytest.approx(pair.committed_rate, rel=1e-6)
        mu, log_sigma = found.x.reshape(2, pair.d, pair.n)
        np.testing.assert_allclose(np.exp(log_sigma).T, pair.sigma_star, rtol=1e-3)
        np.testing.assert_allclose(mu, 0, atol=2e-3)


@every_pair
def test_raw_zero_is_the_floor(make):
    pair = make()
    q = pair.posterior(torch.zeros(2, pair.n, 4, dtype=torch.float64))
    assert pair.rate(q).tolist() == [pair.committed_rate] * 2
    assert pair.committed_rate > 0
    assert torch.equal(pair.rate_terms(q), pair.committed_terms.expand(2, pair.n, 2))
    assert bool((pair.committed_terms >= 0).all())
    assert float(pair.committed_terms.sum()) == pytest.approx(pair.committed_rate, rel=1e-14)
    assert torch.equal(q.sigma[0], pair.sigma_star)
    assert torch.equal(q.mu, torch.zeros_like(q.mu))


@every_pair
def test_no_raw_output_falls_below_the_floor(make):
    pairs = [make(), make(minimiser_units=True)]
    count = pairs[0].n * 4

    @given(data=st.data(), units=st.booleans(), double=st.booleans())
    @settings(max_examples=40, deadline=None)
    def holds(data, units, double):
        pair = pairs[units]
        magnitude = st.one_of(st.floats(-1e4, 1e4), st.floats(-1e-3, 1e-3), st.just(0.0))
        raw = data.draw(st.lists(magnitude, min_size=count, max_size=count))
        dtype = torch.float64 if double else torch.float32
        params = torch.tensor(raw, dtype=dtype).reshape(1, pair.n, 4).requires_grad_()
        q = pair.posterior(params)
        rate = pair.rate(q)
        assert rate.dtype == dtype
        assert bool((q.excess >= 0).all())
        assert bool((pair.rate_terms(q) >= 0).all())
        assert math.isfinite(rate.item())
        assert rate.item() >= pair.committed_rate * (1 - (0 if double else 2**-23))
        (rate.sum() + pair.to_decoder(q.sample(torch.ones_like(q.mu))).sum()).backward()
        assert bool(params.grad.isfinite().all())
        if double:
            direct = kl_divergence(normal(q), pair.prior).item()
            assert rate.item() == pytest.approx(direct, rel=1e-9, abs=1e-9)

    holds()


@every_pair
def test_gradient_of_the_rate(make):
    pair = make()
    params = seeded(2, pair.n, 4).requires_grad_()
    assert torch.autograd.gradcheck(lambda p: pair.rate(pair.posterior(p)), params)
    (first,) = torch.autograd.grad(pair.rate(pair.posterior(params)).sum(), params)
    direct = kl_divergence(normal(pair.posterior(params)), pair.prior)
    (second,) = torch.autograd.grad(direct.sum(), params)
    torch.testing.assert_close(first, second, rtol=1e-9, atol=1e-11)


@every_pair
def test_draws_have_the_prior_s_covariance_and_density(make):
    pair, draws = make(), 20_000
    z = pair.sample_prior(draws, torch.Generator().manual_seed(4)).double()
    assert z.shape == (draws, pair.n, 2)
    for k, covariance in enumerate(covariances(pair)):
        seen = z[:, :, k].T @ z[:, :, k] / draws
        size = covariance.diagonal().outer(covariance.diagonal()).sqrt()
        # standard error of a correlation: at most √(2/draws) = 0.01
        torch.testing.assert_close(seen / size, covariance / size, atol=0.05, rtol=0)
    cross = z[:, :, 0].T @ z[:, :, 1] / draws
    assert float((cross / pair.prior.variance.prod(dim=-1).sqrt()).abs().max()) < 0.05
    expected = sum(p.log_prob(z[:5, :, k]) for k, p in enumerate(dense_priors(pair)))
    torch.testing.assert_close(pair.log_prior(z[:5]), expected, rtol=1e-8, atol=1e-8)
    noise = seeded(3, pair.n, 2)
    torch.testing.assert_close(pair.prior.whiten(pair.prior_from_noise(noise)), noise)


@every_pair
def test_units_of_the_minimiser(make):
    plain, units = make(), make(minimiser_units=True)
    params, noise = seeded(2, plain.n, 4), seeded(2, plain.n, 2, seed=5)
    q = units.posterior(params)
    torch.testing.assert_close(q.mu, units.sigma_star * plain.posterior(params).mu)
    read = params[..., :2] + (10 * torch.tanh(params[..., 2:] / 10)).exp() * noise
    torch.testing.assert_close(units.to_decoder(q.sample(noise)), read)
    assert plain.to_decoder(noise) is noise


@every_pair
def test_config_rebuilds_the_pair_exactly_through_yaml(make):
    pair = make(minimiser_units=True)
    again = instantiate(yaml.safe_load(yaml.safe_dump(specification(pair, **pair.config()))))
    assert type(again) is type(pair)
    assert again.config() == pair.config()
    assert again.committed_rate == pair.committed_rate
    assert torch.equal(again.sigma_star, pair.sigma_star)
    params = seeded(2, pair.n, 4)
    assert torch.equal(again.posterior(params).excess, pair.posterior(params).excess)


@every_pair
def test_half_modules_keep_their_constants_and_lift_half_precision(make):
    pair = make()
    params = seeded(2, pair.n, 4)
    reference = pair.rate(pair.posterior(params))
    half = copy.deepcopy(pair).half()
    assert torch.equal(half.rate(half.posterior(params)), reference)
    assert half.posterior(params.bfloat16()).mu.dtype == torch.float32
    assert pair.state_dict() == {}


FROM_RATE = {
    "arp": partial(ARp.from_rate, n=32),
    "ar3": partial(ARp.from_rate, n=32, partials=(0.9, -0.3, 0.4)),
    "matern12": partial(Matern.from_rate, n=32, nu=0.5),
    "matern32": partial(Matern.from_rate, n=32),
    "matern52": partial(Matern.from_rate, n=32, nu=2.5),
    "squared": partial(SquaredExponential.from_rate, n=32),
    "grid": partial(Grid.from_rate, n=49, height=7, width=7),
    "tree": partial(Tree.from_rate, n=31, depth=4),
    "markov": partial(
        GaussianMarkov.from_rate,
        n=64,
        precision=diags_array([-0.9999, 2.0, -0.9999], offsets=[-1, 0, 1], shape=(64, 64)),
    ),
}


@pytest.mark.parametrize("make", FROM_RATE.values(), ids=FROM_RATE)
@pytest.mark.parametrize("bits", [5, 50, 500])
def test_from_rate_hits_the_target(make, bits):
    delta = bits_to_nats(float(bits))
    pair = make(delta, d=64, minimiser_units=True)
    assert pair.d == 64
    assert pair.minimiser_units
    assert pair.committed_rate == pytest.approx(delta, rel=1e-8)
    q = pair.posterior(torch.zeros(1, pair.n, 128, dtype=torch.float64))
    assert kl_divergence(normal(q), pair.prior).item() == pytest.approx(delta, rel=1e-7)
    assert len(set(pair.priors)) == 1  # computed at once


class Produced(TorchDispatchMode):
    """Counts the numbers that are computed, and remembers the largest tensor."""

    def __init__(self):
        super().__init__()
        self.total = self.largest = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, list | tuple) else (result,):
            if isinstance(tensor, torch.Tensor):
                self.total += tensor.numel()
                self.largest = max(self.largest, tensor.numel())
        return result


LONG = {
    "ar1": lambda n: AR1(n, [0.9, 0.8], False, False),
    "ar1 by innovations": lambda n: AR1(n, [0.9, 0.8]),
    "learnable ar1": lambda n: LearnableAR1(n, [0.9, 0.8]),
    "arp": lambda n: ARp(n, 2),
    "matern": lambda n: Matern(n, [5.0, 5.0], 2.5),
    "squared": lambda n: SquaredExponential(n, [3.0, 3.0]),
    "grid": lambda n: Grid([0.9, 0.9], [0.8, 0.8], n // 32, 32),
    "tree": lambda n: Tree([0.9, 0.9], depth=n.bit_length() - 2),
    "markov": lambda n: GaussianMarkov(
        diags_array([-0.9, 2.0, -0.9], offsets=[-1, 0, 1], shape=(n, n)), 2
    ),
}


@pytest.mark.parametrize("make", LONG.values(), ids=LONG)
def test_work_of_the_rate_grows_linearly_and_no_square_matrix_is_made(make):
    counted = []
    for n in (2048, 4096):
        pair = make(n)
        params = seeded(1, pair.n, 4).requires_grad_()
        pair.rate(pair.posterior(params)).sum().backward()  # constants to the device
        with Produced() as produced:
            pair.rate(pair.posterior(params)).sum().backward()
        assert produced.largest <= 24 * pair.n  # a state of at most ten numbers in two channels
        counted.append(produced.total)
    assert counted[1] <= 2.02 * counted[0]


def test_channels_of_equal_knobs_share_a_prior_and_others_agree_with_it():
    shared, separate = Matern(N, [3.0, 3.0, 2.0]), Matern(N, [3.0, 2.0])
    assert shared.priors[0] is shared.priors[1]
    z = seeded(4, N, 3)
    white = shared.prior.whiten(z)
    assert torch.equal(separate.prior.whiten(z[..., 1:]), white[..., 1:])
    torch.testing.assert_close(Matern(N, [3.0] * 3).prior.whiten(z)[..., :2], white[..., :2])


def test_prior_is_a_torch_distribution():
    prior = GaussianMarkovPrior([Autoregressive(4, [0.9]), Autoregressive(4, [0.2, 0.3])])
    assert (prior.batch_shape, prior.event_shape) == ((), (4, 2))
    z = prior.sample((3,))
    assert z.dtype == torch.float32
    wide = prior.expand((5,))
    assert (wide.batch_shape, wide.sample((3,)).shape) == ((5,), (3, 5, 4, 2))
    torch.testing.assert_close(wide.log_prob(z[0]), prior.log_prob(z[:1]).expand(5))
    assert torch.equal(wide.mean, torch.zeros(5, 4, 2))
    torch.testing.assert_close(wide.variance, torch.ones(5, 4, 2))
    with pytest.raises(ValueError, match="support"):
        wide.log_prob(torch.full((4, 2), math.nan))
    with pytest.raises(ValueError, match="event_shape"):
        prior.log_prob(torch.zeros(4, 1))
    with pytest.raises(NotImplementedError, match="Laplace"):
        kl_divergence(Reinterpreted(Laplace(torch.zeros(4, 2), torch.ones(4, 2)), 2), prior)
    with pytest.raises(ValueError, match="event shapes"):
        kl_divergence(Reinterpreted(Normal(torch.zeros(3, 2), torch.ones(3, 2)), 2), prior)
    with pytest.raises(ValueError, match="same n"):
        GaussianMarkovPrior([Autoregressive(4, [0.9]), Autoregressive(5, [0.9])])
    with pytest.raises(ValueError, match="one or more"):
        GaussianMarkovPrior([])


def test_precisions_of_every_form_are_the_same_pair():
    dense = SECOND_DIFFERENCE.toarray()
    entries = [[i, j, dense[i, j]] for i in range(N) for j in range(i + 1) if dense[i, j] != 0]
    reference = GaussianMarkov(SECOND_DIFFERENCE).config()
    for form in (dense, torch.from_numpy(dense), entries, csr_matrix(dense)):
        assert GaussianMarkov(form).config() == reference
        assert GaussianMarkov.steps(28, precision=form) == N
    pair = GaussianMarkov(dense)
    delta = 0.5 * (np.log(dense.diagonal()).sum() - np.linalg.slogdet(dense)[1])
    assert pair.committed_rate == pytest.approx(delta, rel=1e-12)


def test_one_block_per_row_unless_the_pair_has_another_arrangement():
    assert ARp.steps(28) == Matern.steps(28) == 28
    edges = np.arange(7) / 6
    np.testing.assert_allclose(ARp(N, 1).extents()[:, 0], np.stack([edges[:-1], edges[1:]], 1))


def test_wrong_use_is_refused():
    with pytest.raises(ValueError, match="d must"):
        ARp(N, 0)
    with pytest.raises(ValueError, match="d must"):
        GaussianMarkov(SECOND_DIFFERENCE, 0)
    with pytest.raises(ValueError, match="d must"):
        Matern.from_rate(1.0, N, 0)
    with pytest.raises(ValueError, match="one number per channel"):
        Grid([0.5, 0.5], [0.5])
    with pytest.raises(ValueError, match=r"height · width = 4 · 4, got 28"):
        Grid.from_rate(1.0, 28, 2)
    with pytest.raises(ValueError, match=r"depth=2, 7, got 28"):
        Tree.from_rate(1.0, 28, 2)
    with pytest.raises(ValueError, match="that of the precision, 6"):
        GaussianMarkov.from_rate(1.0, 28, 2, SECOND_DIFFERENCE)
    with pytest.raises(ValueError, match=r"precision: missing: entries \[\[row, column, value\]"):
        GaussianMarkov.steps(28)
    for options, message in (
        ({"height": 0}, "height must be at least 1, got 0"),
        ({"width": -3, "height": 2}, "width must be at least 1, got -3"),
        ({"width": 10**5, "height": 10**5}, "height · width must be at most"),
    ):
        with pytest.raises(ValueError, match=message):
            Grid.steps(28, **options)
        with pytest.raises(ValueError, match=message):
            Grid(0.5, 0.5, **options)
    for options, message in (
        ({"branching": 0}, "branching must be at least 1, got 0"),
        ({"depth": -1}, "depth must be at least 0, got -1"),
        ({"depth": 30}, "depth=30 at branching=2: a tree must have at most 1048576 nodes"),
        ({"depth": 10**9, "branching": 1}, "at most 1048576 nodes"),
        ({"depth": 10, "branching": 10**6}, "at most 1048576 nodes"),
    ):
        with pytest.raises(ValueError, match=message):
            Tree.steps(28, **options)
        with pytest.raises(ValueError, match=message):
            Tree(0.5, **options)
    assert Tree.steps(28, depth=19) == MOST_STEPS - 1
    assert Tree.steps(28, depth=MOST_STEPS - 1, branching=1) == MOST_STEPS


KNOBS = {
    "arp": (partial(ARp.from_rate, n=N), r"every \|partial\| <= 1 - 1e-6"),
    "matern": (partial(Matern.from_rate, n=N), r"length in \[0.01, 30000\]"),
    "squared": (partial(SquaredExponential.from_rate, n=N), r"length in \[0.01, 10000\]"),
    "grid": (partial(Grid.from_rate, n=6, height=2, width=3), "down = across <= 1 - 1e-6"),
    "tree": (partial(Tree.from_rate, n=7), "correlation <= 1 - 1e-6"),
    "markov": (
        partial(GaussianMarkov.from_rate, n=N, precision=SECOND_DIFFERENCE),
        r"a coupling in \[1e-6, 1\]",
    ),
}


@pytest.mark.parametrize(("from_rate", "knob"), KNOBS.values(), ids=KNOBS)
def test_a_rate_out_of_reach_is_told_in_bits_of_the_whole_pair(from_rate, knob):
    with pytest.raises(ValueError, match=r"delta=693.147 nats = 1000 bits is out of") as error:
        from_rate(bits_to_nats(1000.0), d=2)
    told = re.search(rf"d=2 channels commit at most ([\d.]+) bits with {knob}; ", str(error.value))
    needed = re.search(r"d must be at least (\d+)$", str(error.value))
    assert told
    assert needed
    most, d = float(told[1]), int(needed[1])
    assert from_rate(bits_to_nats(0.9999 * most), d=2).d == 2
    assert from_rate(bits_to_nats(1000.0), d=d).d == d
    with pytest.raises(ValueError, match="out of reach"):
        from_rate(bits_to_nats(1000.0), d=d - 1)
    with pytest.raises(ValueError, match=r"params must have shape \(b, 6, 4\)"):
        ARp(N, 2).posterior(torch.zeros(1, 5, 4))
