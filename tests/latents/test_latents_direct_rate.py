"""The direct formula of every pair: its floor, against the rate, against the densities."""

import math
from dataclasses import replace
from inspect import isabstract

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from deltavae import latents
from deltavae.latents import BatchNorm, Latents, LearnedPrior
from every_pair import EVERY_PAIR

every_pair = pytest.mark.parametrize("make", EVERY_PAIR.values(), ids=EVERY_PAIR)


def normal(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def test_no_pair_is_missing():
    kinds = {kind for kind in vars(latents).values() if isinstance(kind, type)}
    pairs = {kind for kind in kinds if issubclass(kind, Latents) and not isabstract(kind)}
    tested = {type(make()) for make in EVERY_PAIR.values()}
    assert pairs - tested == {LearnedPrior}


@every_pair
@given(data=st.data())
@settings(max_examples=25, deadline=None)
def test_no_raw_parameters_fall_below_the_floor(make, data):
    pair = make()
    size = pair.n * pair.params_per_step
    scale = data.draw(st.sampled_from([1e-3, 0.3, 3.0, 40.0]))
    numbers = st.lists(st.floats(-1, 1), min_size=size, max_size=size)
    params = scale * torch.tensor(data.draw(numbers), dtype=torch.float64)
    if isinstance(pair, BatchNorm):
        pair.set_moments(normal(10, pair.n, pair.params_per_step))
        pair.eval()
    q = pair.posterior(params.view(1, pair.n, -1))
    direct = pair.direct_rate(q)
    assert direct.dtype == torch.float64
    assert direct.item() >= pair.committed_rate * (1 - 1e-9)
    assert pair.rate(q).item() >= direct.item() * (1 - 1e-9) - 1e-11
    if not getattr(pair, "quadrature_error", 0):  # the rate is no more than a bound with it
        assert direct.item() == pytest.approx(pair.rate(q).item(), rel=1e-9, abs=1e-11)


@every_pair
def test_the_direct_rate_is_the_divergence_of_the_densities(make):
    # One posterior, many draws: E_q[ln q − ln p] within five standard errors.
    pair = make().eval()
    with torch.no_grad():
        q = pair.posterior(0.5 * normal(1, pair.n, pair.params_per_step, seed=3))
        direct = float(pair.direct_rate(q))
    many = q.map(lambda t: t.expand(20_000, *t.shape[1:]))
    z = many.sample(normal(*many.mu.shape, seed=4))
    with torch.no_grad():
        estimate = many.log_prob(z) - pair.log_prior(z).double()
    error = float(estimate.std()) / math.sqrt(len(estimate))
    assert error < 0.02 * direct + 1e-12
    assert float(estimate.mean()) == pytest.approx(direct, abs=5 * error + 1e-9)


@every_pair
def test_a_posterior_in_float32_is_read_in_float64(make):
    pair = make().eval()
    params = normal(4, pair.n, pair.params_per_step)
    with torch.no_grad():
        direct = pair.direct_rate(pair.posterior(params.float()))
        exact = pair.direct_rate(pair.posterior(params))
    assert direct.dtype == torch.float64
    torch.testing.assert_close(direct, exact, rtol=1e-4, atol=1e-6)


def test_a_vector_that_is_no_code_has_no_finite_rate():
    pair = EVERY_PAIR["Quantised"]()
    on = pair.posterior(normal(1, pair.n, 3))
    off, outside = replace(on, mu=on.mu + 0.05), replace(on, mu=on.mu + 2)
    assert pair.direct_rate(off).item() == math.inf
    assert pair.direct_rate(outside).item() == math.inf


@pytest.mark.parametrize("make", [*EVERY_PAIR.values(), lambda: LearnedPrior(3, 2)])
def test_the_proof_is_one_line(make):
    pair = make()
    assert pair.proof != Latents.proof
    assert "\n" not in pair.proof
    assert ("mean" in pair.proof) == (pair.floor == "mean")


def test_a_learned_prior_has_no_formula():
    pair = LearnedPrior(3, 2)
    assert pair.direct_rate(pair.posterior(normal(1, 3, 4))) is None


@every_pair
def test_both_rates_follow_the_pair_to_its_device(make):
    # Mixing devices is an error on the device without storage too.
    pair = make().eval().to("meta")
    params = torch.empty(4, pair.n, pair.params_per_step, device="meta")
    q = pair.posterior(params.double())
    assert pair.rate(q).device.type == pair.direct_rate(q).device.type == "meta"
