"""Distortion at equal auxiliary rate: who says more about x with as many bits of z.

Of one seed, a method's trainings over its targets are points (aux_rate, distortion), and straight
lines join them. The plain VAE is the β-VAE's point at β = 1, and the decoder with z = 0, which
says nothing with z, the point of every line at aux_rate 0: its distortion is its exact figure. A
learned prior bounds I(x;z) by the rate itself too, there the lesser of both is the abscissa.

Seed by seed the line of one method is interpolated at a point of the other: trainings of one seed
share the order of the data. Nothing is extrapolated: a seed whose line does not reach a point has
no say there. Over seeds: Student's interval, two-sided t-tests, Holm's correction over a table.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from deltavae.studies.base import Result, by_labels
from deltavae.studies.methods import DELTA_VAE, without_latents
from deltavae.studies.statistics import interpolate, mean
from deltavae.studies.summaries import asked, figures_of, mean_or_none, verdicts
from deltavae.studies.tables import Table

ALONE = without_latents().name
LINES = {"VAE": "β-VAE"}  # a point of another method's line

Point = tuple[float, float]


def line_of(method: str) -> str:
    """Return the name of the line that a method's points lie on."""
    return LINES.get(method, method)


def abscissa(result: Result, split: str = "test", name: str = "aux_rate_bits") -> float | None:
    """Return the rate that a result is drawn and compared at.

    Args:
        result: The result.
        split: As in `summaries.figures_of`.
        name: "aux_rate_bits", for which a learned prior has the rate if that is less, or
            "rate_bits".

    Returns:
        Bits; 0 for the decoder with z = 0.
    """
    if result.cell.labels["method"] == ALONE:
        return 0.0
    figures = figures_of(result, split)
    latents = result.cell.options.get("latents", {})
    learned = latents.get("class_path", "").endswith(".LearnedPrior")
    names = {name, "rate_bits"} if learned else {name}
    rates = [figures[each] for each in names if figures[each] is not None]
    return min(rates, default=None)


def at_our_points(results: Sequence[Result]) -> Table:
    """Compare at the δ-VAE's points, its rivals' lines interpolated.

    Args:
        results: Results of methods, targets and seeds.

    Returns:
        A row per target of the δ-VAE and line of a rival.
    """
    lines = _lines(results)
    rows = [
        [asked(target, unit), rival, *_compared(found, line, ours_at_points=True)]
        for (method, target, unit), found in by_labels(results, "method", "target", "unit").items()
        if method == DELTA_VAE
        for rival, line in lines.items()
        if rival != DELTA_VAE
    ]
    return _table("δ-VAE's target", rows, "the δ-VAE's points, its rivals' lines interpolated")


def at_their_points(results: Sequence[Result]) -> Table:
    """Compare at the rivals' points, the δ-VAE's line interpolated.

    Args:
        results: Results of methods, targets and seeds.

    Returns:
        A row per rival and target.
    """
    line = _lines(results).get(DELTA_VAE, {})
    rows = [
        [asked(target, unit), method, *_compared(found, line, ours_at_points=False)]
        for (method, target, unit), found in by_labels(results, "method", "target", "unit").items()
        if method not in (DELTA_VAE, ALONE)
    ]
    return _table("rival's target", rows, "the rivals' points, the δ-VAE's line interpolated")


def _point(result: Result) -> Point | None:
    x, y = abscissa(result), result.metrics["distortion_bits"]
    return None if x is None or y is None else (x, y)


def _lines(results: Sequence[Result]) -> dict[str, dict[int, list[Point]]]:
    # By line and seed the points, the decoder with z = 0 among them.
    lines: dict[str, dict[int, list[Point]]] = {}
    anchors = {r.cell.labels["seed"]: _point(r) for r in _of(results, alone=True)}
    for result in _of(results, alone=False):
        seed, point = result.cell.labels["seed"], _point(result)
        line = lines.setdefault(line_of(result.cell.labels["method"]), {})
        if seed not in line:
            anchor = anchors.get(seed)
            line[seed] = [] if anchor is None else [anchor]
        if point is not None:
            line[seed].append(point)
    return lines


def _of(results: Sequence[Result], *, alone: bool) -> list[Result]:
    return [r for r in results if (r.cell.labels["method"] == ALONE) == alone]


def _compared(
    at: Sequence[Result], line: Mapping[int, Sequence[Point]], *, ours_at_points: bool
) -> list[Any]:
    # Mean aux_rate of the points; over the seeds that both reach: ours, theirs, the difference.
    pairs = []
    for result in at:
        point, points = _point(result), line.get(result.cell.labels["seed"], ())
        if point is None or not points:
            continue
        x, y = zip(*points, strict=True)
        other = interpolate(point[0], x, y)
        if other is not None:
            pairs.append((point[1], other) if ours_at_points else (other, point[1]))
    rate = mean_or_none(abscissa(result) for result in at)
    if not pairs:
        return [rate, None, None, None]
    return [
        rate,
        mean([ours for ours, _ in pairs]),
        mean([theirs for _, theirs in pairs]),
        mean([ours - theirs for ours, theirs in pairs]),
    ]


def _table(first: str, rows: Sequence[Sequence[Any]], where: str) -> Table:
    differences = [row[-1] for row in rows]
    complete = [
        [
            *row,
            *((None, None, 0) if d is None else (d.low, d.high, d.count)),
            verdict.p,
            verdict.text,
        ]
        for row, d, verdict in zip(rows, differences, verdicts(differences), strict=True)
    ]
    bits = ["aux rate, bits", "δ-VAE", "rival's", "difference", "from", "to"]
    return Table(
        [first, "rival", *bits, "seeds", "p (Holm)", "δ-VAE is"],
        complete,
        f"Distortion in bits at equal aux rate: at {where} seed by seed, the decoder with z = 0 "
        "being every line's point at 0, the VAE the β-VAE's at β = 1. Means over the seeds that "
        "reach the rate ± standard error, the difference with its 95 % interval. Below or above: "
        "p < 0.05 of a two-sided t-test, corrected after Holm over this table; – with fewer than "
        "two seeds.",
        dict.fromkeys(bits, 1) | {"p (Holm)": 4},
    )
