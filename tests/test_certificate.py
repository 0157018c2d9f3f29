"""Certificates: every pair's floor is found by the search, and a wrong one is found out."""

import math

import numpy as np
import pytest
import torch
from scipy.sparse import csr_array

from deltavae import latents as pairs
from deltavae.certificate import certify
from deltavae.certified import StudentT
from deltavae.latents import (
    AR1,
    ARp,
    BatchNorm,
    GaussianMarkov,
    GaussianPair,
    Grid,
    Latents,
    LearnableAR1,
    LearnedPrior,
    Matern,
    MeanFieldPair,
    Quantised,
    SquaredExponential,
    Tree,
)
from deltavae.priors import GaussianPrior
from deltavae.units import bits_to_nats
from every_pair import EVERY_PAIR


@pytest.mark.parametrize("make", EVERY_PAIR.values(), ids=EVERY_PAIR)
def test_the_search_ends_at_the_floor_and_never_below(make):
    pair = make()
    found = certify(pair, starts=4)
    assert abs(found.gap) <= 1e-6
    assert found.gap >= -1e-9
    assert found.numerical_minimum == pytest.approx(pair.mean_rate_floor, rel=1e-6, abs=1e-6)
    assert found.floor == pair.floor
    assert type(pair)(**found.config).committed_rate == found.committed_rate
    assert found.proof == pair.proof
    assert found.proven
    assert found.no_search is None


# Steps and channels that carry the rate.
ASKED = {"AR1": (16, 32), "Matern": (16, 16), "Categorical": (64, 300), "Independent": (16, 8)}


@pytest.mark.parametrize("bits", [5.0, 50.0, 500.0])
@pytest.mark.parametrize(("name", "size"), ASKED.items(), ids=ASKED)
def test_rates_of_any_size_are_certified(name, size, bits):
    pair = getattr(pairs, name).from_rate(bits_to_nats(bits), *size)
    found = certify(pair, starts=3)
    assert found.committed_rate == pytest.approx(bits_to_nats(bits), rel=1e-9)
    assert -1e-9 <= found.gap <= 1e-6


def test_a_floor_that_is_stated_too_high_is_found_out():
    pair = AR1(5, [0.6, 0.9])
    pair.committed_rate = pair.mean_rate_floor = pair.committed_rate * (1 + 1e-4)
    assert certify(pair, starts=2).gap == pytest.approx(-1e-4, rel=1e-3)


class Boastful(GaussianPrior):
    """AR(1) whose constants say that the steps after one pin it down more than they do."""

    def __init__(self, n, alpha, factor):
        innovation = np.full(n, 1 - alpha**2)
        innovation[0] = 1.0
        feedback = np.append(np.full(n - 1, alpha**2 / (1 - alpha**2)), 0.0) * innovation
        super().__init__(innovation, factor * feedback)
        self.scale, self.alpha = torch.from_numpy(innovation**-0.5), alpha

    def _whiten(self, x):
        return self.scale * torch.cat([x[..., :1], x[..., 1:] - self.alpha * x[..., :-1]], -1)

    def _colour(self, noise):
        steps = [noise[..., 0]]
        for e in (noise / self.scale).unbind(-1)[1:]:
            steps.append(self.alpha * steps[-1] + e)
        return torch.stack(steps, -1)


class Circular(GaussianPrior):
    """Every step hangs on the one before, the first on the last: no order makes W triangular."""

    def __init__(self, n):
        super().__init__(np.ones(n), np.full(n, 0.25))

    def _whiten(self, x):
        return x - 0.5 * x.roll(1, -1)

    def _colour(self, noise):
        unit = torch.eye(self.n, dtype=torch.float64)
        return torch.linalg.solve(self._whiten(unit).T, noise.mT).mT


class Given(GaussianPair):
    def __init__(self, prior):
        super().__init__([prior])

    @classmethod
    def from_rate(cls, delta, n, d):
        raise NotImplementedError

    def config(self):
        return {}


@pytest.mark.parametrize("n", [4, 512, 513, 600])
def test_the_search_reads_the_prior_in_use_not_its_constants(n):
    # A wrong f goes into δ and into the registered KL alike: only the map W knows better.
    honest, boast = (Given(Boastful(n, 0.7, factor)) for factor in (1.0, 1.1))
    assert honest.committed_rate == pytest.approx(AR1(n, [0.7]).committed_rate, rel=1e-12)
    assert abs(certify(honest, starts=2).gap) < 1e-9
    q = boast.posterior(torch.zeros(1, n, 2, dtype=torch.float64))
    assert boast.direct_rate(q).item() == pytest.approx(boast.committed_rate, rel=1e-12)
    assert certify(boast, starts=2).gap < -1e-2


def ring():
    """A cycle of 600 steps, named at random: the narrow band is in another order than theirs."""
    names = np.random.default_rng(0).permutation(600)
    places = np.concatenate([names, names]), np.concatenate([names, np.roll(names, 1)])
    half = csr_array((np.repeat([1.05, -1.0], 600), places), shape=(600, 600))
    return half + half.T


