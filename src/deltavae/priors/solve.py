"""Turn a prior's own knob until it commits the rate that is asked for.

δ(knob) is continuous and for most priors increasing. Where it is not (the squared exponential
under jitter, some AR(p)), a grid of knobs is climbed to the first that commits enough. Between it
and the one before, δ is nearly a straight line in log-log coordinates: Brent's method takes a few
steps.
"""

import math
import sys
from collections.abc import Callable
from typing import final

import numpy as np
from scipy.optimize import brentq

from deltavae.priors.base import GaussianPrior

_POINTS = 33


@final
class OutOfReachError(ValueError):
    """No knob commits the rate that is asked for.

    Args:
        delta: Committed rate wanted, in nats.
        rate: The rate nearest to it that some knob commits, in nats.
        n: Steps of the prior.
        knob: The knob and its bounds, in words.

    Attributes:
        rate: As given.
        n: As given.
        knob: As given.
    """

    rate: float
    n: int
    knob: str

    def __init__(self, delta: float, rate: float, n: int, knob: str) -> None:
        bound = "at most" if rate < delta else "at least"
        super().__init__(
            f"delta={delta} nats is out of reach: {n} steps commit {bound} {rate:.6g} nats with "
            f"{knob}; change their number, or share delta among another number of channels"
        )
        self.rate, self.n, self.knob = rate, n, knob


def solve_knob(
    delta: float,
    prior_of: Callable[[float], GaussianPrior],
    bounds: tuple[float, float],
    knob: str | None = None,
) -> float:
    """Find the knob at which the committed rate is ``delta``.

    Args:
        delta: Committed rate wanted, in nats, above 0.
        prior_of: The prior at a given knob; its rate is continuous in it.
        bounds: Least and greatest knob, 0 < least < greatest.
        knob: The knob and its bounds in words, for errors; None: "knob in [least, greatest]".

    Returns:
        A knob within the bounds with |δ(knob) − delta| ≤ 1e-9 delta: where several have it, one
        left of the first grid point whose rate reaches delta.

    Raises:
        OutOfReachError: If no knob commits delta.
        ValueError: If delta or bounds leave their range, or no knob commits anything.
    """
    if not 0 < delta < math.inf:
        raise ValueError(f"delta must be positive and finite, got {delta}")
    if not 0 < bounds[0] < bounds[1] < math.inf:
        raise ValueError(f"bounds must satisfy 0 < least < greatest, got {bounds}")

    n = prior_of(bounds[1]).n
    if n < 2:
        raise ValueError(f"n must be at least 2, got {n}: one step commits nothing")

    def log_ratio(log_knob: float) -> float:
        knob = min(max(math.exp(log_knob), bounds[0]), bounds[1])
        rate = max(prior_of(knob).committed_rate, sys.float_info.min)
        return math.log(rate) - math.log(delta)

    logs, gaps = np.log(np.geomspace(*bounds, _POINTS)).tolist(), list[float]()
    for log_knob in logs:
        gaps.append(log_ratio(log_knob))
        if gaps[-1] >= 0:
            break
    top = int(np.argmax(gaps))
    if gaps[top] < -1e-12 or (top == 0 and gaps[0] > 1e-12):
        rate = delta * math.exp(gaps[top])
        if rate < 2 * sys.float_info.min:
            raise ValueError(f"the {n} steps do not depend on each other: they commit nothing")
        within = f"knob in [{bounds[0]:g}, {bounds[1]:g}]" if knob is None else knob
        raise OutOfReachError(delta, rate, n, within)
    root = logs[top]
    if gaps[top] > 0 and top > 0:
        root = brentq(log_ratio, logs[top - 1], logs[top], xtol=1e-14, rtol=1e-15)
    if abs(math.expm1(log_ratio(root))) > 1e-9:
        raise ValueError(f"delta={delta} nats cannot be met to 1e-9 in float64")
    return min(max(math.exp(root), bounds[0]), bounds[1])
