"""Mean-field Gaussian posterior × a process close to the squared exponential, with jitter.

The prior is the stationary process of state-space order m whose autocorrelation comes nearest to
e^{−τ²/2ℓ²} (`deltavae.priors.squared_exponential` says how near), mixed with a share of white
noise, the jitter, that keeps it from being determined by its own past. Its Kalman filter gives the
innovations and

    δ = ½ Σ_k Σ_t ln(1 + f_tk)                                                             (1)

in O(n). The smaller the jitter, the more can be committed: a step that the others almost determine
is dear to a posterior that knows nothing of them.

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
class SquaredExponential(GaussianPair):
    """Mean-field Gaussian posterior × `deltavae.priors.SquaredExponential`.

    Args:
        n: Latent steps, at least 1; one step commits nothing.
        length: Length scale ℓ in steps of each channel, in [0.01, 1e4]; a number for one channel.
        jitter: Share of white noise in the variance, in [1e-6, 1).
        order: Order m of the state, in 2..12.
        minimiser_units: Whether the mean is given in units of σ* and the decoder reads z/σ*.

    Attributes:
        length: ℓ of each channel.
        jitter: Share of white noise.
        order: m.

    An argument that leaves its range is a ValueError of `deltavae.priors`.
    """

    length: tuple[float, ...]
    jitter: float
    order: int

    def __init__(
        self,
        n: int,
        length: float | Sequence[float],
        jitter: float = 1e-4,
        order: int = 10,
        minimiser_units: bool = False,
    ) -> None:
        lengths = per_channel(length)
        made = priors_of(lengths, lambda ell: priors.SquaredExponential(n, ell, jitter, order))
        super().__init__(made, minimiser_units)
        self.length, self.jitter, self.order = lengths, float(jitter), order

    @classmethod
    def from_rate(
        cls,
        delta: float,
        n: int,
        d: int,
        jitter: float = 1e-4,
        order: int = 10,
        minimiser_units: bool = False,
    ) -> "SquaredExponential":
        """Build the pair whose committed rate is ``delta``, by its length scale.

        Args:
            delta: δ in nats per example, above 0.
            n: Latent steps, at least 2.
            d: Latent channels, at least 1; they share δ equally.
            jitter: As in the constructor.
            order: As in the constructor.
            minimiser_units: As in the constructor.

        Returns:
            The pair.
        """
        prior = solved_prior(
            delta, d, lambda rate: priors.SquaredExponential.from_rate(rate, n, jitter, order)
        )
        return cls(n, [prior.length] * d, jitter, order, minimiser_units)

    def config(self) -> dict[str, Any]:
        """Return plain arguments that rebuild the pair exactly."""
        return {
            "n": self.n,
            "length": list(self.length),
            "jitter": self.jitter,
            "order": self.order,
            "minimiser_units": self.minimiser_units,
        }