MANY_STEPS = {
    "AR1": lambda: AR1(600, [0.97], innovations=False),
    "ARp": lambda: ARp(600, 2, (0.8, -0.5, 0.3)),
    "GaussianMarkov": lambda: GaussianMarkov(ring()),
    "Grid": lambda: Grid([0.9], [-0.7], 30, 20),
    "LearnableAR1": lambda: LearnableAR1(600, [0.9], innovations=False),
    "Matern": lambda: Matern(600, [20.0, 3.0], 2.5, True),
    "SquaredExponential": lambda: SquaredExponential(600, 2.0, order=4),
    "Tree": lambda: Tree([0.8], 3, 6),
}


@pytest.mark.parametrize("make", MANY_STEPS.values(), ids=MANY_STEPS)
def test_of_many_steps_the_search_ends_at_the_floor_too(make):
    pair = make()
    assert pair.n >= 600
    assert abs(certify(pair, starts=1).gap) < 1e-9


def test_of_many_steps_no_matrix_is_made(monkeypatch):
    whiten, at_once = Boastful._whiten, []

    def recording(prior, x):
        at_once.append(x.numel() // prior.n)
        return whiten(prior, x)

    monkeypatch.setattr(Boastful, "_whiten", recording)
    certify(Given(Boastful(600, 0.7, 1.0)), starts=1)
    assert max(at_once) == 64


def test_where_an_independent_search_is_out_of_reach_the_certificate_says_so():
    assert certify(Given(Circular(6)), starts=1).no_search is None
    found = certify(Given(Circular(600)), starts=1)
    assert found.numerical_minimum is found.gap is None
    assert "not triangular in any order of the steps" in found.no_search
    found = certify(Matern(8193, [2.0, 2.0]), starts=1)
    assert found.numerical_minimum is None
    assert found.no_search == "it would take too long at n = 8193; there is one up to n = 8192"
    found = certify(Matern(8192, [2.0, 3.0]), starts=1)
    assert "n = 8192 with 2 different channels; there is one up to n = 5792" in found.no_search


def test_a_learned_alpha_is_searched_too():
    pair = LearnableAR1(6, [0.5, 0.9])
    fixed = AR1(6, [0.5, 0.9])
    at_start = pair.current_committed_rate
    found = certify(pair, starts=2)
    assert found.numerical_minimum == pytest.approx(fixed.committed_rate, rel=1e-6)
    assert found.numerical_minimum < at_start - 0.1
    assert pair.current_committed_rate == at_start


def test_a_mean_is_certified_where_its_floor_holds():
    pair = BatchNorm(4, 2, 0.7)
    before = {name: value.clone() for name, value in pair.state_dict().items()}
    found = certify(pair, starts=2)
    assert (found.floor, found.committed_rate) == ("mean", 0.0)
    assert found.mean_rate_floor == pytest.approx(0.5 * 4 * 2 * 0.49)
    assert found.numerical_minimum == pytest.approx(found.mean_rate_floor, rel=1e-9)
    assert all(torch.equal(value, before[name]) for name, value in pair.state_dict().items())


def test_a_discrete_rate_is_the_one_that_levels_make():
    found = certify(Quantised.from_rate(bits_to_nats(20.0), 28, 1), starts=2)
    assert found.numerical_minimum == pytest.approx(28 * math.log(2), rel=1e-12)


def test_the_seed_decides():
    pair = AR1(4, [0.9])
    assert certify(pair, seed=3) == certify(pair, seed=3)
    with pytest.raises(ValueError, match="starts must be at least 1, got 0"):
        certify(pair, starts=0)


def test_a_certified_floor_comes_with_an_interval():
    modes = certify(EVERY_PAIR["MeanFieldPair of modes"](), starts=4)
    lower, upper = modes.interval
    assert lower == modes.committed_rate
    assert lower <= modes.numerical_minimum <= upper * (1 + 1e-12)
    assert upper <= lower * (1 + 1e-6)
    assert certify(EVERY_PAIR["MeanFieldPair"](), starts=4).interval is None  # a closed form


def test_a_floor_without_a_proof_says_so():
    found = certify(MeanFieldPair.from_log_prob(StudentT(3.0).log_prob, 2, 1), starts=4)
    assert found.proof.startswith("not proven")
    assert not found.proven
    assert found.config is None  # a function is no option
    assert found.interval is None


def test_a_pair_that_only_states_its_floor_has_not_proven_it():
    pair = AR1(4, [0.5])
    pair.proof = Latents.proof
    found = certify(pair, starts=1)
    assert (found.proven, found.floor) == (False, "example")
    assert abs(found.gap) < 1e-9


def test_a_prior_without_a_formula_has_no_minimum():
    found = certify(LearnedPrior(3, 2))
    assert found.no_search == "the rate has no formula to search"
    assert found.numerical_minimum is None
    assert found.gap is None
    assert found.committed_rate == 0
