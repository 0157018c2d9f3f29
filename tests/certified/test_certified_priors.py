"""The built-in priors keep what they promise of −ln p; their knobs, limits, and excess."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from deltavae.certified import (
    GaussianMixture,
    GivenPrior,
    Laplace,
    Logistic,
    ScalarPrior,
    StudentT,
    numerical_minimum,
    rule,
)
from panels import composite, divergence

PRIORS = {
    "laplace": Laplace(),
    "logistic": Logistic(),
    "cauchy": StudentT(1.0),
    "student": StudentT(6.0),
    "modes": GaussianMixture(2.2),
}
SMOOTH = [
    Logistic(),
    StudentT(1.0),
    StudentT(2.5),
    StudentT(100.0),
    *(GaussianMixture(m, k) for m in (0.5, 1.0, 1.7, 3.0, 8.0) for k in (2, 3, 5)),
]
LAPLACE = 0.5 + math.log(2) - math.log(math.pi)


@pytest.mark.parametrize("prior", SMOOTH, ids=lambda p: f"{type(p).__name__}{p.config()}")
def test_promises_hold_by_automatic_differentiation(prior):
    x = torch.linspace(-40, 40, 16001, dtype=torch.float64, requires_grad=True)
    orders, value = [], -prior.log_prob(x)
    for _ in range(4):
        (value,) = torch.autograd.grad(value.sum(), x, create_graph=True)
        orders.append(value.detach())
    _, second, _, fourth = orders
    low, high = prior.curvature
    assert float(second.min()) >= low - 1e-9 * abs(low) - 1e-12
    assert float(second.max()) <= high + 1e-9
    assert float(fourth.abs().max()) <= prior.quartic * (1 + 1e-9)
    if getattr(prior, "components", 2) == 2:  # no promise is idle
        assert float(second.min()) == pytest.approx(low, rel=1e-2, abs=1e-6)
        assert float(second.max()) == pytest.approx(high, rel=1e-2)
        assert float(fourth.abs().max()) == pytest.approx(prior.quartic, rel=1e-2)


@pytest.mark.parametrize("prior", [Laplace(), *SMOOTH], ids=lambda p: type(p).__name__)
def test_density_is_normalised_and_even(prior):
    def density(x):
        return prior.log_prob(torch.from_numpy(x)).exp().numpy()

    x, near = composite(np.array([0, *np.geomspace(0.1, 64, 60)]))
    s, far = composite(np.linspace(0, 1 / 64, 60))  # x = 1/s
    half = near @ density(x) + far @ (density(1 / s) / s**2)
    assert 2 * half == pytest.approx(1, abs=1e-9)
    x = torch.linspace(-5, 5, 11, dtype=torch.float64)
    torch.testing.assert_close(prior.log_prob(x), prior.log_prob(-x))
    assert prior.log_prob(x.float()).dtype == torch.float32


def direct(prior, mu, sigma):
    return divergence(lambda x: prior.log_prob(torch.from_numpy(x)).numpy(), mu, sigma)


@settings(max_examples=100, deadline=None)
@given(st.sampled_from(sorted(PRIORS)), st.floats(-6, 6), st.floats(-3, 1.2))
def test_excess_is_the_divergence_above_the_floor(name, mu, log_scale):
    """Never too little, and too much by at most twice the stated error; alike in float32."""
    prior, by = PRIORS[name], rule(48)
    found = prior.certificate
    sigma = found.sigma * math.exp(log_scale)
    true = direct(prior, mu, sigma) - found.lower
    error = 0.0
    if prior.curvature is not None:
        at = torch.tensor(sigma, dtype=torch.float64)
        error = float(by.error(at, prior.curvature, prior.quartic))
    point = torch.tensor([mu, log_scale], dtype=torch.float64)
    computed = float(prior.excess(point[0], point[1], by))
    assert true - 1e-10 <= computed <= true + 2 * error + 1e-10
    single = prior.excess(point[0].float(), point[1].float(), by)
    assert single.dtype == torch.float32
    assert float(single) == pytest.approx(computed, rel=1e-5, abs=2e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", [*PRIORS, "not certified"])
def test_excess_never_falls_below_0(name, dtype):
    prior, by = PRIORS.get(name, GivenPrior(Logistic().log_prob)), rule(48)
    found = prior.certificate
    g = torch.Generator().manual_seed(0)
    steps = torch.randn(2, 4000, generator=g, dtype=dtype) * torch.logspace(-8, 0, 4000).to(dtype)
    excess = prior.excess(found.mu + steps[0], steps[1], by)
    assert float(excess.min()) >= 0
    zero = torch.zeros(1, dtype=dtype)
    at = torch.tensor(found.sigma)
    error = 0.0
    if prior.curvature is not None:
        error = float(by.error(at, prior.curvature, prior.quartic))
    assert float(prior.excess(zero + found.mu, zero, by)) <= 2 * error + 1e-6


@pytest.mark.parametrize("name", PRIORS)
def test_excess_is_differentiable(name):
    prior, by = PRIORS[name], rule(24)
    mu = torch.tensor([0.3, -1.1, 2.0, 0.1], dtype=torch.float64, requires_grad=True)
    log_scale = torch.tensor([-0.5, 1.0, -2.0, 0.2], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda m, g: prior.excess(m, g, by), (mu, log_scale))
    far = torch.tensor([-1e4, 1e4, 0.0, 0.0], requires_grad=True)
    wide = torch.tensor([10.0, -10.0, 10.0, -10.0], requires_grad=True)
    total = prior.excess(far, wide, by).sum()
    total.backward()
    assert all(bool(t.isfinite().all()) for t in (total, far.grad, wide.grad))


def test_the_floor_of_laplace():
    prior = Laplace()
    assert prior.certificate.lower == LAPLACE == pytest.approx(0.0484, abs=5e-5)
    assert direct(prior, 0.0, math.sqrt(math.pi / 2)) == pytest.approx(LAPLACE, rel=1e-10)
    nearby = [direct(prior, m, s) for m in (-0.01, 0.0, 0.01) for s in (1.24, 1.2533, 1.27)]
    assert min(nearby) >= LAPLACE - 1e-13
    assert prior.floors == (LAPLACE, LAPLACE)


def test_many_degrees_tend_to_the_gaussian():
    degrees = [1.0, 1.5, 3.0, 8.0, 20.0, 50.0, 100.0]
    floors = [numerical_minimum(StudentT(nu).log_prob, starts=3)[0] for nu in degrees]
    assert floors == sorted(floors, reverse=True)
    scaled = [f * nu**2 for nu, f in zip(degrees, floors, strict=True)][-2:]
    limit = 2 * scaled[1] - scaled[0]  # 3/4 + O(1/ν): Richardson
    assert limit == pytest.approx(0.75, rel=0.01)


@pytest.mark.parametrize("k", [2, 3])
def test_separated_modes_tend_to_ln_k_from_below(k):
    separations = [0.5, 1.0, 2.0, 3.0, 3.5, 4.5, 5.5]
    floors = [numerical_minimum(GaussianMixture(m, k).log_prob, starts=6)[0] for m in separations]
    assert floors == sorted(floors)
    assert floors[-1] < math.log(k)
    assert math.log(k) - floors[-1] < 2 * math.exp(-(5.5**2) / 2)


@pytest.mark.parametrize(
    ("prior", "floor"),
    [
        (StudentT(), 2e-4),
        (GaussianMixture(), 0.6),
        (GaussianMixture(components=3), 0.9),
    ],
)
def test_knobs_hit_the_floor(prior, floor):
    assert prior.at_floor(floor).certificate.lower == pytest.approx(floor, rel=1e-6)


def test_what_knobs_do_not_reach():
    with pytest.raises(ValueError, match=r"floor must lie in .*, 0\.693146\] nats per dimension"):
        GaussianMixture().at_floor(0.7)
    with pytest.raises(ValueError, match=r", 0\.182758\] .* for StudentT, got 0\.2"):
        StudentT().at_floor(0.2)
    with pytest.raises(ValueError, match=r"floor must lie in \[0\.00951161, 0\.00951161\]"):
        Logistic().at_floor(0.01)
    logistic = Logistic()
    assert logistic.at_floor(logistic.certificate.lower) is logistic
    assert StudentT().at_floor(StudentT().floors[1]).degrees == pytest.approx(1, abs=1e-6)


def test_arguments_out_of_range():
    for degrees in (0.5, 101.0, math.nan):
        with pytest.raises(ValueError, match=r"degrees must lie in \[1.0, 100.0\], got"):
            StudentT(degrees)
    with pytest.raises(ValueError, match=r"components must lie in \[2, 5\], got 1"):
        GaussianMixture(1.0, components=1)
    with pytest.raises(ValueError, match=r"separation must lie in \[0.5, 8.0\], got 9.0"):
        GaussianMixture(9.0)


def test_configuration_rebuilds_the_prior():
    for prior in PRIORS.values():
        again = type(prior)(**prior.config())
        x = torch.linspace(-3, 3, 7)
        assert torch.equal(again.log_prob(x), prior.log_prob(x))
        assert prior.specification() == {
            "class_path": f"deltavae.certified.priors.{type(prior).__name__}",
            "init_args": prior.config(),
        }
    with pytest.raises(
        ValueError, match=r"make it a subclass of deltavae\.certified\.ScalarPrior"
    ):
        GivenPrior(Logistic().log_prob).specification()


def test_a_given_prior_is_the_built_in_one():
    logistic = Logistic()
    given = GivenPrior(logistic.log_prob, logistic.curvature, logistic.quartic)
    assert isinstance(given, ScalarPrior)
    assert given.certificate.lower == logistic.certificate.lower
    loose = GivenPrior(logistic.log_prob)
    assert not loose.certificate.certified
    zero = torch.zeros(1, dtype=torch.float64)
    assert float(loose.excess(zero, zero, rule(48))) == pytest.approx(0, abs=1e-9)
