"""Gates of feature maps: one half of the channels, times the sigmoid of the other half.

    gate(a, b) = tanh a · σ(b),   glu(a, b) = a · σ(b)

Written out because on processors, with channels last, the backward pass of torch's glu takes two
to four times as long, and a function of a few strided channels six times as long as of a copy.
What is kept for the backward pass is as much as the input, no more.
"""

from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable


def gate(x: Float[Tensor, "b two_c h w"]) -> Float[Tensor, "b c h w"]:
    """Gate of PixelCNN: tanh of the first half times the sigmoid of the second."""
    gated: Tensor = _Gate.apply(x)  # type: ignore[no-untyped-call]
    return gated


def glu(x: Float[Tensor, "b two_c h w"]) -> Float[Tensor, "b c h w"]:
    """Gated linear unit: the first half times the sigmoid of the second."""
    if x.device.type != "cpu" or torch.compiler.is_compiling():
        return F.glu(x, dim=1)
    gated: Tensor = _LinearGate.apply(x)  # type: ignore[no-untyped-call]
    return gated


class _Gate(torch.autograd.Function):
    # ∂/∂a = (1 − tanh² a) σ(b),  ∂/∂b = tanh a · σ(b) (1 − σ(b))

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        a, b = _halves(x)
        t, s = _tanh(a), torch.sigmoid(b)
        ctx.save_for_backward(t, s)
        return t * s

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        t, s = ctx.saved_tensors
        of_a = torch.ops.aten.tanh_backward(gradient * s, t)
        of_b = torch.ops.aten.sigmoid_backward(gradient * t, s)
        return torch.cat([of_a, of_b], dim=1)


class _LinearGate(torch.autograd.Function):
    # ∂/∂a = σ(b),  ∂/∂b = a σ(b) (1 − σ(b))

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        a, b = _halves(x)
        ctx.save_for_backward(x)  # a is a view of it; σ(b) is sooner computed again than kept
        return a * torch.sigmoid(b)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        a, b = _halves(x)
        s = torch.sigmoid(b)
        return torch.cat([gradient * s, torch.ops.aten.sigmoid_backward(gradient * a, s)], dim=1)


def _halves(x: Tensor) -> tuple[Tensor, Tensor]:
    a, b = x.chunk(2, dim=1)
    few = a.shape[1] * a.element_size() < 128  # bytes: two AVX-512 registers
    if few and x.device.type == "cpu" and not torch.compiler.is_compiling():
        last = torch.channels_last
        return a.contiguous(memory_format=last), b.contiguous(memory_format=last)
    return a, b


def _tanh(a: Tensor) -> Tensor:
    # On CPUs tanh is slow in half precision, and compiled it takes twice as long as a sigmoid.
    if a.device.type != "cpu":
        return torch.tanh(a)
    wide = a.to(torch.promote_types(a.dtype, torch.float32))
    compiled = torch.compiler.is_compiling()
    return (2.0 * torch.sigmoid(2.0 * wide) - 1.0 if compiled else torch.tanh(wide)).to(a.dtype)
