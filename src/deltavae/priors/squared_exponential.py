"""A process close to the squared exponential, with jitter, by a state-space form of finite order.

The squared exponential, k(τ) = e^{−τ²/2ℓ²}, has no finite state. Cutting the series of 1/density
at order m leaves a process that has one,

    density ∝ 1/Σ_{j≤m} (ℓω)^{2j}/(2ʲ j!),                                                 (1)

whose stable factor gives a chain (`chain`) with stationary covariance I, so that A = e^{F/ℓ} and
Q = I − A Aᵀ. What the latents see is z_t = √(1 − jitter) s_t0 + √jitter v_t, of variance 1.

**This is the prior**, not the squared exponential: whitening, samples and δ are all those of (1).
Its autocorrelation before the jitter differs from e^{−τ²/2ℓ²}, at any ℓ and τ, by at most

    m        2       4       6       8       10      12
    error    0.134   0.0217  0.0043  9.2e-4  2.1e-4  4.7e-5

Without jitter the next step would follow from the last few to more digits than float64 has, and δ
would be a matter of rounding: jitter has to be at least 1e-6. Under jitter δ first grows with ℓ
and then falls, for all steps together then show the state; `from_rate` stays where it grows.

Hartikainen & Särkkä, Kalman filtering and smoothing solutions to temporal Gaussian process
regression models, MLSP 2010, https://doi.org/10.1109/MLSP.2010.5589113
"""

import math
from typing import final

import numpy as np
from jaxtyping import Float64
from scipy.linalg import expm
from scipy.special import factorial

from deltavae.priors.chain import damped_chain
from deltavae.priors.solve import solve_knob
from deltavae.priors.state_space import StateSpacePrior

_SHORTEST, _LONGEST = 0.01, 1e4
_LEAST_JITTER = 1e-6
_HIGHEST_ORDER = 12


@final
class SquaredExponential(StateSpacePrior):
    """Process near the squared exponential at unit steps, with jitter; unit variance.

    Args:
        n: Steps, at least 1.
        length: Length scale ℓ in steps, in [0.01, 1e4].
        jitter: Share of white noise in the variance, in [1e-6, 1).
        order: Order m of the state, in 2..12: how near, see the table above.

    Attributes:
        length: ℓ.
        jitter: Share of white noise.
        order: m.

    Raises:
        ValueError: If an argument leaves its range.
    """

    length: float
    jitter: float
    order: int

    def __init__(self, n: int, length: float, jitter: float = 1e-4, order: int = 10) -> None:
        if n < 1:
            raise ValueError(f"n must be at least 1, got {n}")
        if not _SHORTEST <= length <= _LONGEST:
            raise ValueError(f"length must lie in [{_SHORTEST:g}, {_LONGEST:g}], got {length}")
        if not _LEAST_JITTER <= jitter < 1:
            raise ValueError(f"jitter must lie in [{_LEAST_JITTER:g}, 1), got {jitter}")
        if not 2 <= order <= _HIGHEST_ORDER:
            raise ValueError(f"order must lie in 2..{_HIGHEST_ORDER}, got {order}")
        self.length, self.jitter, self.order = float(length), float(jitter), order
        transition = expm(_chain(order) / self.length)
        variances, axes = np.linalg.eigh(np.eye(order) - transition @ transition.T)
        noise_root = axes * np.sqrt(variances.clip(min=0))
        signal = math.sqrt(1 - jitter)
        start_root, noise_root = signal * np.eye(order), signal * noise_root
        super().__init__(n, transition, start_root, noise_root, self.jitter)

    @classmethod
    def from_rate(
        cls, delta: float, n: int, jitter: float = 1e-4, order: int = 10
    ) -> "SquaredExponential":
        """Build the process whose committed rate is ``delta``, by its length scale.

        Args:
            delta: δ in nats, above 0.
            n: Steps, at least 2.
            jitter: As in the constructor.
            order: As in the constructor.

        Returns:
            The process; the less jitter, the more can be committed.
        """

        def prior_of(length: float) -> "SquaredExponential":
            return cls(n, length, jitter, order)

        bounds = (_SHORTEST, _LONGEST)
        return prior_of(
            solve_knob(delta, prior_of, bounds, "length in [{:g}, {:g}]".format(*bounds))
        )


def _chain(order: int) -> Float64[np.ndarray, "m m"]:
    """F of (1) at ℓ = 1, from the roots s = iω of the series that lie left of the axis."""
    powers = np.arange(order, -1, -1)
    series = np.zeros(2 * order + 1)
    series[::2] = (-0.5) ** powers / factorial(powers)  # in s², since (iω)² = −ω²
    roots = np.roots(series)
    return damped_chain(np.real(np.poly(roots[roots.real < 0])))
