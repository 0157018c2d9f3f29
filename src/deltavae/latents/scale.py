"""What the scale of a normal costs beside another's: nats that rounding never turns negative.

With g = ln(σ/s) the scale σ of a normal contributes to its divergence from one of scale s

    ½ (e²ᵍ − 1 − 2g) = g ρ(2g) ≥ 0,   ρ(x) = (eˣ − 1 − x)/x,                               (1)

a product of two numbers of the same sign, in every precision.

Razavi et al., Preventing Posterior Collapse with δ-VAEs, ICLR 2019, section 2.2,
https://arxiv.org/abs/1901.03416
Deviations: g = 10 tanh(raw/10), smooth and bounded, so that no raw output overflows.
"""

import torch
from jaxtyping import Float
from torch import Tensor


def expm1_ratio(x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Compute ρ(x) = (eˣ − 1 − x)/x to full precision, gradient included; ρ(0) = 0.

    Args:
        x: Any real number.

    Returns:
        ρ(x), of the sign of x.
    """
    near = x.abs() < 0.25
    series = torch.ones_like(x)
    for k in range(13, 2, -1):  # ρ(x) = x/2 (1 + x/3 (1 + x/4 (…))): 1e-16 at |x| = 0.25
        series = 1 + x / k * series
    far = torch.where(near, 1.0, x)  # no 0/0, in the gradient neither
    return torch.where(near, x / 2 * series, torch.expm1(far) / far - 1)


def bounded_log_scale(raw: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Map a raw output to g = ln(σ/σ*) in (−10, 10), with slope 1 at 0."""
    return 10 * torch.tanh(raw / 10)


def scale_excess(g: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Nats that a scale eᵍ times as large as the other costs, eq. (1)."""
    return g * expm1_ratio(2 * g)
