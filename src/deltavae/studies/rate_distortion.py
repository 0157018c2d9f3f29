"""Rate against distortion for the δ-VAE and its rivals (the paper's figure).

All methods have the same nets, data, batches and steps. A method with a target is trained at every
target of the budget, a β-VAE at every weight, each with every seed. With targets T in bits,

    rate/T                 how far from what was asked for the training ends up; the δ-VAE's ≥ 1
    distortion at aux_rate how much of x is still to be said once z has said aux_rate, the honest
                           abscissa: what a floor spends on nothing, the auxiliary prior wins back

Methods are compared at equal aux_rate: the rival's distortion is interpolated between its points
at the aux_rate of each of the δ-VAE's, standard errors over seeds propagated; outside the rival's
points nothing is said.

Razavi et al., Preventing Posterior Collapse with δ-VAEs, ICLR 2019, section 4 and its figure of
rate and distortion, https://arxiv.org/abs/1901.03416
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from deltavae.evaluation import evaluate
from deltavae.figures import scatter_with_errors
from deltavae.run_folder import RunFolder
from deltavae.studies.base import Budget, Cell, Findings, Result, Study, by_labels
from deltavae.studies.measuring import data_of
from deltavae.studies.methods import DELTA_VAE, Method, delta_vae, rivals, without_latents
from deltavae.studies.settings import CHANNELS, DATA, SEEDS, TARGETS, cell, nets, training
from deltavae.studies.statistics import Interval, interpolate, mean
from deltavae.studies.tables import Table

TRAIN_EXAMPLES = 5000
METRICS = (
    "rate_bits",
    "aux_rate_bits",
    "mutual_information_bits",
    "distortion_bits",
    "elbo_bpd",
    "aux_elbo_bpd",
)
NAMES = {
    "rate_bits": "rate, bits",
    "aux_rate_bits": "aux rate, bits",
    "mutual_information_bits": "I(x;z) ≥, bits",
    "distortion_bits": "distortion, bits",
    "elbo_bpd": "ELBO, bits/dim",
    "aux_elbo_bpd": "auxiliary bound, bits/dim",
    "active_units": "active units",
}


class RateDistortion(Study):
    """The δ-VAE and its rivals in the plane of rate and distortion."""

    name = "rate-distortion"
    title = "Rate and distortion: the δ-VAE and its rivals"
    description = (
        "Every method trains the same nets on the same batches for the same number of steps. "
        "Rates, distortion and information are in bits per image, means over seeds ± standard "
        "errors; one image set serves all."
    )

    def cells(self, budget: Budget) -> list[Cell]:
        """Return one cell per method, target and seed; see `Study`."""
        return [
            method_cell(budget, method, seed)
            for seed in range(SEEDS[budget])
            for method in methods(budget)
        ]

    def analyse(self, run: RunFolder, cell: Cell, budget: Budget) -> dict[str, Any]:
        """Measure the training images too; see `Study`."""
        model, data = run.load_model(), data_of(run)
        found = evaluate(model, data, split="train", limit=TRAIN_EXAMPLES, probe=False)
        return {"train": {name: found[name] for name in METRICS}}

    def findings(self, results: Sequence[Result], budget: Budget) -> Findings:
        """Draw the figure and the comparisons; see `Study`."""
        points = by_labels(results, "method", "target", "unit")
        return Findings(
            tables={
                "points": _points(points),
                "targets": _targets(points),
                "at-equal-aux-rate": _at_equal_rate(points),
            },
            figures={
                "rate-distortion": scatter_with_errors(
                    _lines(points, "rate_bits"),
                    _lines(points, "aux_rate_bits"),
                    xlabels=("rate, bits", "rate under the auxiliary prior, bits"),
                    ylabel="distortion, bits (test)",
                ),
                "train-and-test": scatter_with_errors(
                    _lines(points, "aux_rate_bits", "train"),
                    _lines(points, "aux_rate_bits"),
                    xlabels=("aux rate, bits (training images)", "aux rate, bits (test images)"),
                    ylabel="distortion, bits",
                ),
            },
        )


def methods(budget: Budget) -> list[Method]:
    """Return all methods of a budget, the δ-VAE first."""
    ours = [delta_vae(bits, CHANNELS[budget]) for bits in TARGETS[budget]]
    return [*ours, without_latents(), *rivals(budget)]


def method_cell(budget: Budget, method: Method, seed: int) -> Cell:
    """Return the cell of a method and a seed, on the budget's first data set."""
    data = DATA[budget][0]
    labels = {"method": method.name, "target": method.target, "unit": method.unit, "data": data}
    options = training(budget, data), nets(budget), method.options
    return cell(f"{data}-{method.label}", labels, seed, *options)


