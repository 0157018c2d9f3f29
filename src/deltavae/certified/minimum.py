"""The least of f(μ, σ) = KL(N(μ, σ²) ‖ p) over μ and σ > 0, proven from bounds of V = −ln p.

With l ≤ V'' ≤ L and κ = max(0, −l),  f = −½ ln(2πe) − ln σ + G,  G(μ, σ) = E V(μ + σε).    (1)

Where f can be as low as a value U that it takes. At a mode V ≤ V_min + Lx²/2, and ∫p = 1: so
sup p ≤ √(L/2π) and f ≥ −½ − ½ ln L − ln σ. And if an interval A has p(A) ≥ 1 − η and q(A) ≤ ½
(true unless μ ∈ A and σ < |A|/(2Φ⁻¹(¾))), by data processing KL(q ‖ p) ≥ KL(q(A) ‖ p(A)), which is

    ≥ ½ ln(1/η) − ln 2 = U   for η = e^(−2U)/4.                                            (2)

p(A) too is proven: V is at most its chord plus κh²/8 between nodes h apart, which hold a mass of
h √(p p') e^(−κh²/8) at least. On a cell around c: Ĝ of `quadrature` is a positive combination of
V(μ + σt_j), exact for quadratics, so that Ĝ + ½κ(μ² + σ²) is convex. For (μ, σ) = c + r, each term
of the following has its least value on the cell in closed form:

    f ≥ −½ ln(2πe) + Ĝ(c) + ∂_μĜ r_μ + ∂_σĜ r_σ − ½κ‖r‖² − ln σ − (error of Ĝ).            (3)

Cells whose bound is above U less the tolerance are done, the others are halved.

Moore, Kearfott & Cloud, Introduction to Interval Analysis, SIAM 2009, chapter 11,
https://doi.org/10.1137/1.9780898717716
Deviations: (2) and (3), derived here, in the place of interval arithmetic; for rounding, 1e-12 of
the size of what is added up is set aside.
"""

import math
from dataclasses import dataclass
from typing import TypeAlias, final

import numpy as np
import torch
from jaxtyping import Float64
from scipy.optimize import minimize
from scipy.special import ndtri
from torch import Tensor

from deltavae.certified.quadrature import Rule, divergence, rule
from deltavae.certified.quantiles import LogProb, from_noise, spread, tabulate_quantiles

Cells: TypeAlias = Float64[Tensor, "cells 2"]

_ENTROPY = 0.5 * math.log(2 * math.pi * math.e)
_ROUNDING = 1e-12
_LEAST_GAP = 1e-11
_PANELS = [32 << k for k in range(9)]
_CELLS_MAX = 1 << 17
_LEVELS_MAX = 80
_NUMBERS = 1 << 15  # evaluated at once: they stay in the cache
_NODES_MAX = 1 << 22


@final
@dataclass(frozen=True)
class Certificate:
    """The floor of KL(N(μ, σ²) ‖ p) over all μ and σ > 0, per dimension.

    Attributes:
        lower: The floor in nats, at least 0; if certified, no posterior is below it.
        upper: What the posterior at the minimiser costs at most, in nats.
        mu: Mean of a minimiser: a prior with several modes has several.
        sigma: Standard deviation of that minimiser.
        certified: Whether ``lower`` is proven; otherwise it is the least that an optimiser found.
        method: How the floor was found.
        evaluations: How often ln p was evaluated.
    """

    lower: float
    upper: float
    mu: float
    sigma: float
    certified: bool
    method: str
    evaluations: int = 0


