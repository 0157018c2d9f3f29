"""Gaussian posterior of bounded variance × N(0, I): σ ≤ σ_max < 1 in every dimension.

A posterior that may not be as wide as its prior cannot equal it. With v_max = ln σ²_max < 0 and
ln σ² = v_max − s, s ≥ 0, every dimension commits

    δ_i = ½ (σ²_max − 1 − ln σ²_max) = ½ v_max ρ(v_max) > 0,   at μ = 0, s = 0,              (1)

with ρ as in `scale`, and what the posterior costs above it is

    ½ [s (1 − e^{v_max}) + e^{v_max} (s + e^{−s} − 1)] + ½ μ²,   s + e^{−s} − 1 = −s ρ(−s),    (2)

a sum of products of numbers of one sign: it cannot be negative in any precision. Here the floor is
the price of a resolution: whatever z says, it says with an error of σ_max at most. Unlike
`independent` the pair leaves the mean free.

Kingma & Welling, Auto-Encoding Variational Bayes, ICLR 2014, appendix B,
https://arxiv.org/abs/1312.6114, for the KL; (1) and (2) are derived here.
Deviations: s = softplus(20 tanh(r/20)), bounded, so that no raw output r makes σ vanish.
"""

import math
from typing import Any, final

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import softplus

from deltavae.latents.independent import log_variance_bounds
from deltavae.latents.posterior import MeanFieldNormal
from deltavae.latents.scale import expm1_ratio
from deltavae.latents.standard_normal import StandardNormalPair
from deltavae.units import both_units


@final
class BoundedVariance(StandardNormalPair):
    """Gaussian posterior with σ ≤ σ_max × N(0, I).

    Args:
        n: Latent steps, at least 1.
        d: Latent channels, at least 1.
        sigma_max: Largest standard deviation σ_max, in (0, 1).

    Attributes:
        sigma_max: σ_max.
        proof: See `Latents`.

    Raises:
        ValueError: If an argument leaves its range.
    """

    sigma_max: float
    proof = "closed form: δ = ½ n d (σ²_max − 1 − ln σ²_max)"

    def __init__(self, n: int, d: int, sigma_max: float) -> None:
        if n < 1 or d < 1:
            raise ValueError(f"n and d must be at least 1, got n={n}, d={d}")
        if not 0 < sigma_max < 1:
            raise ValueError(f"sigma_max must lie in (0, 1), got {sigma_max}")
        self._v_max = 2 * math.log(sigma_max)
        v_max = torch.full((n, d), self._v_max, dtype=torch.float64)
        share = 0.5 * v_max * expm1_ratio(v_max)  # (1)
        super().__init__(
            n * d * float(share[0, 0]), share, torch.full_like(share, float(sigma_max))
        )
        self.sigma_max = float(sigma_max)

    @classmethod
    def from_rate(cls, delta: float, n: int, d: int) -> "BoundedVariance":
        """Build the pair whose committed rate is ``delta``.

        Args:
            delta: δ in nats per example, above 0, at most 40 n d.
            n: Latent steps, at least 1.
            d: Latent channels, at least 1.

        Returns:
            The pair.

        Raises:
            ValueError: If an argument leaves its range.
        """
        if n < 1 or d < 1:
            raise ValueError(f"n and d must be at least 1, got n={n}, d={d}")
        try:
            v_max, _ = log_variance_bounds(delta / (n * d))
        except ValueError as error:
            raise ValueError(f"delta={both_units(delta)} at n={n}, d={d}: {error}") from error
        return cls(n, d, math.exp(v_max / 2))

    def config(self) -> dict[str, Any]:
        """Return plain arguments that rebuild the pair exactly."""
        return {"n": self.n, "d": self.d, "sigma_max": self.sigma_max}

    def posterior(self, params: Float[Tensor, "b n k"]) -> MeanFieldNormal:
        """Turn raw network output (m, r) into μ = m and σ = σ_max e^{−s/2}.

        Args:
            params: Raw output, k = 2d.

        Returns:
            The posterior, in float32 at least.
        """
        mu, raw = self._split(params)
        s = softplus(20 * torch.tanh(raw / 20))
        narrowing = -math.expm1(self._v_max) * s - math.exp(self._v_max) * s * expm1_ratio(-s)
        excess = 0.5 * narrowing + 0.5 * mu.square()  # (2)
        return MeanFieldNormal(mu, self.sigma_max * (-s / 2).exp(), excess)
