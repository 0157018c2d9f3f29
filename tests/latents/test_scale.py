"""What a scale costs: to full precision, never negative, its gradient at zero."""

from decimal import Decimal, localcontext

import pytest
import torch

from deltavae.latents.scale import bounded_log_scale, expm1_ratio, scale_excess


def exact_ratio(x: float) -> float:
    with localcontext() as context:
        context.prec = 700
        return float((Decimal(x).exp() - 1 - Decimal(x)) / Decimal(x))


POINTS = [1e-300, 1e-12, 1e-4, 0.01, 0.2, 0.2499999, 0.25, 0.2500001, 0.5, 1.0, 5.0, 20.0, 45.0]


@pytest.mark.parametrize("x", POINTS + [-x for x in POINTS])
def test_expm1_ratio_to_full_precision(x):
    value = torch.tensor(x, dtype=torch.float64)
    assert expm1_ratio(value).item() == pytest.approx(exact_ratio(x), rel=4e-15, abs=0)
    if 1e-30 < abs(x) < 30:
        single = torch.tensor(x, dtype=torch.float32)
        assert expm1_ratio(single).item() == pytest.approx(
            exact_ratio(single.item()), rel=2e-6, abs=0
        )


def test_expm1_ratio_gradient_is_right_at_and_around_zero():
    x = torch.tensor(
        [0.0, 1e-8, -1e-8, 0.1, -0.1, 0.25, -0.25, 0.26, 3.0, -3.0], dtype=torch.float64
    ).requires_grad_()
    assert expm1_ratio(x)[0].item() == 0
    (gradient,) = torch.autograd.grad(expm1_ratio(x).sum(), x)
    assert gradient[0].item() == pytest.approx(0.5, rel=1e-15)
    away = torch.tensor([0.1, -0.1, 0.26, 3.0, -3.0], dtype=torch.float64)
    closed = (away * away.exp() - away.expm1()) / away**2  # ρ' = (x eˣ − eˣ + 1)/x²
    torch.testing.assert_close(gradient[[3, 4, 7, 8, 9]], closed, rtol=1e-12, atol=0)
    assert torch.autograd.gradcheck(expm1_ratio, x)


def test_scale_excess_is_the_formula_and_never_negative():
    g = torch.linspace(-10, 10, 4001, dtype=torch.float64)
    expected = 0.5 * (torch.expm1(2 * g) - 2 * g)
    torch.testing.assert_close(scale_excess(g), expected, rtol=1e-12, atol=1e-15)
    # g² + … in float32, where the difference of eq. (1) has hardly a digit left
    small = torch.tensor([1e-6, -1e-5, 1e-4])
    torch.testing.assert_close(scale_excess(small), small**2, rtol=1e-4, atol=0)
    tiny = torch.logspace(-20, 0, 20001, dtype=torch.float32)
    for values in (tiny, -tiny, g.float()):
        assert bool((scale_excess(values) >= 0).all())
    assert scale_excess(torch.zeros(1)).item() == 0


def test_bounded_log_scale():
    raw = torch.tensor([0.0, 1e-6, 1e4, -1e4], dtype=torch.float64, requires_grad=True)
    g = bounded_log_scale(raw)
    torch.testing.assert_close(g, torch.tensor([0.0, 1e-6, 10, -10], dtype=torch.float64))
    g.sum().backward()
    assert raw.grad[0].item() == 1
    assert bool(raw.grad.isfinite().all())
