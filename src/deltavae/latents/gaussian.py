"""Mean-field Gaussian posterior × one Gaussian prior per channel: what all such pairs share.

Channel k of the prior is N(0, Λ_k⁻¹) over the n steps, with innovations e_k(z) = W_k z_k that make
it white, Λ_k = W_kᵀ W_k (`deltavae.priors`). With σ = σ* eᵍ, σ*_tk² = 1/Λ_k,tt, the rate is a
floor plus two terms that cannot be negative:

    KL(q ‖ p) = δ + Σ_tk [½ (e²ᵍ − 1 − 2g) + ½ e_k(μ)_t²],   δ = Σ_k δ_k.                   (1)

Whitening costs O(n) and no n × n matrix is made; it runs in float64, and a square cannot be
negative in any precision. A pair names a family of priors and a knob to turn them with:
``from_rate`` shares δ equally among the channels; where a constructor takes one knob per channel,
they may form a ladder, slow channels beside fast ones.

Razavi et al., Preventing Posterior Collapse with δ-VAEs, ICLR 2019, section 3.1,
https://arxiv.org/abs/1901.03416
Deviations: the paper has AR(1) only; (1) is derived here.
"""

import math
from abc import ABC
from collections.abc import Callable, Hashable, Sequence
from typing import TypeVar

import torch

from deltavae.latents.gaussian_prior import GaussianMarkovPrior
from deltavae.latents.whitened import WhitenedPair
from deltavae.priors import GaussianPrior, OutOfReachError
from deltavae.units import both_units, nats_to_bits

MOST_STEPS = 2**20  # of a pair that says itself how many it has

Knob = TypeVar("Knob", bound=Hashable)
Prior = TypeVar("Prior", bound=GaussianPrior)


def per_channel(knob: float | Sequence[float]) -> tuple[float, ...]:
    """Return a knob as one float per channel; a number stands for one channel."""
    return tuple(map(float, knob)) if isinstance(knob, Sequence) else (float(knob),)


def priors_of(
    knobs: Sequence[Knob], prior_of: Callable[[Knob], GaussianPrior]
) -> list[GaussianPrior]:
    """Build one prior per channel; channels of equal knob share it, and are computed at once."""
    made = {knob: prior_of(knob) for knob in dict.fromkeys(knobs)}
    return [made[knob] for knob in knobs]


def solved_prior(delta: float, d: int, prior_at: Callable[[float], Prior]) -> Prior:
    """Build the prior of each of d channels that share δ equally.

    Args:
        delta: δ of all channels in nats.
        d: Channels, at least 1.
        prior_at: The prior that commits a given rate.

    Returns:
        ``prior_at(delta / d)``.

    Raises:
        ValueError: If d is below 1, or no prior commits delta / d: the message names the d that
            would do.
    """
    if d < 1:
        raise ValueError(f"d must be at least 1, got {d}")
    if not 0 < delta < math.inf:
        raise ValueError(f"delta must be positive and finite, got {delta}")
    try:
        return prior_at(delta / d)
    except OutOfReachError as error:
        few = error.rate * d < delta
        channels = math.ceil(delta / error.rate) if few else math.floor(delta / error.rate)
        advice = f"; d must be at {'least' if few else 'most'} {channels}" if channels else ""
        raise ValueError(
            f"delta={both_units(delta)} is out of reach: n={error.n} steps of d={d} channels "
            f"commit at {'most' if few else 'least'} {nats_to_bits(d * error.rate):.6g} bits with "
            f"{error.knob}{advice}"
        ) from error


class GaussianPair(WhitenedPair, ABC):
    """Mean-field Gaussian posterior × Gaussian prior; abstract.

    Args:
        priors: One per channel, all of n steps; channels may share one object.
        minimiser_units: Whether the mean is given in units of σ* and the decoder reads z/σ*.

    Attributes:
        priors: As given.
        proof: See `Latents`.

    A knob that leaves its range is a ValueError of `deltavae.priors`.
    """

    priors: tuple[GaussianPrior, ...]
    proof = "closed form: δ = ½ Σ_k [Σ_t ln Λ_k,tt − ln det Λ_k], Λ_k the precision of channel k"

    def __init__(self, priors: Sequence[GaussianPrior], minimiser_units: bool = False) -> None:
        super().__init__(
            math.fsum(prior.committed_rate for prior in priors),
            torch.stack([prior.committed_terms for prior in priors], dim=1),
            torch.stack([prior.conditional_scale for prior in priors], dim=1),
            minimiser_units,
        )
        self.priors = tuple(priors)

    @property
    def prior(self) -> GaussianMarkovPrior:
        """The prior as a torch distribution, whose draws are in float64."""
        sigma_star = self.sigma_star
        return GaussianMarkovPrior(self.priors, sigma_star.dtype, sigma_star.device, False)
