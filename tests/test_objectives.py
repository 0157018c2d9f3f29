"""Each objective against its definition, written out with numbers."""

import math

import pytest
import torch

from deltavae.objectives import (
    ELBO,
    Beta,
    ControlVAE,
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


def nats(rate):
    return torch.tensor(float(rate))


def test_control_is_the_algorithm_step_by_step():
    """Against the recurrence in float64, with batches that drive it into both ends."""
    objective = ControlVAE(5 / LN2, k_p=0.05, k_i=0.02, beta_min=0.1, beta_max=0.6)
    assert objective.beta.item() == pytest.approx(0.1)
    integral, output, held = 0.0, 0.1, [0, 0]
    rates = [0.0] * 5 + [20.0] * 9 + [4.0] * 30 + [6.0] * 5
    for step, rate in enumerate(rates):
        error = 5 - rate
        low, high = output < 0.1 and error > 0, output > 0.6 and error < 0
        integral += 0.0 if low or high else -0.02 * error
        output = 0.05 / (1 + math.exp(error)) + integral + 0.1
        held = [held[0] + low, held[1] + high]
        terms = Terms(torch.tensor([10.0, 20.0]), torch.full((2,), rate))
        loss = objective(terms, step).item()
        beta = min(0.6, max(0.1, output))
        assert objective.integral.item() == pytest.approx(integral, abs=1e-6)
        assert objective.beta.item() == pytest.approx(beta, abs=1e-6)
        assert loss == pytest.approx(15 + beta * rate, rel=1e-5)
    assert min(held) > 0


def test_control_reaches_its_target_on_a_gaussian_source():
    """Least distortion + β·rate of independent Gaussians: R(β) = ½ Σ max(0, ln(λ_i/β))."""
    eigenvalues = torch.logspace(-2, 1, 16, dtype=torch.float64)
    for target in (4.0, 12.0, 24.0):
        objective = ControlVAE(target, k_i=1e-3, beta_max=4.0)
        for _ in range(3000):
            ratio = eigenvalues / objective.beta.double().clamp_min(1e-6)
            rate = 0.5 * ratio.log().clamp_min(0).sum()
            objective.control(rate.float())
        assert rate.item() / LN2 == pytest.approx(target, rel=5e-3)
        assert 0 < objective.beta.item() < 4


def test_control_that_was_held_at_an_end_comes_back_at_once():
    objective = ControlVAE(5 / LN2, k_p=0.01, k_i=0.01)
    for stuck, beta in ((0.0, 0.0), (1e3, 1.0), (0.0, 0.0)):
        for _ in range(5000):
            objective.control(nats(stuck))
        assert objective.beta.item() == beta
        back = 1e3 if beta == 0 else 0.0
        for _ in range(1 if beta == 0 else 250):  # not the 5,000 steps that it was held for
            objective.control(nats(back))
        assert objective.beta.item() == 1 - beta


def test_control_goes_on_from_its_state_bit_for_bit():
    rates = torch.rand(40, generator=torch.Generator().manual_seed(0)) * 30
    whole, first = ControlVAE(20.0), ControlVAE(20.0)
    for rate in rates:
        whole.control(rate)
    for rate in rates[:17]:
        first.control(rate)
    second = ControlVAE(20.0)
    second.load_state_dict(first.state_dict())
    for rate in rates[17:]:
        second.control(rate)
    assert torch.equal(second.output, whole.output)
    assert torch.equal(second.integral, whole.integral)


def test_control_rests_in_evaluation_and_sends_no_gradient_through_beta():
    objective = ControlVAE(1 / LN2, k_i=0.1)
    rate = TERMS.rate.clone().requires_grad_()
    objective(Terms(TERMS.distortion, rate), 0).backward()
    torch.testing.assert_close(rate.grad, objective.beta.expand(2) / 2)
    before = objective.output.clone()
    objective.eval()(TERMS, 1)
    assert torch.equal(objective.output, before)


def test_objectives_take_models_without_latents():
    terms = Terms(torch.tensor([1.0, 3.0]), torch.zeros(2))
    for objective in (ELBO(), Beta(2.0), LinearAnnealing(), FreeBitsPerChannel(1.0), ControlVAE()):
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
        (lambda: ControlVAE(0.0), "bits must be above 0, got 0.0"),
        (lambda: ControlVAE(k_i=0.0), "k_i must be above 0, got 0.0"),
        (lambda: ControlVAE(k_p=-1.0), "k_p must not be negative, got -1.0"),
        (lambda: ControlVAE(beta_min=-0.1), "beta_min must not be negative"),
        (lambda: ControlVAE(beta_min=1.0), "beta_max must be above beta_min=1.0, got 1.0"),
    ],
)
def test_arguments_out_of_range_are_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()
