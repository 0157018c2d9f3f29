"""Matérn processes of smoothness ν = 1/2, 3/2 and 5/2, sampled at unit steps.

    k(τ) = e^{−λτ} · {1;  1 + λτ;  1 + λτ + (λτ)²/3},   λ = √(2ν)/ℓ,   k(0) = 1.            (1)

Its spectral density goes as 1/|P(iω)|², P(s) = (s + λ)^m, m = ν + 1/2: a chain of m coordinates
(`chain`) with generator λF, F that of (s + 1)^m. F + I is nilpotent, so one step is a polynomial,

    A = e^{−λ} Σ_{k<m} Bᵏ/k!,   B = λ (F + I),                                             (2)

and with b_k = Bᵏ 1_last/k! the noise that one step adds is a sum over the moments of e^{−2λs}:

    Q = 2cλ Σ_jk b_j b_kᵀ M_{j+k},   M_k = ∫_0^1 sᵏ e^{−2λs} ds = k! γ(k+1, 2λ)/(2λ)^{k+1},  (3)

γ the regularised incomplete gamma function; no term cancels at any ℓ. The whitening and δ follow
from the Kalman filter (`state_space`). At ν = 1/2 this is AR(1) with α = e^{−1/ℓ}. As ℓ grows, δ
per step tends to ½ ln 2, 1.095 and 1.918 nats: the smoother the process, the more it commits.

Hartikainen & Särkkä, Kalman filtering and smoothing solutions to temporal Gaussian process
regression models, MLSP 2010, https://doi.org/10.1109/MLSP.2010.5589113
Deviations: (2) and (3) in closed form and in the coordinates of `chain`.
"""

import math
from typing import final

import numpy as np
from scipy.linalg import hankel
from scipy.special import factorial, gammainc

from deltavae.priors.chain import damped_chain
from deltavae.priors.solve import solve_knob
from deltavae.priors.state_space import StateSpacePrior

# Longest ℓ per ν: the innovation falls like ℓ^(−ν), and float64 must still resolve it beside z.
_LONGEST = {0.5: 1e6, 1.5: 3e4, 2.5: 1e3}
_SHORTEST = 0.01


@final
class Matern(StateSpacePrior):
    """Matérn process at unit steps with unit variance.

    Args:
        n: Steps, at least 1.
        length: Length scale ℓ in steps, above 0, at most 1e6, 3e4, 1e3 for ν = 1/2, 3/2, 5/2.
        nu: Smoothness ν: 0.5, 1.5 or 2.5.

    Attributes:
        length: ℓ.
        nu: ν.

    Raises:
        ValueError: If n, length or nu leave their range.
    """

    length: float
    nu: float

    def __init__(self, n: int, length: float, nu: float = 1.5) -> None:
        if n < 1:
            raise ValueError(f"n must be at least 1, got {n}")
        if nu not in _LONGEST:
            raise ValueError(f"nu must be one of {sorted(_LONGEST)}, got {nu}")
        if not _SHORTEST <= length <= _LONGEST[nu]:
            raise ValueError(
                f"length must lie in [{_SHORTEST:g}, {_LONGEST[nu]:g}] at nu={nu}, got {length}"
            )
        self.length, self.nu = float(length), float(nu)
        m = round(nu + 0.5)
        rate = math.sqrt(2 * nu) / self.length  # λ
        chain = damped_chain(np.poly(-np.ones(m)))
        power, powers = np.eye(m), [np.eye(m)]
        for k in range(1, m):
            power = power @ (rate * (chain + np.eye(m))) / k
            powers.append(power)
        transition = math.exp(-rate) * np.sum(powers, axis=0)  # (2)
        j = np.arange(2 * m - 1)
        moments = factorial(j) * gammainc(j + 1, 2 * rate) / (2 * rate) ** (j + 1)
        gram = hankel(moments[:m], moments[m - 1 :])
        impulses = np.stack([power[:, -1] for power in powers], axis=1)
        noise_root = math.sqrt(-2 * rate * chain[-1, -1]) * impulses @ np.linalg.cholesky(gram)
        super().__init__(n, transition, np.eye(m), noise_root)  # (3)

    @classmethod
    def from_rate(cls, delta: float, n: int, nu: float = 1.5) -> "Matern":
        """Build the process whose committed rate is ``delta``, by its length scale.

        Args:
            delta: δ in nats, above 0.
            n: Steps, at least 2.
            nu: As in the constructor.

        Returns:
            The process.

        Raises:
            ValueError: If nu leaves its range, or no length scale commits delta.
        """
        if nu not in _LONGEST:
            raise ValueError(f"nu must be one of {sorted(_LONGEST)}, got {nu}")
        bounds = (_SHORTEST, _LONGEST[nu])
        within = "length in [{:g}, {:g}]".format(*bounds)
        length = solve_knob(delta, lambda length: cls(n, length, nu), bounds, within)
        return cls(n, length, nu)
