"""The gates: their formula, their gradient, in every precision and layout, and compiled."""

import jaxtyping
import pytest
import torch

from deltavae.nn.gates import gate, glu

FIRST = {gate: torch.tanh, glu: lambda a: a}  # what each does to the first half


def formula(gating, x):
    a, b = x.chunk(2, dim=1)
    return FIRST[gating](a) * torch.sigmoid(b)


@pytest.mark.parametrize("gating", FIRST)
@pytest.mark.parametrize("channels", [3, 20])  # of few channels the halves are copied
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_gate_is_its_formula_with_its_gradient(gating, channels, layout):
    torch.manual_seed(0)
    x = 3.0 * torch.randn(2, 2 * channels, 3, 2, dtype=torch.float64)
    x = x.contiguous(memory_format=layout).requires_grad_()
    expected = formula(gating, x)
    torch.testing.assert_close(gating(x), expected, rtol=1e-14, atol=1e-14)
    weights = torch.randn_like(expected)
    (gradient,) = torch.autograd.grad(gating(x), x, weights)
    (expected_gradient,) = torch.autograd.grad(expected, x, weights)
    torch.testing.assert_close(gradient, expected_gradient, rtol=1e-13, atol=1e-14)


@pytest.mark.parametrize("gating", FIRST)
@pytest.mark.parametrize("channels", [16, 80])
def test_gate_rounds_half_precision_like_its_factors(gating, channels):
    torch.manual_seed(0)
    x = (3.0 * torch.randn(4, 2 * channels, 8, 8)).bfloat16()
    assert gating(x).dtype == torch.bfloat16
    # Three roundings, of either factor and of the product, by 2⁻⁸ each.
    torch.testing.assert_close(
        gating(x).double(), formula(gating, x.double()), rtol=3.1 * 2**-8, atol=1e-30
    )


@pytest.mark.parametrize("gating", FIRST)
def test_gate_refuses_a_second_derivative_which_it_does_not_know(gating):
    x = torch.randn(1, 2, 1, 1, requires_grad=True)
    weight = torch.ones(1, 1, 1, 1, requires_grad=True)
    (gradient,) = torch.autograd.grad(gating(x), x, weight, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gradient.sum().backward()


@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")  # of torch
@pytest.mark.parametrize("gating", FIRST)
def test_compiled_gate_is_the_gate(gating, monkeypatch):
    """Traced for a compiler, the gates take other ways to the same."""
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # checks break graphs
    torch.manual_seed(0)
    x = (5.0 * torch.randn(2, 8, 4, 4)).requires_grad_()
    traced = torch.compile(gating, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(traced(x), gating(x), rtol=0, atol=1e-6)
    weights = torch.randn(2, 4, 4, 4)
    gradients = [torch.autograd.grad(f(x), x, weights)[0] for f in (traced, gating)]
    torch.testing.assert_close(*gradients, rtol=0, atol=2e-6)


@pytest.mark.parametrize("gating", FIRST)
@pytest.mark.parametrize("channels", [16, 80])
def test_gate_keeps_no_more_than_its_input_for_the_backward_pass(gating, channels):
    x = torch.randn(2, 2 * channels, 4, 4).contiguous(memory_format=torch.channels_last)
    kept: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        gating(x.requires_grad_())
    assert sum(kept.values()) <= x.numel() * x.element_size()
