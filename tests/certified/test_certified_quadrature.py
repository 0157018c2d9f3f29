"""The rule of two nodes per panel: exact for cubics, and never off by more than it says."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from deltavae.certified import divergence, rule

PANELS = [2, 3, 8, 32, 512]


@pytest.mark.parametrize("panels", PANELS)
def test_moments(panels):
    by = rule(panels)
    assert len(by.nodes) == 2 * panels
    assert float(by.weights.min()) > 0
    moments = [float(by.weights @ by.nodes**k) for k in range(5)]
    assert moments[:4] == pytest.approx([1, 0, 1, 0], abs=1e-13)
    assert by.fourth == pytest.approx(3 - moments[4], abs=2e-13)  # (3) for V = x⁴/24
    mass = by.weights.reshape(-1, 2).sum(1)
    centre = (by.weights * by.nodes).reshape(-1, 2).sum(1) / mass
    assert by.second == pytest.approx(1 - float(mass @ centre**2), abs=1e-13)  # total variance


@settings(max_examples=300, deadline=None)
@given(
    panels=st.sampled_from(PANELS),
    frequency=st.floats(0.01, 20),
    phase=st.floats(-3, 3),
    mu=st.floats(-5, 5),
    sigma=st.floats(0.01, 5),
    known=st.booleans(),
)
def test_error_is_bounded(panels, frequency, phase, mu, sigma, known):
    """E cos(a x + b) under N(μ, σ²) is e^(−a²σ²/2) cos(aμ + b)."""
    by, a = rule(panels), frequency
    value = float(torch.cos(a * (mu + sigma * by.nodes) + phase) @ by.weights)
    exact = math.exp(-0.5 * (a * sigma) ** 2) * math.cos(a * mu + phase)
    at = torch.tensor(sigma, dtype=torch.float64)
    bound = float(by.error(at, (-(a**2), a**2), a**4 if known else None))
    assert abs(value - exact) <= bound + 1e-13


def test_bounds_are_nearly_attained():
    """x² and x⁴ are the worst that the constants allow: twice and once the error that is made."""
    by, sigma = rule(6), torch.tensor(1.7, dtype=torch.float64)
    fourth = 3 * float(sigma) ** 4 - float((sigma * by.nodes) ** 4 @ by.weights)
    assert fourth == pytest.approx(float(by.error(sigma, (-1e9, 1e9), 24.0)), rel=1e-12)
    saw = torch.where((torch.arange(12) // 2) % 2 == 0, 1.0, -1.0).double()  # ±1 by panels
    assert float(by.error(sigma, (-1.0, 1.0), None)) >= abs(float(saw @ by.weights))


def test_error_falls_with_the_fourth_power():
    sizes = np.array([32, 64, 128, 256, 512])
    fourth = [rule(n).fourth * n**4 for n in sizes.tolist()]
    assert fourth[-1] == pytest.approx(12, rel=0.03)
    second = [rule(n).second * n**2 for n in sizes.tolist()]
    assert second[-1] == pytest.approx(3.4, rel=0.02)
    errors = []
    for n in (8, 16, 32, 64):
        by = rule(n)
        exact = math.exp(-0.5)
        errors.append(abs(float(torch.cos(by.nodes) @ by.weights) - exact))
    slopes = np.diff(np.log(errors)) / math.log(2)
    assert slopes[-1] == pytest.approx(-4, abs=0.3)


def test_panels_must_be_two():
    with pytest.raises(ValueError, match="panels must be at least 2, got 1"):
        rule(1)


@settings(max_examples=50, deadline=None)
@given(mu=st.floats(-20, 20), log_sigma=st.floats(-5, 3))
def test_divergence_of_a_kinked_density(mu, log_sigma):
    """From Laplace's density: ln 2 + E|x| − ½ ln(2πe σ²), E|x| of a folded normal."""
    sigma, r = math.exp(log_sigma), mu / math.exp(log_sigma)
    folded = mu * math.erf(r / math.sqrt(2)) + sigma * math.sqrt(2 / math.pi) * math.exp(
        -r * r / 2
    )
    exact = math.log(2) + folded - 0.5 * math.log(2 * math.pi * math.e) - log_sigma
    point = torch.tensor([mu, sigma], dtype=torch.float64)
    computed = divergence(lambda x: -x.abs() - math.log(2), *point)
    assert float(computed) == pytest.approx(exact, rel=1e-12, abs=1e-12)
