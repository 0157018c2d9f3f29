"""Constrained Gaussian posterior × N(0, I): every dimension commits the same δ_i = δ/(n d).

With v = ln σ² and c(v) = 2δ_i + 1 + v − eᵛ, which is ≥ 0 between its roots v_lo < 0 < v_hi,

    KL(N(μ, σ²) ‖ N(0, 1)) = ½ (eᵛ + μ² − 1 − v) = δ_i + ½ (μ² − c(v)):

the posteriors at δ_i are a closed loop around the prior (μ, v) = (0, 0). The network walks it by
an angle θ and leaves it outwards by s = softplus(raw) ≥ 0:

    v = m − h cos θ,   m = (v_lo + v_hi)/2,   h = (v_hi − v_lo)/2,                         (1)
    μ = sin θ √(h² κ(v) + s),   κ(v) = c(v) / ((v_hi − v)(v − v_lo)) > 0,                  (2)

and as (v_hi − v)(v − v_lo) = h² sin² θ, μ² = c(v) + s sin² θ, so that exactly

    KL = δ_i + ½ s sin² θ.                                                                 (3)

Both signs of μ are reached smoothly. At θ = 0 the posterior is narrow: μ = 0, σ = σ* = e^{v_lo/2}.
With r the root nearer to v, r' the other, x = v − r and ρ as in `scale`,

    κ = [(eʳ − 1) + eʳ ρ(x)] / (v − r').                                                   (4)

Razavi et al., Preventing Posterior Collapse with δ-VAEs, ICLR 2019, its appendix,
https://arxiv.org/abs/1901.03416
Deviations: the paper has μ² = c(v) + max(0, f) and leaves the sign of μ open; here the angle gives
the sign, and s sin² θ, smooth, stands for max(0, f).
"""

import math
from typing import Any, final

import torch
from jaxtyping import Float
from scipy.optimize import brentq
from torch import Tensor
from torch.nn.functional import softplus

from deltavae.latents.posterior import MeanFieldNormal
from deltavae.latents.scale import expm1_ratio
from deltavae.latents.standard_normal import StandardNormalPair
from deltavae.units import both_units

_RATE_MAX = 40.0  # nats per dimension: σ*² = e⁻⁸¹ is still a normal float32


def log_variance_bounds(rate: float) -> tuple[float, float]:
    """Find the roots v_lo < 0 < v_hi of c(v) = 2 rate + 1 + v − eᵛ.

    Args:
        rate: Nats per dimension, in (0, 40].

    Returns:
        v_lo and v_hi: ln σ² of the narrowest and the widest posterior at this rate.

    Raises:
        ValueError: If rate leaves (0, 40].
    """
    if not 0 < rate <= _RATE_MAX:
        raise ValueError(
            f"rate per dimension must be above 0 and at most {both_units(_RATE_MAX)}, "
            f"got {both_units(rate)}"
        )

    def deficit(v: float) -> float:  # −c(v), without cancellation at small v
        return v * float(expm1_ratio(torch.tensor(v, dtype=torch.float64))) - 2 * rate

    # −c is convex, −2 rate at 0, above −v − 1 − 2 rate and, at v > 0, above v²/2 − 2 rate.
    low = brentq(deficit, -2 - 2 * rate, 0.0, xtol=1e-18, rtol=1e-15)
    high = brentq(deficit, 0.0, 2.1 * math.sqrt(rate), xtol=1e-18, rtol=1e-15)
    return low, high


@final
class Independent(StandardNormalPair):
    """Gaussian posterior that keeps δ/(n d) nats away from N(0, 1) in every dimension.

    Args:
        n: Latent steps, at least 1.
        d: Latent channels, at least 1.
        delta: Committed rate of the whole example in nats, above 0, at most 40 n d.

    Attributes:
        proof: See `Latents`.

    Raises:
        ValueError: If n, d or delta leave their range.
    """

    proof = "closed form: in every dimension ½ (eᵛ + μ² − 1 − v) = δ/(n d) + ½ s sin² θ, s ≥ 0"

    def __init__(self, n: int, d: int, delta: float) -> None:
        if n < 1 or d < 1:
            raise ValueError(f"n and d must be at least 1, got n={n}, d={d}")
        if not 0 < delta <= _RATE_MAX * n * d:
            raise ValueError(
                f"delta must be above 0 and at most {both_units(_RATE_MAX * n * d)} at n={n}, "
                f"d={d}, got {both_units(delta)}; Standard is the pair that commits nothing"
            )
        self._low, self._high = log_variance_bounds(delta / (n * d))
        share = torch.full((n, d), delta / (n * d), dtype=torch.float64)
        sigma_star = torch.full_like(share, math.exp(self._low / 2))
        super().__init__(delta, share, sigma_star)

    @classmethod
    def from_rate(cls, delta: float, n: int, d: int) -> "Independent":
        """Build the pair whose committed rate is ``delta``.

        Args:
            delta: δ in nats per example, above 0.
            n: Latent steps, at least 1.
            d: Latent channels, at least 1.

        Returns:
            The pair.
        """
        return cls(n, d, delta)

    def config(self) -> dict[str, Any]:
        """Return plain arguments that rebuild the pair exactly."""
        return {"n": self.n, "d": self.d, "delta": self.committed_rate}

    @property
    def summary(self) -> str:
        """Narrowest and widest posterior at the floor; see `Latents.summary`."""
        low, high = math.exp(self._low / 2), math.exp(self._high / 2)
        return f"sigma {low:.6g} to {high:.6g} at the floor"

    def posterior(self, params: Float[Tensor, "b n k"]) -> MeanFieldNormal:
        """Turn raw network output (θ, r) into a point of the loop, moved outwards by softplus(r).

        Args:
            params: Raw output, k = 2d.

        Returns:
            The posterior, in float32 at least.
        """
        theta, raw = self._split(params)
        slack = softplus(raw)
        half = (self._high - self._low) / 2
        narrow = theta.cos() > 0  # v is nearer to v_lo
        low, high = torch.full_like(theta, self._low), torch.full_like(theta, self._high)
        root, other = torch.where(narrow, low, high), torch.where(narrow, high, low)
        # v − root = ±h (1 ∓ cos θ), without cancellation
        x = 2 * half * torch.where(narrow, (theta / 2).sin().square(), -(theta / 2).cos().square())
        v = root + x  # (1)
        kappa = (root.expm1() + root.exp() * expm1_ratio(x)) / (v - other)  # (4)
        sine = theta.sin()
        mu = sine * (half**2 * kappa + slack).sqrt()  # (2)
        return MeanFieldNormal(mu, (v / 2).exp(), 0.5 * slack * sine.square())  # (3)
