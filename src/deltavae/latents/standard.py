"""Mean-field Gaussian posterior × N(0, I): the ordinary VAE, which commits nothing (δ = 0).

With μ = m and σ = eᵍ, g bounded (`scale`),

    KL(q(z|x) ‖ N(0, I)) = Σ_tk [½ (e²ᵍ − 1 − 2g) + ½ μ²].

Kingma & Welling, Auto-Encoding Variational Bayes, ICLR 2014, appendix B,
https://arxiv.org/abs/1312.6114
"""

from typing import Any, final

import torch
from jaxtyping import Float
from torch import Tensor

from deltavae.latents.posterior import MeanFieldNormal
from deltavae.latents.scale import bounded_log_scale, scale_excess
from deltavae.latents.standard_normal import StandardNormalPair


@final
class Standard(StandardNormalPair):
    """The pair of the ordinary VAE; the posterior can collapse onto the prior.

    Args:
        n: Latent steps, at least 1.
        d: Latent channels, at least 1.

    Attributes:
        proof: See `Latents`.

    Raises:
        ValueError: If n or d is below 1.
    """

    proof = "nothing is committed: the posterior can equal the prior"

    def __init__(self, n: int, d: int) -> None:
        if n < 1 or d < 1:
            raise ValueError(f"n and d must be at least 1, got n={n}, d={d}")
        zeros = torch.zeros(n, d, dtype=torch.float64)
        super().__init__(0.0, zeros, torch.ones_like(zeros))

    @classmethod
    def from_rate(cls, delta: float, n: int, d: int) -> "Standard":
        """Build the pair; it commits no rate, so ``delta`` must say so.

        Args:
            delta: 0.
            n: Latent steps, at least 1.
            d: Latent channels, at least 1.

        Returns:
            The pair.

        Raises:
            ValueError: If delta is not 0, or n or d is below 1.
        """
        if delta != 0:
            raise ValueError(f"delta must be 0 for Standard, which commits no rate, got {delta}")
        return cls(n, d)

    def config(self) -> dict[str, Any]:
        """Return plain arguments that rebuild the pair exactly."""
        return {"n": self.n, "d": self.d}

    def posterior(self, params: Float[Tensor, "b n k"]) -> MeanFieldNormal:
        """Turn raw network output (m, r) into μ = m and σ = eᵍ, g = 10 tanh(r/10).

        Args:
            params: Raw output, k = 2d.

        Returns:
            The posterior, in float32 at least.
        """
        mu, raw = self._split(params)
        g = bounded_log_scale(raw)
        return MeanFieldNormal(mu, g.exp(), scale_excess(g) + 0.5 * mu.square())
