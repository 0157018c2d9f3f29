"""Each objective against its definition, written out with numbers."""

import math

import pytest
import torch

from deltavae.objectives import (
    ELBO,
    Beta,
    CyclicalAnnealing,
    FreeBitsPerChannel,
    FreeBitsPerExample,
    LinearAnnealing,
)
from deltavae.terms import Terms

LN2 = math.log(2.0)
RATE_TERMS = torch.tensor([[[1.0, 0.5], [2.0, 0.0]], [[0.0, 0.5], [0.0, 0.0]]])  # (2, 2, 2)
TERMS = Terms(torch.tensor([10.0, 20.0]), RATE_TERMS.sum((1, 2)), RATE_TERMS)


def test_elbo_is_the_mean_of_distortion_plus_rate():
    assert ELBO()(TERMS, 0).item() == pytest.approx((10 + 3.5 + 20 + 0.5) / 2)
    assert TERMS.neg_elbo.tolist() == [13.5, 20.5]


def test_aux_bound_takes_the_auxiliary_rate_only_where_there_is_one():
    assert TERMS.aux_neg_elbo is None
    terms = Terms(TERMS.distortion, TERMS.rate, RATE_TERMS, torch.tensor([1.0, 2.0]))
    assert terms.aux_neg_elbo.tolist() == [11.0, 22.0]


@pytest.mark.parametrize("beta", [0.0, 0.25, 4.0])
def test_beta_weighs_the_rate(beta):
    assert Beta(beta)(TERMS, 0).item() == pytest.approx(15 + beta * 2.0)


def test_linear_annealing_rises_to_the_bound():
    objective = LinearAnnealing(steps=10)
    assert [objective.beta(s) for s in (0, 5, 10, 99)] == [0, 0.5, 1, 1]
    assert objective(TERMS, 5).item() == pytest.approx(15 + 0.5 * 2.0)


def test_cyclical_annealing_repeats_and_ends_at_the_bound():
    objective = CyclicalAnnealing(cycle_steps=10, rising=0.5, cycles=2)
    assert [objective.beta(s) for s in (0, 1, 5, 9, 10, 13, 20, 25)] == pytest.approx(
        [0, 0.2, 1, 1, 0, 0.6, 1, 1]
    )
    assert objective(TERMS, 1).item() == pytest.approx(15 + 0.2 * 2.0)


def test_free_bits_per_example_charges_each_example_at_least_the_threshold():
    # Thresholds of 1 nat: the first example pays 3.5, the second 1 instead of 0.5.
    assert FreeBitsPerExample(1 / LN2)(TERMS, 0).item() == pytest.approx(15 + (3.5 + 1) / 2)


def test_free_bits_per_channel_compares_batch_means():
    # Mean rates of the channels over the batch: 1.5 and 0.5; 2 nats are shared as 1 + 1.
    assert FreeBitsPerChannel(2 / LN2)(TERMS, 0).item() == pytest.approx(15 + 1.5 + 1.0)


@pytest.mark.parametrize("cls", [FreeBitsPerExample, FreeBitsPerChannel])
def test_free_bits_give_no_gradient_below_and_the_full_one_above_the_threshold(cls):
    for bits, expected in ((0.0, 1.0), (1e3, 0.0)):
        terms = RATE_TERMS.clone().requires_grad_()
        rate = terms.sum((1, 2))
        cls(bits)(Terms(TERMS.distortion, rate, terms), 0).backward()
        assert terms.grad.sum().item() == pytest.approx(expected * 8 / 2)


def test_objectives_take_models_without_latents():
    terms = Terms(torch.tensor([1.0, 3.0]), torch.zeros(2))
    for objective in (ELBO(), Beta(2.0), LinearAnnealing(), FreeBitsPerChannel(1.0)):
        assert objective(terms, 3).item() == pytest.approx(2.0)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Beta(-1.0), "beta must not be negative"),
        (lambda: Beta(math.nan), "beta must not be negative"),
        (lambda: LinearAnnealing(0), "steps must be at least 1"),
        (lambda: CyclicalAnnealing(cycle_steps=0), "cycle_steps must be at least 1"),
        (lambda: CyclicalAnnealing(rising=0.0), "rising must lie in"),
        (lambda: CyclicalAnnealing(cycles=0), "cycles must be at least 1"),
        (lambda: FreeBitsPerExample(-1.0), "bits must not be negative"),
        (lambda: FreeBitsPerChannel(-1.0), "bits must not be negative"),
    ],
)
def test_arguments_out_of_range_are_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()
