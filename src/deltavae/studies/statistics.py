"""Means over seeds, paired differences, and how sure one may be of them.

Values x_i, i = 1..m, one per seed, have mean x̄ and standard error s/√m, s² = Σ(x_i − x̄)²/(m − 1);
x̄ ± t_{m−1, 1−level/2} s/√m covers the truth with probability 1 − level if the x_i are normal.
Trainings that share their seed share the order of the data: the difference of two methods is
taken seed by seed, and its s is that of the differences.

Power: with true difference Δ and standard deviation s of the differences, the statistic of the
paired t-test is noncentral t with m − 1 degrees of freedom and noncentrality Δ√m/s; `seeds_needed`
is the smallest m whose power reaches what is asked for (Cohen, Statistical Power Analysis for the
Behavioral Sciences, 1988, chapter 2).

Several tests at once: Holm (1979), https://www.jstor.org/stable/4615733.
"""

import math
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats


@dataclass(frozen=True)
class Interval:
    """A number and how sure it is.

    Attributes:
        value: The estimate.
        error: Its standard error; NaN where it cannot be told.
        low: Lower end of the confidence interval; NaN likewise.
        high: Upper end.
        count: Values that it comes from.
    """

    value: float
    error: float
    low: float
    high: float
    count: int

    @property
    def excludes_zero(self) -> bool:
        """Whether the whole interval lies on one side of 0."""
        return self.low > 0 or self.high < 0

    @property
    def p_value(self) -> float:
        """Probability of a mean so far from 0 if the truth were 0 (two-sided t-test), or NaN."""
        if self.error == 0:
            return float(self.value == 0)
        return 2 * float(stats.t.sf(abs(self.value) / self.error, self.count - 1))


def mean(values: Sequence[float], level: float = 0.05) -> Interval:
    """Mean of independent values with Student's interval.

    >>> mean([1.0, 2.0, 3.0]).value
    2.0

    Args:
        values: At least one; of one alone the error is not known.
        level: Probability that the interval misses the truth, in (0, 1).

    Returns:
        The mean.

    Raises:
        ValueError: If there are no values or level leaves (0, 1).
    """
    x = np.asarray(values, dtype=np.float64)
    if x.size == 0:
        raise ValueError("values must not be empty")
    _check_level(level)
    middle = float(x.mean())
    if x.size == 1:
        return Interval(middle, math.nan, math.nan, math.nan, 1)
    error = float(stats.sem(x))
    reach = error * float(stats.t.ppf(1 - level / 2, x.size - 1))
    return Interval(middle, error, middle - reach, middle + reach, x.size)


def paired_difference(a: Sequence[float], b: Sequence[float], level: float = 0.05) -> Interval:
    """Mean of a − b, taken pair by pair, with Student's interval.

    Args:
        a: Values of one method, seed by seed.
        b: Values of the other, of the same seeds in the same order.
        level: Probability that the interval misses the truth, in (0, 1).

    Returns:
        The mean difference.

    Raises:
        ValueError: If the lengths differ, there are no values, or level leaves (0, 1).
    """
    if len(a) != len(b):
        raise ValueError(f"a and b must be pairs, got {len(a)} and {len(b)} values")
    return mean([first - second for first, second in zip(a, b, strict=True)], level)


def paired_power(seeds: int, sd: float, effect: float, level: float = 0.05) -> float:
    """Probability that a two-sided paired t-test sees a true difference.

    Args:
        seeds: Pairs, at least 2.
        sd: Standard deviation of the differences, above 0.
        effect: True mean difference.
        level: Probability of seeing one where there is none, in (0, 1).

    Returns:
        The power, in [level, 1].

    Raises:
        ValueError: If an argument leaves its range.
    """
    if seeds < 2:
        raise ValueError(f"seeds must be at least 2, got {seeds}")
    if not 0 < sd < math.inf:
        raise ValueError(f"sd must be positive and finite, got {sd}")
    _check_level(level)
    critical = float(stats.t.ppf(1 - level / 2, seeds - 1))
    shift = abs(effect) * math.sqrt(seeds) / sd
    # Over the quantiles of the estimated deviation: scipy's noncentral t is NaN at large shifts.
    nodes, weights = np.polynomial.legendre.leggauss(400)
    x = (1 + nodes) / 2
    quantile, slope = x**3 * (10 - 15 * x + 6 * x**2), 30 * (x * (1 - x)) ** 2  # flat at both ends
    scale = np.sqrt(stats.chi2.ppf(quantile, seeds - 1) / (seeds - 1))
    seen = stats.norm.sf(critical * scale - shift) + stats.norm.cdf(-critical * scale - shift)
    return min(1.0, float(0.5 * (weights * slope) @ seen))


def seeds_needed(sd: float, effect: float, power: float = 0.8, level: float = 0.05) -> int:
    """Smallest number of pairs with which a paired t-test has the power asked for.

    >>> seeds_needed(sd=1.0, effect=1.0)
    10

    Args:
        sd: Standard deviation of the differences, above 0, from pilot runs.
        effect: True mean difference that is to be seen, not 0.
        power: Probability of seeing it, in (0, 1).
        level: Probability of seeing one where there is none, in (0, 1).

    Returns:
        Pairs, at least 2.

    Raises:
        ValueError: If an argument leaves its range.
    """
    if effect == 0 or not math.isfinite(effect):
        raise ValueError(f"effect must be finite and not 0, got {effect}")
    if not 0 < power < 1:
        raise ValueError(f"power must lie in (0, 1), got {power}")
    most = 2
    while paired_power(most, sd, effect, level) < power:
        most *= 2
    candidates = range(2, most + 1)  # the power grows with the number of pairs
    return candidates[
        bisect_left(candidates, power, key=lambda m: paired_power(m, sd, effect, level))
    ]


def interpolate(at: float, x: Sequence[float], y: Sequence[float]) -> float | None:
    """Value of y at a given x on the straight lines between points.

    >>> interpolate(1.5, [2.0, 1.0], [0.0, 10.0])
    5.0

    Args:
        at: Where.
        x: Abscissae of the points, in any order; points with the same one count as their mean.
        y: Their ordinates.

    Returns:
        y; None where `at` lies outside the points, which is never extrapolated.

    Raises:
        ValueError: If the lengths differ.
    """
    if len(x) != len(y):
        raise ValueError(f"x and y must be coordinates of points, got {len(x)} and {len(y)}")
    places, inverse, counts = np.unique(x, return_inverse=True, return_counts=True)
    if not (len(places) and places[0] <= at <= places[-1]):
        return None
    heights = np.bincount(inverse, np.asarray(y, np.float64)) / counts
    return float(np.interp(at, places, heights))


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjust p-values of several tests so that one false finding is as unlikely as in one test.

    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]

    Args:
        p_values: In any order, each in [0, 1].

    Returns:
        Adjusted p-values in the same order: a test holds at a level if its own is at most that.

    Raises:
        ValueError: If a value leaves [0, 1].
    """
    if not all(0 <= p <= 1 for p in p_values):
        raise ValueError(f"p_values must lie in [0, 1], got {list(p_values)}")
    adjusted, largest = [0.0] * len(p_values), 0.0
    for rank, i in enumerate(np.argsort(p_values, stable=True)):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[i]))
        adjusted[i] = largest
    return adjusted


def _check_level(level: float) -> None:
    if not 0 < level < 1:
        raise ValueError(f"level must lie in (0, 1), got {level}")
