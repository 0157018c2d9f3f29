"""Mean-field Gaussian posterior × AR(p) prior: a line of latents with a memory of p steps.

By its partial autocorrelations κ_1..κ_p in (−1, 1) the prior is one stationary process of unit
variance (`deltavae.priors.autoregressive`). With φ^(t) and S^(t), Levinson–Durbin's predictor of
step t = 0..n−1 and what it leaves (from t = p on the same ones), its whitening is banded and

    δ = ½ d Σ_t ln(1 + f_t),   f_t = S^(t) Σ_{j=1..p, t+j<n} (φ_j^(t+j))²/S^(t+j).           (1)

The default direction, κ = (0.9, −0.5), is a smooth process: φ_1 = 1.35, φ_2 = −0.5. At p = 1 the
pair is `AR1`, which also takes a ladder of α's.

Razavi et al., Preventing Posterior Collapse with δ-VAEs, ICLR 2019, section 3.1,
https://arxiv.org/abs/1901.03416; Barndorff-Nielsen & Schou, On the parametrization of
autoregressive models by partial autocorrelations, Journal of Multivariate Analysis 3(4), 1973,
https://doi.org/10.1016/0047-259X(73)90030-4
Deviations: the paper has p = 1; (1) is derived here.
"""

from collections.abc import Sequence
from typing import Any, final

from deltavae.latents.gaussian import GaussianPair, solved_prior
from deltavae.priors import Autoregressive

_SMOOTH = (0.9, -0.5)


@final
class ARp(GaussianPair):
    """Mean-field Gaussian posterior × AR(p) prior, the same in every channel.

    Args:
        n: Latent steps, at least 1; one step commits nothing.
        d: Latent channels, at least 1.
        partials: Partial autocorrelations κ_1..κ_p, each in (−1, 1).
        minimiser_units: Whether the mean is given in units of σ* and the decoder reads z/σ*.

    Attributes:
        partials: κ.

    Raises:
        ValueError: If an argument leaves its range.
    """

    partials: tuple[float, ...]

    def __init__(
        self,
        n: int,
        d: int,
        partials: Sequence[float] = _SMOOTH,
        minimiser_units: bool = False,
    ) -> None:
        if d < 1:
            raise ValueError(f"d must be at least 1, got {d}")
        prior = Autoregressive(n, partials)
        super().__init__([prior] * d, minimiser_units)
        self.partials = prior.partials

    @classmethod
    def from_rate(
        cls,
        delta: float,
        n: int,
        d: int,
        partials: Sequence[float] = _SMOOTH,
        minimiser_units: bool = False,
    ) -> "ARp":
        """Build the pair whose committed rate is ``delta``.

        Args:
            delta: δ in nats per example, above 0.
            n: Latent steps, at least 2.
            d: Latent channels, at least 1; they share δ equally.
            partials: Direction of κ: the prior gets tanh(s · atanh(partials)), s > 0.
            minimiser_units: As in the constructor.

        Returns:
            The pair.
        """
        prior = solved_prior(delta, d, lambda rate: Autoregressive.from_rate(rate, n, partials))
        return cls(n, d, prior.partials, minimiser_units)

    def config(self) -> dict[str, Any]:
        """Return plain arguments that rebuild the pair exactly."""
        return {
            "n": self.n,
            "d": self.d,
            "partials": list(self.partials),
            "minimiser_units": self.minimiser_units,
        }
