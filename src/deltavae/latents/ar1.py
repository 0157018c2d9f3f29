"""Mean-field Gaussian posterior × stationary AR(1) prior: the choice of the δ-VAE paper.

Per channel z_1 ~ N(0, 1), z_t | z_{t-1} ~ N(α z_{t-1}, 1 − α²), |α| < 1, so that every marginal is
N(0, 1) (`ar1_prior`). With σ = σ* eᵍ, σ*² = 1/Λ_tt, and innovations e_t(μ) the rate is a floor
plus two sums that cannot be negative (`whitened`):

    KL(q ‖ p) = δ + Σ_kt [½ (e²ᵍ − 1 − 2g) + ½ e_t(μ)²],                                   (1)
    δ = ½ Σ_k [(n − 2) ln(1 + α_k²) − ln(1 − α_k²)],   n ≥ 2.                              (2)

Razavi et al., Preventing Posterior Collapse with δ-VAEs, ICLR 2019, section 3.1,
https://arxiv.org/abs/1901.03416
Deviations: form (1) in the place of the textbook's; the options ``minimiser_units`` and
``innovations``; g is bounded (`scale`).
"""

from typing import Any, final

from jaxtyping import Float64
from torch import Tensor

from deltavae.latents.ar1_prior import AR1Prior
from deltavae.latents.whitened import WhitenedPair
from deltavae.rates import Alpha, channels, committed_rate, committed_terms, minimiser, solve_alpha


@final
class AR1(WhitenedPair):
    """Mean-field Gaussian posterior × AR(1) prior.

    Args:
        n: Latent steps, at least 1; one step commits nothing.
        alpha: α per channel, in (−1, 1); a number for one channel.
        minimiser_units: Whether the decoder reads z/σ*; without innovations the mean is given in
            units of σ* too.
        innovations: Whether the mean is given by innovations (`whitened`). The paper's pair has
            both of them False; the study `information` compares.

    Attributes:
        alpha: α per channel, float64.
        proof: See `Latents`.

    A value that leaves its range is a ValueError of `rates`.
    """

    alpha: Float64[Tensor, " d"]
    proof = "closed form: δ = ½ Σ_k [(n − 2) ln(1 + α_k²) − ln(1 − α_k²)]; 0 at n = 1"

    def __init__(
        self, n: int, alpha: Alpha, minimiser_units: bool = True, innovations: bool = True
    ) -> None:
        floor = committed_rate(alpha, n), committed_terms(alpha, n), minimiser(alpha, n)
        super().__init__(*floor, minimiser_units, innovations)
        self.register_buffer("alpha", channels(alpha), persistent=False)

    @classmethod
    def from_rate(
        cls,
        delta: float,
        n: int,
        d: int,
        bounds: tuple[float, float] | None = None,
        minimiser_units: bool = True,
        innovations: bool = True,
    ) -> "AR1":
        """Build the pair whose committed rate is ``delta``.

        Args:
            delta: δ in nats per example, above 0.
            n: Latent steps, at least 2.
            d: Latent channels, at least 1.
            bounds: None for equal α; (lo, hi) for a ladder, scaled as in `rates.solve_alpha`.
            minimiser_units: As in the constructor.
            innovations: As in the constructor.

        Returns:
            The pair.
        """
        return cls(n, solve_alpha(delta, n, d, bounds), minimiser_units, innovations)

    def config(self) -> dict[str, Any]:
        """Return plain arguments that rebuild the pair exactly."""
        return {
            "n": self.n,
            "alpha": self.alpha.tolist(),
            "minimiser_units": self.minimiser_units,
            "innovations": self.innovations,
        }

    @property
    def prior(self) -> AR1Prior:
        """The prior as a torch distribution."""
        return AR1Prior(self.n, self.alpha, validate_args=False)
