"""The quantile transform of a density on the real line, tabulated: x(ε) = F⁻¹(Φ(ε)).

F comes from the trapezoidal rule on x = c + s sinh u, u in [−32, 32], which resolves the middle as
well as the tails: of both tails the one is summed from the left, the other from the right, so that
each is exact relative to itself. Median c and interquartile range 1.35 s are those of the table
before, from c = 0 and s = 1 on. In the end x is interpolated at 2¹² equal steps of ε in [−8, 8].
The density's mass must come out as 1.

Devroye, Non-Uniform Random Variate Generation, Springer 1986, section II.2,
https://doi.org/10.1007/978-1-4613-8643-8
"""

from collections.abc import Callable
from typing import TypeAlias

import numpy as np
import torch
from jaxtyping import Float, Float64
from scipy.special import ndtri
from torch import Tensor

LogProb: TypeAlias = Callable[[Tensor], Tensor]

REACH = 8.0  # ε at both ends of a table: beyond them is a mass of 1e-15
STEPS = 1 << 12
_POINTS = 1 << 15
_WIDEST = 32.0
_ROUNDS = 6


def tabulate_quantiles(log_prob: LogProb) -> Float64[Tensor, " knots"]:
    """Tabulate x(ε) of a density.

    Args:
        log_prob: ln p, element by element, of a float64 tensor on the CPU.

    Returns:
        x at the 4097 equally spaced ε in [−8, 8], increasing.

    Raises:
        ValueError: If the density is not finite, or its mass is not 1 to within 1e-3.
    """
    u = np.linspace(-_WIDEST, _WIDEST, _POINTS + 1)
    noise = torch.linspace(-REACH, REACH, STEPS + 1, dtype=torch.float64)
    centre, scale = 0.0, 1.0
    for _ in range(_ROUNDS):
        x = centre + scale * np.sinh(u)
        with torch.no_grad():
            log_density = log_prob(torch.from_numpy(x)).numpy()
        if np.isnan(log_density).any() or np.isposinf(log_density).any():
            raise ValueError("log_prob must be a number or -inf everywhere on the real line")
        density = np.exp(log_density + np.log(scale * np.cosh(u)))
        panels = 0.5 * np.diff(u) * (density[1:] + density[:-1])
        mass = float(panels.sum())
        if not mass > 0:
            raise ValueError("log_prob must be that of a density with mass near 0")
        below = np.cumsum(panels) / mass  # up to the right end of each panel but the last
        above = np.cumsum(panels[::-1])[::-1] / mass
        inner = (below[:-1] > 0) & (above[1:] > 0)
        below, above = below[:-1][inner], above[1:][inner]
        levels, first = np.unique(
            np.where(below < above, ndtri(below), -ndtri(above)), return_index=True
        )
        table = torch.from_numpy(np.interp(noise.numpy(), levels, x[1:-1][inner][first]))
        centre, scale = spread(table)
    if abs(mass - 1) > 1e-3:
        raise ValueError(f"log_prob must be normalised: the mass of its density is {mass:.6g}")
    return table


def from_noise(
    noise: Float[Tensor, "*shape"], table: Float[Tensor, " knots"]
) -> Float[Tensor, "*shape"]:
    """Turn standard normal noise into draws by a table: linear between its knots.

    Args:
        noise: Standard normal noise; what lies beyond ±8 is moved there.
        table: x at equally spaced ε in [−8, 8].

    Returns:
        Draws, in the type of the noise.
    """
    steps = len(table) - 1
    place = (noise.double().clamp(-REACH, REACH) + REACH) * (steps / (2 * REACH))
    left = place.floor().clamp(max=steps - 1)
    knots = left.long()
    drawn = torch.lerp(table[knots], table[knots + 1], place - left)
    return drawn.to(noise.dtype)


def spread(table: Float64[Tensor, " knots"]) -> tuple[float, float]:
    """Return median and the standard deviation of the normal with the same middle half."""
    marks = torch.tensor([-0.6745, 0.0, 0.6745], dtype=torch.float64)
    low, median, high = from_noise(marks, table).tolist()
    return median, (high - low) / (2 * 0.6745)
