"""Priors with a floor under a Gaussian posterior: Laplace, logistic, Student-t, separated modes.

Laplace, p = e^(−|x|)/2: E|x| = σ√(2/π) e^(−μ²/2σ²) + μ erf(μ/σ√2) is least at μ = 0 for every σ,
and −½ ln(2πe) − ln σ + ln 2 + σ√(2/π) at σ* = √(π/2). With r = |μ|/σ and g = ln(σ/σ*),
    KL = δ₁ + (e^g − 1 − g) + σ [r erf(r/√2) − √(2/π) (1 − e^(−r²/2))],                    (1)
    δ₁ = ½ + ln 2 − ln π = 0.0484 nats.                                                    (2)
Logistic, V = x + 2 ln(1 + e^(−x)):  V'' = ½ sech²(x/2) ∈ [0, ½],  |V''''| ≤ ¼.            (3)
Student-t, V = c + ½(ν + 1) ln(1 + x²/ν):  −(ν + 1)/8ν ≤ V'' ≤ (ν + 1)/ν  (at x² = 3ν and 0),
    V'''' = −6(ν + 1) Re (x + i√ν)⁻⁴,  |V''''| ≤ 6(ν + 1)/ν².                              (4)
Mixture of k normals N(m_j, 1), neighbours 2m apart: V'' = 1 − κ₂, V'''' = −κ₄, κ_i the cumulants
    of m_J given x. As |m_J| ≤ R = (k − 1)m, κ₂ ≤ R² and |κ₄| ≤ 2R⁴. Around the middle of the gap
    that x lies in, the i-th further mode on a side has at most r_i = e^(−2i²m²) of the nearest
    one's weight: κ₂ ≤ m² [1 + Σ_i ((2i + 1)² − 1) r_i]; and, as then the p-th raw moments are off
    those of two modes by δ m^p at most, δ = Σ_i ((2i + 1)⁴ + 1) r_i,
    |κ₄| ≤ m⁴ [2 + 75 δ (1 + δ)³].                                                         (5)

δ₁ of the mixture grows with m, towards ln k: added noise brings its modes nearer to each other in
units of their width, keeps q normal, and raises no KL. δ₁ of Student-t falls from 0.1828 nats at
ν = 1 to 3/(4ν²).
Deviations: derived here (docs/maths/mean-field.md).
"""

import math
from collections.abc import Callable
from functools import cached_property
from typing import Any, final

import numpy as np
import torch
from jaxtyping import Float
from scipy.special import betaln
from torch import Tensor
from torch.nn.functional import softplus

from deltavae.certified.base import ScalarPrior, solve_floor
from deltavae.certified.minimum import Certificate, numerical_minimum
from deltavae.certified.quadrature import Rule
from deltavae.certified.quantiles import LogProb

_DEGREES = (1.0, 100.0)
_SEPARATIONS = (0.5, 8.0)
_COMPONENTS_MAX = 5  # the proof takes ever more cells: about 3 s at 5


