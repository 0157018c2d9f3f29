"""Batch-normalised Gaussian posterior × N(0, I): a floor on the mean over the batch (BN-VAE).

With raw means m of a batch of B examples, per unit (step t, channel k) their mean m̄ and biased
variance v = (1/B) Σ_b (m_b − m̄)²,

    μ = γ (m − m̄)/√(v + ε),   σ = eᵍ, g bounded (`scale`),                                  (1)

so that (1/B) Σ_b μ_b² = γ² v/(v + ε), and the mean of the rate over the batch

    (1/B) Σ_b Σ_tk [½ (e²ᵍ − 1 − 2g) + ½ μ²] ≥ ½ γ² Σ_tk v_tk/(v_tk + ε):                  (2)

n d γ²/2 where v ≫ ε. The bound (2) is exact, but that of the name is not: it sinks where a unit's
raw means draw together (v ≲ ε), and it is 0 for a batch of one. No example by itself has a floor:
at m = m̄ and g = 0 its rate is 0. In evaluation running moments of m stand for those of the batch,
and (2) says nothing. Each process normalises its own share of a batch.

Zhu et al., A Batch Normalized Inference Network Keeps the KL Vanishing Away, ACL 2020, section 3,
https://arxiv.org/abs/2004.12976
Deviations: no learnable shift of μ (it could only raise the bound, by ½ shift² per unit); every
step and channel is normalised by itself; ε is 1e-8 in the place of torch's 1e-5, for the raw means
of this project's encoders can begin with v near 1e-5, where a larger ε takes the floor away.
"""

import math
from typing import Any, final

import torch
from jaxtyping import Float
from torch import Tensor

from deltavae.latents.posterior import MeanFieldNormal
from deltavae.latents.scale import bounded_log_scale, scale_excess
from deltavae.latents.standard_normal import StandardNormalPair


@final
class BatchNorm(StandardNormalPair):
    """The pair of the BN-VAE; its rate has a floor on the mean over a training batch only.

    Args:
        n: Latent steps, at least 1.
        d: Latent channels, at least 1.
        gamma: Scale γ of the normalised means, above 0.
        epsilon: ε, added to the variance of the raw means, above 0.
        momentum: Share of a batch in the running moments, in (0, 1].

    Attributes:
        running_mean: Running mean of m per step and channel.
        running_variance: Running variance of m per step and channel, from unbiased ones.
        proof: See `Latents`.

    Raises:
        ValueError: If an argument is out of its range.
    """

    running_mean: Float[Tensor, "n d"]
    running_variance: Float[Tensor, "n d"]
    proof = (
        "closed form, of the mean over a training batch only: n d γ²/2 where raw means spread "
        "(variance ≫ ε); no example by itself has a floor"
    )

    def __init__(
        self, n: int, d: int, gamma: float, epsilon: float = 1e-8, momentum: float = 0.1
    ) -> None:
        if n < 1 or d < 1:
            raise ValueError(f"n and d must be at least 1, got n={n}, d={d}")
        for name, value in (("gamma", gamma), ("epsilon", epsilon)):
            if not 0 < value < math.inf:
                raise ValueError(f"{name} must be above 0, got {value}")
        if not 0 < momentum <= 1:
            raise ValueError(f"momentum must lie in (0, 1], got {momentum}")
        zeros = torch.zeros(n, d, dtype=torch.float64)
        floor = 0.5 * n * d * gamma**2
        super().__init__(0.0, zeros, torch.ones_like(zeros), mean_rate_floor=floor)
        self.gamma, self.epsilon, self.momentum = gamma, epsilon, momentum
        self.register_buffer("running_mean", torch.zeros(n, d))
        self.register_buffer("running_variance", torch.ones(n, d))

    @classmethod
    def from_rate(
        cls, delta: float, n: int, d: int, epsilon: float = 1e-8, momentum: float = 0.1
    ) -> "BatchNorm":
        """Build the pair whose rate is at least ``delta`` on the mean over a training batch.

        Args:
            delta: n d γ²/2 in nats per example, above 0: the bound (2) at ε = 0.
            n: Latent steps, at least 1.
            d: Latent channels, at least 1.
            epsilon: As in the constructor.
            momentum: As in the constructor.

        Returns:
            The pair; its ``committed_rate`` is 0.

        Raises:
            ValueError: If delta is not above 0, or another argument is out of its range.
        """
        if not delta > 0:
            raise ValueError(f"delta must be above 0, got {delta}")
        gamma = math.sqrt(2 * delta / (n * d)) if n >= 1 and d >= 1 else 1.0
        return cls(n, d, gamma, epsilon, momentum)

    def config(self) -> dict[str, Any]:
        """Return plain arguments that rebuild the pair, but for the running moments."""
        options = {"gamma": self.gamma, "epsilon": self.epsilon, "momentum": self.momentum}
        return {"n": self.n, "d": self.d, **options}

    def posterior(self, params: Float[Tensor, "b n k"]) -> MeanFieldNormal:
        """Turn raw network output (m, r) into μ, eq. (1), and σ = eᵍ, g = 10 tanh(r/10).

        In training mode by the batch's own moments, which move the running ones too.

        Args:
            params: Raw output, k = 2d.

        Returns:
            The posterior, in float32 at least.
        """
        m, raw = self._split(params)
        mean, variance = self.running_mean.to(m), self.running_variance.to(m)
        if self.training:
            mean, variance = m.mean(0), m.var(0, correction=0)
            self._follow(mean.detach(), variance.detach(), len(m))
        mu = self.gamma * (m - mean) * (variance + self.epsilon).rsqrt()  # (1)
        g = bounded_log_scale(raw)
        return MeanFieldNormal(mu, g.exp(), scale_excess(g) + 0.5 * mu.square())

    def _follow(
        self, mean: Float[Tensor, "n d"], variance: Float[Tensor, "n d"], count: int
    ) -> None:
        unbiased = variance * (count / max(1, count - 1))
        self.running_mean.lerp_(mean.to(self.running_mean), self.momentum)
        self.running_variance.lerp_(unbiased.to(self.running_variance), self.momentum)

    @torch.no_grad()
    def set_moments(self, params: Float[Tensor, "m n k"]) -> None:
        """Take the moments of raw outputs, of a training set for example, in for the running ones.

        Args:
            params: Raw outputs of m examples, k = 2d.
        """
        m, _ = self._split(params.to(self.running_mean))
        self.running_mean.copy_(m.mean(0))
        self.running_variance.copy_(m.var(0, correction=0))
