"""The committed rate δ: how far apart a posterior family and a prior are at the least.

Posterior q(z) = Π_tk N(z_tk; μ_tk, σ_tk²), t = 1..n, k = 1..d; prior per channel a stationary
AR(1) process, z_1 ~ N(0, 1), z_t | z_{t-1} ~ N(α_k z_{t-1}, 1 − α_k²). For any prior N(0, Λ⁻¹)

    min_q KL(q ‖ p) = ½ [Σ_i ln Λ_ii − ln det Λ],   at μ = 0, σ_i² = 1 / Λ_ii,             (1)

and for AR(1), whose Λ_tt is 1/(1−α²) at both ends and (1+α²)/(1−α²) inside,

    δ = ½ Σ_k [(n − 2) ln(1 + α_k²) − ln(1 − α_k²)] nats,   n ≥ 2.                         (2)

At n = 1 the prior is N(0, 1), which the posterior can equal: δ = 0, σ = 1, and (2) does not hold.
By the chain rule of the prior, step t commits ½ [ln Λ_tt + ln var_p(z_t | z_{t-1})] ≥ 0:

    −½ ln(1 − α²) at t = 1,   ½ ln(1 + α²) inside,   0 at t = n.                           (3)

A mean u m, m small and normal with variance v over the data, says ½ v Σ_t Λ_tt u_t² nats about m
to the minimiser's noise and costs ½ v uᵀΛu above the floor: for a signal that stays the same over
the steps, u_t = 1 (of α < 0: that alternates), the first nat above δ buys

    [(n − 2)(1 + α²) + 2] / {(1 − |α|) [(n − 2)(1 − |α|) + 2]} ≥ 1 nats of information.     (4)

``solve_alpha`` inverts (2) on α_k(s) = tanh(s a_k), s > 0, along which δ grows strictly. There
ln cosh s ≤ s²/2 and tanh s ≤ s give δ(s) ≤ ½ (n − 1) s² Σ_k a_k², which brackets s from below.

Razavi et al., Preventing Posterior Collapse with δ-VAEs, ICLR 2019, section 3.1 and its appendix,
https://arxiv.org/abs/1901.03416
Deviations: (1), (3), (4) and the scaled ladder are derived here; all is computed in float64.
"""

import math
from bisect import bisect_left
from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float, Float64
from scipy.optimize import brentq
from torch import Tensor

from deltavae.units import both_units

Alpha: TypeAlias = float | Sequence[float] | npt.NDArray[np.floating] | Tensor

# Beyond this α the spacing of float64 below 1 costs more than 1e-9 of δ.
ALPHA_MAX = 1.0 - 1e-6
_SCALE_MAX = math.atanh(ALPHA_MAX)
_CHANNELS_MAX = 1 << 16  # up to which a number of channels that carries δ is looked for


def channels(alpha: Alpha) -> Float64[Tensor, " d"]:
    """Check α and return it as a float64 vector.

    Args:
        alpha: Autocorrelation of the prior at lag one, a number or one per channel, in (−1, 1).

    Returns:
        One α per channel, on the CPU, without gradient.

    Raises:
        ValueError: If alpha is empty, has more than one axis, or leaves (−1, 1).
    """
    values = torch.as_tensor(alpha, dtype=torch.float64, device="cpu").detach()
    if values.ndim > 1 or values.numel() == 0:
        raise ValueError(
            f"alpha must be a number or a non-empty vector, got shape {tuple(values.shape)}"
        )
    if not bool((values.abs() < 1).all()):  # false for NaN too
        raise ValueError(f"alpha must lie in (-1, 1), got {values.tolist()}")
    return values.reshape(-1).clone()


def _log_one_minus_square(alpha: Float64[Tensor, " d"]) -> Float64[Tensor, " d"]:
    # α² loses what is left of 1 at α near 1; the sum of two logarithms cancels at α near 0.
    square = alpha * alpha
    return torch.where(
        square < 0.5, torch.log1p(-square), torch.log1p(-alpha) + torch.log1p(alpha)
    )


def committed_rate(alpha: Alpha, n: int) -> float:
    """Committed rate of the mean-field Gaussian posterior under the AR(1) prior.

    >>> round(committed_rate(0.95, n=2), 3)
    1.164

    Args:
        alpha: α per channel, in (−1, 1).
        n: Latent steps, at least 1.

    Returns:
        δ in nats per example; 0 at n = 1.

    Raises:
        ValueError: If alpha is empty or leaves (−1, 1), or n is below 1.
    """
    a = channels(alpha)
    if n < 1:
        raise ValueError(f"n must be at least 1, got {n}")
    if n == 1:
        return 0.0
    return float(0.5 * ((n - 2) * torch.log1p(a * a) - _log_one_minus_square(a)).sum())  # (2)