@final
class Laplace(ScalarPrior):
    """Double exponential density e^(−|x|)/2; its floor is a closed form, eq. (2)."""

    def log_prob(self, x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        """Return ln p(x); see `ScalarPrior.log_prob`."""
        return -x.abs() - math.log(2)

    @cached_property
    def certificate(self) -> Certificate:
        """The floor, eq. (2)."""
        floor = 0.5 + math.log(2) - math.log(math.pi)
        return Certificate(floor, floor, 0.0, math.sqrt(math.pi / 2), True, "closed form")

    def excess(
        self,
        mu: Float[Tensor, "*shape"],
        log_scale: Float[Tensor, "*shape"],
        by: Rule,
    ) -> Float[Tensor, "*shape"]:
        """Compute what N(μ, σ²) costs above the floor, by eq. (1): the rule is not needed."""
        sigma = self.certificate.sigma * log_scale.exp()
        r = mu / sigma
        lift = r * torch.erf(r / math.sqrt(2)) + math.sqrt(2 / math.pi) * torch.expm1(-r * r / 2)
        return (torch.expm1(log_scale) - log_scale).clamp(min=0) + sigma * lift.clamp(min=0)


@final
class Logistic(ScalarPrior):
    """Density of the logistic distribution, sech²(x/2)/4."""

    curvature = (0.0, 0.5)
    quartic = 0.25

    def log_prob(self, x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        """Return ln p(x); see `ScalarPrior.log_prob`."""
        return -x - 2 * softplus(-x)


@final
class StudentT(ScalarPrior):
    """Student's t with ν degrees of freedom; ν = 1 is Cauchy's density. Its knob is ν.

    Args:
        degrees: ν, in [1, 100].

    Attributes:
        degrees: ν.

    Raises:
        ValueError: If degrees leaves its range.
    """

    degrees: float

    def __init__(self, degrees: float = 1.0) -> None:
        if not _DEGREES[0] <= degrees <= _DEGREES[1]:
            raise ValueError(f"degrees must lie in {list(_DEGREES)}, got {degrees}")
        self.degrees = nu = float(degrees)
        self.curvature = (-(nu + 1) / (8 * nu), (nu + 1) / nu)  # (4)
        self.quartic = 6 * (nu + 1) / nu**2
        self._constant = 0.5 * math.log(nu) + float(betaln(0.5, nu / 2))

    def log_prob(self, x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        """Return ln p(x); see `ScalarPrior.log_prob`."""
        nu = self.degrees
        return -self._constant - (nu + 1) / 2 * torch.log1p(x.square() / nu)

    def config(self) -> dict[str, Any]:
        """Return plain arguments that rebuild the prior exactly."""
        return {"degrees": self.degrees}

    @cached_property
    def floors(self) -> tuple[float, float]:
        """Floors at ν = 100 and at ν = 1, in nats."""
        least, most = (numerical_minimum(StudentT(nu).log_prob)[0] for nu in _DEGREES[::-1])
        return least, most

    def at_floor(self, floor: float) -> "StudentT":
        """Turn ν until the floor is as asked; see `ScalarPrior.at_floor`."""
        super().at_floor(floor)
        return StudentT(solve_floor(floor, lambda nu: StudentT(nu).log_prob, _DEGREES))


@final
class GaussianMixture(ScalarPrior):
    """k normals in a row, of equal weight and of standard deviation 1. Its knob is m.

    Args:
        separation: m, half of the distance of neighbours, in [0.5, 8]: at ±m for k = 2.
        components: k, from 2 to 5.

    Attributes:
        separation: m.
        components: k.

    Raises:
        ValueError: If separation or components leave their range.
    """

    separation: float
    components: int

    def __init__(self, separation: float = 2.0, components: int = 2) -> None:
        if not 2 <= components <= _COMPONENTS_MAX:
            raise ValueError(f"components must lie in [2, {_COMPONENTS_MAX}], got {components}")
        if not _SEPARATIONS[0] <= separation <= _SEPARATIONS[1]:
            raise ValueError(f"separation must lie in {list(_SEPARATIONS)}, got {separation}")
        self.separation, self.components = float(separation), components
        i = np.arange(1, components - 1)
        further = np.exp(-2 * (i * separation) ** 2)  # r_i
        second = 1 + float(((2 * i + 1) ** 2 - 1) @ further)
        delta = float(((2 * i + 1) ** 4 + 1) @ further)
        fourth = min(2 + 75 * delta * (1 + delta) ** 3, 2.0 * (components - 1) ** 4)
        variance = min(second, (components - 1.0) ** 2) * separation**2
        self.curvature, self.quartic = (1 - variance, 1.0), fourth * separation**4  # (5)

    def log_prob(self, x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        """Return ln p(x); see `ScalarPrior.log_prob`."""
        k = self.components
        steps = torch.arange(1 - k, k, 2, dtype=x.dtype, device=x.device)
        logits = -0.5 * (x[..., None] - self.separation * steps).square()
        return logits.logsumexp(-1) - math.log(k) - 0.5 * math.log(2 * math.pi)

    def config(self) -> dict[str, Any]:
        """Return plain arguments that rebuild the prior exactly."""
        return {"separation": self.separation, "components": self.components}

    @cached_property
    def floors(self) -> tuple[float, float]:
        """Floor at m = 1/2, and ln k less a millionth, in nats."""
        near = GaussianMixture(_SEPARATIONS[0], self.components)
        return numerical_minimum(near.log_prob)[0], math.log(self.components) * (1 - 1e-6)

    def at_floor(self, floor: float) -> "GaussianMixture":
        """Turn m until the floor is as asked; see `ScalarPrior.at_floor`."""
        super().at_floor(floor)
        k = self.components

        def log_prob_of(separation: float) -> LogProb:
            return GaussianMixture(separation, k).log_prob

        return GaussianMixture(solve_floor(floor, log_prob_of, _SEPARATIONS), k)


@final
class GivenPrior(ScalarPrior):
    """A prior given as a function, for use from Python: no configuration can hold it.

    Args:
        log_prob: ln p, normalised; element by element and differentiable.
        curvature: (l, L) with l ≤ (−ln p)'' ≤ L everywhere; without it the floor is not certified.
        quartic: M with |(−ln p)''''| ≤ M everywhere, if it is known.
    """

    def __init__(
        self,
        log_prob: Callable[[Tensor], Tensor],
        curvature: tuple[float, float] | None = None,
        quartic: float | None = None,
    ) -> None:
        self._log_prob, self.curvature, self.quartic = log_prob, curvature, quartic

    def log_prob(self, x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        """Return ln p(x); see `ScalarPrior.log_prob`."""
        return self._log_prob(x)

    def config(self) -> dict[str, Any]:
        """Refuse, by a ValueError: a function has no plain arguments."""
        raise ValueError(
            "a prior given as a function cannot be kept in a configuration: make it a subclass of "
            "deltavae.certified.ScalarPrior"
        )