def metric(results: Iterable[Result], name: str, split: str = "test") -> Interval | None:
    """Return a metric's mean over seeds; None where a result has none."""
    values = [
        (result.metrics if split == "test" else result.analysis[split])[name] for result in results
    ]
    return None if any(value is None for value in values) else mean(values)


Points = Mapping[tuple[Any, ...], Sequence[Result]]


def _points(points: Points) -> Table:
    rows = []
    for (method, target, unit), results in points.items():
        figures = [metric(results, name) for name in (*METRICS, "active_units")]
        asked = None if target is None else f"{target:g} {unit}"
        rows.append([method, asked, len(results), *figures])
    columns = ["method", "asked for", "seeds", *(NAMES[n] for n in (*METRICS, "active_units"))]
    return Table(
        columns,
        rows,
        "Test images, mean over seeds ± standard error over seeds. Without latents the ELBO is "
        "exact.",
        {name: 1 for name in columns if name.endswith("bits")} | {"active units": 1},
    )


def _targets(points: Points) -> Table:
    rows = []
    for method in dict.fromkeys(group[0] for group in points):
        asked = {
            target: [result.metrics["rate_bits"] for result in results]
            for (name, target, unit), results in points.items()
            if name == method and unit == "bits"
        }
        if not asked:
            continue
        ratios = [rate / target for target, rates in asked.items() for rate in rates]
        floors = [
            result.metrics["rate_bits"] - result.metrics["committed_rate_bits"]
            for (name, _, unit), results in points.items()
            if name == method and unit == "bits"
            for result in results
        ]
        below = sum(ratio < 1 for ratio in ratios)
        rows.append(
            [method, len(ratios), min(ratios), mean(ratios).value, max(ratios), below, min(floors)]
        )
    return Table(
        ["method", "trainings", "least", "mean", "most", "below target", "least rate − δ, bits"],
        rows,
        "The rate where training ended over the rate that was asked for, over all targets and "
        "seeds. A committed rate is a floor, not an aim: it may be exceeded, never missed.",
        {"trainings": 0, "below target": 0},
    )


def _at_equal_rate(points: Points) -> Table:
    lines = _lines(points, "aux_rate_bits")
    rows = []
    ours = list(zip(*lines.get(DELTA_VAE, ((), ())), strict=True))
    for at, distortion in ours:
        for method, (x, y) in lines.items():
            if method == DELTA_VAE:
                continue
            theirs = interpolate(at.value, x, y)
            if theirs is None:
                rows.append([at.value, method, distortion, None, None, "not reached"])
                continue
            error = (theirs.error**2 + distortion.error**2) ** 0.5
            difference = distortion.value - theirs.value
            shown = Interval(difference, error, difference, difference, theirs.count)
            rows.append([at.value, method, distortion, theirs, shown, _verdict(shown)])
    columns = ["aux rate, bits", "rival", "δ-VAE", "rival's", "difference", "δ-VAE is"]
    return Table(
        columns,
        rows,
        "Distortion in bits at the δ-VAE's aux rates, the rival's interpolated between its "
        "points. Below or above: by more than two standard errors of the difference. Not "
        "reached: no two points of the rival lie around this rate.",
        dict.fromkeys((columns[0], *columns[2:5]), 1),
    )


def _verdict(difference: Interval) -> str:
    if not abs(difference.value) > 2 * difference.error:
        return "level"
    return "below" if difference.value < 0 else "above"


Line = tuple[list[Interval], list[Interval]]


def _lines(points: Points, abscissa: str, split: str = "test") -> dict[str, Line]:
    lines: dict[str, Line] = {}
    for (method, _, _), results in points.items():
        x, y = metric(results, abscissa, split), metric(results, "distortion_bits", split)
        if x is None or y is None:  # without latents
            continue
        line = lines.setdefault(method, ([], []))
        line[0].append(x)
        line[1].append(y)
    return lines