def committed_terms(alpha: Alpha, n: int) -> Float64[Tensor, "n d"]:
    """Share of every step and channel in the committed rate, eq. (3).

    Args:
        alpha: α per channel, in (−1, 1).
        n: Latent steps, at least 1.

    Returns:
        Nats, never negative; they sum to ``committed_rate(alpha, n)``.

    Raises:
        ValueError: If alpha is empty or leaves (−1, 1), or n is below 1.
    """
    a = channels(alpha)
    if n < 1:
        raise ValueError(f"n must be at least 1, got {n}")
    terms = torch.zeros(n, len(a), dtype=torch.float64, device="cpu")
    if n > 1:
        terms[0] = -0.5 * _log_one_minus_square(a)
        terms[1:-1] = 0.5 * torch.log1p(a * a)
    return terms


def minimiser(alpha: Alpha, n: int) -> Float64[Tensor, "n d"]:
    """Standard deviation σ* of the posterior whose rate is the committed rate; its mean is 0.

    Args:
        alpha: α per channel, in (−1, 1).
        n: Latent steps, at least 1.

    Returns:
        σ* > 0: σ*² = 1 − α² at both ends, (1 − α²)/(1 + α²) inside, 1 at n = 1.

    Raises:
        ValueError: If alpha is empty or leaves (−1, 1), or n is below 1.
    """
    a = channels(alpha)
    if n < 1:
        raise ValueError(f"n must be at least 1, got {n}")
    variance = torch.ones(n, len(a), dtype=torch.float64, device="cpu")
    if n > 1:
        variance[:] = (1 - a) * (1 + a)
        variance[1:-1] /= 1 + a * a
    return variance.sqrt()


def marginal_information(alpha: Alpha, n: int) -> Float64[Tensor, " d"]:
    """Information that the first of the rate above δ buys, for a signal constant over the steps.

    At R = δ nothing is said; a mean that moves off 0 costs rate and carries information, and this
    is the ratio at the start, eq. (4): the higher α, the more. A decoder that can use only a
    smaller share of the information than one over this number gains nothing by it, and the
    posterior stays at the floor.

    >>> round(float(marginal_information(0.8, n=14)), 1)
    24.6

    Args:
        alpha: α per channel, in (−1, 1).
        n: Latent steps, at least 1.

    Returns:
        Bits of I(x;z) per bit of rate above δ, at least 1; 1 at n = 1.

    Raises:
        ValueError: If alpha is empty or leaves (−1, 1), or n is below 1.
    """
    a = channels(alpha).abs()
    if n < 1:
        raise ValueError(f"n must be at least 1, got {n}")
    if n == 1:
        return torch.ones_like(a)
    return ((n - 2) * (1 + a * a) + 2) / ((1 - a) * ((n - 2) * (1 - a) + 2))  # (4)


def gaussian_committed_rate(precision: Float[Tensor, "rows columns"]) -> float:
    """Committed rate of the mean-field Gaussian posterior under any Gaussian prior, eq. (1).

    Args:
        precision: Λ of the prior N(0, Λ⁻¹), of shape (m, m), symmetric and positive definite.

    Returns:
        δ in nats, at least 0.

    Raises:
        ValueError: If precision is empty, not square, not symmetric, or not positive definite.
    """
    shape = tuple(precision.shape)
    if shape[0] != shape[1] or shape[0] == 0:
        raise ValueError(f"precision must be square and not empty, got shape {shape}")
    matrix = precision.detach().to("cpu", torch.float64)
    diagonal = matrix.diagonal()
    if not bool((diagonal > 0).all()):  # false for NaN too
        raise ValueError("precision must be positive definite, got a diagonal entry <= 0 or NaN")
    scale = diagonal.rsqrt()
    unit = scale[:, None] * matrix * scale  # unit diagonal: (1) becomes −½ ln det
    asymmetry = float((unit - unit.T).abs().max())
    if not asymmetry <= 1e-6:
        raise ValueError(f"precision must be symmetric, got a relative asymmetry of {asymmetry:g}")
    factor, failed = torch.linalg.cholesky_ex((unit + unit.T) / 2)
    if int(failed):
        raise ValueError(
            f"precision must be positive definite, got a leading minor of order {int(failed)} <= 0"
        )
    return max(0.0, -float(factor.diagonal().log().sum()))


def ladder(lo: float, hi: float, d: int) -> Float64[Tensor, " d"]:
    """Equally spaced α, one per channel: slow channels beside fast ones.

    Args:
        lo: α of the first channel, in (−1, 1).
        hi: α of the last channel, in [lo, 1).
        d: Channels, at least 1; one channel gets lo.

    Returns:
        α per channel.

    Raises:
        ValueError: If not −1 < lo ≤ hi < 1, or d is below 1.
    """
    if not -1 < lo <= hi < 1:
        raise ValueError(f"lo and hi must satisfy -1 < lo <= hi < 1, got lo={lo}, hi={hi}")
    if d < 1:
        raise ValueError(f"d must be at least 1, got {d}")
    return torch.linspace(lo, hi, d, dtype=torch.float64, device="cpu")