def certified_minimum(
    log_prob: LogProb,
    curvature: tuple[float, float],
    quartic: float | None = None,
    relative: float = 5e-7,
) -> Certificate:
    """Prove the floor of KL(N(μ, σ²) ‖ p), from three statements on V = −ln p.

    Args:
        log_prob: ln p, normalised; element by element, differentiable, in float64.
        curvature: l and L with l ≤ V''(x) ≤ L for every x: they say how low f can be between two
            points at which it was evaluated, how narrow p is, and how exact the quadrature.
        quartic: M with |V''''(x)| ≤ M for every x; without it the quadrature needs more nodes, and
            the floor may be proven less tightly.
        relative: Gap asked for as a share of the floor, in (0, 1).

    Returns:
        The floor and a minimiser.

    Raises:
        ValueError: If an argument leaves its range, the density is not normalised, or its tails
            are too heavy to be enclosed.
    """
    low, high = curvature
    if not (-math.inf < low <= high < math.inf and high > 0):
        raise ValueError(f"curvature must be finite (l, L) with l <= L, L > 0, got {curvature}")
    if quartic is not None and not 0 <= quartic < math.inf:
        raise ValueError(f"quartic must be finite and at least 0, got {quartic}")
    if not 0 < relative < 1:
        raise ValueError(f"relative must lie in (0, 1), got {relative}")
    value, mu, sigma = numerical_minimum(log_prob)
    problem = _Problem(log_prob, (low, high), quartic)
    finest = problem.rule(sigma, 0.1 * relative * value)
    at = torch.tensor([[mu, sigma]], dtype=torch.float64)
    upper = float(problem.bounds(at, at, at, 0 * at, finest)[0])
    tolerance = max(relative * upper, 4 * float(problem.error(at[:, 1], finest)), _LEAST_GAP)
    lo, hi = problem.box(upper)
    lower, level = math.inf, 0
    while len(lo) > 0:
        centre, radius = (lo + hi) / 2, (hi - lo) / 2
        curved = problem.kappa * float(radius.square().sum(1).max())
        by = problem.rule(sigma, 0.1 * max(tolerance, curved))
        values, bounds = problem.bounds(lo, hi, centre, radius, by)
        best = int(values.argmin())
        if float(values[best]) < upper:
            upper, at = float(values[best]), centre[best : best + 1]
        is_open = bounds < upper - tolerance
        level += 1
        if level > _LEVELS_MAX or int(is_open.sum()) > _CELLS_MAX:
            is_open = torch.zeros_like(is_open)  # give up the gap, not the proof
        lower = min([lower, *bounds[~is_open].tolist()])
        lo, hi = _halves(lo[is_open], hi[is_open])
    lower = max(0.0, min(lower, upper))
    method = "branch and bound by weak convexity"
    found = float(at[0, 0]), float(at[0, 1])
    return Certificate(lower, upper, *found, True, method, problem.evaluations)


