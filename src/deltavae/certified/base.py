"""What a prior on the real line is, for a posterior N(μ, σ²) that can never equal it.

A prior says ln p and two numbers l ≤ (−ln p)'' ≤ L; from these its floor

    δ₁ = min over μ ∈ ℝ, σ > 0 of KL(N(μ, σ²) ‖ p)                                         (1)

is proven (`minimum`), and what a posterior costs above it is computed as

    excess = Ĝ(μ, σ) − Ĝ(μ*, σ*) − ln(σ/σ*) + [f̂(μ*, σ*) − δ₁] + e(σ) ≥ 0,                 (2)

Ĝ the quadrature of E[−ln p] and e(σ) the bound of its error (`quadrature`), (μ*, σ*) a minimiser,
f̂ the KL by quadrature. So (2) is never below the true excess, and above it by 2e(σ) at most: the
bound that training maximises stays a bound. Shifting and stretching p shifts and stretches its
posteriors with it: neither moves the floor.

Deviations: derived here.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import cached_property
from typing import Any, final

from jaxtyping import Float, Float64
from scipy.optimize import brentq
from torch import Tensor

from deltavae.certified.minimum import Certificate, certified_minimum, numerical_minimum
from deltavae.certified.quadrature import Rule
from deltavae.certified.quantiles import LogProb, tabulate_quantiles


class ScalarPrior(ABC):
    """A density on the real line that is no Gaussian. Your own: ``log_prob`` and ``curvature``.

    Attributes:
        curvature: (l, L) with l ≤ (−ln p)'' ≤ L everywhere; None: the floor is the least that an
            optimiser finds, and no more than that.
        quartic: M with |(−ln p)''''| ≤ M everywhere, if it is known: it sharpens the quadrature.
    """

    curvature: tuple[float, float] | None = None
    quartic: float | None = None

    @abstractmethod
    def log_prob(self, x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        """Return ln p(x), normalised; element by element and differentiable.

        Args:
            x: Any real numbers.

        Returns:
            Log-density in nats, in the type of x.
        """

    def config(self) -> dict[str, Any]:
        """Return plain arguments: ``type(self)(**self.config())`` is the same prior exactly."""
        return {}

    @final
    def specification(self) -> dict[str, Any]:
        """Return the {class_path, init_args} from which a configuration builds the prior."""
        path = f"{type(self).__module__}.{type(self).__qualname__}"
        return {"class_path": path, "init_args": self.config()}

    @cached_property
    def certificate(self) -> Certificate:
        """The floor (1), proven where ``curvature`` is known."""
        if self.curvature is not None:
            return certified_minimum(self.log_prob, self.curvature, self.quartic)
        value, mu, sigma = numerical_minimum(self.log_prob)
        return Certificate(value, value, mu, sigma, False, "the least that an optimiser found")

    @cached_property
    def quantiles(self) -> Float64[Tensor, " knots"]:
        """The quantile transform x = F⁻¹(Φ(noise)) as a table (`quantiles`)."""
        return tabulate_quantiles(self.log_prob)

    @property
    def floors(self) -> tuple[float, float]:
        """Least and greatest floor in nats that the prior's knob reaches; equal without a knob."""
        return self.certificate.lower, self.certificate.lower

    def at_floor(self, floor: float) -> "ScalarPrior":
        """Turn the knob until the floor is as asked, to within 1e-6 of itself.

        Args:
            floor: Nats per dimension, within ``floors``.

        Returns:
            A prior of the same family.

        Raises:
            ValueError: If the family does not reach the floor.
        """
        least, most = self.floors
        if not least * (1 - 1e-6) <= floor <= most * (1 + 1e-6):
            raise ValueError(
                f"floor must lie in [{least:.6g}, {most:.6g}] nats per dimension for "
                f"{type(self).__name__}, got {floor}"
            )
        return self

    def excess(
        self,
        mu: Float[Tensor, "*shape"],
        log_scale: Float[Tensor, "*shape"],
        by: Rule,
    ) -> Float[Tensor, "*shape"]:
        """Compute what N(μ, σ²) costs above the floor, eq. (2).

        Args:
            mu: Means μ.
            log_scale: ln(σ/σ*).
            by: The rule of the quadrature, in float64.

        Returns:
            Nats, at least 0: too much by at most twice ``by.error(σ, …)`` if the floor is
            certified; else what the quadrature says, or 0 where that is below the floor found.
        """
        least = self.certificate
        sigma = least.sigma * log_scale.exp()
        reference = self.log_prob(least.mu + least.sigma * by.nodes)
        x = mu[..., None] + sigma[..., None] * by.nodes.to(mu.dtype)
        # the difference is summed, not the sums subtracted: near the floor nothing cancels
        rise = (reference.to(mu.dtype) - self.log_prob(x)) @ by.weights.to(mu.dtype)
        total = rise - log_scale
        if self.curvature is not None:
            entropy = 0.5 * math.log(2 * math.pi * math.e) + math.log(least.sigma)
            above = (-(reference @ by.weights) - entropy - least.lower).to(mu.dtype)
            total = total + above + by.error(sigma, self.curvature, self.quartic)  # (2)
        return total.clamp(min=0)  # rounding alone, unless no proof says that δ₁ is the least


def solve_floor(
    floor: float, prior_of: Callable[[float], LogProb], bounds: tuple[float, float]
) -> float:
    """Find the knob at which the floor is as asked: it must be monotone in it.

    Args:
        floor: Nats.
        prior_of: ln p at a given knob.
        bounds: Least and greatest knob, between which the floor is taken.

    Returns:
        The knob.
    """

    def gap(log_knob: float) -> float:
        value, _, _ = numerical_minimum(prior_of(_within(math.exp(log_knob), bounds)), starts=6)
        return math.log(max(value, 1e-300) / floor)

    ends = math.log(bounds[0]), math.log(bounds[1])
    gaps = [gap(end) for end in ends]
    if gaps[0] * gaps[1] > 0:  # asked for one of the ends, up to rounding
        return bounds[int(abs(gaps[1]) < abs(gaps[0]))]
    return _within(math.exp(brentq(gap, *ends, xtol=1e-9, rtol=1e-10)), bounds)


def _within(knob: float, bounds: tuple[float, float]) -> float:
    return min(max(knob, bounds[0]), bounds[1])