def solve_alpha(
    delta: float, n: int, d: int, bounds: tuple[float, float] | None = None
) -> Float64[Tensor, " d"]:
    """Find the α at which the committed rate is ``delta``.

    >>> alpha = solve_alpha(10.0, n=32, d=8)
    >>> round(committed_rate(alpha, n=32), 9)
    10.0

    Args:
        delta: Committed rate wanted, in nats per example, above 0.
        n: Latent steps, at least 2.
        d: Channels, at least 1.
        bounds: None for the same α in every channel. A pair (lo, hi) for a ladder: the channels
            are tanh(s · atanh(ladder(lo, hi, d))), where s > 0 is chosen to hit delta; s = 1 is
            the given ladder itself, and signs are kept.

    Returns:
        α per channel, |α| ≤ 1 − 1e-6, with |committed_rate(α, n) − delta| ≤ 1e-9 delta.

    Raises:
        ValueError: If delta, n, d or bounds leave their range, or if some |α| would have to exceed
            1 − 1e-6: then the message names the smallest d that carries delta.
    """
    if not 0 < delta < math.inf:
        raise ValueError(f"delta must be positive and finite, got {delta}")
    if n < 2:
        raise ValueError(f"n must be at least 2 to commit a rate, got {n}")
    if d < 1:
        raise ValueError(f"d must be at least 1, got {d}")
    if bounds is not None and not any(bounds):
        raise ValueError(f"bounds must not both be 0, got {bounds}: no scale of 0 commits a rate")
    if _capacity(n, d, bounds) < delta:
        raise ValueError(
            f"delta={both_units(delta)} needs an |alpha| above 1 - 1e-6 at n={n}, d={d}: "
            f"d must be at least {_smallest_d(delta, n, bounds)}"
        )
    shape = _shape(d, bounds)

    def log_ratio(log_scale: float) -> float:
        rate = committed_rate(torch.tanh(math.exp(log_scale) * shape), n)
        return math.log(rate / delta)

    # In log-log coordinates δ(s) is nearly a straight line, of slope 2 at s → 0.
    lower = 0.5 * math.log(2 * delta / ((n - 1) * float(shape.square().sum())))
    upper = math.log(_SCALE_MAX / float(shape.abs().max()))
    margin = 1e-6  # both ends may be the root itself, up to rounding
    root = brentq(log_ratio, lower - margin, upper + margin, xtol=1e-14, rtol=1e-15)
    return torch.tanh(math.exp(root) * shape)


def fewest_channels(delta: float, n: int, most: float = 0.8) -> int:
    """Count the channels over which ``delta`` has to be spread so that α stays moderate.

    The fewer, the higher α, and the more the first bits above δ buy (`marginal_information`).

    >>> fewest_channels(10.0, n=28)
    2

    Args:
        delta: δ in nats per example, above 0.
        n: Latent steps, at least 2.
        most: The highest α allowed, in (0, 1).

    Returns:
        The smallest d with `solve_alpha` (delta, n, d) ≤ most.

    Raises:
        ValueError: If an argument leaves its range, or d would be above 65,536.
    """
    if not 0 < delta < math.inf:
        raise ValueError(f"delta must be positive and finite, got {delta}")
    if n < 2:
        raise ValueError(f"n must be at least 2 to commit a rate, got {n}")
    if not 0 < most < 1:
        raise ValueError(f"most must be in (0, 1), got {most}")
    d = math.ceil(delta / committed_rate(most, n) * (1 - 1e-12))  # a whole quotient is enough
    if d > _CHANNELS_MAX:
        raise ValueError(
            f"delta={both_units(delta)} needs more than {_CHANNELS_MAX} channels at n={n} if no "
            f"α is to be above {most:g}"
        )
    return d


def _shape(d: int, bounds: tuple[float, float] | None) -> Float64[Tensor, " d"]:
    """The a_k of the family α_k = tanh(s a_k)."""
    if bounds is None:
        return torch.ones(d, dtype=torch.float64, device="cpu")
    return torch.atanh(ladder(*bounds, d))


def _capacity(n: int, d: int, bounds: tuple[float, float] | None) -> float:
    """The largest δ of the family, where its largest |α| is ALPHA_MAX, with room for rounding."""
    if bounds is None:
        most = d * committed_rate(ALPHA_MAX, n)
    else:
        shape = _shape(d, bounds)
        top = float(shape.abs().max())  # 0 for one channel of a ladder that starts at 0
        most = committed_rate(torch.tanh(_SCALE_MAX / top * shape), n) if top > 0 else 0.0
    return most * (1 + 1e-12)


def _smallest_d(delta: float, n: int, bounds: tuple[float, float] | None) -> int:
    # The capacity grows with d, for the j-th largest |α| of a ladder does. At the limit of the
    # search the answer is a lower bound.
    limit = 1 << 53 if bounds is None else _CHANNELS_MAX
    return 1 + bisect_left(range(1, limit), delta, key=lambda d: _capacity(n, d, bounds))
