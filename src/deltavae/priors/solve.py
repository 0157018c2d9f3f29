"""Turn a prior's own knob until it commits the rate that is asked for.

δ(knob) is continuous and for most priors increasing. Where it is not (the squared exponential
under jitter, some AR(p)), a grid of knobs is climbed to the first that commits enough. Between it
and the one before, δ is nearly a straight line in log-log coordinates: Brent's method takes a few
steps.
"""

import math
import sys
from collections.abc import Callable

import numpy as np
from scipy.optimize import brentq

from deltavae.priors.base import GaussianPrior

_POINTS = 33


def solve_knob(
    delta: float, prior_of: Callable[[float], GaussianPrior], bounds: tuple[float, float]
) -> float:
    """Find the knob at which the committed rate is ``delta``.

    Args:
        delta: Committed rate wanted, in nats, above 0.
        prior_of: The prior at a given knob; its rate is continuous in it.
        bounds: Least and greatest knob, 0 < least < greatest.

    Returns:
        A knob within the bounds with |δ(knob) − delta| ≤ 1e-9 delta: where several have it, one
        left of the first grid point whose rate reaches delta.

    Raises:
        ValueError: If delta or bounds leave their range, or no knob commits delta: the message
            names the rates at hand.
    """
    if not 0 < delta < math.inf:
        raise ValueError(f"delta must be positive and finite, got {delta}")
    if not 0 < bounds[0] < bounds[1] < math.inf:
        raise ValueError(f"bounds must satisfy 0 < least < greatest, got {bounds}")

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
        most_or_least = "most" if gaps[top] < 0 else "least"
        raise ValueError(
            f"delta={delta} nats is out of reach: the {most_or_least} that this prior commits "
            f"within {bounds[0]:g} <= knob <= {bounds[1]:g} is {delta * math.exp(gaps[top]):.6g} "
            "nats; change the number of steps, or share delta among another number of channels"
        )
    root = logs[top]
    if gaps[top] > 0 and top > 0:
        root = brentq(log_ratio, logs[top - 1], logs[top], xtol=1e-14, rtol=1e-15)
    if abs(math.expm1(log_ratio(root))) > 1e-9:
        raise ValueError(f"delta={delta} nats cannot be met to 1e-9 in float64")
    return min(max(math.exp(root), bounds[0]), bounds[1])
