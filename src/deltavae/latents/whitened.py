"""Mean-field Gaussian posterior × a Gaussian prior along the steps: what all such pairs share.

The prior is a linear map z ↦ e that makes it white (`prior.whiten`), and σ* = Λ_tt^(−½) the
standard deviation of each step given all others. With σ = σ* eᵍ,

    KL(q ‖ p) = δ + Σ_tk [½ (e²ᵍ − 1 − 2g) + ½ e(μ)_tk²]:                                  (1)

a floor plus two terms that cannot be negative. In units of the minimiser the decoder reads z/σ*,
and the mean is σ* m: the nearer the prior's steps are to one another, the smaller σ*.

By innovations the mean is instead what the prior, run from the last step to the first, makes of
m, in either units. Where its law is the same in both directions, e(μ) and m are as long, and every
direction of m costs ½ m²: what the prior makes cheap, one large number in place of many equal
ones, a step of the optimiser reaches as soon as anything else. As m_s moves μ_t for t ≤ s only,
z_t still stands for what the encoder has read from step t on. The terms of (1) are those of m
then: of innovations from the last step to the first, beside a δ that is counted from the first.

Razavi et al., Preventing Posterior Collapse with δ-VAEs, ICLR 2019, section 3.1,
https://arxiv.org/abs/1901.03416
Deviations: (1) in this form is derived here.
"""

from abc import ABC, abstractmethod

from jaxtyping import Float, Float64
from torch import Tensor
from torch.distributions import kl_divergence

from deltavae.latents.base import Latents
from deltavae.latents.posterior import MeanFieldNormal, Posterior
from deltavae.latents.scale import bounded_log_scale, scale_excess
from deltavae.latents.white import WhitenedNormal


class WhitenedPair(Latents, ABC):
    """Mean-field Gaussian posterior × Gaussian prior that can be made white; abstract.

    Args:
        committed_rate: As in `Latents`.
        committed_terms: As in `Latents`.
        sigma_star: As in `Latents`.
        minimiser_units: Whether the decoder reads z/σ*; without innovations the mean is given in
            units of σ* too.
        innovations: Whether the mean is given by innovations, from the last step to the first: of
            priors whose law is the same in both directions.

    Attributes:
        minimiser_units: As given.
        innovations: As given.
    """

    minimiser_units: bool
    innovations: bool

    def __init__(
        self,
        committed_rate: float,
        committed_terms: Float64[Tensor, "n d"],
        sigma_star: Float64[Tensor, "n d"],
        minimiser_units: bool,
        innovations: bool = False,
    ) -> None:
        super().__init__(committed_rate, committed_terms, sigma_star)
        self.minimiser_units, self.innovations = minimiser_units, innovations

    @property
    @abstractmethod
    def prior(self) -> WhitenedNormal:
        """The prior as a torch distribution."""

    def _minimiser(self) -> Float64[Tensor, "n d"]:
        """Return σ*, differentiable where the prior learns."""
        return self.sigma_star

    def posterior(self, params: Float[Tensor, "b n k"]) -> MeanFieldNormal:
        """Turn raw network output (m, r) into μ and σ = σ* eᵍ, g = 10 tanh(r/10).

        μ is what the prior makes of m by innovations; otherwise m, or σ* m in units of the
        minimiser.

        Args:
            params: Raw output, k = 2d.

        Returns:
            The posterior, in float32 at least.
        """
        mean, raw = self._split(params)
        sigma_star = self._minimiser().to(mean.dtype)
        if self.innovations:
            mu, innovations = self.prior.colour(mean.flip(-2)).flip(-2), mean
        else:
            mu = sigma_star * mean if self.minimiser_units else mean
            innovations = self.prior.whiten(mu)
        g = bounded_log_scale(raw)
        excess = scale_excess(g) + 0.5 * innovations.square()  # (1)
        return MeanFieldNormal(mu, sigma_star * g.exp(), excess)

    def direct_rate(self, q: Posterior) -> Float64[Tensor, " b"]:
        """Return the KL that is registered with the prior; see `Latents.direct_rate`."""
        assert isinstance(q, MeanFieldNormal)
        return kl_divergence(q.distribution, self.prior)

    def prior_from_noise(self, noise: Float[Tensor, "b n d"]) -> Float[Tensor, "b n d"]:
        """Run the prior on given innovations.

        Args:
            noise: Standard normal noise.

        Returns:
            Latents distributed as the prior.
        """
        return self.prior.colour(noise)

    def log_prior(self, z: Float[Tensor, "b n d"]) -> Float[Tensor, " b"]:
        """Return ln p(z).

        Args:
            z: Latents.

        Returns:
            Log-density in nats, summed over steps and channels.
        """
        return self.prior.log_prob(z)

    def to_decoder(self, z: Float[Tensor, "b n d"]) -> Float[Tensor, "b n d"]:
        """Return what the decoder reads: z, or z/σ* in units of the minimiser.

        Args:
            z: Latents.

        Returns:
            The decoder's input.
        """
        return z / self._minimiser().to(z.dtype) if self.minimiser_units else z
