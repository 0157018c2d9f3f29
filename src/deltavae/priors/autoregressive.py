"""Stationary autoregressive process of order p, by its partial autocorrelations.

    z_t = Σ_{j=1..p} φ_j z_{t−j} + √S e_t,   var(z_t) = 1.                                  (1)

Every choice of partial autocorrelations κ_1..κ_p in (−1, 1) is one stationary process and the
other way round. Levinson–Durbin gives the best predictor from t steps and what variance it leaves,

    φ_t^(t) = κ_t,   φ_j^(t) = φ_j^(t−1) − κ_t φ_{t−j}^(t−1),   S_t = S_{t−1} (1 − κ_t²),     (2)

so that the first p steps, predicted from all there are, start in the stationary law exactly, and
whitening is banded: e_t = (z_t − Σ_j φ_j^(min(t,p)) z_{t−j})/√S_t. At p = 1 it is the paper's
prior with α = κ_1, and δ is that of `rates.committed_rate`.

Barndorff-Nielsen & Schou, On the parametrization of autoregressive models by partial
autocorrelations, Journal of Multivariate Analysis 3(4), 1973,
https://doi.org/10.1016/0047-259X(73)90030-4
"""

import math
from collections.abc import Sequence
from typing import final

import numpy as np
from jaxtyping import Float64

from deltavae.priors.banded import BandedPrior
from deltavae.priors.solve import solve_knob
from deltavae.rates import ALPHA_MAX


@final
class Autoregressive(BandedPrior):
    """Stationary AR(p) process with unit variance; p is the number of partial autocorrelations.

    Args:
        n: Steps, at least 1.
        partials: Partial autocorrelations κ_1..κ_p, each in (−1, 1), at least one.

    Attributes:
        partials: κ.
        coefficients: φ_1..φ_p of (1).

    Raises:
        ValueError: If n is below 1, or partials is empty or leaves (−1, 1).
    """

    partials: tuple[float, ...]
    coefficients: tuple[float, ...]

    def __init__(self, n: int, partials: Sequence[float]) -> None:
        if n < 1:
            raise ValueError(f"n must be at least 1, got {n}")
        self.partials = tuple(float(kappa) for kappa in partials)
        if not self.partials or not all(abs(kappa) < 1 for kappa in self.partials):
            raise ValueError(f"partials must be one or more numbers in (-1, 1), got {partials}")
        predictors, variance = _levinson_durbin(self.partials)
        self.coefficients = tuple(predictors[-1].tolist())
        step = np.minimum(np.arange(n), len(self.partials))
        rows = np.hstack([np.ones((len(predictors), 1)), -predictors])
        super().__init__((rows / np.sqrt(variance)[:, None])[step].T)

    @classmethod
    def from_rate(cls, delta: float, n: int, partials: Sequence[float]) -> "Autoregressive":
        """Build the process whose committed rate is ``delta``.

        Args:
            delta: δ in nats, above 0.
            n: Steps, at least 2.
            partials: Direction of κ: the process gets tanh(s · atanh(partials)) with s > 0 chosen
                to hit delta; signs are kept. One number, whichever, for the paper's AR(1).

        Returns:
            The process, every |κ| at most 1 − 1e-6.

        Raises:
            ValueError: If partials is all 0 or leaves (−1, 1), or delta is out of reach.
        """
        if not any(partials) or not all(abs(kappa) < 1 for kappa in partials):
            raise ValueError(f"partials must lie in (-1, 1) and not all be 0, got {partials}")
        slopes = np.arctanh(np.asarray(partials, dtype=np.float64))
        top = math.atanh(ALPHA_MAX) / float(np.abs(slopes).max())

        def prior_of(scale: float) -> "Autoregressive":
            return cls(n, np.tanh(scale * slopes).tolist())

        within = "every |partial| <= 1 - 1e-6"
        return prior_of(solve_knob(delta, prior_of, (1e-9 * top, top), within))


def _levinson_durbin(
    partials: tuple[float, ...],
) -> tuple[Float64[np.ndarray, "p_plus_1 p"], Float64[np.ndarray, " p_plus_1"]]:
    """Predictors φ^(t) in rows t = 0..p, filled up with zeros, and what they leave, eq. (2)."""
    order = len(partials)
    predictors, variance = np.zeros((order + 1, order)), np.ones(order + 1)
    for t, kappa in enumerate(partials, start=1):
        before = predictors[t - 1, : t - 1]
        predictors[t, : t - 1] = before - kappa * before[::-1]
        predictors[t, t - 1] = kappa
        variance[t] = variance[t - 1] * (1 - kappa) * (1 + kappa)  # (2)
    return predictors, variance
