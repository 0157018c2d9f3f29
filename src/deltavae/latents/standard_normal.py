"""Gaussian posteriors × N(0, I): what all such pairs share, the prior and the textbook rate.

    KL(N(μ, σ²) ‖ N(0, I)) = ½ Σ_tk (σ² + μ² − 1 − ln σ²).                                 (1)

A pair says which μ and σ its posterior can have, and how their rate is written above a floor.

Kingma & Welling, Auto-Encoding Variational Bayes, ICLR 2014, appendix B,
https://arxiv.org/abs/1312.6114
"""

from abc import ABC

import torch
from jaxtyping import Float, Float64
from torch import Tensor
from torch.distributions import Independent as Reinterpreted
from torch.distributions import Normal, kl_divergence

from deltavae.latents.base import Latents
from deltavae.latents.posterior import MeanFieldNormal, Posterior, standard_normal_log_prob


class StandardNormalPair(Latents, ABC):
    """Mean-field Gaussian posterior × N(0, I); abstract."""

    def direct_rate(self, q: Posterior) -> Float64[Tensor, " b"]:
        """Return (1) by torch.distributions; see `Latents.direct_rate`."""
        assert isinstance(q, MeanFieldNormal)
        zeros = torch.zeros_like(q.mu, dtype=torch.float64)
        # Unchecked: a check would wait for the device.
        normal = Normal(zeros, torch.ones_like(zeros), validate_args=False)
        prior = Reinterpreted(normal, 2, validate_args=False)
        return kl_divergence(q.distribution, prior)  # (1)

    def prior_from_noise(self, noise: Float[Tensor, "b n d"]) -> Float[Tensor, "b n d"]:
        """Return the noise: the prior is N(0, I).

        Args:
            noise: Standard normal noise.

        Returns:
            Latents distributed as the prior.
        """
        return noise

    def log_prior(self, z: Float[Tensor, "b n d"]) -> Float[Tensor, " b"]:
        """Return ln N(z; 0, I).

        Args:
            z: Latents.

        Returns:
            Log-density in nats, summed over steps and channels.
        """
        return standard_normal_log_prob(z)
