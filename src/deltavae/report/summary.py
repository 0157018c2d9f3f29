"""What came out, in words: sentences that follow from the numbers by fixed rules.

For one or several runs, the first of which is "the run":

    * A run's bound is the lowest of its upper bounds on −log p(x) in bits/dim; without latents it
      is exact.
    * Of two bounds a and b one is lower only if |a − b| > 2 √(se_a² + se_b²). Both errors are of
      means over the same examples, so a paired comparison would be sharper; and they say nothing
      about another seed.
    * Bounds are compared only where data, number of dimensions and number of examples agree.
    * A rate is at its floor if it exceeds δ by no more than 5 % of δ and two standard errors.
    * A VAE that commits nothing (δ = 0) has collapsed if its rate is no more than 0.1 bits and two
      standard errors. How much of it survived is the last entry of the log against the highest.

Warnings are those of the evaluation (`evaluation.evaluate.warnings`), and two more: a rate below
δ, and an auxiliary prior that fits worse than the model's own.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from deltavae.evaluation.evaluate import FLOOR_MARGIN, NEAR_ZERO

BOUNDS = {
    "elbo_bpd": "ELBO",
    "aux_elbo_bpd": "ELBO, auxiliary prior",
    "iwae_bpd": "importance-weighted",
    "aux_iwae_bpd": "importance-weighted, auxiliary prior",
}


@dataclass(frozen=True)
class Result:
    """What the summary reads of a run.

    Attributes:
        name: How the page calls it.
        metrics: Its metrics on one split.
        log: The entries of its training log.
        data: Fingerprint of its data set; None where it is not known.
    """

    name: str
    metrics: Mapping[str, Any]
    log: Sequence[Mapping[str, float]] = ()
    data: str | None = None

    def get(self, key: str) -> float | None:
        """Return a metric, None where it is null or missing."""
        value = self.metrics.get(key)
        return None if value is None else float(value)

    def se(self, key: str) -> float:
        """Return a metric's standard error, 0 where there is none."""
        return self.get(f"{key}_se") or 0.0

    def show(self, key: str) -> str:
        """Return "value ± standard error" of a metric in bits; "–" where there is none."""
        value, se = self.get(key), self.get(f"{key}_se")
        if value is None:
            return "–"
        digits = 2 if se is None or se >= 0.02 else 3
        return f"{value:.{digits}f}" + ("" if se is None else f" ± {se:.{digits}f}")

    @property
    def has_latents(self) -> bool:
        """Whether the run's model has latents."""
        return self.get("rate_bits") is not None

    @property
    def bound(self) -> "Bound | None":
        """The lowest of the run's bounds; None where it has none with a standard error."""
        found = [
            Bound(key, value, se)
            for key in BOUNDS
            if (value := self.get(key)) is not None and (se := self.get(f"{key}_se")) is not None
        ]
        return min(found, key=lambda bound: bound.bpd, default=None)


@dataclass(frozen=True)
class Bound:
    """An upper bound on −log p(x), a mean over examples.

    Attributes:
        key: Its name among the metrics.
        bpd: Bits/dim.
        se: Its standard error.
    """

    key: str
    bpd: float
    se: float


@dataclass(frozen=True)
class Ranking:
    """Runs by their bounds.

    Attributes:
        order: The runs and their bounds, lowest first; empty where they cannot be compared.
        obstacle: Why they cannot; empty where they can.
    """

    order: tuple[tuple[Result, Bound], ...] = ()
    obstacle: str = ""

    @property
    def level(self) -> tuple[tuple[Result, Bound], ...]:
        """The runs behind the first by no more than two combined standard errors."""
        return tuple(
            (result, bound)
            for result, bound in self.order[1:]
            if bound.bpd - self.order[0][1].bpd <= 2 * combined_se(self.order[0][1], bound)
        )

    @property
    def winner(self) -> Result | None:
        """The first of at least two runs, if no other is level with it."""
        return self.order[0][0] if len(self.order) > 1 and not self.level else None


@dataclass(frozen=True)
class Summary:
    """What came out, in words.

    Attributes:
        sentences: What the numbers say.
        warnings: What a reader should not overlook.
    """

    sentences: tuple[str, ...]
    warnings: tuple[str, ...]


def combined_se(a: Bound, b: Bound) -> float:
    """Return the standard error of the difference of two bounds, as if they were independent."""
    return math.hypot(a.se, b.se)


def rank(results: Sequence[Result]) -> Ranking:
    """Order runs by their bounds.

    Args:
        results: The runs.

    Returns:
        The ranking, or why there is none.
    """
    for what, values in (
        ("data sets", {r.data for r in results} - {None}),
        ("dimensions", {r.get("dims") for r in results} - {None}),
        ("numbers of examples", {r.get("examples") for r in results} - {None}),
    ):
        if len(values) > 1:
            return Ranking(obstacle=f"the runs have different {what}")
    found = [(result, bound) for result in results if (bound := result.bound) is not None]
    if len(found) < len(results):
        missing = ", ".join(r.name for r in results if r.bound is None)
        return Ranking(obstacle=f"no bound with a standard error for {missing}")
    return Ranking(tuple(sorted(found, key=lambda pair: pair[1].bpd)))


def summarise(results: Sequence[Result], split: str = "test") -> Summary:
    """Say what came out.

    Args:
        results: The runs, the run in question first; at least one.
        split: The split on which they were evaluated.

    Returns:
        Sentences and warnings.
    """
    ranking = rank(results)
    sentences = [text for r in results for text in _rate_sentences(r, split)]
    sentences += _bound_sentences(results, ranking)
    warnings = [text for r in results for text in _warnings(r)]
    if ranking.obstacle and len(results) > 1:
        warnings.append(f"bits/dim are not compared: {ranking.obstacle}")
    return Summary(tuple(sentences), tuple(warnings))