@final
class _Problem:
    """f, its lower bounds on cells, and the box that holds its minima."""

    def __init__(
        self, log_prob: LogProb, curvature: tuple[float, float], quartic: float | None
    ) -> None:
        self.log_prob, self.curvature, self.quartic = log_prob, curvature, quartic
        self.kappa = max(0.0, -curvature[0])
        self.evaluations = 0

    def error(self, sigma: Float64[Tensor, "*cells"], by: Rule) -> Float64[Tensor, "*cells"]:
        return by.error(sigma, self.curvature, self.quartic)

    def rule(self, sigma: float, allowed: float) -> Rule:
        """Return the coarsest rule whose error at σ is as allowed, or the finest there is."""
        at = torch.tensor(sigma, dtype=torch.float64)
        rules = (rule(panels) for panels in _PANELS)
        return next((r for r in rules if float(self.error(at, r)) <= allowed), rule(_PANELS[-1]))

    def values(
        self, points: Cells, by: Rule
    ) -> tuple[Float64[Tensor, " cells"], Float64[Tensor, " cells"], Float64[Tensor, " cells"]]:
        """Return (1) by the rule, and ∂Ĝ/∂μ and ∂Ĝ/∂σ."""
        energies, slopes = [], []
        for chunk in torch.split(points, max(1, _NUMBERS // len(by.nodes))):
            leaf = chunk.detach().clone().requires_grad_()
            with torch.enable_grad():
                x = leaf[:, :1] + leaf[:, 1:] * by.nodes
                energy = -(self.log_prob(x) @ by.weights)
                (slope,) = torch.autograd.grad(energy.sum(), leaf)
            self.evaluations += x.numel()
            energies.append(energy.detach())
            slopes.append(slope)
        slope = torch.cat(slopes)
        return torch.cat(energies) - points[:, 1].log() - _ENTROPY, slope[:, 0], slope[:, 1]

    def bounds(
        self, lo: Cells, hi: Cells, centre: Cells, radius: Cells, by: Rule
    ) -> tuple[Float64[Tensor, " cells"], Float64[Tensor, " cells"]]:
        """Bound f from above at the centres and from below on the cells, eq. (3)."""
        value, by_mu, by_sigma = self.values(centre, by)
        sigma = centre[:, 1]
        rounding = _ROUNDING * (2 + value.abs() + 2 * sigma.log().abs())
        upper = value + self.error(sigma, by) + rounding
        steepest = torch.where(by_sigma > 0, 1 / by_sigma, math.inf)
        turn = torch.minimum(torch.maximum(steepest, lo[:, 1]), hi[:, 1])
        bracket = by_sigma * (turn - sigma) - (turn / sigma).log()  # min of ∂_σĜ r_σ − ln σ/c_σ
        lower = value - by_mu.abs() * radius[:, 0] - 0.5 * self.kappa * radius.square().sum(1)
        return upper, lower + bracket - self.error(hi[:, 1], by) - rounding

    def box(self, upper: float) -> tuple[Cells, Cells]:
        """Return the cells outside of which f is above ``upper``, eq. (2)."""
        left, right = self._interval(0.25 * math.exp(-2 * upper))
        narrow = math.exp(-0.5 - upper) / math.sqrt(self.curvature[1]) * (1 - 1e-9)
        wide = (right - left) / (2 * float(ndtri(0.75))) * (1 + 1e-9)
        sides = 1 + max(1, (math.ceil(wide / narrow) - 1).bit_length())
        sigma = torch.from_numpy(np.geomspace(narrow, max(wide, 2 * narrow), sides))
        mu = torch.linspace(left, right, 9, dtype=torch.float64)
        lo = torch.cartesian_prod(mu[:-1], sigma[:-1])
        return lo, torch.cartesian_prod(mu[1:], sigma[1:])

    def _interval(self, outside: float) -> tuple[float, float]:
        """Find an interval that holds all of p but ``outside``."""
        share = min(1e-3, outside)
        step = math.sqrt(share / (self.curvature[1] + self.kappa))
        reach = 64
        while reach <= _NODES_MAX:
            x = step * torch.arange(-reach, reach + 1, dtype=torch.float64)
            with torch.no_grad():
                log_density = self.log_prob(x)
            self.evaluations += len(x)
            self._refuse_broken_bounds(log_density, step)
            chords = (log_density[1:] + log_density[:-1]) / 2 - self.kappa * step**2 / 8
            mass = chords.exp() * step
            inside = float(mass.sum()) * (1 - 1e-9)
            if inside > 1 + 1e-6:
                raise ValueError(f"log_prob must be normalised: its mass is at least {inside:.6g}")
            if inside >= 1 - share / 2:
                spare = (outside - (1 - inside)) / 2
                first = int((mass.cumsum(0) > spare).int().argmax())
                last = int((mass.flip(0).cumsum(0) > spare).int().argmax())
                return float(x[first]), float(x[len(x) - 1 - last])
            reach *= 2
        raise ValueError(
            f"curvature and log_prob must agree on where the mass is: only {inside:.6g} of it is "
            f"proven to lie within {reach * step / 2:g} of 0; shift or shorten the prior"
        )

    def _refuse_broken_bounds(self, log_density: Float64[Tensor, " x"], step: float) -> None:
        """Second differences of V are values of V'': bounds that they break are no bounds."""
        second = -torch.diff(log_density, n=2) / step**2
        rounding = 1e-13 * float(log_density.abs().max()) / step**2
        least, most = float(second.min()), float(second.max())
        if least < self.curvature[0] - rounding or most > self.curvature[1] + rounding:
            raise ValueError(
                f"curvature must bound (-log_prob)'' everywhere, got {self.curvature}, "
                f"but it reaches {least:.6g} and {most:.6g}"
            )


def _halves(
    lo: Cells, hi: Cells
) -> tuple[Float64[Tensor, "halves 2"], Float64[Tensor, "halves 2"]]:
    """Cut each cell across its longer side."""
    across = (hi - lo).argmax(1, keepdim=True)
    middle = ((lo + hi) / 2).gather(1, across)
    return torch.cat([lo, lo.scatter(1, across, middle)]), torch.cat(
        [hi.scatter(1, across, middle), hi]
    )


def numerical_minimum(
    log_prob: LogProb, starts: int = 16, seed: int = 0
) -> tuple[float, float, float]:
    """Look for the floor by an optimiser that knows nothing of the proof.

    BFGS in (μ, ln σ) on `quadrature.divergence`, from means drawn from p and widths below its own.

    Args:
        log_prob: ln p, normalised; element by element, differentiable, in float64.
        starts: Random starts, at least 1.
        seed: Seed of the starts.

    Returns:
        The least value found in nats, and μ and σ there.

    Raises:
        ValueError: If starts is below 1, or the density is not normalised.
    """
    if starts < 1:
        raise ValueError(f"starts must be at least 1, got {starts}")
    table = tabulate_quantiles(log_prob)
    _, scale = spread(table)

    def value_and_slope(
        point: Float64[np.ndarray, " 2"],
    ) -> tuple[float, Float64[np.ndarray, " 2"]]:
        with torch.enable_grad():
            place = torch.from_numpy(point * [scale, 1.0]).requires_grad_()
            value = divergence(log_prob, place[0], place[1].exp())
            (slope,) = torch.autograd.grad(value, place)
        return value.item(), slope.numpy() * [scale, 1.0]

    generator = np.random.default_rng(seed)
    means = from_noise(torch.from_numpy(generator.standard_normal(starts)), table) / scale
    widths = math.log(scale) - generator.exponential(0.7, starts)
    runs = [
        minimize(value_and_slope, start, jac=True, method="BFGS", options={"gtol": 1e-7})
        for start in np.stack([means.numpy(), widths], axis=1)
    ]
    best = min(runs, key=lambda run: float(run.fun))
    return float(best.fun), float(best.x[0]) * scale, math.exp(float(best.x[1]))
