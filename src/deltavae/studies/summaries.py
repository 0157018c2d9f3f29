"""What the tables and figures of several trainings share.

Names of figures, means over seeds, differences seed by seed with a verdict, the estimate of I(x;z)
with its cap, and what a training cost.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from deltavae.evaluation.evaluate import SATURATION
from deltavae.studies.base import Result
from deltavae.studies.statistics import Interval, holm, mean, paired_difference

LEVEL = 0.05  # of a verdict, after Holm's correction over its table
NAMES = {
    "rate_bits": "rate, bits",
    "aux_rate_bits": "aux rate, bits",
    "mutual_information_bits": "I(x;z) ≥, bits",
    "distortion_bits": "distortion, bits",
    "elbo_bpd": "ELBO, bits/dim",
    "aux_elbo_bpd": "auxiliary bound, bits/dim",
    "active_units": "active units",
}
BOUNDS = {
    "elbo_bpd": "AR(1) prior",
    "aux_elbo_bpd": "auxiliary prior",
    "aux_iwae_bpd": "auxiliary prior, importance-weighted",
}
COST = ("weights", "training, min")
ABOUT_COST = "Weights: all parts together, the auxiliary prior too."
ABOUT_INFORMATION = (
    "The estimate of I(x;z) cannot exceed log₂ of the number of images: within "
    f"{SATURATION:g} bit of that it is saturated, and the truth may be far above."
)
ABOUT_ACTIVE_UNITS = (
    "Active units are those with Var μ > 0.01 σ*². With batch-normalised μ every unit has the "
    "variance of the norm, and is active whatever it says; under a learned prior μ has no scale "
    "of its own, so that the threshold means little."
)


def figures_of(result: Result, split: str) -> Mapping[str, Any]:
    """Return a result's metrics on a split.

    Args:
        result: A result.
        split: "test"; "val", empty without held-out images; or what the study's analysis names.

    Returns:
        The metrics.
    """
    if split == "test":
        return result.metrics
    return result.val if split == "val" else result.analysis[split]


def mean_or_none(values: Iterable[float | None]) -> Interval | None:
    """Return the mean of values; None where there are none or one is missing."""
    known = list(values)
    there = [value for value in known if value is not None]
    return mean(there) if there and len(there) == len(known) else None


def metric(results: Iterable[Result], name: str, split: str = "test") -> Interval | None:
    """Return a metric's mean over results.

    Args:
        results: Results that differ by their seed.
        name: The metric.
        split: As in `figures_of`.

    Returns:
        The mean; None where a result has none.
    """
    return mean_or_none(figures_of(result, split).get(name) for result in results)


def by_seed(results: Iterable[Result], name: str, split: str = "test") -> dict[int, float]:
    """Return a metric by the label "seed" of those results that have it; see `metric`."""
    values = {r.cell.labels["seed"]: figures_of(r, split).get(name) for r in results}
    return {seed: value for seed, value in values.items() if value is not None}


def difference(ours: Mapping[int, float], theirs: Mapping[int, float]) -> Interval | None:
    """Return ours less theirs, seed by seed; None where they share no seed."""
    seeds = sorted(ours.keys() & theirs.keys())
    if not seeds:
        return None
    return paired_difference([ours[seed] for seed in seeds], [theirs[seed] for seed in seeds])


@dataclass(frozen=True)
class Verdict:
    """What several tests together allow to say of one difference.

    Attributes:
        p: Its p-value after Holm's correction; None with fewer than two seeds.
        text: What it is; None likewise: one seed never says that two things are level.
    """

    p: float | None
    text: str | None


def verdicts(
    differences: Sequence[Interval | None], below: str = "below", above: str = "above"
) -> list[Verdict]:
    """Judge differences by two-sided t-tests, corrected after Holm over all of them.

    Args:
        differences: Differences; None where there is none.
        below: What to call one that is below 0, p < LEVEL.
        above: What to call one that is above 0, p < LEVEL.

    Returns:
        Their verdicts, "level" where p ≥ LEVEL.
    """
    tested = [d for d in differences if d is not None and d.count > 1]
    adjusted = iter(holm([d.p_value for d in tested]))
    found = []
    for d in differences:
        if d is None or d.count < 2:
            found.append(Verdict(None, None))
            continue
        p = next(adjusted)
        found.append(Verdict(p, "level" if p >= LEVEL else below if d.value < 0 else above))
    return found


def cap(results: Iterable[Result]) -> float | None:
    """Return the least cap of the estimates of I(x;z), in bits; None where there are none."""
    caps = [result.metrics.get("mutual_information_cap_bits") for result in results]
    return min((value for value in caps if value is not None), default=None)


def information(results: Sequence[Result]) -> Interval | str | None:
    """Return the mean lower bound on I(x;z), in bits, as a table shows it.

    Args:
        results: Results that differ by their seed.

    Returns:
        The mean; as text, with what it lacks, where an estimate met its cap; None without one.
    """
    found, most = metric(results, "mutual_information_bits"), cap(results)
    if found is None or most is None:
        return found
    largest = max(result.metrics["mutual_information_bits"] for result in results)
    return f"≥ {found.value:.1f} (saturated)" if largest > most - SATURATION else found


def cost(results: Sequence[Result]) -> list[Any]:
    """Return the columns COST of results that differ by their seed."""
    metrics = results[0].metrics
    weights = None if metrics["params"] is None else metrics["params"] + metrics["aux_params"]
    seconds = mean_or_none(result.origin.get("train_seconds") for result in results)
    return [weights, None if seconds is None else seconds.value / 60.0]


def asked(target: float | None, unit: str) -> str | None:
    """Return what a method was asked for, as tables show it."""
    return None if target is None else f"{target:g} {unit}"


def spread(interval: Interval) -> float | None:
    """Return the standard deviation of the values behind a mean; None of one value."""
    return None if interval.count < 2 else interval.error * math.sqrt(interval.count)