def _near(result: Result, level: float, margin: float) -> bool:
    # The rate lies above a level by no more than a margin and two standard errors.
    return (result.get("rate_bits") or 0.0) - level <= margin + 2 * result.se("rate_bits")


def _rate_sentences(result: Result, split: str) -> Iterator[str]:
    rate, delta = result.get("rate_bits"), result.get("committed_rate_bits")
    name = result.name
    if rate is None or delta is None:
        yield f"{name} has no latents: its bits/dim are exact."
        return
    if delta > 0:
        current = result.get("current_committed_rate_bits")
        present = delta if current is None else current
        above = f"{rate - present:.2f} bits above it"
        where = "at that floor" if _near(result, present, FLOOR_MARGIN * present) else above
        learned = "" if current is None else f", {current:.2f} by the prior that it has learned"
        yield (
            f"{name} commits δ = {delta:.2f} bits per example{learned}; on the {split} split its "
            f"rate is {result.show('rate_bits')} bits, {where}."
        )
    elif (floor := result.get("mean_rate_floor_bits")) is not None:
        yield (
            f"{name} commits nothing to any example (δ = 0): only the mean of its rate over a "
            f"training batch has a floor, of {floor:.2f} bits. On the {split} split, where that "
            f"floor does not hold, its rate is {result.show('rate_bits')} bits."
        )
    else:
        yield f"{name} commits nothing (δ = 0), as an ordinary VAE. {_survival(result, split)}"
    yield from _information_sentences(result)


def _information_sentences(result: Result) -> Iterator[str]:
    keys = ("mutual_information_bits", "aux_rate_bits")
    (lower, upper), (least, most) = map(result.get, keys), map(result.show, keys)
    noise = 2 * math.hypot(*map(result.se, keys))
    bounds = [f"at least {least}"] if lower is not None else []
    bounds += [f"at most {most}"] if upper is not None else []
    told = f"{' and '.join(bounds)} bits" if bounds else ""
    if lower is not None and upper is not None and upper < lower <= upper + noise:
        told = f"about {most} bits or less"  # the estimates, not the bounds, have changed places
    if told:
        yield f"Of this rate {told} are information about the example."


def _survival(result: Result, split: str) -> str:
    verdict = "It has collapsed: its" if _near(result, 0.0, NEAR_ZERO[0]) else "Its"
    text = f"{verdict} rate on the {split} split is {result.show('rate_bits')} bits."
    rates = [(e["rate_bits"], e["step"]) for e in result.log if "rate_bits" in e]
    if not rates:
        return text
    final, last = rates[-1]
    peak, step = max(rates)
    if peak <= 0:
        return f"{text} In training it was never above 0."
    return (
        f"{text} In training it ended at {final:.2f} bits (step {last:.0f}), {final / peak:.1%} "
        f"of its peak of {peak:.2f} bits (step {step:.0f}): that much survived."
    )


def _bound_sentences(results: Sequence[Result], ranking: Ranking) -> Iterator[str]:
    if not ranking.order:
        return
    (first, lowest), *others = ranking.order
    if not others:
        yield f"{first.name} needs {_show_bound(first, lowest)}."
        return
    if ranking.winner is not None:
        second, bound = others[0]
        yield (
            f"The lowest bits/dim are those of {first.name}, {_show_bound(first, lowest)}; next "
            f"is {second.name}, {_show_bound(second, bound)}. {_show_gap(lowest, bound)}, so that "
            f"{first.name} is ahead."
        )
        told = [second]
    else:
        level = "; ".join(
            f"{result.name}, {_show_bound(result, bound)} ({_show_gap(lowest, bound).lower()})"
            for result, bound in ranking.level
        )
        yield (
            f"No run is ahead: the lowest number is that of {first.name}, "
            f"{_show_bound(first, lowest)}, but within two standard errors of it is {level}."
        )
        told = [result for result, _ in ranking.level]
    for result, bound in others:
        if result is results[0] and result not in told:
            yield (
                f"{result.name}, {_show_bound(result, bound)}, is behind {first.name}. "
                f"{_show_gap(lowest, bound)}."
            )


def _show_bound(result: Result, bound: Bound) -> str:
    kind = f"upper bound: {BOUNDS[bound.key]}" if result.has_latents else "exact"
    return f"{bound.bpd:.4f} ± {bound.se:.4f} bits/dim ({kind})"


def _show_gap(lower: Bound, higher: Bound) -> str:
    difference, se = higher.bpd - lower.bpd, combined_se(lower, higher)
    ratio = f" = {difference / se:.1f} combined standard errors" if se > 0 else ""
    return f"The difference is {difference:.4f}{ratio}"


def _warnings(result: Result) -> Iterator[str]:
    rate, delta = result.get("rate_bits"), result.get("committed_rate_bits")
    yield from (f"{result.name}: {text}" for text in result.metrics.get("warnings") or ())
    if rate is not None and delta is not None and rate < delta * (1 - 1e-6):
        yield (
            f"{result.name}: the rate, {rate:.4f} bits, lies below δ = {delta:.4f} bits, which "
            "the method excludes: do not trust these numbers"
        )
    upper = result.get("aux_rate_bits")
    spread = 2 * math.hypot(result.se("rate_bits"), result.se("aux_rate_bits"))
    if rate is not None and upper is not None and upper > rate + spread:
        yield (
            f"{result.name}: the auxiliary prior fits worse than the model's own, its rate is "
            "higher; fit it again (deltavae fit-prior)"
        )
