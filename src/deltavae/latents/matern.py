"""Mean-field Gaussian posterior × Matérn process on a line, of smoothness 1/2, 3/2 or 5/2.

The prior is a stationary Gaussian process of unit variance, sampled at the n steps, with length
scale ℓ in steps (`deltavae.priors.matern`). A sampled Matérn process has a dense precision; in
state-space form its Kalman filter gives the innovations e_t, their variances S_t and δ in O(n),

    δ = ½ Σ_k Σ_t ln(1 + f_tk),   f = S × what the filter's gains make of an impulse.      (1)

At ν = 1/2 it is AR(1) with α = e^{−1/ℓ}. The smoother the process, the more it can commit: per
step and channel up to ½ ln 2, 1.095 and 1.918 nats as ℓ grows.

Razavi et al., Preventing Posterior Collapse with δ-VAEs, ICLR 2019, section 3.1,
https://arxiv.org/abs/1901.03416; Hartikainen & Särkkä, Kalman filtering and smoothing solutions to
temporal Gaussian process regression models, MLSP 2010, https://doi.org/10.1109/MLSP.2010.5589113
Deviations: the paper has AR(1) only; (1) is derived here.
"""

from collections.abc import Sequence
from typing import Any, final

from deltavae import priors
from deltavae.latents.gaussian import GaussianPair, per_channel, priors_of, solved_prior


@final
class Matern(GaussianPair):
    """Mean-field Gaussian posterior × Matérn process; `deltavae.priors.Matern` is the prior alone.

    Args:
        n: Latent steps, at least 1; one step commits nothing.
        length: Length scale ℓ in steps of each channel, from 0.01 to 1e6, 3e4, 1e3 for ν = 1/2,
            3/2, 5/2; a number for one channel, several of them for a ladder.
        nu: Smoothness ν: 0.5, 1.5 or 2.5.
        minimiser_units: Whether the mean is given in units of σ* and the decoder reads z/σ*.

    Attributes:
        length: ℓ of each channel.
        nu: ν.

    An argument that leaves its range is a ValueError of `deltavae.priors`.
    """

    length: tuple[float, ...]
    nu: float

    def __init__(
        self,
        n: int,
        length: float | Sequence[float],
        nu: float = 1.5,
        minimiser_units: bool = False,
    ) -> None:
        lengths = per_channel(length)
        made = priors_of(lengths, lambda ell: priors.Matern(n, ell, nu))
        super().__init__(made, minimiser_units)
        self.length, self.nu = lengths, float(nu)

    @classmethod
    def from_rate(
        cls, delta: float, n: int, d: int, nu: float = 1.5, minimiser_units: bool = False
    ) -> "Matern":
        """Build the pair whose committed rate is ``delta``, by its length scale.

        Args:
            delta: δ in nats per example, above 0.
            n: Latent steps, at least 2.
            d: Latent channels, at least 1; they share δ equally.
            nu: As in the constructor.
            minimiser_units: As in the constructor.

        Returns:
            The pair.
        """
        prior = solved_prior(delta, d, lambda rate: priors.Matern.from_rate(rate, n, nu))
        return cls(n, [prior.length] * d, nu, minimiser_units)

    def config(self) -> dict[str, Any]:
        """Return plain arguments that rebuild the pair exactly."""
        return {
            "n": self.n,
            "length": list(self.length),
            "nu": self.nu,
            "minimiser_units": self.minimiser_units,
        }
